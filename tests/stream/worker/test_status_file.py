"""A pause and a lag are in the worker's status and in its log, and a status outlives its worker."""

import fcntl

import pytest

from stream.operate.worker_report import partition_state, worker_report
from stream.worker.status_file import LAGGING_AFTER_MS, LOCK_NAME, LOG_AGAIN_MS, WorkerReporter, WorkerStatus, read

T = 1_700_000_000_000


class Worker:
    """A worker whose state a test sets, and whose status is reported."""

    def __init__(self, data, monkeypatch) -> None:
        self.data, self.now, self.set = data, T, {}
        monkeypatch.setattr("stream.operate.worker_report.time.time", lambda: self.now / 1000)
        self.reporter = WorkerReporter(data, self._look)
        self.reporter.started("0", self.now)
        self.lock = (data / LOCK_NAME).open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def _look(self, status: WorkerStatus) -> None:
        status.caught_up_ts = self.now
        for name, value in self.set.items():
            setattr(status, name, value)

    def after(self, ms: int, **state) -> str:
        """Report after so many ms in this state; what the worker does then, as `status` shows it."""
        self.now, self.set = self.now + ms, state
        self.reporter.report(self.now)
        return worker_report(self.data).doing

    def state(self, number: int, lag: int | None = 5) -> str:
        return partition_state(number, lag, worker_report(self.data))


@pytest.fixture
def worker(tmp_path, monkeypatch):
    made = Worker(tmp_path, monkeypatch)
    yield made
    made.lock.close()


def test_the_states_of_a_worker_and_of_its_partitions(worker):
    phases = {0: "answering", 1: "opening", 2: "catching up", 3: "faulted"}
    assert worker.after(1000, phases=phases) == "running"
    assert [worker.state(n) for n in range(5)] == [*phases.values(), "not here"]
    assert worker.after(1000, phases=phases, paused_ts=T) == "paused"
    assert worker.state(0) == "paused"
    assert worker.after(1000, phases=phases, paused_ts=0, confirmed=False) == "waiting for the group"
    assert worker.state(0) == "waiting for the group"
    worker.after(1000, phases=phases, confirmed=True)
    worker.now += 60_000  # it writes nothing more
    assert worker_report(worker.data).doing == worker.state(0) == "not responding"
    worker.lock.close()
    assert worker_report(worker.data).doing == worker.state(0) == "down"
    assert worker_report(worker.data).phases == {}


def test_a_partition_lags_when_its_worker_has_been_behind_for_a_while(worker):
    behind = {"phases": {0: "answering"}, "caught_up_ts": T}
    worker.after(LAGGING_AFTER_MS - 1000, **behind)
    assert worker.state(0) == "answering"
    worker.after(2000, **behind)
    assert [worker.state(0), worker.state(0, lag=None), worker.state(0, lag=0)] == ["lagging", "lagging", "answering"]


def test_a_pause_is_logged_when_it_begins_every_minute_and_when_it_ends(worker, caplog):
    caplog.set_level("INFO", "anabranch.worker")
    for _ in range(LOG_AGAIN_MS // 1000 + 1):
        worker.after(1000, paused_ts=T)
    assert caplog.text.count("by an operator: no clicks are read until `anabranch resume`") == 2
    worker.after(1000, paused_ts=0)
    worker.after(1000, paused_ts=0)
    assert caplog.text.count("resumed after") == 1


def test_a_lag_is_logged_when_it_begins_every_minute_and_when_it_ends(worker, caplog):
    caplog.set_level("INFO", "anabranch.worker")
    for _ in range((LAGGING_AFTER_MS + LOG_AGAIN_MS) // 1000 + 1):
        worker.after(1000, caught_up_ts=T)
    assert caplog.text.count("lagging: for") == 2
    worker.after(1000)
    assert caplog.text.count("caught up with the log") == 1


def test_a_worker_says_that_the_pause_of_the_one_before_has_ended(tmp_path, monkeypatch, caplog):
    before = Worker(tmp_path, monkeypatch)
    before.after(1000, paused_ts=T)
    before.lock.close()
    Worker(tmp_path, monkeypatch).lock.close()
    assert "a restart ends a pause" in caplog.text


def test_without_a_worker_there_is_no_status_and_its_partitions_are_down(tmp_path):
    assert read(tmp_path) is None
    assert worker_report(tmp_path) is None
    assert partition_state(0, 5, None) == "down"
