"""Rankers go on learning between versions: beside the event loop, from where they were, and not what is forgotten."""

import asyncio

import numpy as np
import pytest
import torch

from model.ranker.examples import Example
from model.ranker.learning import NEW_EXAMPLES
from model.ranker.network import Ranker, scores_of
from model.ranking.features import NAMES, START
from model.settings import RankingSettings
from stream.config import Config
from stream.worker import online_rankers, ranker_file
from stream.worker.online_rankers import OnlineRankers
from tests.stream.fakes import until

F = len(NAMES)


class Version:
    """As much of a version's stages as a ranker needs."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.ranker: Ranker | None = Ranker(F, START)


def choices(count: int, start: int = 0, user: int = 0) -> list[Example]:
    """Users who take what has the most of feature 3, at the times from `start`."""
    draw = np.random.default_rng(start)
    found = []
    for at in range(count):
        features = draw.normal(size=(8, F)).astype(np.float16)
        features[0, 3] = 4.0
        items = draw.integers(1, 1 << 60, 8, np.uint64)
        example = Example(user or at + 1, start + at, start + at, "000001", items, features, np.ones(8, np.float32))
        found.append(example)
    return found


def liking(ranker: Ranker | None) -> float:
    """How much more a ranker thinks of an item with feature 3 than of one without."""
    features = np.zeros((2, F), np.float32)
    features[0, 3] = 4.0
    with_it, without = scores_of(ranker, features).tolist()
    return with_it - without


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(online_rankers, "STORE_EVERY_S", 0.0)
    return Config(data=tmp_path)


def learned(rankers: OnlineRankers, steps: int) -> None:
    """Run until so many steps were taken."""

    async def run() -> None:
        task = asyncio.create_task(rankers.run())
        await until(lambda: rankers.steps >= steps)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_examples_move_the_ranker_of_champion_and_candidate_and_a_ranking_keeps_the_one_it_has_begun_with(config):
    champion, candidate = Version(), Version()
    rankers = OnlineRankers(config)
    rankers.begin("champion", "000001", champion, 0)
    rankers.begin("candidate", "000002", candidate, 0)
    begun_with = champion.ranker
    rankers.add(choices(16 * NEW_EXAMPLES))
    learned(rankers, 32)
    assert liking(begun_with) == 0
    assert liking(champion.ranker) > 0.01
    assert liking(candidate.ranker) > 0.01


def test_a_restart_and_a_promotion_go_on_from_the_stored_ranker_of_the_same_version(config):
    before = Version()
    rankers = OnlineRankers(config)
    rankers.begin("candidate", "000002", before, 0)
    rankers.add(choices(NEW_EXAMPLES))
    learned(rankers, 1)
    again, other = Version(), Version()
    OnlineRankers(config).begin("champion", "000002", again, 0)
    OnlineRankers(config).begin("champion", "000003", other, 0)
    assert liking(again.ranker) == liking(before.ranker) != 0
    assert liking(other.ranker) == 0


def test_a_new_version_learns_once_more_what_came_after_its_newest_example(config):
    rankers, old, new, newest = OnlineRankers(config), Version(), Version(), Version()
    rankers.begin("champion", "000001", old, 0)
    rankers.add(choices(3 * NEW_EXAMPLES, start=1_000))
    rankers.begin("champion", "000002", new, 1_000 + NEW_EXAMPLES)
    assert liking(new.ranker) > 0
    rankers.begin("champion", "000003", newest, 9_999)
    assert liking(newest.ranker) == 0


def test_a_forgotten_users_examples_are_learned_by_no_later_step_and_no_later_version(config):
    rankers, old, new = OnlineRankers(config), Version(), Version()
    rankers.begin("champion", "000001", old, 0)
    rankers.add(choices(NEW_EXAMPLES + 5, start=1_000, user=7))
    rankers.forget([7])
    rankers.begin("champion", "000002", new, 0)
    assert liking(new.ranker) == 0

    async def run() -> None:
        task = asyncio.create_task(rankers.run())
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    assert liking(old.ranker) == 0
    assert rankers.steps == 0


def test_an_error_of_learning_ends_the_learning_and_not_the_worker(config, monkeypatch, caplog):
    broken, sound = Version(), Version()
    rankers = OnlineRankers(config)
    rankers.begin("champion", "000001", broken, 0)
    rankers.begin("candidate", "000002", sound, 0)
    before = broken.ranker
    examples = choices(NEW_EXAMPLES)
    real = online_rankers.OnlineRanker.learn

    async def learn(online):
        if online.version == "000001":
            raise RuntimeError("out of memory")
        await real(online)

    monkeypatch.setattr(online_rankers.OnlineRanker, "learn", learn)
    rankers.add(examples)
    learned(rankers, 1)
    assert broken.ranker is before
    assert liking(sound.ranker) > 0
    assert "version 000001 stays as it is" in caplog.text


@pytest.mark.parametrize("online", [True, False])
def test_a_version_without_a_ranker_and_a_setting_leave_everything_as_it_is(config, online):
    off = Config(data=config.data, ranking=RankingSettings(online_ranker=online))
    rankers, version = OnlineRankers(off), Version()
    if online:
        version.ranker = None
    rankers.begin("champion", "000001", version, 0)
    before = version.ranker
    rankers.add(choices(2 * NEW_EXAMPLES))
    assert version.ranker is before


def test_a_stored_ranker_of_other_features_is_left_alone(config, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("model.ranking.features.SCHEMA", "of another release")
        moved = Ranker(F, 3)
        ranker_file.write(config.data, "0", "champion", "000001", moved)
    version = Version()
    OnlineRankers(config).begin("champion", "000001", version, 0)
    assert liking(version.ranker) == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 64, b'\x08\0\0\0\0\0\0\0{"a": 1}', b"0" * 99])
def test_a_damaged_file_is_no_ranker(config, content):
    (config.data / "ranker-0-champion.safetensors").write_bytes(content)
    version = Version()
    OnlineRankers(config).begin("champion", "000001", version, 0)
    assert liking(version.ranker) == 0
