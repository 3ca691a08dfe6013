"""Answers to requests that want another thing than a recommendation: a user, an item, what is popular.

Each comes from the store of one partition. What is known of an item, and what is popular, is the sum over all of them:
`merge_items` and `merge_popular` add up.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from state.settings import StateSettings
from stream.kafka.messages import Recommendation, Want


class Step(msgspec.Struct):
    """One event of a user's sequence."""

    item: str
    ts: int
    event: str
    title: str | None = None


class UserReport(msgspec.Struct):
    """A user's sequence, oldest event first, and the last recommendation that was sent."""

    user: str
    sequence: list[Step]
    recommended: Recommendation | None
    partitions: list[int]
    """Partitions that were read and have events of the user. More than one: the user is split, and each is recommended
    for apart; `sequence` is that of the first."""


class TitledFollower(msgspec.Struct):
    """An item that users took after another one, with its title."""

    item: str
    title: str | None
    weight: float


class ItemReport(msgspec.Struct):
    """An item in the graph."""

    item: str
    title: str | None
    degree: int
    popularity: float
    next: list[TitledFollower]
    known_to_model: bool | None
    """None before the first version."""
    withdrawn: bool | None = None
    """Whether it is recommended to nobody; None where that is not known."""


class ItemPart(ItemReport):
    """What one partition knows of an item."""

    ts: int = 0
    """Time of its newest event here, ms: popularity and weights are those of this moment."""


class PopularItem(msgspec.Struct):
    """An item that many users take now."""

    item: str
    title: str | None
    score: float
    """log2 of its popularity, plus the time in half-lives: it orders items of all partitions at any time."""


class Document(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Topic `replies`: the answer to a request that wants no recommendation."""

    id: str | int
    want: Want
    partition: int
    emitted_ts: int
    status: Literal["ok", "too many", "too large", "refused"] = "ok"
    """As in a reply; `refused`: it is not signed with `kafka.signing_key`. Without `ok` nothing else is there."""
    user: UserReport | None = None
    item: ItemPart | None = None
    popular: list[PopularItem] | None = None
    """Best first."""


def merge_items(parts: Iterable[ItemPart], count: int, settings: StateSettings) -> ItemReport:
    """An item as all partitions know it, with its strongest `count` followers.

    Counts fade to the newest part, as in `state.graph.combine`. At least one part is needed.
    """
    every = list(parts)
    newest = max(part.ts for part in every)
    followers: dict[str, TitledFollower] = {}
    popularity = 0.0
    for part in every:
        age_s = (newest - part.ts) / 1000 if part.ts else 0.0
        popularity += part.popularity * 0.5 ** (age_s / settings.popularity_half_life_s)
        for follower in part.next:
            weight = follower.weight * 0.5 ** (age_s / settings.pair_half_life_s)
            seen = followers.get(follower.item)
            title = follower.title or (seen.title if seen else None)
            followers[follower.item] = TitledFollower(follower.item, title, weight + (seen.weight if seen else 0.0))
    strongest = sorted(followers.values(), key=lambda follower: -follower.weight)[:count]
    withdrawn = [part.withdrawn for part in every if part.withdrawn is not None]
    known = [part.known_to_model for part in every if part.known_to_model is not None]
    return ItemReport(
        item=every[0].item,
        title=next((part.title for part in every if part.title), None),
        degree=sum(part.degree for part in every),
        popularity=round(popularity, 4),
        next=[msgspec.structs.replace(follower, weight=round(follower.weight, 4)) for follower in strongest],
        known_to_model=any(known) if known else None,
        withdrawn=any(withdrawn) if withdrawn else None,
    )


def merge_popular(parts: Iterable[Iterable[PopularItem]], count: int) -> list[PopularItem]:
    """What is popular over all partitions, best first. `score` is the share of the best one's popularity: 1 to 0."""
    every = [item for part in parts for item in part]
    highest = max((item.score for item in every), default=0.0)
    found: dict[str, PopularItem] = {}
    for item in every:
        seen = found.get(item.item)
        score = 2.0 ** (item.score - highest) + (seen.score if seen else 0.0)
        found[item.item] = PopularItem(item.item, item.title or (seen.title if seen else None), score)
    best = sorted(found.values(), key=lambda item: -item.score)[:count]
    return [msgspec.structs.replace(item, score=round(item.score / best[0].score, 4)) for item in best]
