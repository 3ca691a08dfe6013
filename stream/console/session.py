"""Who may look and who may act: a token, typed once, becomes a signed cookie.

Nothing is kept in memory: any process with the same tokens knows the cookie, also after a restart. A cookie is signed
with the token that was typed. So it ends with its token, and after SESSION_S.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Right = Literal["look", "operate"]

COOKIE = "anabranch_console"
SESSION_S = 12 * 3600
TRIES, TRIES_WITHIN_S = 5, 60.0
"""Wrong tokens from one address, and the time within which they count."""
MAX_TRIES, MAX_ADDRESSES = 60, 10_000
"""Wrong tokens from all addresses together within the same time; addresses that are remembered."""
_COOKIE = re.compile(r"(look|operate)\.([0-9]{1,12})\.([A-Za-z0-9_-]{22})\.([0-9a-f]{64})")


class Session(NamedTuple):
    """A person who typed a token."""

    right: Right
    csrf: str
    """The text that a form of this session carries."""


class Sessions:
    """Makes and verifies sessions, from the tokens of the settings."""

    def __init__(self, read: Sequence[str], operate: Sequence[str], now: Callable[[], float] = time.time) -> None:
        self._tokens: dict[Right, Sequence[str]] = {"look": read, "operate": operate}
        self._now = now

    @property
    def looking_is_open(self) -> bool:
        """Whether everybody may look."""
        return not self._tokens["look"]

    @property
    def acting_is_possible(self) -> bool:
        """Whether anybody may act."""
        return bool(self._tokens["operate"])

    def right_of(self, typed: str) -> tuple[Right, str] | None:
        """What a typed token allows, and the token itself; None if it is no token of ours."""
        found: tuple[Right, str] | None = None
        for right, tokens in self._tokens.items():
            for token in tokens:  # all are compared: the time tells nothing
                if hmac.compare_digest(token.encode(), typed.encode()):
                    found = right, token
        return found

    def cookie(self, right: Right, token: str) -> str:
        """The value of the cookie of a new session."""
        text = f"{right}.{int(self._now()) + SESSION_S}.{secrets.token_urlsafe(16)}"
        return f"{text}.{_signature(token, text)}"

    def session(self, cookie: str | None) -> Session | None:
        """The session of a cookie; None if it has ended, or is not ours."""
        found = _COOKIE.fullmatch(cookie or "")
        if found is None or int(found[2]) < self._now():
            return None
        right: Right = "operate" if found[1] == "operate" else "look"
        text = found[0].rpartition(".")[0]
        for token in self._tokens[right]:
            if hmac.compare_digest(_signature(token, text), found[4]):
                return Session(right, _signature(token, f"csrf.{text}"))
        return None


class Attempts:
    """Bounds how often a wrong token can be typed."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._by_address: dict[str, deque[float]] = {}
        self._all: deque[float] = deque(maxlen=MAX_TRIES)

    def wait_s(self, address: str) -> float:
        """Seconds until this address may try again; 0: now."""
        since = self._now() - TRIES_WITHIN_S
        own = self._by_address.get(address, deque())
        waits = [tries[-most] - since for tries, most in ((own, TRIES), (self._all, MAX_TRIES)) if len(tries) >= most]
        return max(0.0, *waits) if waits else 0.0

    def wrong(self, address: str) -> None:
        """Count a wrong token."""
        now = self._now()
        tries = self._by_address.pop(address, deque(maxlen=TRIES))
        tries.append(now)
        self._all.append(now)
        self._by_address[address] = tries  # the newest is last
        if len(self._by_address) > MAX_ADDRESSES:
            del self._by_address[next(iter(self._by_address))]


def _signature(token: str, text: str) -> str:
    return hmac.new(hashlib.sha256(f"anabranch console {token}".encode()).digest(), text.encode(), "sha256").hexdigest()
