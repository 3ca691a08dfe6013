"""A command is accepted once, however often it is sent."""

from stream.kafka.commands import MAX_ACCEPTED_IDS, Commands
from stream.kafka.messages import Command, encode


def test_a_repeated_command_is_accepted_once():
    commands, message = Commands(), encode(Command("pause", "1"))
    assert commands.accept(message) == Command("pause", "1")
    assert commands.accept(message) is None
    assert commands.accept(encode(Command("pause", "2"))) == Command("pause", "2")


def test_a_message_that_is_not_a_command_is_skipped():
    commands = Commands()
    assert commands.accept(None) is None
    for junk in (b"not json", b"[" * 5000, b'{"command": "caf\xe9"}'):
        assert commands.accept(junk) is None


def test_the_number_of_remembered_ids_is_bounded():
    commands = Commands()
    for number in range(MAX_ACCEPTED_IDS + 1):
        commands.accept(encode(Command("pause", str(number))))
    assert commands.accept(encode(Command("pause", "0"))) is not None
    assert commands.accept(encode(Command("pause", str(MAX_ACCEPTED_IDS)))) is None
