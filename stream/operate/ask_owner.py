"""A user, an item or a recommendation, asked of the workers that own it. It needs nothing but the broker."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from stream.config import Config
from stream.errors import AnabranchError
from stream.kafka.ask import Everywhere, NotAnswered, RequestClient
from stream.kafka.documents import Document, ItemReport, UserReport, merge_items
from stream.kafka.messages import Recommendation, Reply, Request
from stream.members.follow import read_members
from stream.members.installation import claims, explain_away
from stream.members.sightings import SeenMember
from stream.operate.lookup import MAX_FOLLOWERS

ANSWER_WITHIN_S = 3.0

T = TypeVar("T")


class ItemAnswer(NamedTuple):
    """What the workers answered, and why nothing came from some partitions."""

    item: ItemReport
    missing: list[str]


def ask_recommendation(config: Config, user: str) -> Recommendation:
    """What the owner of a user recommends now. Raises NotAnswered, which says who owned the user and why nothing
    came; BrokerUnavailable, TopicMismatch."""

    async def ask(client: RequestClient) -> Recommendation:
        found = await client.ask(Request(user=user), ANSWER_WITHIN_S)
        assert isinstance(found, Reply)
        return Recommendation(*(getattr(found, name) for name in Recommendation.__struct_fields__))

    return _asked(config, ask)


def ask_user(config: Config, user: str) -> UserReport:
    """What the owner of a user knows of it. Raises as `ask_recommendation`.

    Where that partition has no events of the user, the others are asked too: producers may have a partitioner of their
    own.
    """
    request = Request(user=user, want="user")

    async def ask(client: RequestClient) -> UserReport:
        number = client.partition_of(user)
        found = await client.ask(request, ANSWER_WITHIN_S)
        assert isinstance(found, Document)
        assert found.user is not None
        if found.user.sequence or found.user.recommended:
            return found.user
        others = await client.ask_all(request, ANSWER_WITHIN_S, [n for n in client.partitions if n != number])
        reports = [document.user for _, document in sorted(others.documents.items()) if document.user is not None]
        having = [report for report in reports if report.sequence]
        if not having:
            return found.user
        having[0].partitions = [n for report in having for n in report.partitions]
        return having[0]

    return _asked(config, ask)


def ask_item(config: Config, item: str) -> ItemAnswer:
    """What all partitions know of an item. Raises NotAnswered where none answers; BrokerUnavailable, TopicMismatch."""

    async def ask(client: RequestClient) -> Everywhere:
        found = await client.ask_all(Request(item=item, want="item"), ANSWER_WITHIN_S)
        if not found.documents:
            raise NotAnswered("no worker answers", next(iter(found.missing)))
        return found

    found = _asked(config, ask)
    parts = [document.item for document in found.documents.values() if document.item is not None]
    return ItemAnswer(merge_items(parts, MAX_FOLLOWERS, config.state), list(found.missing.values()))


def _asked(config: Config, ask: Callable[[RequestClient], Awaitable[T]]) -> T:
    async def run() -> T:
        client = RequestClient(config)
        await client.start()
        members = asyncio.create_task(read_members(config))
        try:
            return await ask(client)
        except NotAnswered as error:
            if error.replied:
                raise
            why = None
            with contextlib.suppress(AnabranchError):
                why = explain(error.partition, await members)
            raise NotAnswered(why or str(error), error.partition) from None
        finally:
            members.cancel()
            await asyncio.wait([members])
            if not members.cancelled():
                members.exception()
            await client.stop()

    return asyncio.run(run())


def explain(partition: int, members: list[SeenMember]) -> str | None:
    """Who serves a partition, or did, and why it does not answer; None where that is not known."""
    claim = claims(members).get(partition)
    if claim is None:
        return f"nobody serves partition {partition}" if members else None
    member = claim.by.member
    if not claim.by.lives:
        return f"nobody serves partition {partition}: {explain_away(claim.by)}"
    doing = claim.by.doing if claim.by.doing != "running" else claim.state.phase
    return (
        f"partition {partition} is served by {member.kind} {member.instance} on {member.host}, which did not answer "
        f"within {ANSWER_WITHIN_S:g} s ({doing})"
    )
