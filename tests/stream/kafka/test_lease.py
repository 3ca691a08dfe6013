"""A worker answers for its partitions only while no other worker can own them."""

import asyncio
from types import SimpleNamespace

import pytest

from stream.config import TopicSettings
from stream.kafka.lease import Lease
from stream.worker.outbox import LeaseLost, Outbox


def test_a_lease_is_held_from_the_first_confirmation_for_a_session_timeout(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(Lease, "now", staticmethod(lambda: clock[0]))
    lease = Lease(6_000)
    assert not lease.held
    lease.confirmed(asked_at=99.0)
    assert lease.held
    clock[0] = 104.9
    assert lease.held
    clock[0] = 105.1  # the session began with the request, not with the answer
    assert not lease.held
    lease.confirmed(asked_at=90.0)  # a late answer to an old request confirms nothing
    assert not lease.held


def test_a_worker_without_a_lease_sends_nothing():
    sent: list[object] = []

    class Producer:
        async def send(self, *message: object, **more: object) -> None:
            sent.append(message)

    outbox = Outbox(TopicSettings(), Producer(), Lease(6_000))
    answer = SimpleNamespace(message=b"{}", user_id=b"ann")
    with pytest.raises(LeaseLost):
        asyncio.run(outbox.recommend([answer]))
    assert sent == []
