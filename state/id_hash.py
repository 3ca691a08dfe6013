"""How ids become the 64-bit hashes that records hold: with the installation's secret key.

Without the key nobody can compute a hash, so nobody can make an id whose hash is another user's. Such an id would read
that user's events, and a `forget` of it would erase that user. An installation from before the key has none. Its ids
are hashed by xxh3, which anybody can compute, until it gets a key (docs/operating.md).

By chance, two of n ids have the same hash with probability n² / 2^65: 3e-8 for a million, 3e-4 for a hundred million,
0.03 for a billion.
"""

import hashlib
import secrets

import numpy as np
import xxhash

from state.events import Ids, hash_ids

KEY_BYTES = 16
KEY_PATTERN = "^([0-9a-f]{32})?$"
"""A key in hexadecimal; empty: none."""
MAX_REMEMBERED = 1 << 16
"""Ids whose digests are remembered, some 12 MB. A digest costs 0.5 µs, a remembered one 0.02 µs."""


def new_key() -> str:
    """A new secret key, from the operating system's random numbers."""
    return secrets.token_hex(KEY_BYTES)


class IdHash:
    """The hash of user and item ids under one key. Its text never shows the key."""

    def __init__(self, key: str = "") -> None:
        """`key` is hexadecimal; empty: xxh3 without a key. Raises ValueError for any other text."""
        self.key = key
        self._begun = hashlib.blake2s(digest_size=8, key=bytes.fromhex(key)) if key else None
        self._digests: dict[bytes, bytes] = {}

    @property
    def keyed(self) -> bool:
        """Whether ids are hashed with a key."""
        return bool(self.key)

    @property
    def fingerprint(self) -> str:
        """Names the key and does not reveal it; empty without a key.

        >>> IdHash("00" * 16).fingerprint, IdHash().fingerprint
        ('daf4d2be0cff', '')
        """
        return hashlib.sha256(b"anabranch id key " + self.key.encode()).hexdigest()[:12] if self.key else ""

    def of(self, identifier: str | bytes) -> int:
        """The hash of one id. Never 0, because 0 means "empty" in records."""
        return int(self.of_many([identifier.encode() if isinstance(identifier, str) else identifier])[0])

    def of_many(self, identifiers: list[bytes]) -> Ids:
        """The hashes of many ids, in their order."""
        if self._begun is None:
            return hash_ids(identifiers)
        if len(identifiers) > MAX_REMEMBERED:
            starts = range(0, len(identifiers), MAX_REMEMBERED)
            return np.concatenate([self.of_many(identifiers[at : at + MAX_REMEMBERED]) for at in starts])
        if len(self._digests) > MAX_REMEMBERED:
            self._digests = {}  # another thread may use the one before
        digests, begin = self._digests, self._begun.copy
        for identifier in set(identifiers).difference(digests):
            hashing = begin()
            hashing.update(identifier)
            digests[identifier] = hashing.digest()
        hashes = np.frombuffer(bytearray().join(map(digests.__getitem__, identifiers)), "<u8").astype(np.uint64)
        hashes[hashes == 0] = 1
        return hashes

    def of_repeat(self, user: int, event_id: bytes) -> bytes:
        """16 bytes that find the repeats of a user's event by its `id`. `user` is a hash.

        With a key another user's event of the same id is no repeat: it must not suppress this user's.
        """
        if not self.key:
            return xxhash.xxh3_128_digest(event_id)
        key, text = bytes.fromhex(self.key), user.to_bytes(8, "little") + event_id
        return hashlib.blake2s(text, digest_size=16, key=key, person=b"event id").digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdHash) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"IdHash({self.fingerprint or 'without a key'})"


UNKEYED = IdHash()
"""The hash of installations from before the key, and of evaluations on one's own files."""
