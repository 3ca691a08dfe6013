"""Bearer tokens and what each allows. A token is compared in constant time, and is in no log and no answer."""

import hashlib
import hmac
from typing import Literal, NamedTuple

from stream.config import RIGHTS, ServeSettings
from stream.http.problems import Problem

Right = Literal["read", "write", "operate"]

REALM = 'Bearer realm="anabranch"'
SETTINGS: dict[Right, str] = {right: f"serve.{right}_token" for right in RIGHTS}


class Caller(NamedTuple):
    """Who sent a request, as far as its token says."""

    name: str
    """A short hash of the token, which differs between callers and shows nothing of the token; empty without one."""
    rights: frozenset[Right]
    refused: bool = False
    """Whether it sent a token that is not known."""


class Tokens:
    """The configured tokens."""

    def __init__(self, settings: ServeSettings) -> None:
        self._known: list[tuple[bytes, frozenset[Right]]] = []
        for right in RIGHTS:
            rights: frozenset[Right] = frozenset(RIGHTS) if right == "operate" else frozenset({right})
            self._known += [(_digest(token), rights) for token in settings.tokens(right)]
        self._required = frozenset(right for right in RIGHTS if settings.tokens(right))
        self._anonymous: frozenset[Right] = frozenset() if settings.read_token else frozenset({"read"})

    def caller(self, authorization: str | None) -> Caller:
        """The caller with this value of the header `Authorization`. A scheme that is not Bearer counts as no token."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return Caller("", self._anonymous)
        return self.holder(token.strip())

    def holder(self, token: str) -> Caller:
        """The caller who holds a token."""
        given, rights = _digest(token), frozenset[Right]()
        for known, its in self._known:  # every one is compared: the time does not depend on which one matches
            if hmac.compare_digest(given, known):
                rights |= its
        return Caller(given.hex()[:8] if rights else "", rights | self._anonymous if rights else rights, not rights)

    def require(self, caller: Caller, right: Right) -> None:
        """Raise Problem unless the caller has the right."""
        if caller.refused:
            challenge = f'{REALM}, error="invalid_token"'
            raise Problem(401, "The token is not known.", {"WWW-Authenticate": challenge})
        if right in caller.rights:
            return
        if not caller.name and (right in self._required or "operate" in self._required):
            raise Problem(
                401, f"This needs a token that allows to {right}. Send it as Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": REALM},
            )  # fmt: skip
        if right not in self._required:
            raise Problem(403, f"Nobody may {right}: {SETTINGS[right]} is not set.")
        raise Problem(
            403, f"The token does not allow to {right}.",
            {"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{right}"'},
        )  # fmt: skip


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
