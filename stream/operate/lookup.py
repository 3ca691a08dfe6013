"""What the state knows: the documents of `anabranch user`, `item` and `graph`.

The fields of a document, in their order, are the keys of `--json`.
"""

import msgspec
import numpy as np

from state.errors import StateError
from state.events import Ids, Records
from state.kinds import kinds_of
from state.titles import Titles
from state.view import View
from stream.config import Config
from stream.kafka.documents import ItemReport, Step, TitledFollower, UserReport
from stream.kafka.messages import Recommendation

MAX_LAST_USERS = 10
MAX_FOLLOWERS = 10
EDGES_READ = 200
"""Newest edges of an item from which its followers at a time are counted."""


class UserAt(msgspec.Struct):
    """A user's sequence before a time."""

    user: str
    at: int
    sequence: list[Step]


class Follower(msgspec.Struct):
    """An item that users took after another one."""

    item: str
    weight: float


class LastUser(msgspec.Struct):
    """A user's event of an item."""

    user: str
    ts: int
    event: str


class ItemAt(msgspec.Struct):
    """An item in the graph before a time."""

    item: str
    at: int
    degree: int
    popularity: float
    next: list[Follower]
    last_users: list[LastUser]


class GraphReport(msgspec.Struct):
    """The temporal graph in numbers."""

    users: int
    items: int
    edges: int
    oldest_ts: int | None
    newest_ts: int | None
    item_degree: dict[str, int]
    """Percentiles of the items' number of events."""


class WindowReport(msgspec.Struct):
    """The events with start < time <= end in numbers."""

    start: int = msgspec.field(name="from")
    end: int = msgspec.field(name="to")
    edges: int
    users: int
    items: int


def user(config: Config, view: View, name: str) -> UserReport:
    """A user now."""
    key = view.ids.of(name)
    message = view.recommended(key)
    return UserReport(
        user=name,
        sequence=named_steps(config, view, view.sequences(np.array([key], np.uint64)).of(0)),
        recommended=msgspec.json.decode(message, type=Recommendation) if message else None,
        partitions=partitions_with(view, key),
    )


def partitions_with(view: View, user: int) -> list[int]:
    """The partitions that have events of a user."""
    asked = np.array([user], np.uint64)
    return [number for number, p in sorted(view.partitions.items()) if len(p.sequences(asked).steps)]


def user_at(config: Config, view: View, name: str, t: int) -> UserAt:
    """A user before `t`."""
    steps = view.steps(view.ids.of(name), config.state.sequence_events, t)
    return UserAt(name, t, named_steps(config, view, steps))


def named_steps(config: Config, view: View, steps: Records) -> list[Step]:
    """Steps with the names of their items and kinds."""
    kinds = kinds_of(config.state)
    ids = item_names(view, steps["item"])
    titles = item_titles(config, steps["item"])
    return [
        Step(item, ts, kinds.name(kind), title)
        for item, ts, kind, title in zip(ids, steps["ts"].tolist(), steps["kind"].tolist(), titles, strict=True)
    ]


def item(config: Config, view: View, name: str, champion_items: set[str] | None) -> ItemReport:
    """An item now; `champion_items` are those of the serving version, None before the first one."""
    key = np.array([view.ids.of(name)], np.uint64)
    rows = view.rows(key)
    order = np.argsort(-rows.after[0], kind="stable")[:MAX_FOLLOWERS]
    order = order[rows.after[0][order] > 0]
    followers = rows.nodes[0][order]
    return ItemReport(
        item=name,
        title=item_titles(config, key)[0],
        degree=int(rows.degree[0]),
        popularity=round(float(rows.popularity[0]), 4),
        next=[
            TitledFollower(follower, title, round(weight, 4))
            for follower, title, weight in zip(
                item_names(view, followers), item_titles(config, followers), rows.after[0][order].tolist(), strict=True
            )
        ],
        known_to_model=None if champion_items is None else name in champion_items,
        withdrawn=is_withdrawn(config, name),
    )


def item_at(config: Config, view: View, name: str, t: int) -> ItemAt:
    """An item before `t`, with its last users."""
    key, kinds = view.ids.of(name), kinds_of(config.state)
    edges = view.edges(key, MAX_LAST_USERS, t)
    counted = view.transitions(key, t, EDGES_READ).items()
    strongest = sorted(counted, key=lambda transition: -transition[1])[:MAX_FOLLOWERS]
    followers = np.array([follower for follower, _ in strongest], np.uint64)
    return ItemAt(
        item=name,
        at=t,
        degree=view.degree(key, t),
        popularity=round(view.popularity(key, t), 4),
        next=[
            Follower(follower, round(weight, 4))
            for follower, (_, weight) in zip(item_names(view, followers), strongest, strict=True)
        ],
        last_users=[
            LastUser(user, int(edge["ts"]), kinds.name(int(edge["kind"])))
            for user, edge in zip(user_names(view, edges["user"]), edges, strict=True)
        ],
    )


def graph(view: View) -> GraphReport:
    """The whole graph."""
    progress = [p.read_progress() for p in view.partitions.values()]
    items = view.all_items()
    degrees = view.rows(items).degree if len(items) else np.zeros(1)
    filled = [p for p in progress if p.applied]
    return GraphReport(
        users=sum(p.users for p in progress),
        items=len(items),
        edges=sum(p.edges for p in progress),
        oldest_ts=min((p.oldest_ts for p in filled), default=None),
        newest_ts=max((p.newest_ts for p in filled), default=None),
        item_degree={f"p{q}": int(np.percentile(degrees, q)) for q in (50, 90, 99, 100)},
    )


def window(view: View, start: int, end: int) -> tuple[WindowReport, Records]:
    """The events with start < time <= end: their numbers, and the events."""
    events = view.window(start, end)
    users, items = len(np.unique(events["user"])), len(np.unique(events["item"]))
    return WindowReport(start=start, end=end, edges=len(events), users=users, items=items), events


def item_names(view: View, items: Ids) -> list[str]:
    """Ids of the items; the hash of one whose id is unknown here."""
    return [i.decode() if i else f"#{h:016x}" for i, h in zip(view.item_ids(items), items.tolist(), strict=True)]


def user_names(view: View, users: Ids) -> list[str]:
    """Ids of the users; the hash of one whose id is unknown here."""
    return [u.decode() if u else f"#{h:016x}" for u, h in zip(view.user_ids(users), users.tolist(), strict=True)]


def is_withdrawn(config: Config, item: str) -> bool | None:
    """Whether an item is recommended to nobody, as far as the worker here has read; None where it has read nothing."""
    try:
        store = Titles(config.data, read_only=True)
    except StateError:
        return None
    try:
        return item.encode() in store.withdrawn_ids
    finally:
        store.close()


def item_titles(config: Config, items: Ids) -> list[str | None]:
    """Titles of the items; None where the items topic has none."""
    try:
        store = Titles(config.data, read_only=True)
    except StateError:
        return [None] * len(items)
    try:
        return store.get(items)
    finally:
        store.close()
