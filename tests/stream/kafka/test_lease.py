"""A worker answers for its partitions only while no other worker can own them."""

from stream.kafka.lease import Lease


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
