"""A command counts once, however often it is said."""

from stream.kafka.commands import KEPT, Commands
from stream.kafka.messages import Command, encode


def test_a_command_said_again_is_not_obeyed_again():
    commands, said = Commands(), encode(Command("pause", "1"))
    assert commands.heard(said) == Command("pause", "1")
    assert commands.heard(said) is None
    assert commands.heard(encode(Command("pause", "2"))) == Command("pause", "2")


def test_what_is_no_command_is_passed_over():
    commands = Commands()
    assert commands.heard(None) is None
    for junk in (b"not json", b"[" * 5000, b'{"command": "caf\xe9"}'):
        assert commands.heard(junk) is None


def test_what_is_remembered_is_bounded():
    commands = Commands()
    for number in range(KEPT + 1):
        commands.heard(encode(Command("pause", str(number))))
    assert commands.heard(encode(Command("pause", "0"))) is not None
    assert commands.heard(encode(Command("pause", str(KEPT)))) is None
