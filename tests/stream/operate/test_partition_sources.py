"""Each partition is shown from where it is known best: the store here, or the record of its owner elsewhere."""

import re
import socket
from types import SimpleNamespace

import msgspec
import pytest

from state.progress import Progress
from stream.members.member import Member, PartitionState, TrainerState
from stream.members.sightings import SeenMember, judge
from stream.operate.ask_owner import explain
from stream.operate.model_report import ModelStatus
from stream.operate.partition_sources import served_by, sources, trainer_of
from stream.operate.worker_report import WorkerReport
from stream.trainer.status_file import TrainerReporter
from tests.stream.members.members import T, worker


def view(**next_offsets: int):
    """Stores with these next offsets: `p0=5` is partition 0."""
    stores = {int(name[1:]): Progress(next_offset=offset, applied=offset) for name, offset in next_offsets.items()}
    return SimpleNamespace(partitions={n: SimpleNamespace(read_progress=lambda p=p: p) for n, p in stores.items()})


def at(number: int, next_offset: int, phase: str = "answering") -> dict[int, PartitionState]:
    return {number: PartitionState(phase=phase, next_offset=next_offset, log_end=next_offset)}


def seen(member: Member, seen_s: float = 0.5) -> SeenMember:
    return SeenMember(member, judge(member, seen_s), seen_s)


def of_here(doing="running", **phases: str) -> tuple[WorkerReport, Member]:
    """The worker of this data directory: as its file has it, and as its record."""
    numbered = {int(name[1:]): phase for name, phase in phases.items()}
    report = WorkerReport(doing, "here", 1, T, T + 1, None, 0, 0, 0, 0, numbered if doing != "down" else {}, False)
    partitions = {n: PartitionState(phase=phase, next_offset=1) for n, phase in numbered.items()}
    return report, worker("here", host=socket.gethostname(), partitions=partitions)


def shown(found) -> list[tuple[int, int | None, int | None, str, str | None]]:
    return [(p.partition, p.next_offset, p.lag, p.state, p.owner) for p in found.partitions]


def test_the_store_here_is_exact_where_its_worker_owns_the_partition_and_a_record_has_the_others():
    report, member = of_here(p0="answering")
    elsewhere = seen(worker("there", partitions=at(1, 70)))
    found = sources(view(p0=9), {0: 10, 1: 70, 2: 5}, report, [seen(member), elsewhere])
    assert shown(found) == [
        (0, 9, 1, "answering", "worker/here"), (1, 70, 0, "answering", "worker/there"), (2, None, None, "down", None),
    ]  # fmt: skip
    assert (list(found.here), list(found.elsewhere)) == ([0], [1])
    assert "nobody serves partition 2" in found.warnings[0]


def test_a_partition_that_moved_away_does_not_lag_by_the_store_that_it_left_behind():
    report, member = of_here(p0="answering")
    there = seen(worker("there", partitions=at(1, 499)))
    found = sources(view(p0=9, p1=20), {0: 9, 1: 500}, report, [seen(member), there])
    assert shown(found)[1] == (1, 499, 1, "answering", "worker/there")


def test_of_a_partition_that_nobody_serves_the_furthest_is_shown():
    dead = seen(worker("there", partitions=at(0, 70)), 60.0)
    report, _ = of_here("down")
    assert shown(sources(view(p0=80), {0: 90}, report, [dead])) == [(0, 80, 10, "down", None)]
    assert shown(sources(view(p0=60), {0: 90}, report, [dead])) == [(0, 70, 20, "down", None)]
    assert shown(sources(view(), {0: 90}, None, [])) == [(0, None, None, "down", None)]


def test_this_machine_knows_at_once_that_its_worker_is_gone():
    _, member = of_here(p0="answering")
    report, _ = of_here("down")
    found = sources(view(p0=9), {0: 9}, report, [seen(member)])
    assert shown(found) == [(0, 9, 0, "down", None)]
    assert [s.doing for s in found.members] == ["dead"]


def test_a_worker_here_that_publishes_no_record_serves_all_the_same():
    report, _ = of_here("paused", p0="answering")
    assert shown(sources(view(p0=9), {0: 9}, report, [])) == [(0, 9, 0, "paused", "worker/here")]


def test_without_a_broker_only_this_data_directory_is_known():
    report, _ = of_here(p0="answering", p1="opening")
    found = sources(view(p0=9, p2=4), None, report, None)
    assert shown(found) == [
        (0, 9, None, "answering", None), (1, None, None, "opening", None), (2, 4, None, "not here", None),
    ]  # fmt: skip


def test_the_trainer_is_that_of_this_directory_or_else_the_one_that_runs(tmp_path):
    there = worker("t", kind="trainer", trainer=TrainerState(doing="learning", what="there"))
    assert trainer_of(tmp_path, []) is None
    assert trainer_of(tmp_path, [seen(there)]).what == "there"
    assert trainer_of(tmp_path, [seen(there, 60.0)]).doing == "not running"
    TrainerReporter(tmp_path).update(what="here")  # no process holds the directory
    assert trainer_of(tmp_path, [seen(there)]).what == "there"
    assert trainer_of(tmp_path, [seen(there, 60.0)]).what == "here"


def test_the_version_that_serves_is_that_of_the_living_workers_where_the_store_of_versions_is_elsewhere():
    unknown = ModelStatus(None, None, False, "there is no such directory", {}, "000002", "no such version")
    serving = worker("a", answering=[0], version="000002", version_created_ts=T)
    found = served_by(unknown, [seen(serving)], None)
    assert (found.version, found.problem, found.artifacts) == ("000002", None, None)
    assert found.age_s is not None
    behind = msgspec.structs.replace(serving, instance="b", version="000001", version_problem="no room on the disk")
    found = served_by(unknown, [seen(serving), seen(behind)], None)
    assert (found.version, found.problem) == ("000001", "worker b on here: no room on the disk")
    assert served_by(unknown, [seen(serving, 60.0)], None) == unknown, "nobody serves it"


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([], None),
        ([seen(worker("a", answering=[1]))], "nobody serves partition 0"),
        ([seen(worker("a", answering=[0]), 60.0)], "serves partition 0: worker a on here died without stopping 60 s"),
        ([seen(worker("a", answering=[0], stopped=True), 9.0)], "worker a on here stopped 9 s ago"),
        ([seen(worker("a", partitions=at(0, 1, "opening")))], "worker a on here, which did not answer .*opening"),
        ([seen(worker("a", answering=[0], confirmed=False))], "waiting for the group"),
    ],
)
def test_why_nobody_answers_names_who_should(members, why):
    found = explain(0, members)
    assert found is None if why is None else re.search(why, found or "")
