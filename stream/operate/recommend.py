"""One answer outside the worker: the same ranker over a read-only view."""

import time
from typing import Any

import msgspec
import numpy as np

from model.errors import ArtifactError
from state.events import hash_id
from state.pending import Unanswered
from state.view import View
from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.messages import Pointer
from stream.worker.recommender import Recommender
from stream.worker.served_versions import load_serving


def answer_now(config: Config, view: View, champion: Pointer | None, user: str) -> dict[str, Any]:
    """A recommendation message for one user, as the worker would send it now. Raises AnabranchError."""
    from state.errors import StateError
    from state.titles import Titles

    try:
        titles = Titles(config.data, read_only=True)
    except StateError:
        titles = None
    ranker = Recommender(config, view.partitions, titles)
    try:
        if champion is not None:
            ranker.serving = load_serving(champion, config)
    except ArtifactError as error:
        raise AnabranchError(str(error)) from None
    key = hash_id(user)
    one = np.array([key], np.uint64)
    if not view.partitions:
        raise AnabranchError(f"no state in {config.data}: has a worker run with this --data yet?")
    number = next((n for n, p in view.partitions.items() if len(p.sequences(one).steps)), next(iter(view.partitions)))
    steps = view.partitions[number].sequences(one).steps
    ts = int(steps["ts"][-1]) if len(steps) else -1
    marks = view.partitions[number].read_progress()
    unanswered = Unanswered(0, marks.next_offset - 1, ts)
    answers = ranker.answer(number, {key: unanswered})
    if titles is not None:
        titles.close()
    message: dict[str, Any] = msgspec.json.decode(answers[0].message)
    return message | {"user": user, "emitted_ts": time.time_ns() // 1_000_000}
