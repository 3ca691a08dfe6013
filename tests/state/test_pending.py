"""Whoever was touched is answered, however few users are kept at hand, and nothing unanswered is passed by."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from state.events import EVENT, Records
from state.pending import Pending

USERS = st.integers(1, 6)
STEP = st.one_of(
    st.tuples(st.just("events"), st.lists(USERS, min_size=1, max_size=6)),
    st.tuples(st.just("take"), st.integers(1, 3)),
    st.tuples(st.just("sent"), st.integers(1, 3)),
    st.tuples(st.just("failed"), st.integers(1, 3)),
    st.tuples(st.just("restart"), st.none()),
)


class Partition:
    """A log of users, what is owed them, and what each has been told."""

    def __init__(self, in_memory: int) -> None:
        self.log, self.told, self.answered, self.in_memory = list[int](), dict[int, int](), 0, in_memory
        self.on_their_way: dict[int, int] = {}
        self.restart()

    def journal(self, start: int, end: int) -> Records:
        return np.array([(self.log[at], 1, at, at, 0) for at in range(start, end)], EVENT)

    def restart(self) -> None:
        self.pending = Pending(self.journal, self.answered, len(self.log), self.in_memory)
        self.on_their_way.clear()

    def events(self, users: list[int]) -> None:
        start = len(self.log)
        self.log += users
        self.pending.apply(self.journal(start, len(self.log)))

    def take(self, count: int) -> None:
        for user, unanswered in self.pending.claim(count).items():
            assert unanswered.offset >= self.told.get(user, -1), "no answer goes back behind one that was sent"
            self.on_their_way[user] = unanswered.offset

    def sent(self, count: int) -> None:
        users = list(self.on_their_way)[:count]
        assert self.pending.complete(users) == set(users)
        for user in users:
            self.told[user] = max(self.told.get(user, -1), self.on_their_way.pop(user))
        self.answered = self.pending.watermark(len(self.log))

    def failed(self, count: int) -> None:
        users = list(self.on_their_way)[:count]
        self.pending.release(users)
        for user in users:
            del self.on_their_way[user]

    def unanswered(self) -> list[int]:
        """Newest events of users that no answer reflects: from any of them on, who did it is found again."""
        newest = {user: at for at, user in enumerate(self.log)}
        return [at for user, at in newest.items() if at > self.told.get(user, -1)]


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), st.lists(STEP, max_size=25))
def test_whoever_was_touched_is_answered_and_nothing_unanswered_is_passed_by(in_memory, steps):
    partition = Partition(in_memory)
    for name, argument in steps:
        getattr(partition, name)(*([] if argument is None else [argument]))
        assert partition.pending.in_memory <= in_memory + len(partition.on_their_way) + 3
        assert partition.pending.watermark(len(partition.log)) <= min(
            partition.unanswered(), default=len(partition.log)
        )
    turns = 0
    while partition.pending.waiting or partition.on_their_way:
        partition.take(2)
        partition.sent(3)
        turns += 1
        assert turns < 200
    assert partition.told == {user: at for at, user in enumerate(partition.log)}
    assert partition.answered == len(partition.log) or not partition.told


def test_users_put_off_are_answered_once_each_though_they_came_many_times():
    partition = Partition(in_memory=2)
    partition.events([1, 2, 3, 4, 5] * 10)
    assert partition.pending.in_memory == 2
    answers = 0
    while partition.pending.waiting:
        partition.take(10)
        answers += len(partition.on_their_way)
        partition.sent(10)
    assert (answers, partition.answered) == (5, 50)


def test_who_was_answered_long_ago_is_owed_what_came_since():
    partition = Partition(in_memory=1)
    partition.events([1, 2])
    while partition.pending.waiting:
        partition.take(1)
        partition.sent(1)
    partition.events([1, 2, 3])
    while partition.pending.waiting:
        partition.take(1)
        partition.sent(1)
    assert partition.unanswered() == []
