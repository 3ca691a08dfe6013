"""Every feature is computed again from its formula, one candidate item at a time, with dictionaries and loops."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.encoders.create import Create
from model.encoders.histories import to_histories
from model.encoders.vocabulary import Vocabulary
from model.evaluation.recorded_stream import RecordedStream, as_events
from model.ranking.features import NAMES, RELATIVE
from model.ranking.fusion import Fusion
from model.ranking.stages import Stages
from model.settings import ModelSettings, RankingSettings
from state.events import hash_id
from state.sequences import Sequences
from state.settings import StateSettings

ITEMS = [f"item-{n}" for n in range(6)]
KNOWN = ITEMS[:4]
"""The version knows these; the others are fresh, and only one of them gets a column."""
HASHES = {hash_id(item): item for item in ITEMS}
RANKING = RankingSettings(history_items=3, age_decay=0.7, repeat_decay=0.6, fresh_items=1)
STATE = StateSettings(neighbours_per_item=8, popularity_half_life_s=7_200.0, user_item_cap=0)
FUSION = Fusion(model=0.5, evidence=3.0, repeat=-1.5, popularity=2.0, before=0.5)
START_MS, MINUTE, HOUR, DAY = 1_500_000_000_000, 60_000, 3_600_000, 86_400_000
NEVER = 20.0

times = st.integers(0, 3 * DAY) | st.integers(0, 2 * HOUR)
"""Clicks arrive in any order of their times: some are late."""
clicks = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(ITEMS), times), min_size=1, max_size=25)
later = st.integers(-HOUR, 2 * DAY)


def recorded(stream: list[tuple[str, str, int]]) -> RecordedStream:
    past = RecordedStream(STATE)
    users, items, ts = zip(*stream, strict=True)
    past.append(as_events(list(users), list(items), START_MS + np.array(ts))[0])
    return past


def version() -> tuple[Create, Vocabulary]:
    torch.manual_seed(0)
    model = Create(len(KNOWN), ModelSettings(dim=4)).eval()
    model.graph_table = torch.nn.functional.normalize(torch.randn(len(KNOWN) + 1, 64), dim=1).half()
    model.graph_table[0] = 0
    return model, Vocabulary(np.array([hash_id(item) for item in KNOWN], np.uint64), list(KNOWN))


def log_minutes(ms: float) -> float:
    return math.log1p(max(ms, 0) / MINUTE)


class Plain:
    """The features of one user's candidate items, by their formulas."""

    def __init__(self, past: RecordedStream, user: int, moment: int, model: Create, vocabulary: Vocabulary) -> None:
        sequence = past.sequences(np.array([user], np.uint64))
        self.steps = [(int(item), int(ts)) for item, ts, _ in sequence.steps.tolist()]
        self.backwards = self.steps[::-1]
        self.moment = moment
        rows = past.graph.rows(np.array(list(HASHES), np.uint64))
        self.row = {item: {name: column[n] for name, column in rows._asdict().items()} for n, item in enumerate(HASHES)}
        with torch.no_grad():
            self.encoded = model.encode(to_histories(sequence, vocabulary))[0]
        self.table, self.vocabulary = model.items.weight.detach(), vocabulary
        self.graph_table = model.graph_table
        self.recent = [item for item, _ in self.backwards[: RANKING.history_items]]
        self.ranked = set(HASHES)
        self.session = self._session()

    def next_to(self, item: int, name: str) -> dict[int, float]:
        """A count of the row of an item, by neighbour."""
        row = self.row[item]
        return {int(node): float(count) for node, count in zip(row["nodes"], row[name], strict=True) if node}

    def clicks(self, item: int) -> float:
        """All clicks of an item; none of one without a column."""
        return float(self.row[item]["degree"]) if item in self.ranked else 0.0

    def _session(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        if not self.steps or self.moment - self.steps[-1][1] > HOUR:
            return found
        for step in self.backwards:
            if found and found[0][1] - step[1] > HOUR:
                break
            found.insert(0, step)
        return found

    def own(self, item: int) -> dict[str, float]:
        ages = [age for age, (step, _) in enumerate(self.backwards) if step == item]
        times = [ts for step, ts in self.steps if step == item]
        since = [max(self.moment - ts, 0) for ts in times]
        newest = self.steps[-1][0]
        candidates = [(step, ts) for step, ts in self.steps if step in self.ranked]
        after = [then for (before, _), (then, _) in pairwise(self.steps) if before == newest and newest in self.ranked]

        def at_hour(steps: list[tuple[int, int]]) -> float:
            turns = (2 * math.pi * (self.moment - ts) / DAY for _, ts in steps)
            return sum(math.exp(3 * (math.cos(turn) - 1)) for turn in turns)

        def gaps(item: int) -> list[float]:
            own = [ts for step, ts in self.steps if step == item]
            return [log_minutes(later - earlier) for earlier, later in pairwise(own)]

        mine, all_gaps = gaps(item), [gap for other in {step for step, _ in candidates} for gap in gaps(other)]
        typical = next((sum(some) / len(some) for some in (mine, all_gaps) if some), 0.0)
        own_hour = at_hour([(step, ts) for step, ts in self.steps if step == item])
        off = log_minutes(min(since)) - typical if times else NEVER
        return {
            "own_90": math.log1p(sum(0.9**age for age in ages)),
            "own_repeat": math.log1p(sum(RANKING.repeat_decay**age for age in ages)),
            "own_day": math.log1p(sum(2 ** (-ms / DAY) for ms in since)),
            "own_share": len(ages) / len(self.steps),
            "own_back": 1 / (1 + ages[0]) if ages else 0.0,
            "own_last5": sum(age < 5 for age in ages),
            "own_after_newest": math.log1p(after.count(item)),
            "own_after_newest_share": after.count(item) / max(len(after), 1),
            "own_since": log_minutes(min(since)) if times else NEVER,
            "own_hour": math.log1p(own_hour),
            "own_hour_share": own_hour / max(at_hour(candidates), 1e-3),
            "own_gap": off,
            "own_gap_off": abs(off),
            "own_session": sum(step == item for step, _ in self.session),
        }

    def transitions(self, item: int) -> dict[str, float]:
        history = [step for step, _ in self.backwards[: RANKING.history_items]]
        n = max(self.clicks(item), 1.0)
        following = [self.next_to(step, "next") for step in history]
        co, directed = [], []
        for step in history:
            after, before = self.next_to(step, "after"), self.next_to(step, "before")
            both = {node: after[node] + before[node] for node in after}
            counted = {node: after[node] + FUSION.before * before[node] for node in after}
            co.append(both.get(item, 0.0) / math.sqrt(1 + sum(both.values())) / math.sqrt(n))
            directed.append(counted.get(item, 0.0) / math.sqrt(max(sum(counted.values()), 1e-9)))
        share = [some.get(item, 0.0) / (1 + sum(some.values())) for some in following] + [0.0] * 3
        direct, total = following[0].get(item, 0.0), 1 + sum(following[0].values())
        evidence = sum(RANKING.age_decay**age * value for age, value in enumerate(directed))
        return {
            "next_1": math.log1p(direct),
            "next_1_share": share[0],
            "next_2_share": share[1],
            "next_3_share": share[2],
            "co_5": math.log1p(20 * sum(0.8**age * value for age, value in enumerate(co[:5]))),
            "co_1": math.log1p(20 * co[0]),
            "co_best": math.log1p(20 * max(co)),
            "evidence": math.log1p(50 * evidence / math.sqrt(n)),
            "next_1_lift": math.log1p(10 * direct / math.sqrt(n) / math.sqrt(total)),
            "before_1": math.log1p(self.next_to(history[0], "before").get(item, 0.0)),
        }

    def popularity(self, item: int) -> dict[str, float]:
        row = self.row[item]
        since = max(self.moment - int(row["ts"]), 0)
        halved = [2 ** (-since / 1000 / half_life_s) for half_life_s in STATE.half_lives_s]
        week, hour, six, day, month = (float(r) * h for r, h in zip(row["recent"], halved, strict=True))
        return {
            **{
                f"pop_{name}": math.log1p(10 * count)
                for name, count in (("week", week), ("hour", hour), ("6h", six), ("day", day), ("month", month))
            },
            "clicks": math.log1p(self.clicks(item)),
            "trend_hour": math.log((hour + 0.1) / (day + 0.5)),
            "trend_day": math.log((day + 0.1) / (week + 0.5)),
            "trend_week": math.log((week + 0.1) / (month + 0.5)),
            "item_age": log_minutes(self.moment - int(row["first_ts"])) if row["first_ts"] else 0.0,
            "item_since": log_minutes(self.moment - int(row["last_ts"])),
        }

    def user(self) -> dict[str, float]:
        items = [step for step, _ in self.steps]
        different = {item if item in self.ranked else 0 for item in items}
        return {
            "user_length": math.log1p(len(items)),
            "user_repeats": 1 - len(different) / len(items),
            "user_popularity": sum(math.log1p(self.clicks(item)) for item in items) / len(items),
            "user_since": log_minutes(self.moment - self.steps[-1][1]),
            "session_length": math.log1p(len(self.session)),
            "session_time": log_minutes(self.moment - self.session[0][1]) if self.session else 0.0,
        }

    def model(self, item: int) -> dict[str, float]:
        index = int(self.vocabulary.lookup(np.array([item], np.uint64))[0])
        return {"encoder": float(self.table[index] @ self.encoded) if index else math.nan, "known": float(index > 0)}

    def graph(self, item: int) -> dict[str, float]:
        assert self.graph_table is not None
        rows = [self.graph_table[int(self.vocabulary.lookup(np.array([i], np.uint64))[0])].float() for i in self.recent]
        own = self.graph_table[int(self.vocabulary.lookup(np.array([item], np.uint64))[0])].float()
        return {"graph_newest": float(own @ rows[0]), "graph_mean": float(own @ (sum(rows) / len(rows)))}

    def all_of(self, items: list[int], encoder: dict[int, float]) -> list[dict[str, float]]:
        """The features of the candidate items. The encoder's scores of fresh items are given: no formula has them."""
        found = []
        for item in items:
            one = {**self.own(item), **self.transitions(item), **self.popularity(item), **self.user()}
            one |= self.model(item) | self.graph(item)
            if math.isnan(one["encoder"]):
                one["encoder"] = encoder[item]
            one["fused"] = (
                FUSION.model * one["encoder"]
                + FUSION.repeat * one["own_repeat"]
                + FUSION.popularity * one["pop_week"]
                + FUSION.evidence * one["evidence"]
            )
            found.append(one)
        for name in RELATIVE:
            best = (min if name == "own_since" else max)(one[name] for one in found)
            for one in found:
                one[f"{name}_behind"] = one[name] - best
        return found


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clicks, later, st.booleans(), st.sampled_from([2, 99]))
def test_each_feature_is_what_its_formula_says(monkeypatch, stream, wait, warm, scanned):
    """With two scanned items the catalogue is a large one."""
    monkeypatch.setattr("model.ranking.context.SCANNED_ITEMS", scanned)
    past = recorded(stream)
    users = past.users
    newest = np.array([past.sequences(users[n : n + 1]).steps["ts"][-1] for n in range(len(users))])
    model, vocabulary = version()
    stages = Stages(model, vocabulary, FUSION, RANKING)
    if warm:  # the second of two rankings finds the fresh item's column
        stages.rank(past.sequences(users), past.graph, 3)
    shown = stages.rank(past.sequences(users), past.graph, 3, moments=newest + wait, shown=True).shown
    ranked = set.union(*(set(one.items.tolist()) for one in shown if one is not None)) | set(vocabulary.hashes.tolist())
    assert len(ranked) <= len(KNOWN) + RANKING.fresh_items
    for user, moment, one in zip(users.tolist(), (newest + wait).tolist(), shown, strict=True):
        assert one is not None
        plain = Plain(past, user, moment, model, vocabulary)
        plain.ranked = ranked
        items = one.items.tolist()
        assert len(items) == len(set(items))
        assert {step for step, _ in plain.steps} & ranked <= set(items)
        encoder = dict(zip(items, one.features[:, NAMES.index("encoder")].astype(float).tolist(), strict=True))
        expected = plain.all_of(items, encoder)
        for item, features in zip(range(len(items)), one.features.astype(float), strict=True):
            found = dict(zip(NAMES, features.tolist(), strict=True))
            assert found == pytest.approx(expected[item], rel=2e-3, abs=5e-3), HASHES[items[item]]


def test_users_without_steps_have_no_candidate_items_and_change_nothing_for_the_others():
    past = recorded([("a", "item-0", 0), ("a", "item-1", MINUTE), ("b", "item-1", HOUR)])
    model, vocabulary = version()
    stages = Stages(model, vocabulary, FUSION, RANKING)
    both = past.sequences(past.users)
    among = Sequences(np.array([1, *both.users.tolist(), 2], np.uint64), np.array([0, *both.indptr, 3]), both.steps)
    moments = np.full(4, START_MS + DAY)
    found = stages.rank(among, past.graph, 3, moments=moments, shown=True).shown
    alone = stages.rank(both, past.graph, 3, moments=moments[:2], shown=True).shown
    assert [one is None for one in found] == [True, False, False, True]
    for one, other in zip(found[1:3], alone, strict=True):
        assert one.items.tolist() == other.items.tolist()
        assert np.allclose(one.features, other.features, atol=1e-3)
    nobody = Sequences(np.array([1], np.uint64), np.array([0, 0]), both.steps[:0])
    assert stages.rank(nobody, past.graph, 3, shown=True).shown == [None]
