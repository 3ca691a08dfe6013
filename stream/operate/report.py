"""What the state and the models look like now, as plain documents: the same for `--json`, tables and the demo."""

import time
from typing import Any

import msgspec
import numpy as np

from model.errors import ArtifactError
from model.learning.versions import list_versions
from state.errors import StateError
from state.events import Records, hash_id
from state.kinds import kinds_of
from state.titles import Titles
from state.view import View
from stream.config import Config
from stream.kafka.pointers import MODEL_NAME, Pointers
from stream.live_metrics import Mode, Score, ScoreKey, Scores, decode_scores, total
from stream.trainer import status_file as health
from stream.worker import online_weights as weights

Document = dict[str, Any]

LAST_USERS = 10
TRANSITIONS_OF = 200
"""Newest edges of an item that say what followed it at a time."""


def status(config: Config, view: View, log_ends: dict[int, int] | None, pointers: Pointers) -> Document:
    """Partitions, counts, the serving version and its prequential quality; `log_ends` None where no broker answers."""
    champion = pointers.champion.version if pointers.champion else None
    marks = {number: p.read_progress() for number, p in view.partitions.items()}
    scores = total([decode_scores(p.prequential()) for p in view.partitions.values()])
    partitions = []
    for number, m in marks.items():
        offset = m.log_offset
        end = log_ends.get(number) if log_ends is not None else None
        lag = None if end is None else max(end - offset, 0)
        partitions.append({"partition": number, "next_offset": offset, "log_end": end, "lag": lag})
    try:
        manifest = next(
            (m for m in reversed(list_versions(config.artifacts_url, MODEL_NAME)) if m.version == champion), None
        )
        artifacts = None
    except ArtifactError as error:
        manifest, artifacts = None, str(error)
    age_s = round(time.time() - manifest.created_ts / 1000, 1) if manifest else None
    return {
        "partitions": partitions,
        "events": {
            "applied": sum(m.applied for m in marks.values()),
            "dead": sum(m.dead for m in marks.values()),
            "duplicate": sum(m.duplicate for m in marks.values()),
            "too_old": sum(m.too_old for m in marks.values()),
            "expired": sum(m.expired for m in marks.values()),
            "erased": sum(m.erased for m in marks.values()),
            "key_mismatch": sum(m.key_mismatch for m in marks.values()),
            "lost": sum(m.lost for m in marks.values()),
        },
        "users": sum(m.users for m in marks.values()),
        "items": count_items(view),
        "edges": sum(m.edges for m in marks.values()),
        "model": {
            "version": champion,
            "age_s": age_s,
            "pinned": bool(pointers.champion and pointers.champion.pinned),
            "artifacts": artifacts,
            "online_weights": online_weights(config, champion),
        },
        "trainer": msgspec.to_builtins(health.read(config.data)),
        "comparison": comparison(config, pointers, scores),
        "prequential": prequential({key: s for key, s in scores.items() if key.pair is None}),
    }


def online_weights(config: Config, champion: str | None) -> dict[str, Document]:
    """By worker of this data directory: the version's fusion weights, and where clicks have moved them since."""
    return {
        instance: {
            "clicks": kept.learned.clicks,
            "chosen": msgspec.to_builtins(kept.learned.chosen),
            "now": msgspec.to_builtins(kept.learned.fusion),
        }
        for instance, kept in weights.read(config.data).items()
        if config.ranking.online_clicks and kept.version == champion
    }


def comparison(config: Config, pointers: Pointers, scores: Scores) -> Document | None:
    """Champion and candidate on live events: the same ones where the candidate is only scored, else each its users'."""
    champion, candidate = pointers.champion, pointers.scored
    if champion is None or candidate is None:
        return None
    mode: Mode = "ab" if config.worker.ab else "shadow"
    pair = champion.version, candidate.version
    found = prequential({ScoreKey(v): scores.get(ScoreKey(v, mode, pair), Score()) for v in pair})
    return {
        "mode": mode,
        "share": config.worker.ab,
        "champion": {"version": pair[0], **found.get(pair[0], {})},
        "candidate": {"version": pair[1], **found.get(pair[1], {})},
    }


def prequential(scores: Scores) -> dict[str, Document]:
    """Scores by version or baseline, whole and rolling."""
    return {
        str(key): {
            "events": s.events,
            "hit@10": round(s.hits / s.events, 5),
            "ndcg@10": round(s.ndcg / s.events, 5),
            "rolling_hit@10": round(s.rolling_hit, 5),
            "rolling_ndcg@10": round(s.rolling_ndcg, 5),
        }
        for key, s in sorted(scores.items(), key=lambda entry: str(entry[0]))
        if s.events
    }


def count_items(view: View) -> int:
    """Items in the graph; one known to several partitions counts once."""
    if len(view.partitions) == 1:
        return next(iter(view.partitions.values())).read_progress().items
    return len(view.all_items())


def user(config: Config, view: View, name: str) -> Document:
    """A user's sequence and the last recommendation sent."""
    key = hash_id(name)
    steps = view.sequences(np.array([key], np.uint64)).of(0)
    ids, kinds = names(view, steps["item"]), kinds_of(config.state)
    message = view.recommended(key)
    return {
        "user": name,
        "sequence": [
            {"item": item, "ts": int(ts), "event": kinds.name(kind)}
            for item, ts, kind in zip(ids, steps["ts"].tolist(), steps["kind"].tolist(), strict=True)
        ],
        "recommended": msgspec.json.decode(message) if message else None,
    }


def user_at(config: Config, view: View, name: str, t: int) -> Document:
    """A user's sequence as it was at t."""
    steps, kinds = view.steps(hash_id(name), config.state.sequence_events, t), kinds_of(config.state)
    return {
        "user": name,
        "at": t,
        "sequence": [
            {"item": item, "ts": int(step["ts"]), "event": kinds.name(int(step["kind"]))}
            for item, step in zip(names(view, steps["item"]), steps, strict=True)
        ],
    }


def item_at(config: Config, view: View, name: str, t: int) -> Document:
    """An item's place in the graph as it was at t, and its last users then."""
    key, kinds = hash_id(name), kinds_of(config.state)
    edges = view.edges(key, LAST_USERS, t)
    said = sorted(view.transitions(key, t, TRANSITIONS_OF).items(), key=lambda entry: -entry[1])[:10]
    followers = np.array([item for item, _ in said], np.uint64)
    return {
        "item": name,
        "at": t,
        "degree": view.degree(key, t),
        "popularity": round(view.popularity(key, t), 4),
        "next": [
            {"item": follower, "weight": round(weight, 4)}
            for follower, (_, weight) in zip(names(view, followers), said, strict=True)
        ],
        "last_users": [
            {"user": user, "ts": int(edge["ts"]), "event": kinds.name(int(edge["kind"]))}
            for user, edge in zip(user_names(view, edges["user"]), edges, strict=True)
        ],
    }


def window(view: View, start: int, end: int) -> tuple[Document, Records]:
    """The events with start < time <= end in numbers, and they themselves."""
    events = view.window(start, end)
    return {
        "from": start,
        "to": end,
        "edges": len(events),
        "users": len(np.unique(events["user"])),
        "items": len(np.unique(events["item"])),
    }, events


def item(config: Config, view: View, name: str, champion_items: set[str] | None) -> Document:
    """An item's place in the graph: how often, how popular, what follows it."""
    key = np.array([hash_id(name)], np.uint64)
    rows = view.rows(key)
    order = np.argsort(-rows.after[0], kind="stable")[:10]
    order = order[rows.after[0][order] > 0]
    return {
        "item": name,
        "title": titles(config, key)[0],
        "degree": int(rows.degree[0]),
        "popularity": round(float(rows.popularity[0]), 4),
        "next": [
            {"item": follower, "title": title, "weight": round(weight, 4)}
            for follower, title, weight in zip(
                names(view, rows.nodes[0][order]),
                titles(config, rows.nodes[0][order]),
                rows.after[0][order].tolist(),
                strict=True,
            )
        ],
        "known_to_model": None if champion_items is None else name in champion_items,
    }


def graph(config: Config, view: View) -> Document:
    """The temporal graph in numbers."""
    marks = [p.read_progress() for p in view.partitions.values()]
    items = view.all_items()
    degrees = view.rows(items).degree if len(items) else np.zeros(1)
    kept = [m for m in marks if m.applied]
    return {
        "users": sum(m.users for m in marks),
        "items": len(items),
        "edges": sum(m.edges for m in marks),
        "oldest_ts": min((m.oldest_ts for m in kept), default=None),
        "newest_ts": max((m.newest_ts for m in kept), default=None),
        "item_degree": {f"p{q}": int(np.percentile(degrees, q)) for q in (50, 90, 99, 100)},
    }


def models(config: Config, pointers: Pointers) -> Document:
    """Published versions, newest last, and which one serves."""
    champion = pointers.champion.version if pointers.champion else None
    return {
        "serving": champion,
        "pinned": bool(pointers.champion and pointers.champion.pinned),
        "candidate": pointers.scored.version if pointers.scored else None,
        "versions": [
            {
                "version": m.version,
                "serving": m.version == champion,
                "parent": m.parent,
                "created_ts": m.created_ts,
                "trained_offsets": {str(k): v for k, v in m.offsets.items()},
                "metrics": m.metrics,
                "fusion": msgspec.to_builtins(m.fusion),
                "promoted": m.verdict.promoted,
                "reason": m.verdict.reason,
            }
            for m in list_versions(config.artifacts_url, MODEL_NAME)
        ],
    }


def names(view: View, items: np.ndarray) -> list[str]:
    """Ids of the items; a hash where the id is not known here."""
    return [i.decode() if i else f"#{h:016x}" for i, h in zip(view.item_ids(items), items.tolist(), strict=True)]


def user_names(view: View, users: np.ndarray) -> list[str]:
    """Ids of the users; a hash where the id is not known here."""
    return [u.decode() if u else f"#{h:016x}" for u, h in zip(view.user_ids(users), users.tolist(), strict=True)]


def titles(config: Config, items: np.ndarray) -> list[str | None]:
    """Readable names, where the items topic gave any."""
    try:
        store = Titles(config.data, read_only=True)
    except StateError:
        return [None] * len(items)
    try:
        return store.get(items)
    finally:
        store.close()
