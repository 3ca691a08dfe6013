"""What `/metrics` and `/readyz` say of a trainer."""

import asyncio
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from stream.config import Config
from stream.metrics.samples import make_registry
from stream.trainer.pages import TrainerPages
from stream.trainer.trainer import Trainer
from tests.stream.trainer.test_trainer import Topics


@pytest.fixture
def shop(tmp_path):
    """A trainer without a store, and its pages."""
    config = Config(data=tmp_path)
    trainer = Trainer(config, Topics())
    pages = TrainerPages(config, trainer)

    def page() -> dict[str, float]:
        text = generate_latest(make_registry("trainer", pages.fill, trainer.instruments)).decode()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.split("\n") if " " in line)
                if name.startswith("anabranch_")}  # fmt: skip

    yield SimpleNamespace(config=config, trainer=trainer, pages=pages, page=page)
    trainer.view.close()


async def listens(shop) -> asyncio.Task:
    task = asyncio.create_task(asyncio.sleep(60))
    shop.pages.started(task)
    return task


def test_it_is_ready_when_it_listens_and_until_cycles_fail(shop):
    async def run() -> None:
        assert shop.pages.not_ready() == ["the process is starting"]
        assert shop.pages.not_started() == shop.pages.not_alive() == []
        listening = await listens(shop)
        assert shop.pages.not_ready() == []
        shop.trainer.status.fail_cycle("the cycle failed", "a disk is full")
        assert shop.pages.not_ready() == ["its last cycle failed, and the champion keeps serving: a disk is full"]
        assert shop.pages.not_alive() == []
        shop.trainer.status.finish_cycle("version 000001")
        assert shop.pages.not_ready() == []
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        [problem] = shop.pages.not_alive()
        assert "'listen' has ended" in problem

    asyncio.run(run())


def test_cycles_phases_and_offsets_are_on_the_page(shop):
    trainer = shop.trainer
    trainer.instruments.cycle("failed")
    trainer.status.fail_cycle("the cycle failed", "why")
    trainer.counted = {0: 50, 1: 10}
    manifest = SimpleNamespace(version="000001", offsets={0: 30, 1: 12})
    trainer.champion.version = SimpleNamespace(manifest=manifest)
    page = shop.page()
    assert page['anabranch_trainer_cycles_total{outcome="failed"}'] == 1
    assert page['anabranch_trainer_cycles_total{outcome="promoted"}'] == 0
    assert page["anabranch_trainer_consecutive_failures"] == 1
    assert page['anabranch_trainer_learned_offset{partition="0"}'] == 30
    assert page['anabranch_trainer_unlearned_events{partition="0"}'] == 20
    assert page['anabranch_trainer_unlearned_events{partition="1"}'] == 0
    assert "anabranch_trainer_last_success_timestamp_seconds" not in page


def test_the_last_success_of_the_trainer_before_it_counts(shop):
    shop.trainer.status.finish_cycle("version 000001")
    after = TrainerPages(shop.config, Trainer(shop.config, Topics()))
    page = generate_latest(make_registry("trainer", after.fill, shop.trainer.instruments)).decode()
    assert "\nanabranch_trainer_last_success_timestamp_seconds 1" in page
