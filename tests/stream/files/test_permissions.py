"""What others can read is reported with the command that closes it."""

import os
import stat

import pytest

from stream.load_config import load
from stream.local.data_directory import create_data_directory

SECRETS = """
[kafka]
security = "sasl_ssl"
sasl_user = "ann"
sasl_password = "hunter2"
"""


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o644, True), (0o604, True), (0o602, True), (0o640, False), (0o600, False)]
)
def test_a_configuration_file_with_a_password_that_everybody_can_read_is_reported(tmp_path, caplog, mode, warned):
    file = tmp_path / "anabranch.toml"
    file.write_text(SECRETS)
    file.chmod(mode)
    load(file, {})
    assert [record.message for record in caplog.records] == [
        f"{file} can be read by every user of this machine (mode {mode:o}), and it holds kafka.sasl_password: "
        f"run `chmod o-rwx {file}`"
    ] * warned


def test_a_configuration_file_without_a_secret_may_be_read_by_everybody(tmp_path, caplog):
    file = tmp_path / "anabranch.toml"
    file.write_text('broker = "kafka:9092"\n[kafka]\nsasl_password = ""\nkey_file = ""\n')
    file.chmod(0o644)
    load(file, {})
    assert not caplog.records


@pytest.mark.parametrize("names", ["key_file", "cert_file"])
def test_a_private_key_that_everybody_can_read_is_reported(tmp_path, caplog, names):
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    for file in (certificate, key):
        file.write_text("PEM")
        file.chmod(0o644)
    files = f'cert_file = "{certificate}"\n' + (f'key_file = "{key}"\n' if names == "key_file" else "")
    (tmp_path / "anabranch.toml").write_text(f'[kafka]\nsecurity = "ssl"\n{files}')
    load(tmp_path / "anabranch.toml", {})
    private = key if names == "key_file" else certificate
    assert [record.message for record in caplog.records] == [
        f"{private} can be read by every user of this machine (mode 644), and it is the private key of a client: "
        f"run `chmod o-rwx {private}`"
    ]


@pytest.mark.parametrize(("mode", "warned"), [(0o755, True), (0o750, True), (0o701, True), (0o700, False)])
def test_a_data_directory_that_is_open_to_others_is_reported_and_left_as_it_is(tmp_path, caplog, mode, warned):
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)
    create_data_directory(data)
    assert stat.S_IMODE(data.stat().st_mode) == mode
    assert [record.message for record in caplog.records] == [
        f"the data directory {data} is open to other users of this machine (mode {mode:o}), and it holds users' "
        f"histories: run `chmod -R go-rwx {data}`"
    ] * warned


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_a_directory_of_another_user_may_be_shared_with_the_group(tmp_path, caplog):
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume").chmod(0o2775 & ~0o005)
    os.chown(tmp_path / "volume", 65534, os.getegid())
    create_data_directory(tmp_path / "volume")
    assert not caplog.records
