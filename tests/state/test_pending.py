"""Every touched user is answered, no matter how few stay in memory, and no unanswered event is skipped."""

from hypothesis import given, settings
from hypothesis import strategies as st

from state.events import Records, make_events
from state.pending import Pending

USERS = st.integers(1, 6)
ACTION = st.one_of(
    st.tuples(st.just("apply"), st.lists(USERS, min_size=1, max_size=6)),
    st.tuples(st.just("claim"), st.integers(1, 3)),
    st.tuples(st.just("complete"), st.integers(1, 3)),
    st.tuples(st.just("release"), st.integers(1, 3)),
    st.tuples(st.just("restart"), st.none()),
)


class Partition:
    """A log of users, the pending ones, and the newest offset that each was answered for."""

    def __init__(self, max_in_memory: int) -> None:
        self.log, self.sent, self.answered, self.max_in_memory = list[int](), dict[int, int](), 0, max_in_memory
        self.claimed: dict[int, int] = {}
        self.restart()

    def journal(self, start: int, end: int) -> Records:
        offsets = range(start, end)
        return make_events(self.log[start:end], 1, ts=offsets, offset=offsets)

    def restart(self) -> None:
        self.pending = Pending(self.journal, self.answered, len(self.log), self.max_in_memory)
        self.claimed.clear()

    def apply(self, users: list[int]) -> None:
        start = len(self.log)
        self.log += users
        self.pending.apply(self.journal(start, len(self.log)))

    def claim(self, count: int) -> None:
        for user, unanswered in self.pending.claim(count).items():
            assert unanswered.offset >= self.sent.get(user, -1), "no answer goes back behind one that was sent"
            self.claimed[user] = unanswered.offset

    def complete(self, count: int) -> None:
        users = list(self.claimed)[:count]
        assert self.pending.complete(users) == set(users)
        for user in users:
            self.sent[user] = max(self.sent.get(user, -1), self.claimed.pop(user))
        self.answered = self.pending.watermark(len(self.log))

    def release(self, count: int) -> None:
        users = list(self.claimed)[:count]
        self.pending.release(users)
        for user in users:
            del self.claimed[user]

    def unanswered(self) -> list[int]:
        """Each user's newest event that no answer reflects. Reading the journal from it on finds the user again."""
        newest = {user: at for at, user in enumerate(self.log)}
        return [at for user, at in newest.items() if at > self.sent.get(user, -1)]


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), st.lists(ACTION, max_size=25))
def test_every_touched_user_is_answered_and_no_unanswered_event_is_passed_over(max_in_memory, actions):
    partition = Partition(max_in_memory)
    for name, argument in actions:
        getattr(partition, name)(*([] if argument is None else [argument]))
        assert partition.pending.in_memory <= max_in_memory + len(partition.claimed) + 3
        assert partition.pending.watermark(len(partition.log)) <= min(
            partition.unanswered(), default=len(partition.log)
        )
    rounds = 0
    while partition.pending.waiting or partition.claimed:
        partition.claim(2)
        partition.complete(3)
        rounds += 1
        assert rounds < 200
    assert partition.sent == {user: at for at, user in enumerate(partition.log)}
    assert partition.answered == len(partition.log) or not partition.sent


def test_deferred_users_with_many_events_are_answered_once_each():
    partition = Partition(max_in_memory=2)
    partition.apply([1, 2, 3, 4, 5] * 10)
    assert partition.pending.in_memory == 2
    answers = 0
    while partition.pending.waiting:
        partition.claim(10)
        answers += len(partition.claimed)
        partition.complete(10)
    assert (answers, partition.answered) == (5, 50)


def test_a_user_answered_long_ago_is_pending_again_after_a_new_event():
    partition = Partition(max_in_memory=1)
    partition.apply([1, 2])
    while partition.pending.waiting:
        partition.claim(1)
        partition.complete(1)
    partition.apply([1, 2, 3])
    while partition.pending.waiting:
        partition.claim(1)
        partition.complete(1)
    assert partition.unanswered() == []
