"""The recommendation message of one user, and the lists that it is built from."""

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from model.ranker.examples import Shown
from model.ranking.reason_kinds import TEXTS, Why
from state.events import Ids
from state.pending import Unanswered
from stream.kafka.messages import Recommendation, Recommended, encode
from stream.live_metrics import LastRecommendation
from stream.worker.item_names import Name

if TYPE_CHECKING:
    from model.ranking.stages import Ranked
    from stream.worker.served_versions import ServedVersion


class Answer(NamedTuple):
    """One user's recommendation, ready to send."""

    user: int
    user_id: bytes
    """Empty where the state has no id of the user: one without events, or forgotten in the meantime."""
    message: bytes
    last_recommendation: LastRecommendation
    source: str
    """What ranked it, as in the message."""
    shown: Shown | None = None
    """The candidate items with their features, if they are to be kept."""


class ItemList(NamedTuple):
    """The items for one user, best first."""

    items: list[int]
    scores: list[float]
    because: list[list[int]]
    """For each item the user's own items that are the reason, 0 = none."""
    why: list[str]
    """For each item the kind of the reason; empty = none."""


def ranked_list(ranked: "Ranked | None", row: int) -> ItemList | None:
    """What a version ranked for the user of a row; None where no version ranked anything for this user."""
    if ranked is None or not ranked.items[row].any():
        return None
    because, why = ranked.because[row].tolist(), [TEXTS[kind] for kind in ranked.why[row].tolist()]
    columns = (ranked.items[row].tolist(), ranked.scores[row].tolist(), because, why)
    entries = [entry for entry in zip(*columns, strict=True) if entry[0]]
    return ItemList(*(list(column) for column in zip(*entries, strict=True)))


def popular_list(popular: Ids, hidden: Ids, k: int) -> ItemList:
    """The k most popular items that the user does not hide.

    The score falls evenly with the rank: 1 for the first of n items, 1 / n for the last.
    """
    items = popular[~np.isin(popular, hidden)][:k] if len(hidden) else popular[:k]
    scores = np.arange(len(items), 0, -1) / max(len(items), 1)
    return ItemList(items.tolist(), scores.tolist(), [[]] * len(items), [TEXTS[Why.POPULAR]] * len(items))


def message_of(
    user_id: bytes,
    shown: ItemList,
    version: "ServedVersion | None",
    source: str,
    newest: Unanswered,
    names: dict[int, Name],
    now_ms: int,
    partition: int,
    offset: int,
) -> bytes:
    """The message. `version` is None where popular items are shown; `source` is what ranked them.

    `offset` is that of the newest event in the log.
    """
    message = Recommendation(
        user=user_id.decode(),
        items=[
            Recommended(
                item=names[item].id,
                score=round(float(score), 4),
                because=[names[own].id for own in because if own],
                title=names[item].title,
                why=why,
            )
            for item, score, because, why in zip(*shown, strict=True)
        ],
        model=version.version if version else None,
        model_age_s=round((now_ms - version.created_ts) / 1000, 1) if version else None,
        source=source,
        event_ts=newest.ts if newest.ts >= 0 else None,
        emitted_ts=now_ms,
        partition=partition,
        offset=offset,
    )
    return encode(message)


def smaller_forms(message: bytes) -> Iterator[bytes]:
    """The message without titles, and then without reasons too."""
    document = msgspec.json.decode(message)
    for fields in (("title",), ("because", "why")):
        for item, field in product(document["items"], fields):
            item.pop(field, None)
        yield encode(document)
