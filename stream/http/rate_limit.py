"""How many requests a client may send: a token bucket for each, and who a client is."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CLIENTS = 20_000
"""Buckets that are kept, those of the newest clients. One that is dropped is full again."""
BURST_S = 2.0
"""A client that was quiet may send the requests of this many seconds at once."""
IPV6_NETWORK = 64
"""Who has one address of IPv6 usually has this network of them."""


class RateLimit:
    """Lets each client send `per_s` requests a second on average; 0: any number."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        self._size = max(1.0, BURST_S * per_s)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Tokens left and when that was so, by client; the one that asked last is the last."""

    def wait_s(self, client: str) -> int:
        """Take one request of the client's bucket; 0, or the seconds after which there is one."""
        if not self._per_s:
            return 0
        now = self._clock()
        left, at = self._buckets.pop(client, (self._size, now))
        left = min(self._size, left + (now - at) * self._per_s)
        allowed = left >= 1.0
        self._buckets[client] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0 if allowed else max(1, math.ceil((1.0 - left) / self._per_s))


def address_of(peer: str | None, forwarded: list[str], proxies: int) -> str:
    """The client's address: the one from which the outermost of our own proxies got the request.

    >>> address_of("10.0.0.1", ["6.6.6.6, 1.2.3.4"], 1)
    '1.2.3.4'
    >>> address_of("2001:db8::1", [], 0)
    '2001:db8::/64'
    """
    address = peer or ""
    if proxies:
        hops = [hop.strip() for line in forwarded for hop in line.split(",") if hop.strip()]
        if hops:
            address = hops[-min(proxies, len(hops))]
    return _network(address)


def _network(address: str) -> str:
    try:
        ip = ipaddress.ip_address(_without_port(address).partition("%")[0])
    except ValueError:
        return "unknown"
    if ip.version == 4:
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip), IPV6_NETWORK), strict=False))


def _without_port(address: str) -> str:
    """Some proxies add the client's port."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address
