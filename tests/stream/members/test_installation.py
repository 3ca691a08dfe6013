"""Who serves what in an installation, put together from its members' records."""

from hypothesis import given
from hypothesis import strategies as st

from stream.members.installation import installation
from stream.members.member import Member, PartitionState, ScoreState
from stream.members.sightings import Doing, SeenMember, judge
from tests.stream.members.members import T, worker


def seen(member: Member, seen_s: float = 0.5) -> SeenMember:
    return SeenMember(member, judge(member, seen_s), seen_s)


def owned(**state) -> dict[int, PartitionState]:
    return {0: PartitionState(**({"phase": "answering", "next_offset": 7, "log_end": 9} | state))}


def states(*members: SeenMember, partitions: int = 1) -> list[tuple[str | None, str]]:
    return [(p.owner, p.state) for p in installation(members, range(partitions)).partitions]


def test_each_partition_has_its_living_owner_and_the_state_that_it_reports():
    one, two = worker("one", answering=[0, 2]), worker("two", partitions={1: PartitionState(phase="opening")})
    assert states(seen(one), seen(two), partitions=4) == [
        ("worker/one", "answering"), ("worker/two", "opening"), ("worker/one", "answering"), (None, "down"),
    ]  # fmt: skip


def test_what_keeps_a_worker_keeps_its_partitions():
    assert states(seen(worker(answering=[0], paused_ts=T))) == [("worker/0", "paused")]
    assert states(seen(worker(answering=[0], confirmed=False))) == [("worker/0", "waiting for the group")]
    assert states(seen(worker(answering=[0]), 3.0)) == [("worker/0", "not responding")]
    assert states(seen(worker(partitions=owned(lagging=True)))) == [("worker/0", "lagging")]
    assert states(seen(worker(partitions=owned(lagging=True, phase="catching up")))) == [("worker/0", "catching up")]


def test_a_partition_that_moved_away_is_that_of_its_new_owner():
    before, after = (
        worker("before", confirmed=False, answering=[0]),
        worker("after", partitions=owned(phase="catching up")),
    )
    assert states(seen(before), seen(after)) == [("worker/after", "catching up")]
    assert states(seen(worker("before", answering=[0]), 60.0), seen(after)) == [("worker/after", "catching up")]


def test_nobody_serving_is_said_with_who_served_last():
    dead, stopped = seen(worker("a", answering=[0]), 12.0), seen(worker("b", answering=[1], stopped=True), 30.0)
    found = installation([dead, stopped], range(2))
    assert [(p.owner, p.state, p.last_owner) for p in found.partitions] == [
        (None, "down", "worker/a"), (None, "down", "worker/b"),
    ]  # fmt: skip
    [warning] = found.warnings
    assert warning.startswith("nobody serves: no worker runs; worker a on here died without stopping 12 s ago")
    assert "nobody serves" in installation([], range(2)).warnings[0]
    living = installation([dead, seen(worker("c", answering=[1]))], range(2))
    assert [w.partition(". ")[0] for w in living.warnings] == [
        "nobody serves partition 0: worker a on here died without stopping 12 s ago"
    ]


def test_what_only_one_may_be_is_reported_when_there_are_two():
    same = installation([seen(worker("a", 1, answering=[0])), seen(worker("a", 2, answering=[1]))], range(2))
    assert same.warnings == [
        "2 processes are named worker/a: give each a name of its own (worker.instance, or --instance)"
    ]
    trainers = [seen(worker(name, kind="trainer")) for name in ("a", "b")]
    found = installation([*trainers, seen(worker("w", answering=[0]))], range(1))
    assert [w for w in found.warnings if "2 trainers run (trainer/a, trainer/b)" in w]


def test_lag_is_up_to_the_end_that_the_broker_reports_or_else_the_owner():
    members = [seen(worker(partitions=owned(lag_ms=40, pending=3)))]
    [of_owner] = installation(members, [0]).partitions
    assert (of_owner.next_offset, of_owner.log_end, of_owner.lag, of_owner.lag_ms, of_owner.pending) == (7, 9, 2, 40, 3)
    [of_broker] = installation(members, [0], {0: 100}).partitions
    assert of_broker.lag == 93
    [unknown] = installation([], [0], {0: 100}).partitions
    assert (unknown.log_end, unknown.lag) == (100, None)


def test_counts_and_scores_are_summed_over_the_partitions_that_are_served():
    score = ScoreState(100, 10.0, 5.0, 0.2, 0.1)
    one = worker("one", partitions=owned(counts={"applied": 5, "users": 2}), scores={"model": score})
    two = worker(
        "two", partitions={1: PartitionState(phase="answering", counts={"applied": 3})}, scores={"model": score}
    )
    gone = worker("gone", partitions=owned(counts={"applied": 99}), scores={"model": score})
    found = installation([seen(one), seen(two), seen(gone, 600.0)], range(2))
    assert found.counts == {"applied": 8, "users": 2}
    assert (found.scores["model"].events, found.scores["model"].rolling_hit) == (200, 0.2)


lives: st.SearchStrategy[Doing] = st.sampled_from(["running", "paused", "not responding", "stopped", "dead"])
some = st.lists(
    st.builds(
        lambda name, doing, at, owns, sure: SeenMember(worker(name, answering=owns, confirmed=sure), doing, at),
        st.sampled_from("abcd"), lives, st.floats(0, 100), st.lists(st.integers(0, 3), max_size=4), st.booleans(),
    ),
    max_size=6,
)  # fmt: skip


@given(some, st.randoms(use_true_random=False))
def test_in_every_installation_each_partition_is_shown_once_and_a_living_claim_wins(members, random):
    found = installation(members, range(4))
    assert [p.partition for p in found.partitions] == [0, 1, 2, 3]
    for p in found.partitions:
        claiming = {m.member.key for m in members if p.partition in m.member.partitions and m.lives}
        assert (p.owner in claiming) if claiming else (p.owner is None and p.state == "down")
    shuffled = list(members)
    random.shuffle(shuffled)
    assert [p.owner is None for p in installation(shuffled, range(4)).partitions] == [
        p.owner is None for p in found.partitions
    ]
