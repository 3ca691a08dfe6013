"""A worker speaks for its partitions only while no other can own them."""

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
    clock[0] = 105.1  # the session began when the question was asked, not when it was answered
    assert not lease.held
    lease.confirmed(asked_at=90.0)  # an answer that was long under way confirms nothing
    assert not lease.held
