"""A server that listens on this machine only answers to the names of this machine only.

A page of another site can let its own name mean 127.0.0.1 (DNS rebinding). A browser then takes our answers for that
site's own, and lets the page read them.
"""

from urllib.parse import urlsplit

LOOPBACK_ADDRESSES = ("127.", "localhost", "[::1]", "::1")
NAMES = frozenset({"localhost", "::1"})


def on_this_machine(http: str) -> bool:
    """Whether only this machine reaches a server that listens on `http`."""
    return http.startswith(LOOPBACK_ADDRESSES)


def foreign_name(http: str, host: str) -> str | None:
    """The name in the header `Host`, where a server that listens on `http` must not answer to it; else None.

    >>> foreign_name("127.0.0.1:8080", "evil.example:8080"), foreign_name("127.0.0.1:8080", "localhost:8080")
    ('evil.example', None)
    >>> foreign_name(":8080", "shop.example")
    """
    if not on_this_machine(http):
        return None
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = host
    is_ours = name in NAMES or (name.startswith("127.") and name.replace(".", "").isdecimal())
    return None if is_ours else name
