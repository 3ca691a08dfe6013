"""Commands of an operator: carried out once, by the worker that they are for."""

import asyncio

from stream.config import Config
from stream.kafka.commands import RecordTime
from stream.kafka.messages import Command, CommandReply, encode
from stream.stores.checkpoints import COPIES_FOLDER, Checkpoints
from stream.worker.operator_commands import OperatorCommands
from tests.stream.fakes import CLICKS, Owner
from tests.stream.stores.test_partition_stores import add_events

COPY_ID = "6" * 32


def test_a_command_is_carried_out_once_and_its_outcome_returned(tmp_path, monkeypatch):
    config = Config(data=tmp_path)

    async def run() -> None:
        owner = Owner(config, monkeypatch)
        await owner.assign()
        add_events(owner.assignment.stores[0], 3)
        commands = OperatorCommands(config, owner.assignment, Checkpoints(config, owner.assignment, owner.lease))

        async def reply(command: str, number: str) -> CommandReply | None:
            return await commands.on_command(encode(Command(command, number)))

        assert await reply("pause", "1") == CommandReply("1", "done", "worker 0: paused")
        assert owner.consumer.paused == {CLICKS}
        assert await reply("pause", "1") is None, "it was sent again before the reply was read"
        assert await reply("resume", "2") == CommandReply("2", "done", "worker 0: resumed")
        assert owner.consumer.paused == set()
        assert await reply("retrain", "3") is None, "that is for the trainer"
        assert await reply("swap", "4") is None, "no rebuild is complete"
        assert await reply("copy", "5") is None, "it is for a worker on another data directory"
        (config.data / COPIES_FOLDER / COPY_ID).mkdir(parents=True)
        assert await reply("copy", COPY_ID) == CommandReply(COPY_ID, "done", "worker 0: copied 1 partitions")
        assert (config.data / COPIES_FOLDER / COPY_ID / "clicks-0" / "CURRENT").exists()
        assert await commands.on_command(b"no command") is None
        old = RecordTime(1_700_000_000_000, False)
        expired = await commands.on_command(encode(Command("pause", "7")), old)
        assert (expired.id, expired.status) == ("7", "expired")
        assert "worker 0: 'pause' is not carried out" in expired.message
        assert owner.consumer.paused == set()
        assert await commands.on_command(encode(Command("retrain", "8")), old) is None, "the trainer replies to that"
        await owner.close()

    asyncio.run(run())


PATHS = ["", ".", "..", "../../outside", "/etc", "6" * 31, "6" * 33, "G" * 32, "6" * 32 + "\n", "6" * 32 + "/.."]


def test_the_id_of_a_copy_is_no_path(tmp_path, monkeypatch):
    config = Config(data=tmp_path / "data")

    async def run() -> None:
        owner = Owner(config, monkeypatch)
        await owner.assign()
        add_events(owner.assignment.stores[0], 3)
        commands = OperatorCommands(config, owner.assignment, Checkpoints(config, owner.assignment, owner.lease))
        (config.data / COPIES_FOLDER).mkdir(parents=True)
        (tmp_path / "outside").mkdir()
        for path in PATHS:
            assert await commands.on_command(encode(Command("copy", path))) is None, path
        await owner.close()

    asyncio.run(run())
    assert list((tmp_path / "outside").iterdir()) == list((config.data / COPIES_FOLDER).iterdir()) == []
