"""The last recommendation of each user, from the topic `recommendations`, for when the user's worker does not answer.

The newest of them are kept, in bounded memory. At the start the newest part of the topic is read. A tombstone removes
a user: who was forgotten does not come back.
"""

from collections import OrderedDict

import msgspec

from stream.kafka.messages import UNREADABLE, Recommendation

OVERHEAD_BYTES = 250
"""What the objects of one entry take beyond its text, about."""


class LastRecommendations:
    """Messages by user, those of the users with the newest ones."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._messages: OrderedDict[bytes, bytes] = OrderedDict()
        """The user with the newest message is the last."""

    def __len__(self) -> int:
        return len(self._messages)

    def update(self, user: bytes | None, message: bytes | None) -> None:
        """Take a record of the topic: a newer message of the user, or a tombstone."""
        if user is None:
            return
        before = self._messages.pop(user, None)
        if before is not None:
            self._bytes -= _size(user, before)
        if message is None or _size(user, message) > self._max_bytes:
            return
        self._messages[user] = message
        self._bytes += _size(user, message)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._messages.popitem(last=False))

    def of(self, user: str) -> Recommendation | None:
        """The user's last recommendation; None if there is none here, or it cannot be read."""
        message = self._messages.get(user.encode())
        if message is None:
            return None
        try:
            return msgspec.json.decode(message, type=Recommendation)
        except UNREADABLE:
            return None


def _size(user: bytes, message: bytes) -> int:
    return len(user) + len(message) + OVERHEAD_BYTES
