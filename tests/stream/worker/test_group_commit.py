"""A static member that was replaced by another worker with its id ends, and takes nothing back."""

import msgspec
import pytest
from aiokafka.errors import CommitFailedError, IllegalGenerationError, UnknownMemberIdError

from stream.config import WorkerSettings
from stream.errors import GroupInstanceTaken
from stream.worker.group_commit import GroupCommit
from tests.stream.worker.test_pipeline import Shop, with_shop


def group_commit(shop: Shop, group_instance_id: str, refused_because: type[Exception]) -> GroupCommit:
    """The commits of a worker whose broker refuses them."""

    async def commit(offsets):
        raise CommitFailedError from refused_because()

    shop.consumer.commit = commit
    worker = WorkerSettings(group_instance_id=group_instance_id)
    config = msgspec.structs.replace(shop.config, worker=worker)
    return GroupCommit(config, shop.consumer, shop.assignment, shop.lease)


@with_shop
async def test_an_unknown_member_that_is_static_was_replaced_and_ends(shop):
    commits = group_commit(shop, "shop-7", UnknownMemberIdError)
    with pytest.raises(GroupInstanceTaken, match="another worker has joined the group 'anabranch' as 'shop-7'"):
        await commits.commit_if_due()


@with_shop
async def test_a_rebalance_ends_no_static_member(shop):
    assert not await group_commit(shop, "shop-7", IllegalGenerationError).commit_if_due()


@with_shop
async def test_a_static_member_that_was_away_for_longer_than_its_session_joins_again(shop):
    shop.lease.held = False
    assert not await group_commit(shop, "shop-7", UnknownMemberIdError).commit_if_due()


@with_shop
async def test_a_member_that_is_not_static_joins_again(shop):
    assert not await group_commit(shop, "", UnknownMemberIdError).commit_if_due()
