"""Commands as workers and trainers receive them: each command once, and none whose sender no longer waits.

A process that is just starting can miss a message. So the sender repeats a command until a reply comes
(`stream.operate.send_command`), and the receiver drops the repetitions.

Faust reads on where a worker stopped, perhaps days ago. A `pause` of then is not carried out now: its sender was
answered that nobody replied. A command is carried out until its sender stops waiting:

    the record's time is its producer's     until `expires_ts`, by the sender's clock and this one
    it is the broker's (LogAppendTime)      for as long as the sender waits, from the broker's time on: the sender's
                                            clock does not matter, and a repetition begins the time again
    without `expires_ts`                    for MAX_AGE_S from the record's time on

None lives longer than MAX_LIFE_S, whatever it says: a sender whose clock is a day ahead would else pause a worker that
is started tomorrow.
"""

import logging
import time
from collections import deque
from typing import NamedTuple

import msgspec

from state.signing import Keys
from stream.kafka.click_values import Invalid, read_identifier
from stream.kafka.messages import UNREADABLE, Command
from stream.kafka.rarely import Rarely
from stream.kafka.signing import refusal

log = logging.getLogger("anabranch.commands")

MAX_ACCEPTED_IDS = 100
"""Newest command ids whose repetitions are dropped."""
MAX_AGE_S = 15.0
"""Age after which a command of an older sender, which waited this long, is not carried out."""
MAX_LIFE_S = 1800.0
"""No sender waits longer, and a record's time is at most as far ahead of this machine's clock."""


class RecordTime(NamedTuple):
    """The timestamp of a record."""

    ms: int
    is_brokers: bool
    """Whether the broker set it (`message.timestamp.type=LogAppendTime`)."""


class Expired(Exception):
    """A command whose sender no longer waits. The message is for the log and for the reply."""

    def __init__(self, command: Command, message: str) -> None:
        super().__init__(message)
        self.command = command


class Commands:
    """Drops the repetitions of recently accepted commands, and expired ones."""

    def __init__(self, keys: Keys = ()) -> None:
        self._keys = keys
        self._accepted: deque[str] = deque(maxlen=MAX_ACCEPTED_IDS)
        self._expired: deque[str] = deque(maxlen=MAX_ACCEPTED_IDS)
        self._junk, self._rarely = 0, Rarely()

    def accept(self, value: bytes | None, sent: RecordTime | None = None) -> Command | None:
        """The command in a message; None if the message holds none, or it was accepted before.

        `sent` is the record's time; None: now. Raises Expired, once for each command.
        """
        try:
            command = msgspec.json.decode(value or b"", type=Command)
            for name in ("id", "command"):
                read_identifier(getattr(command, name), name)
        except (*UNREADABLE, Invalid) as error:
            self._junk += 1
            if self._rarely.may_log():
                log.warning(
                    "commands topic: a message is not a command and is skipped, %d so far: %s", self._junk, error
                )
            return None
        if (refused := refusal(command, self._keys)) is not None:
            if self._rarely.may_log("refused"):
                log.warning("command %.80r is not carried out: %s", command.command, refused)
            return None
        if command.id in self._accepted:
            return None
        if sent is not None and (why := _not_now(command, sent)) is not None:
            if command.id in self._expired:
                return None
            self._expired.append(command.id)
            raise Expired(command, why)
        self._accepted.append(command.id)
        return command


def _not_now(command: Command, sent: RecordTime) -> str | None:
    """Why the command is not carried out now; None if it is."""
    now_s = time.time()
    if (ahead_s := sent.ms / 1000 - now_s) > MAX_LIFE_S:
        return (
            f"{command.command!r} is not carried out: its record is {ahead_s:.0f} s ahead of this machine's clock. Set "
            f"the clocks, and send it again"
        )
    if (late_s := now_s - expires_ms(command, sent) / 1000) > 0:
        return (
            f"{command.command!r} is not carried out: it expired {late_s:.0f} s before it was read. Send it again "
            f"if it is still wanted; if it was sent just now, the clocks of the machines differ"
        )
    return None


def expires_ms(command: Command, sent: RecordTime) -> int:
    """The time, ms of this machine's clock, until which a command is carried out."""
    if not command.expires_ts:
        return sent.ms + int(MAX_AGE_S * 1000)
    expires = command.expires_ts
    if sent.is_brokers and command.sent_ts:
        expires = sent.ms + command.expires_ts - command.sent_ts
    return min(expires, sent.ms + int(MAX_LIFE_S * 1000))
