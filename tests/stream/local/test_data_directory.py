"""One worker and one trainer at a time use a data directory."""

import os

import pytest

from stream.errors import DataDirectoryError
from stream.local.data_directory import create_data_directory, data_directory_lock, refuse_if_in_use


def test_a_second_process_of_the_same_role_is_refused_with_the_first_ones_id(tmp_path):
    with (
        data_directory_lock(tmp_path, "worker"),
        pytest.raises(DataDirectoryError, match=rf"in use by another worker \(process {os.getpid()}\)"),
        data_directory_lock(tmp_path, "worker"),
    ):
        pass


def test_a_worker_and_a_trainer_share_a_data_directory(tmp_path):
    with data_directory_lock(tmp_path, "worker"), data_directory_lock(tmp_path, "trainer"):
        pass


@pytest.mark.parametrize("role", ["worker", "trainer"])
def test_a_directory_is_in_use_while_the_lock_is_held_and_no_longer(tmp_path, role):
    refuse_if_in_use(tmp_path)
    with (
        data_directory_lock(tmp_path, role),
        pytest.raises(DataDirectoryError, match=rf"in use by a {role} \(process {os.getpid()}\): stop it"),
    ):
        refuse_if_in_use(tmp_path)
    refuse_if_in_use(tmp_path)


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match="cannot be written"):
        create_data_directory(tmp_path / "file" / "data")
