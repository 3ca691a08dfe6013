"""A partition from its assignment to its revocation, whatever happens to its store in between."""

import asyncio
import shutil
import threading
from pathlib import Path

import pytest

from state.errors import StateError, StoreBlocked, StoreFault, StoreUnreadable
from stream.kafka.lease import LeaseLost
from stream.stores.assignment import Phase
from stream.stores.partition_stores import PartitionStores, rebuilt_path
from tests.stream.fakes import CLICKS, REQUESTS, Owner, scenario_with, until
from tests.stream.stores.test_partition_stores import add_events


@scenario_with
async def with_owner(config, monkeypatch):
    """An `Owner` whose log ends at offset 10."""
    owner = Owner(config, monkeypatch)
    owner.log = owner.log._replace(end=10)
    return owner


async def answering(owner: Owner) -> None:
    """Assign the partition, and read its log to the end."""
    await owner.assign()
    owner.consumer.positions[CLICKS] = owner.log.end
    assert await owner.assignment.catch_up()


@with_owner
async def test_an_assigned_partition_is_paused_until_its_store_is_open_and_answers_when_it_has_caught_up(owner):
    await owner.assignment.on_partitions_assigned([CLICKS])
    assert owner.assignment.phase(0) is Phase.OPENING
    assert owner.consumer.paused == {CLICKS}
    await owner.assign()
    assert owner.assignment.phase(0) is Phase.CATCHING_UP
    assert (owner.consumer.paused, owner.consumer.sought) == (set(), [0])
    owner.consumer.positions[CLICKS] = 9
    assert not await owner.assignment.catch_up()
    assert owner.assignment.answering() == {}
    owner.consumer.positions[CLICKS] = 10
    assert await owner.assignment.catch_up()
    assert owner.assignment.answering().keys() == {0}


@with_owner
async def test_requests_are_not_read_before_the_store_that_answers_them_is_open(owner):
    owner.consumer.assigned = {CLICKS, REQUESTS}
    owner.assignment.pause(True)  # an operator's pause is of clicks only
    await owner.assignment.on_partitions_assigned([CLICKS, REQUESTS])
    assert owner.consumer.paused == {CLICKS, REQUESTS}
    await owner.assign()
    assert owner.consumer.paused == {CLICKS}


@with_owner
async def test_a_revoked_partition_is_gone_and_its_store_closed(owner):
    await answering(owner)
    await owner.revoke()
    assert owner.assignment.phase(0) is None
    assert owner.assignment.stores == {}
    PartitionStores(owner.config).open(0, owner.log).close()  # nobody has it open


@with_owner
async def test_a_store_closes_when_the_hold_has_ended_and_a_later_hold_gets_none(owner):
    await answering(owner)
    order = []

    async def hold_later() -> None:
        async with owner.assignment.hold(0) as store:
            order.append(store)

    async def revoke() -> None:
        await owner.revoke()
        order.append("revoked")

    async with owner.assignment.hold(0) as store:
        revoking = asyncio.create_task(revoke())
        await asyncio.sleep(0)
        later = asyncio.create_task(hold_later())
        await asyncio.sleep(0.02)
        assert order == []
        assert store.progress.next_offset == 0
        order.append("held")
    await asyncio.gather(revoking, later)
    assert order == ["held", "revoked", None]


@with_owner
async def test_work_that_goes_on_holding_keeps_the_store_open(owner):
    await answering(owner)
    sent = asyncio.Event()

    async def send() -> None:
        await sent.wait()

    async with owner.assignment.hold(0):
        sending = owner.assignment.keep_holding(send())
    revoking = asyncio.create_task(owner.revoke())
    await asyncio.sleep(0.02)
    assert not revoking.done()
    sent.set()
    await revoking
    assert sending.done()


@with_owner
async def test_without_the_lease_or_a_store_a_hold_gets_none(owner):
    async with owner.assignment.hold(0) as store:
        assert store is None
    await owner.assignment.on_partitions_assigned([CLICKS])
    async with owner.assignment.hold(0) as store:
        assert store is None
    await owner.assign()
    owner.lease.held = False
    async with owner.assignment.hold(0) as store:
        assert store is None


@with_owner
async def test_a_lease_that_runs_out_ends_only_the_hold(owner):
    await answering(owner)
    async with owner.assignment.hold(0):
        raise LeaseLost
    assert owner.assignment.phase(0) is Phase.ANSWERING


@with_owner
async def test_a_fault_ends_the_hold_and_the_store_is_opened_again_before_it_is_used(owner):
    await answering(owner)
    add_events(owner.assignment.stores[0], 5)
    async with owner.assignment.hold(0) as store:
        raise StoreBlocked("No space left on device", store.path)
    assert owner.assignment.phase(0) is Phase.FAULTED
    async with owner.assignment.hold(0) as store:
        assert store is None
    await owner.assignment.reopen_faulted()
    await until(lambda: owner.assignment.phase(0) is Phase.CATCHING_UP)
    assert owner.assignment.stores[0].progress.next_offset == 5
    assert owner.consumer.sought[-1] == 5


@with_owner
async def test_a_damaged_store_is_moved_aside(owner):
    await answering(owner)
    add_events(owner.assignment.stores[0], 5)
    async with owner.assignment.hold(0) as store:
        raise StoreUnreadable("Corruption", store.path)
    await owner.assignment.reopen_faulted()
    await until(lambda: owner.assignment.phase(0) is Phase.CATCHING_UP)
    assert owner.assignment.stores[0].progress.next_offset == 0
    assert len(list(owner.config.data.glob("aside-clicks-0-*"))) == 1


@with_owner
async def test_a_fault_outside_the_owned_partitions_is_raised(owner):
    await answering(owner)
    with pytest.raises(StoreFault):
        async with owner.assignment.hold(0):
            raise StoreBlocked("No space left on device", Path("titles"))
    assert owner.assignment.phase(0) is Phase.ANSWERING


@with_owner
async def test_a_store_that_cannot_be_opened_yet_is_tried_again(owner):
    owner.config.data.joinpath("clicks-0").write_text("in the way")
    opening = owner.start(owner.assignment.open_assigned())
    owner.consumer.assigned = {CLICKS}
    await owner.assignment.on_partitions_assigned([CLICKS])
    await asyncio.sleep(0.1)
    assert not opening.done()
    assert owner.assignment.phase(0) is Phase.OPENING
    owner.config.data.joinpath("clicks-0").unlink()
    await until(lambda: owner.assignment.phase(0) is Phase.CATCHING_UP)


@with_owner
async def test_a_partition_that_is_revoked_while_its_store_opens_is_not_owned(owner):
    owner.start(owner.assignment.open_assigned())
    owner.consumer.assigned = {CLICKS}
    await owner.assignment.on_partitions_assigned([CLICKS])
    await asyncio.sleep(0)
    await owner.revoke()
    await asyncio.sleep(0.3)

    def can_be_opened() -> bool:
        try:
            PartitionStores(owner.config).open(0, owner.log).close()
        except StateError:  # the opener's thread still has it
            return False
        return True

    await until(can_be_opened)
    assert owner.assignment.stores == {}


@with_owner
async def test_a_partition_that_is_assigned_again_while_its_store_opens_catches_up_with_the_log_as_it_is_then(owner):
    real, opening, may_open = PartitionStores.open, threading.Event(), threading.Event()

    def slow(stores, number, its_log):
        opening.set()
        may_open.wait(10)
        return real(stores, number, its_log)

    owner.monkeypatch.setattr(PartitionStores, "open", slow)
    owner.start(owner.assignment.open_assigned())
    owner.consumer.assigned = {CLICKS}
    await owner.assignment.on_partitions_assigned([CLICKS])
    await until(opening.is_set)
    await owner.revoke()
    owner.log = owner.log._replace(end=20)  # another worker owned it for a while, and answered as far as this
    owner.consumer.assigned = {CLICKS}
    await owner.assignment.on_partitions_assigned([CLICKS])
    may_open.set()
    await until(lambda: owner.assignment.phase(0) is Phase.CATCHING_UP)
    owner.consumer.positions[CLICKS] = 10
    assert not await owner.assignment.catch_up()
    owner.consumer.positions[CLICKS] = 20
    assert await owner.assignment.catch_up()


@with_owner
async def test_a_damaged_store_that_was_replaced_while_its_reopening_waited_is_not_moved_aside_again(owner):
    await answering(owner)
    async with owner.assignment.hold(0) as store:
        raise StoreUnreadable("Corruption", store.path)
    uploaded = asyncio.Event()

    async def copy() -> None:
        async with owner.assignment.keep_open():
            await uploaded.wait()

    async with owner.assignment.keep_open():
        revoking = asyncio.create_task(owner.revoke())
        await asyncio.sleep(0)
        copying = asyncio.create_task(copy())
        reopening = asyncio.create_task(owner.assignment.reopen_faulted())
        await asyncio.sleep(0.02)
    await revoking
    await owner.assign()
    add_events(owner.assignment.stores[0], 5)
    uploaded.set()
    await asyncio.gather(copying, reopening)
    assert owner.assignment.phase(0) is Phase.CATCHING_UP
    assert owner.assignment.stores[0].progress.next_offset == 5
    assert list(owner.config.data.glob("aside-*")) == []


@with_owner
async def test_a_partition_that_is_revoked_before_its_faulted_store_closes_is_not_opened_again(owner):
    await answering(owner)
    async with owner.assignment.hold(0):
        owner.assignment.reopen_soon(0, "another log")
        revoking = asyncio.create_task(owner.revoke())
        await asyncio.sleep(0)
        reopening = asyncio.create_task(owner.assignment.reopen_faulted())
        await asyncio.sleep(0.02)
    await asyncio.gather(revoking, reopening)
    assert owner.assignment.phase(0) is None


@with_owner
async def test_a_pause_stops_reading_clicks_until_it_ends_also_of_a_store_that_opens_meanwhile(owner):
    await answering(owner)
    owner.assignment.pause(True)
    assert owner.consumer.paused == {CLICKS}
    owner.assignment.reopen_soon(0, "another log")
    await owner.assignment.reopen_faulted()
    await until(lambda: owner.assignment.phase(0) is Phase.CATCHING_UP)
    assert owner.consumer.paused == {CLICKS}
    owner.assignment.pause(False)
    assert owner.consumer.paused == set()


@with_owner
async def test_a_completed_rebuild_replaces_the_open_store(owner):
    rebuilt = PartitionStores(owner.config).open(0, owner.log)
    add_events(rebuilt, 7)
    path = rebuilt.path
    rebuilt.close()
    shutil.move(path, rebuilt_path(path))
    await answering(owner)
    assert await owner.assignment.swap() == 0
    assert owner.assignment.stores[0].progress.next_offset == 7, "it was waiting when the store was opened"
    shutil.copytree(path, rebuilt_path(path), ignore=shutil.ignore_patterns("LOCK"))
    add_events(owner.assignment.stores[0], 2)
    assert await owner.assignment.swap() == 1
    await until(lambda: owner.assignment.phase(0) is Phase.CATCHING_UP)
    assert owner.assignment.stores[0].progress.next_offset == 7


@with_owner
async def test_on_change_is_called_after_a_store_was_opened_or_closed(owner):
    calls = []
    owner.assignment.on_change = lambda: calls.append(len(owner.assignment.stores))
    await owner.assign()
    await owner.revoke()
    assert calls == [1, 0]
