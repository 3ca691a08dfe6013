"""Versions are served as the pointers name them; one that cannot be loaded leaves the old one serving."""

import asyncio
import threading
import time
from types import SimpleNamespace

import msgspec
import pytest

from model.errors import ArtifactError
from state.errors import StoreBlocked
from stream.config import Config
from stream.kafka.messages import Pointer
from stream.kafka.pointers import Pointers, read_last_pointers
from stream.stores.assignment import Phase
from stream.worker import served_file, version_follower
from stream.worker.served_versions import ServedVersion
from stream.worker.version_follower import VersionFollower
from tests.stream.fakes import Owner


class Versions:
    """Remembers what is served, and has no model."""

    champion: ServedVersion | None = None
    candidate: ServedVersion | None = None

    def serve(self, champion):
        self.champion = champion

    def score(self, candidate):
        self.candidate = candidate


def pointer(version: str, moved_ts: int, role: str = "champion") -> Pointer:
    return Pointer("create", version, "models", "", moved_ts, role)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A follower whose artifact store lacks the versions in `missing`, and has those `before` the named one."""
    config, missing, before = Config(data=tmp_path, artifacts="s3://bucket"), set(), []

    def load(pointer, config, id_hash):
        if pointer.version in missing:
            raise ArtifactError("no such version")
        return ServedVersion(pointer.version, 0, None, pointer.sha256)

    monkeypatch.setattr(version_follower, "load_version", load)
    monkeypatch.setattr(version_follower, "versions_before", lambda named, config: before)
    monkeypatch.setattr(version_follower, "FETCH_AGAIN_S", 0.0)
    versions, owner = Versions(), Owner(config, monkeypatch)
    follower = VersionFollower(config, versions, owner.assignment)
    return SimpleNamespace(
        config=config, missing=missing, before=before, versions=versions, owner=owner, follower=follower
    )


def test_the_newest_pointer_is_served_and_the_candidate_scored_until_it_is_champion(shop):
    async def run() -> None:
        await shop.follower.on_pointer(pointer("000001", 1))
        await shop.follower.on_pointer(pointer("000002", 2, "candidate"))
        assert (shop.versions.champion.version, shop.versions.candidate.version) == ("000001", "000002")
        await shop.follower.on_pointer(pointer("000002", 3))
        await shop.follower.on_pointer(pointer("000001", 2))  # an older one that comes late
        await shop.follower.on_pointer(None)
        assert (shop.versions.champion.version, shop.versions.candidate) == ("000002", None)

    asyncio.run(run())
    assert read_last_pointers(shop.config.data).champion.version == "000002"


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving_and_is_tried_again(shop, caplog):
    async def run() -> None:
        await shop.follower.follow(Pointers(pointer("000001", 1)))
        shop.missing.add("000002")
        await shop.follower.on_pointer(pointer("000002", 2))
        assert shop.versions.champion.version == "000001"
        await shop.follower.retry()
        assert shop.versions.champion.version == "000001"
        shop.missing.clear()
        await asyncio.sleep(0.01)
        await shop.follower.retry()
        assert shop.versions.champion.version == "000002"

    asyncio.run(run())
    assert "version 000002 is not served" in caplog.text


def test_a_store_with_a_fault_while_a_versions_clicks_are_counted_is_opened_again_and_the_version_tried_again(shop):
    async def run() -> None:
        await shop.owner.assign()
        path, serve = shop.owner.assignment.stores[0].path, shop.versions.serve

        def faulted(champion):
            raise StoreBlocked("too many open files", path)

        shop.versions.serve = faulted
        await shop.follower.on_pointer(pointer("000001", 1))
        assert shop.versions.champion is None
        assert shop.owner.assignment.phase(0) is Phase.FAULTED
        shop.versions.serve = serve
        await asyncio.sleep(0.01)
        await shop.follower.retry()
        assert shop.versions.champion.version == "000001"
        await shop.owner.close()

    asyncio.run(run())


def test_a_worker_that_starts_serves_the_newest_version_before_one_that_cannot_be_loaded(shop, caplog):
    shop.missing |= {"000009", "000008"}
    shop.before += [pointer("000008", 9), pointer("000007", 9), pointer("000006", 9)]

    async def run() -> None:
        await shop.follower.begin(Pointers(pointer("000009", 9)))
        assert shop.versions.champion.version == "000007"
        served = served_file.read(shop.config.data)
        assert (served.named, served.version, served.why) == ("000009", "000007", "no such version")
        shop.missing.clear()
        await asyncio.sleep(0.01)
        await shop.follower.retry()
        assert shop.versions.champion.version == "000009"
        assert served_file.read(shop.config.data).why == ""

    asyncio.run(run())
    assert "version 000007 is served in its place" in caplog.text
    assert "`anabranch rollback 000007`" in caplog.text


def test_the_reason_why_a_version_is_not_served_is_not_that_of_the_candidate(shop, monkeypatch):
    def load(pointer, *_):
        raise ArtifactError(f"there is no {pointer.version}")

    monkeypatch.setattr(version_follower, "load_version", load)
    asyncio.run(shop.follower.follow(Pointers(pointer("000001", 1), pointer("000002", 2, "candidate"))))
    assert served_file.read(shop.config.data).why == "there is no 000001"


def test_a_version_published_again_under_a_number_is_fetched(shop):
    async def run() -> None:
        await shop.follower.follow(Pointers(pointer("000001", 1)))
        first = shop.versions.champion
        await shop.follower.on_pointer(msgspec.structs.replace(pointer("000001", 2), sha256="other"))
        assert shop.versions.champion is not first

    asyncio.run(run())


def test_a_worker_starts_while_its_artifact_store_does_not_answer_and_ends(shop, monkeypatch, caplog):
    answered = threading.Event()

    def hangs(pointer, config, id_hash):
        answered.wait(20)
        return ServedVersion(pointer.version, 0, None, pointer.sha256)

    monkeypatch.setattr(version_follower, "load_version", hangs)
    monkeypatch.setattr(version_follower, "BEGIN_WITHIN_S", 0.05)

    async def starts_and_ends() -> None:
        await shop.follower.begin(Pointers(pointer("000001", 1)))
        assert shop.versions.champion is None
        await shop.follower.retry()
        await shop.follower.close()

    async def starts_and_goes_on() -> None:
        await shop.follower.begin(Pointers(pointer("000001", 1)))
        answered.set()
        while shop.versions.champion is None:
            await asyncio.sleep(0.01)

    began = time.monotonic()
    asyncio.run(starts_and_ends())
    assert time.monotonic() - began < 10
    assert "the version is still being fetched" in caplog.text
    asyncio.run(starts_and_goes_on())
    assert shop.versions.champion.version == "000001"
