"""Commands of an operator to the workers: pause, resume, copy (for a backup) and swap (after a replay)."""

import logging
import re

from state.errors import StateError
from stream.config import Config
from stream.kafka.commands import Commands, Expired, RecordTime
from stream.kafka.messages import Command, CommandReply
from stream.kafka.rarely import Rarely
from stream.stores.assignment import Assignment
from stream.stores.checkpoints import COPIES_FOLDER, Checkpoints

COPY_ID = re.compile(r"[0-9a-f]{32}")
"""The id of a copy names its folder, so no other id may come near a path."""
log = logging.getLogger("anabranch.worker")

OF_WORKERS = ("pause", "resume", "copy", "swap")


class OperatorCommands:
    """Carries out the commands that are for this worker, each once."""

    def __init__(self, config: Config, assignment: Assignment, checkpoints: Checkpoints) -> None:
        self._config, self._assignment, self._checkpoints = config, assignment, checkpoints
        self._received, self._rarely = Commands(config.kafka.signing_keys), Rarely()

    async def on_command(self, value: bytes | None, sent: RecordTime | None = None) -> CommandReply | None:
        """Carry out a command, and return its outcome; None where it is not for this worker, or a repetition.

        `sent` is the record's time; None: now.
        """
        worker = f"worker {self._config.worker.instance}"
        try:
            command = self._received.accept(value, sent)
        except Expired as expired:
            if expired.command.command not in OF_WORKERS:
                return None
            if self._rarely.may_log():
                log.warning("command %s", expired)
            return CommandReply(expired.command.id, "expired", f"{worker}: {expired}")
        if command is None:
            return None
        try:
            done = await self._carry_out(command)
        except StateError as error:
            return CommandReply(command.id, "failed", f"{worker}: {error}")
        return CommandReply(command.id, "done", f"{worker}: {done}") if done else None

    async def _carry_out(self, command: Command) -> str | None:
        if command.command in ("pause", "resume"):
            self._assignment.pause(command.command == "pause")
            return f"{command.command}d"
        if command.command == "copy" and COPY_ID.fullmatch(command.id):
            folder = self._config.data / COPIES_FOLDER / command.id
            if folder.exists():  # the command line made it on the data directory that it means
                return f"copied {await self._checkpoints.copy_all(folder)} partitions"
        if command.command == "swap" and (swapped := await self._assignment.swap()):
            return f"swapped {swapped} partitions"
        return None
