"""Commands to retrain: each is answered when it comes, while its cycle runs, and when the cycle has ended."""

import logging

from aiokafka.errors import KafkaError

from stream.config import Config
from stream.kafka.commands import Commands, Expired, RecordTime
from stream.kafka.messages import Command, CommandReply, encode
from stream.kafka.rarely import Rarely
from stream.trainer.champion import Publisher

log = logging.getLogger("anabranch.trainer")


class CommandQueue:
    """Commands that wait for the next cycle, and those that the running cycle answers."""

    def __init__(self, config: Config, publisher: Publisher) -> None:
        self._config, self._publisher = config, publisher
        self._commands, self._rarely = Commands(config.kafka.signing_keys), Rarely()
        self._running: list[Command] = []
        self.waiting: list[Command] = []

    async def on_command(self, value: bytes | None, busy: str | None, sent: RecordTime | None = None) -> None:
        """Queue the command in a message. `busy` describes the running cycle; None if none runs."""
        try:
            command = self._commands.accept(value, sent)
        except Expired as expired:
            if expired.command.command == "retrain":
                if self._rarely.may_log():
                    log.warning("command %s", expired)
                await self._reply(expired.command, "expired", f"trainer: {expired}")
            return
        if command is None or command.command != "retrain":
            return
        self.waiting.append(command)
        if busy is None:
            await self._reply(command, "started", "a cycle begins")
        else:
            await self._reply(command, "waiting", f"{busy}; yours begins when it has ended")

    def start_cycle(self) -> None:
        """The cycle that begins now answers everything that waits."""
        self._running, self.waiting = self.waiting, []

    @property
    def shadow(self) -> bool:
        """Whether the running cycle's candidate will be scored instead of served."""
        return any(command.shadow for command in self._running)

    async def report_progress(self, what: str, share: float) -> None:
        """Answer with the progress of the running cycle."""
        for command in self._running:
            await self._reply(command, "progress", what, share=share)

    async def finish(self, status: str, message: str, version: str | None = None) -> None:
        """Answer with the result of the cycle."""
        finished, self._running = self._running, []
        for command in finished:
            await self._reply(command, status, message, version)

    async def fail_all(self, message: str) -> None:
        """Answer that the cycle failed, to commands that wait too."""
        self._running, self.waiting = self._running + self.waiting, []
        await self.finish("failed", message)

    async def _reply(
        self, command: Command, status: str, message: str, version: str | None = None, share: float | None = None
    ) -> None:
        """Answer; a broker that is away does not stop the learning."""
        reply = CommandReply(command.id, status, message, version, share)
        topic = self._config.topics.command_replies
        try:
            await self._publisher.send_and_wait(topic, encode(reply), key=command.id.encode())
        except KafkaError as error:
            log.warning("the reply %r could not be sent: %s", message, error)
