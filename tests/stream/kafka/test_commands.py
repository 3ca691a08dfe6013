"""A command is accepted once, however often it is sent, and not when its sender no longer waits."""

import time

import pytest

from stream.kafka.commands import MAX_ACCEPTED_IDS, MAX_AGE_S, MAX_LIFE_S, Commands, Expired, RecordTime
from stream.kafka.messages import Command, encode


def test_a_repeated_command_is_accepted_once():
    commands, message = Commands(), encode(Command("pause", "1"))
    assert commands.accept(message) == Command("pause", "1")
    assert commands.accept(message) is None
    assert commands.accept(encode(Command("pause", "2"))) == Command("pause", "2")


JUNK = [b"not json", b"[" * 5000, b'{"command": "caf\xe9"}', b'{"command": "pause", "id": ""}']
JUNK += [b'{"command": "pause", "id": "' + b"x" * 513 + b'"}', b'{"command": "pause", "id": "\\ud800 \\u0041"}']


@pytest.mark.parametrize("junk", [None, *JUNK])
def test_a_message_that_is_not_a_command_is_skipped(junk):
    assert Commands().accept(junk) is None


def test_a_flood_of_junk_is_one_line_in_the_log(caplog):
    commands = Commands()
    for _ in range(1000):
        commands.accept(b"junk")
    assert caplog.text.count("is not a command") == 1


def test_the_number_of_remembered_ids_is_bounded():
    commands = Commands()
    for number in range(MAX_ACCEPTED_IDS + 1):
        commands.accept(encode(Command("pause", str(number))))
    assert commands.accept(encode(Command("pause", "0"))) is not None
    assert commands.accept(encode(Command("pause", str(MAX_ACCEPTED_IDS)))) is None


def is_accepted(*, age_s: float, waits_s: float | None, senders_clock_s: float = 0.0, brokers: bool = False) -> bool:
    """Whether a pause is accepted that was sent `age_s` ago by a sender who waits for `waits_s`.

    None: an older sender, which does not say.
    """
    now_ms = int(time.time() * 1000)
    sent_ms = now_ms - int(age_s * 1000)
    by_sender = sent_ms + int(senders_clock_s * 1000)
    command = Command("pause", "1")
    if waits_s is not None:
        command = Command("pause", "1", sent_ts=by_sender, expires_ts=by_sender + int(waits_s * 1000))
    try:
        return Commands().accept(encode(command), RecordTime(sent_ms if brokers else by_sender, brokers)) is not None
    except Expired:
        return False


@pytest.mark.parametrize("brokers", [False, True])
def test_a_command_is_carried_out_while_its_sender_waits_and_not_later(brokers):
    assert is_accepted(age_s=14, waits_s=15, brokers=brokers)
    assert not is_accepted(age_s=16, waits_s=15, brokers=brokers)
    assert is_accepted(age_s=500, waits_s=600, brokers=brokers)
    assert not is_accepted(age_s=86_400, waits_s=600, brokers=brokers)


def test_a_command_of_an_older_sender_expires_by_the_age_of_its_record():
    assert is_accepted(age_s=MAX_AGE_S - 1, waits_s=None)
    assert not is_accepted(age_s=MAX_AGE_S + 1, waits_s=None)


@pytest.mark.parametrize("senders_clock_s", [-3600, 3600])
def test_a_senders_wrong_clock_does_not_matter_where_the_broker_stamps_the_commands(senders_clock_s):
    assert is_accepted(age_s=1, waits_s=15, senders_clock_s=senders_clock_s, brokers=True)
    assert not is_accepted(age_s=20, waits_s=15, senders_clock_s=senders_clock_s, brokers=True)


@pytest.mark.parametrize("brokers", [False, True])
@pytest.mark.parametrize("waits_s", [86_400.0, 1e15])
def test_no_command_lives_for_days_whatever_it_says(brokers, waits_s):
    assert is_accepted(age_s=MAX_LIFE_S - 1, waits_s=waits_s, brokers=brokers)
    assert not is_accepted(age_s=MAX_LIFE_S + 1, waits_s=waits_s, brokers=brokers)


def test_a_command_of_tomorrow_is_answered_by_what_is_wrong():
    tomorrow_ms = int(time.time() * 1000) + 86_400_000
    message = encode(Command("pause", "1", sent_ts=tomorrow_ms, expires_ts=tomorrow_ms + 15_000))
    with pytest.raises(Expired, match="86400 s ahead of this machine's clock"):
        Commands().accept(message, RecordTime(tomorrow_ms, False))
    assert is_accepted(age_s=-600, waits_s=15), "clocks differ a little"


def test_an_expired_command_is_reported_once_and_its_repetition_is_carried_out():
    commands, now_ms = Commands(), int(time.time() * 1000)
    message = encode(Command("pause", "1", sent_ts=now_ms - 60_000, expires_ts=now_ms - 45_000))
    with pytest.raises(Expired, match="expired 45 s before it was read"):
        commands.accept(message, RecordTime(now_ms - 60_000, False))
    assert commands.accept(message, RecordTime(now_ms - 57_000, False)) is None
    assert commands.accept(message, RecordTime(now_ms, True)) is not None, "the broker has just received it"
