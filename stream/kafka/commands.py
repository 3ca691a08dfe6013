"""Commands as workers and trainers hear them: each once.

A listener that is just starting may miss what is said, so who asks says it again until somebody answers.
"""

import logging
from collections import deque

import msgspec

from stream.kafka.messages import UNREADABLE, Command

log = logging.getLogger("anabranch.commands")

KEPT = 100
"""Commands whose repetition is known as one."""


class Commands:
    """What was heard lately."""

    def __init__(self) -> None:
        self._heard: deque[str] = deque(maxlen=KEPT)

    def heard(self, value: bytes | None) -> Command | None:
        """The command in a message; None where it is none, or was heard before."""
        try:
            command = msgspec.json.decode(value or b"", type=Command)
        except UNREADABLE as error:
            log.warning("commands topic: no command: %s", error)
            return None
        if command.id in self._heard:
            return None
        self._heard.append(command.id)
        return command
