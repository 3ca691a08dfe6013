"""A small data directory that has something to show in every command: events, titles, versions, scores, a trainer."""

from pathlib import Path

import msgspec

from model.learning.versions import publish
from model.ranking.fusion import Fusion, Learned
from state.events import hash_id
from state.identity import Identity
from state.settings import StateSettings
from state.store import Store
from state.titles import Titles
from stream.config import Config
from stream.kafka.messages import Pointer
from stream.kafka.pointers import MODEL_NAME, Pointers, pointer_to, write_last_pointers
from stream.trainer.status_file import TrainerReporter
from stream.worker import online_weights
from stream.worker.status_file import WorkerReporter
from tests.model.examples import cycling, learned
from tests.state.oracle import Event, batch

T = 1_700_000_000_000
SCORE = {"events": 4, "hits": 1.0, "ndcg": 0.5, "rolling_hit": 0.25, "rolling_ndcg": 0.125}
SCORES = ("000001", "000001 (shadow 000001/000002)", "000002 (shadow 000001/000002)", "model", "popularity", "fallback")
RECOMMENDATION = {
    "user": "ann",
    "items": [{"item": "tea", "score": 0.5, "because": ["milk"], "title": "Green tea", "why": "followed"}],
    "model": "000001", "model_age_s": 2.5, "source": "model", "event_ts": T, "emitted_ts": T,
    "partition": 0, "offset": 3,
}  # fmt: skip


def make_small_shop(data: Path) -> None:
    """Write the directory."""
    store = Store(data / "clicks-0", Identity("cluster", "clicks", 0, 1, 100, 32), StateSettings())
    names = [("ann", "milk"), ("ann", "bread"), ("bob", "milk"), ("bob", "tea")]
    events = [Event(user, item, T + 60_000 * n, "purchase") for n, (user, item) in enumerate(names)]
    scores = msgspec.json.encode(dict.fromkeys(SCORES, SCORE))
    store.apply(batch(events, 0), len(events), dead=1, key_mismatch=1, prequential=scores)
    store.pending.claim(10)
    store.record_answers([(hash_id("ann"), msgspec.json.encode(RECOMMENDATION))])
    store.close()
    titles = Titles(data)
    titles.apply({hash_id("tea"): "Green tea"}, "topic", {0: 1})
    titles.close()
    config = Config(data=data)
    first = learned(cycling())
    publish(config.artifacts_url, MODEL_NAME, first, {0: 2})
    publish(config.artifacts_url, MODEL_NAME, learned(cycling(items=8), first), {0: 4})
    candidate = pointer_to(config, "000002", None, role="candidate")
    assert isinstance(candidate, Pointer)
    write_last_pointers(data, Pointers(pointer_to(config, "000001", None, pinned=True), candidate))
    TrainerReporter(data).update(events=4, last="version 000002", last_ts=T, drifts=1)
    worker = WorkerReporter(data, lambda status: None)
    worker.started("0", T)
    worker.report(T)
    online_weights.write(data, "0", "000001", Learned(Fusion(), Fusion(1.0, 0.5, 0.25, 0.125), 60))
