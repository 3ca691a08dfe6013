"""What the store of a partition knows of a user or an item, and what is popular there: answers to requests."""

import asyncio
from collections.abc import Sequence

import msgspec
import numpy as np

from state.events import Ids
from state.id_hash import IdHash
from state.kinds import kinds_of
from state.partition import Partition
from stream.config import Config
from stream.kafka.documents import Document, ItemPart, PopularItem, Step, TitledFollower, UserReport
from stream.kafka.messages import Recommendation
from stream.times import now_ms
from stream.worker.asked import Asked
from stream.worker.recommender import Recommender

MAX_ON_LOOP = 8
"""A few documents are read on the event loop. Many would keep heartbeats waiting."""
MAX_FOLLOWERS, MAX_POPULAR = 50, 100
"""Of one partition: enough for the sum over several to have the right ones at its top."""
EDGES_READ = 50
"""Newest edges of an item from which its followers at a past time are counted."""


class Documents:
    """Reads documents from the stores of one worker."""

    def __init__(self, config: Config, recommender: Recommender, id_hash: IdHash) -> None:
        self._config, self._recommender, self._id_hash = config, recommender, id_hash
        self._kinds = kinds_of(config.state)

    async def read_off_loop(self, number: int, store: Partition, requests: Sequence[Asked]) -> list[Document]:
        """`read`, in a thread where it would hold the event loop for long. Raises StoreFault."""
        if len(requests) <= MAX_ON_LOOP and not any(request.at for request in requests):
            return self.read(number, store, requests)
        return await asyncio.to_thread(self.read, number, store, requests)

    def read(self, number: int, store: Partition, requests: Sequence[Asked]) -> list[Document]:
        """The answers to these requests of one partition. Raises StoreFault."""
        return [self._read(number, store, request) for request in requests]

    def _read(self, number: int, store: Partition, request: Asked) -> Document:
        document = Document(id=request.id, want=request.want, partition=number, emitted_ts=now_ms())
        if request.want == "user":
            document.user = self._user(number, store, request.user)
        elif request.want == "item":
            find = self._item_before if request.at else self._item
            document.item = find(store, request)
        else:
            document.popular = self._popular(store, request.limit or MAX_POPULAR)
        return document

    def _user(self, number: int, store: Partition, name: str) -> UserReport:
        user = self._id_hash.of(name)
        steps = store.sequences(_one(user)).of(0)
        names = self._recommender.names.of(set(steps["item"].tolist()))
        message = store.recommended(user)
        return UserReport(
            user=name,
            sequence=[
                Step(names[item].id, ts, self._kinds.name(kind), names[item].title)
                for item, ts, kind in zip(*(steps[f].tolist() for f in ("item", "ts", "kind")), strict=True)
            ],
            recommended=msgspec.json.decode(message, type=Recommendation) if message else None,
            partitions=[number] if len(steps) else [],
        )

    def _item(self, store: Partition, request: Asked) -> ItemPart:
        name, count = request.item, request.limit or MAX_FOLLOWERS
        item = self._id_hash.of(name)
        rows = store.rows(_one(item))
        order = np.argsort(-rows.after[0], kind="stable")[: max(count, MAX_FOLLOWERS)]
        order = order[rows.after[0][order] > 0]
        followers = rows.nodes[0][order].tolist()
        names = self._recommender.names.of({item, *followers})
        champion = self._recommender.versions.champion
        return ItemPart(
            item=name,
            title=names[item].title,
            degree=int(rows.degree[0]),
            popularity=round(float(rows.popularity[0]), 6),
            next=[
                TitledFollower(names[follower].id, names[follower].title, round(weight, 6))
                for follower, weight in zip(followers, rows.after[0][order].tolist(), strict=True)
            ],
            known_to_model=None if champion is None else bool(champion.stages.vocabulary.lookup(_one(item))[0]),
            withdrawn=bool(np.isin(_one(item), self._recommender.withdrawn)[0]),
            ts=int(rows.ts[0]),
        )

    def _item_before(self, store: Partition, request: Asked) -> ItemPart:
        """The item before a time; its popularity then is not counted, which reads all of its events."""
        item = self._id_hash.of(request.item)
        counted = store.transitions(item, request.at, EDGES_READ)
        strongest = sorted(counted.items(), key=lambda follower: -follower[1])[:MAX_FOLLOWERS]
        names = self._recommender.names.of({item, *(follower for follower, _ in strongest)})
        return ItemPart(
            item=request.item,
            title=names[item].title,
            degree=store.degree(item, request.at),
            popularity=0.0,
            next=[TitledFollower(names[f].id, names[f].title, round(weight, 6)) for f, weight in strongest],
            known_to_model=None,
            ts=request.at,
        )

    def _popular(self, store: Partition, count: int) -> list[PopularItem]:
        best = store.popular()
        shown = best[~np.isin(best["item"], self._recommender.withdrawn)][: max(count, MAX_POPULAR)]
        names = self._recommender.names.of(set(shown["item"].tolist()))
        return [
            PopularItem(names[item].id, names[item].title, score)
            for item, score in zip(shown["item"].tolist(), shown["score"].tolist(), strict=True)
        ]


def _one(item: int) -> Ids:
    return np.array([item], np.uint64)
