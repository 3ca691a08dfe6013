"""Three workers are restarted one after the other while clicks come: nothing is lost, and nobody waits for long."""

from pathlib import Path

import pytest

from tests.conftest import with_topics
from tests.crash.clicks import with_custom_kinds
from tests.crash.rolling import WORKERS, restart_all

pytestmark = [pytest.mark.broker, pytest.mark.faults]

MAX_WAIT_S = 10.0


@pytest.mark.parametrize("static", [False, True], ids=["members-that-leave", "static-members"])
def test_a_rolling_restart_loses_and_doubles_nothing_and_nobody_waits_longer_than_ten_seconds(
    broker: str, tmp_path: Path, request: pytest.FixtureRequest, static: bool
):
    if static and request.config.getoption("--broker") == "embedded":
        pytest.skip("the embedded broker keeps no partitions for a static member: --broker kafka")
    config = with_custom_kinds(with_topics(broker, tmp_path / "data", partitions=6))
    report = restart_all(config, rounds=1, seed=3, per_s=200, static=static)
    assert report.found == (0, 0, [])
    assert report.behind == []
    assert len(report.restarts) == WORKERS
    assert report.unanswered == 0
    assert len(report.waits) > 1000
    assert report.waits[-1].s <= MAX_WAIT_S, report.waits[-1]
