"""A store of another log or another layout is refused, by the name of what differs."""

import msgspec
import pytest

from state.errors import WrongLayout, WrongLog
from state.identity import Identity
from state.settings import StateSettings
from state.store import Store
from tests.state.test_store import LOG, SETTINGS


@pytest.mark.parametrize(
    "other", [Identity("elsewhere", "clicks", 0, 1, 5, 4), Identity("cluster", "clicks", 1, 1, 5, 4)]
)
def test_another_logs_store_is_refused(tmp_path, other):
    Store(tmp_path / "s", LOG, SETTINGS).close()
    with pytest.raises(WrongLog):
        Store(tmp_path / "s", other, SETTINGS)


def test_the_error_for_another_layout_names_the_setting(tmp_path):
    Store(tmp_path / "s", LOG, SETTINGS).close()
    with pytest.raises(WrongLayout, match="sequence_events = 5"):
        Store(tmp_path / "s", Identity("cluster", "clicks", 0, 1, 6, 4), StateSettings(sequence_events=6))


def test_a_topic_recreated_under_its_name_is_another_log(tmp_path):
    Store(tmp_path / "clicks-0", LOG, SETTINGS).close()
    known = msgspec.structs.replace(LOG, topic_id="first")
    Store(tmp_path / "clicks-0", known, SETTINGS).close()  # a store without a topic id takes it over
    Store(tmp_path / "clicks-0", LOG, SETTINGS).close()  # an unknown id is not compared
    with pytest.raises(
        WrongLog, match=r"topic_id 'first', but this is topic_id 'second' \(the topic was deleted and created"
    ):
        Store(tmp_path / "clicks-0", msgspec.structs.replace(LOG, topic_id="second"), SETTINGS)
