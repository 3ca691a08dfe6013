"""From events that were applied to examples: joined with the lists before them, learned from, sent."""

from collections.abc import Callable

import numpy as np

from state.store import Applied, Store
from stream.worker.example_sender import ExampleSender
from stream.worker.recommender import Recommender


class ExamplePath:
    """Makes the examples of one worker. Nothing waits for them to be sent."""

    def __init__(
        self, recommender: Recommender, sender: ExampleSender | None, counted: Callable[[str, int], None]
    ) -> None:
        """Without a `sender` the worker only learns from them. `counted` gets `missed`, and how many."""
        self._recommender, self._sender, self._counted = recommender, sender, counted

    def follow(self, store: Store, applied: Applied) -> None:
        """What users did next, after what was shown to them last."""
        made = self._recommender.join(applied)
        self._counted("missed", made.missed)
        if self._sender is None:
            return
        self._sender.forget(applied.forgotten.tolist())
        if made.examples:
            users = np.fromiter((example.user for example in made.examples), np.uint64, len(made.examples))
            ids = store.user_ids(users)
            self._sender.add((user, e) for user, e in zip(ids, made.examples, strict=True) if user)
