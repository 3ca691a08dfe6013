"""Which version the trainer learns on from, when pointers come while one is being loaded."""

import asyncio
import contextlib
import threading
from types import SimpleNamespace

import pytest

from model.errors import ArtifactError, NoSuchVersion
from stream.config import Config
from stream.kafka.messages import Pointer
from stream.kafka.pointers import Pointers
from stream.trainer import champion
from stream.trainer.champion import CannotContinue, ChampionFollower


def pointer(version: str, moved_ts: int) -> Pointer:
    return Pointer("create", version, "models", "", moved_ts)


class SlowStore:
    """An artifact store that was away: version 000001 comes only when it `may_load`; those in `missing` never do."""

    def __init__(self, monkeypatch) -> None:
        self.missing, self.loading, self.may_load = {"000001"}, threading.Event(), threading.Event()
        monkeypatch.setattr(champion, "fetch_version", self.fetch)
        monkeypatch.setattr(champion, "list_versions", lambda *_: [SimpleNamespace(version="000001")])

    def fetch(self, pointer, config):
        if pointer.version in self.missing:
            raise ArtifactError("away")
        if pointer.version == "000001":
            self.loading.set()
            self.may_load.wait(10)
        return SimpleNamespace(manifest=SimpleNamespace(version=pointer.version))


async def follower_of_a_moved_pointer(store: SlowStore) -> tuple[ChampionFollower, asyncio.Task[None]]:
    """A follower that loads version 000001 for the next cycle while the pointer moves to 000002."""
    follower = ChampionFollower(Config(), None)
    with pytest.raises(ArtifactError):
        await follower.follow(Pointers(pointer("000001", 1)))
    store.missing.discard("000001")
    loading = asyncio.create_task(follower.ensure_loaded())
    await asyncio.to_thread(store.loading.wait, 10)
    with contextlib.suppress(ArtifactError):
        await follower.on_pointer(pointer("000002", 2))
    store.may_load.set()
    return follower, loading


def test_a_version_that_is_champion_no_more_when_it_is_loaded_is_not_learned_on_from(monkeypatch):
    async def run() -> None:
        follower, loading = await follower_of_a_moved_pointer(SlowStore(monkeypatch))
        await loading
        assert follower.version.manifest.version == "000002"

    asyncio.run(run())


def test_learning_does_not_start_from_scratch_when_the_pointer_moved_to_a_version_that_cannot_be_loaded(monkeypatch):
    async def run() -> None:
        store = SlowStore(monkeypatch)
        store.missing.add("000002")
        follower, loading = await follower_of_a_moved_pointer(store)
        with pytest.raises(CannotContinue):
            await loading
        assert follower.version is None

    asyncio.run(run())


@pytest.mark.parametrize(
    ("why", "left", "outcome"),
    [
        (NoSuchVersion("it has no such version"), [], None),
        (NoSuchVersion("it has no such version"), ["000002"], "`anabranch rollback 000002` serves another version"),
        (ArtifactError("manifest.json cannot be read"), [], "manifest.json cannot be read"),
        (ArtifactError("it is not signed"), [], "it is not signed"),
        (NoSuchVersion("it has no such version"), ArtifactError("HTTP 500"), "HTTP 500"),
    ],
)
def test_learning_starts_from_scratch_only_where_the_store_answers_that_it_has_nothing(monkeypatch, why, left, outcome):
    def fetch(pointer, config):
        raise why

    def versions(*_):
        if isinstance(left, ArtifactError):
            raise left
        return [SimpleNamespace(version=version) for version in left]

    monkeypatch.setattr(champion, "fetch_version", fetch)
    monkeypatch.setattr(champion, "list_versions", versions)

    async def run() -> None:
        follower = ChampionFollower(Config(), None)
        with pytest.raises(ArtifactError):
            await follower.follow(Pointers(pointer("000001", 1)))
        await follower.ensure_loaded()

    if outcome is None:
        asyncio.run(run())
        return
    with pytest.raises(CannotContinue, match=outcome):
        asyncio.run(run())
