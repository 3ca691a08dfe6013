"""Signatures: HMAC-SHA256 with a secret that only this installation knows.

A signature covers the purpose of its data: a signed manifest is no signed pointer.
"""

import hashlib
import hmac

Keys = tuple[str, ...]
"""Secrets. The first one signs; each of them verifies, so that a key can be replaced. Empty: nothing is signed."""


def sign(keys: Keys, purpose: str, data: bytes) -> str:
    """The signature of data, as a hex digest; empty without a key."""
    return _digest(keys[0], purpose, data) if keys else ""


def is_signed(keys: Keys, purpose: str, data: bytes, signature: str) -> bool:
    """Whether one of the keys made the signature; always true without a key."""
    made = signature.encode(errors="replace")
    return not keys or any(hmac.compare_digest(_digest(key, purpose, data).encode(), made) for key in keys)


def _digest(key: str, purpose: str, data: bytes) -> str:
    return hmac.new(key.encode(), purpose.encode() + b"\0" + data, hashlib.sha256).hexdigest()
