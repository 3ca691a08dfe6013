"""Commands as workers and trainers receive them: each command once.

A process that is just starting can miss a message. So the sender repeats a command until a reply comes
(`stream.operate.send_command`), and the receiver drops the repetitions.
"""

import logging
from collections import deque

import msgspec

from state.signing import Keys
from stream.kafka.messages import UNREADABLE, Command
from stream.kafka.signing import refusal

log = logging.getLogger("anabranch.commands")

MAX_ACCEPTED_IDS = 100
"""Newest command ids whose repetitions are dropped."""


class Commands:
    """Drops the repetitions of recently accepted commands."""

    def __init__(self, keys: Keys = ()) -> None:
        self._keys = keys
        self._accepted: deque[str] = deque(maxlen=MAX_ACCEPTED_IDS)

    def accept(self, value: bytes | None) -> Command | None:
        """The command in a message; None if the message holds none, or it was accepted before."""
        try:
            command = msgspec.json.decode(value or b"", type=Command)
        except UNREADABLE as error:
            log.warning("commands topic: a message is not a command and is skipped: %s", error)
            return None
        if (refused := refusal(command, self._keys)) is not None:
            log.warning("command %.80r is not carried out: %s", command.command, refused)
            return None
        if command.id in self._accepted:
            return None
        self._accepted.append(command.id)
        return command
