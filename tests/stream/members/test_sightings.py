"""Who lives is judged by what a reader sees, and by no clock of a member."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.members.member import Member, PartitionState
from stream.members.sightings import DEAD_AFTER_S, MAX_LIVES, QUIET_AFTER_S, Sightings, judge
from tests.stream.members.members import T, worker


def doing(sightings: Sightings, now: float) -> list[tuple[str, int, str]]:
    return [(s.member.instance, s.member.pid, s.doing) for s in sightings.members(now)]


def listening() -> Sightings:
    sightings = Sightings()
    sightings.caught_up(0.0)
    return sightings


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (worker(), "running"),
        (worker(starting=True, confirmed=False), "starting"),
        (worker(paused_ts=T), "paused"),
        (worker(confirmed=False), "running"),  # it owns nothing that the group could confirm
        (worker(confirmed=False, partitions={0: PartitionState(phase="opening")}), "running"),
        (worker(confirmed=False, answering=[0]), "waiting for the group"),
        (worker(stopped=True, paused_ts=T), "stopped"),
    ],
)
def test_what_a_member_does_by_its_record(member: Member, expected):
    assert judge(member, 0.0) == expected


def test_a_member_that_falls_silent_does_not_respond_and_then_is_dead():
    sightings = listening()
    sightings.saw(worker("a"), 1.0)
    assert doing(sightings, 1.0 + QUIET_AFTER_S - 0.1) == [("a", 1, "running")]
    assert doing(sightings, 1.0 + QUIET_AFTER_S) == [("a", 1, "not responding")]
    assert doing(sightings, 1.0 + DEAD_AFTER_S) == [("a", 1, "dead")]
    sightings.saw(worker("a"), 10.0)
    assert doing(sightings, 10.0) == [("a", 1, "running")], "it was only cut off"


def test_one_that_stopped_as_it_should_is_never_dead_and_no_late_record_brings_it_back():
    sightings = listening()
    sightings.saw(worker("a"), 1.0)
    sightings.saw(worker("a", stopped=True), 2.0)
    sightings.saw(worker("a"), 2.1)
    assert doing(sightings, 2.2) == doing(sightings, 500.0) == [("a", 1, "stopped")]
    sightings.saw(worker("a", life=2), 3.0)
    assert doing(sightings, 3.0) == [("a", 2, "running")], "a restart under the same name"


def test_a_restart_after_a_kill_replaces_the_process_before_it_at_once():
    sightings = listening()
    sightings.saw(worker("a", life=1), 1.0)
    sightings.saw(worker("a", life=2), 1.5)
    assert doing(sightings, 1.5) == [("a", 2, "running")]


def test_two_processes_with_one_name_are_both_shown_until_one_is_silent():
    sightings = listening()
    for n in range(4):
        sightings.saw(worker("a", life=1 + n % 2), n / 2)
    assert doing(sightings, 2.0) == [("a", 1, "running"), ("a", 2, "running")]
    sightings.saw(worker("a", life=2), 6.0)
    assert doing(sightings, 6.0) == [("a", 2, "running")]


def test_the_past_is_dated_by_the_brokers_clock():
    sightings = Sightings()
    sightings.saw(worker("long dead"), 0.0, T, of_broker=True)
    sightings.saw(worker("just dead"), 0.0, T + 57_000, of_broker=True)
    sightings.saw(worker("alive"), 0.0, T + 60_000, of_broker=True)
    sightings.caught_up(0.0)
    assert doing(sightings, 0.0) == [
        ("alive", 1, "running"),
        ("just dead", 1, "not responding"),
        ("long dead", 1, "dead"),
    ]
    assert sightings.in_doubt(0.0)
    sightings.saw(worker("alive"), 0.9, T + 61_000, of_broker=True)
    assert sightings.in_doubt(0.9), "the one that is just dead might only be late"
    assert not sightings.in_doubt(1.0)
    assert doing(sightings, 1.0) == [("alive", 1, "running"), ("just dead", 1, "dead"), ("long dead", 1, "dead")]


def test_without_timestamps_of_the_broker_the_past_is_in_doubt_until_it_is_silent():
    sightings = Sightings()
    sightings.saw(worker("a"), 0.0, T)  # its producer's clock, which may be wrong
    sightings.caught_up(0.0)
    assert sightings.in_doubt(DEAD_AFTER_S - 0.1)
    assert not sightings.in_doubt(DEAD_AFTER_S)
    assert doing(sightings, DEAD_AFTER_S) == [("a", 1, "dead")]


def test_who_stopped_leaves_no_doubt():
    sightings = Sightings()
    sightings.saw(worker("a", stopped=True), 0.0, T, of_broker=True)
    sightings.caught_up(0.0)
    assert not sightings.in_doubt(0.0)


def test_a_deleted_record_is_forgotten_and_so_is_one_that_is_away_for_a_day():
    sightings = listening()
    sightings.saw(worker("a"), 1.0)
    sightings.saw(worker("b"), 1.0)
    sightings.forget("worker/a")
    assert doing(sightings, 2.0) == [("b", 1, "running")]
    assert doing(sightings, 90_000.0) == []


def test_a_flood_of_names_takes_bounded_memory():
    sightings = listening()
    for n in range(MAX_LIVES + 100):
        sightings.saw(worker(str(n)), 1.0)
    assert len(sightings.members(1.0)) == MAX_LIVES


seconds = st.floats(0, 30, allow_nan=False)
clocks = st.integers(-(10**13), 10**13)
alive = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3), seconds), max_size=40)


@given(alive, clocks, clocks)
def test_no_clock_of_a_member_changes_a_judgement(records, skew, drift):
    judged = []
    for off, per_record in ((0, 0), (skew, drift)):
        sightings = listening()
        for n, (name, life, at) in enumerate(sorted(records, key=lambda r: r[2])):
            sightings.saw(worker(name, life, ts=T + int(at * 1000) + off + n * per_record), at)
        judged.append([doing(sightings, now) for now in (0.0, 5.0, 15.0, 30.0, 34.0)])
    assert judged[0] == judged[1]


@given(alive, seconds)
def test_a_member_is_dead_exactly_when_its_last_record_is_too_old(records, now):
    seen = sorted((r for r in records if r[2] <= now), key=lambda r: r[2])
    sightings = listening()
    for name, life, at in seen:
        sightings.saw(worker(name, life), at)
    last = {name: (life, at) for name, life, at in seen}
    found = {(s.member.instance, s.member.pid): s.lives for s in sightings.members(now)}
    for name, (life, at) in last.items():
        assert found[name, life] == (now - at < DEAD_AFTER_S)
    assert {name for name, _ in found} == last.keys()


@given(alive.filter(bool), st.integers(0, 5_000), st.randoms(use_true_random=False))
def test_records_that_come_in_another_order_tell_the_same_life_and_death(records, delay_ms, random):
    """A batch that a broker delays comes late and out of order. What counts is that something came."""
    in_order, shuffled = listening(), listening()
    mixed = list(records)
    random.shuffle(mixed)
    for sightings, order in ((in_order, records), (shuffled, mixed)):
        for name, _, _ in order:
            sightings.saw(worker(name), delay_ms / 1000)
    now = delay_ms / 1000 + 1
    assert doing(in_order, now) == doing(shuffled, now)
