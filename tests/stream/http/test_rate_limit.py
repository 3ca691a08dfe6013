"""A client that sends more than it may waits; others do not."""

import pytest

from stream.http.rate_limit import MAX_CLIENTS, RateLimit, address_of


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_client_may_send_two_seconds_at_once_and_then_its_rate():
    clock = Clock()
    limit = RateLimit(10.0, clock)
    assert [limit.wait_s("ann") for _ in range(20)] == [0] * 20
    assert limit.wait_s("ann") == 1
    assert limit.wait_s("bob") == 0, "another client"
    clock.now += 0.5
    assert [limit.wait_s("ann") for _ in range(6)] == [0] * 5 + [1]


def test_the_wait_is_as_long_as_a_request_takes_to_be_free():
    clock = Clock()
    limit = RateLimit(0.1, clock)
    assert limit.wait_s("ann") == 0
    wait_s = limit.wait_s("ann")
    assert wait_s == 10
    clock.now += wait_s
    assert limit.wait_s("ann") == 0


def test_no_limit_and_a_clock_that_stands_still():
    limit = RateLimit(0.0, Clock())
    assert {limit.wait_s("ann") for _ in range(10_000)} == {0}


def test_many_clients_take_bounded_memory():
    limit = RateLimit(1.0, Clock())
    for number in range(MAX_CLIENTS + 10):
        limit.wait_s(str(number))
    assert limit.wait_s("0") == 0, "forgotten, so full again"


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "address"),
    [
        ("1.2.3.4", [], 0, "1.2.3.4"),
        ("1.2.3.4", ["6.6.6.6"], 0, "1.2.3.4"),
        ("10.0.0.1", ["1.2.3.4"], 1, "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6, 1.2.3.4"], 1, "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6", "1.2.3.4, 10.0.0.2"], 2, "1.2.3.4"),
        ("10.0.0.1", [], 1, "10.0.0.1"),
        ("10.0.0.1", ["nonsense"], 1, "unknown"),
        ("10.0.0.1", ["1.2.3.4:50000"], 1, "1.2.3.4"),
        ("10.0.0.1", ["[2001:db8::1]:50000"], 1, "2001:db8::/64"),
        ("2001:db8::1", [], 0, "2001:db8::/64"),
        ("::ffff:1.2.3.4", [], 0, "1.2.3.4"),
        ("fe80::1%eth0", [], 0, "fe80::/64"),
        (None, [], 0, "unknown"),
    ],
)
def test_a_client_is_the_address_that_our_own_proxies_saw(peer, forwarded, proxies, address):
    assert address_of(peer, forwarded, proxies) == address
