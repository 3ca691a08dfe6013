"""What the pipeline tells the metrics as it goes: durations, and what `/metrics` reads of each store from memory."""

from collections import Counter
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

from state.pending import Unanswered
from state.store import Store
from stream.kafka.decode import Record
from stream.live_metrics import Scores
from stream.metrics.click_times import ClickTimes
from stream.metrics.instruments import WorkerInstruments
from stream.worker.recommendation import Answer


class Observed:
    """The instruments of a worker, and what is remembered of each open store. It goes with the store."""

    def __init__(self) -> None:
        self.instruments = WorkerInstruments()
        self.click_times: WeakKeyDictionary[Store, ClickTimes] = WeakKeyDictionary()
        self.scores: WeakKeyDictionary[Store, Scores] = WeakKeyDictionary()
        """The prequential scores as the store has them; none before the first batch."""

    def applied(self, store: Store, records: Sequence[Record], decode_s: float, apply_s: float, write_s: float) -> None:
        """A batch was decoded, and applied; `write_s` of `apply_s` is the write."""
        step = self.instruments.step
        step("decode", decode_s)
        step("apply", apply_s - write_s)
        step("write", write_s)
        if (times := self.click_times.get(store)) is None:
            times = self.click_times[store] = ClickTimes()
        times.remember(records, store.progress.base, store.answered_before)

    def sent(self, store: Store, answers: Sequence[Answer], users: Mapping[int, Unanswered], seconds: float) -> None:
        """Recommendations were acknowledged; `users` are those that were claimed for them."""
        self.instruments.step("send", seconds)
        for source, count in Counter(answer.source for answer in answers).items():
            self.instruments.recommended(source, count)
        if (times := self.click_times.get(store)) is not None:
            self.instruments.waited(times.of(users[answer.user].first_offset for answer in answers))
