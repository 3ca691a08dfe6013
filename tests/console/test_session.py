"""Sessions, and how often a wrong token may be tried."""

from stream.console.session import SESSION_S, TRIES, TRIES_WITHIN_S, Attempts, Sessions

OLD, NEW, READ = "old-" + "o" * 16, "new-" + "n" * 16, "read-" + "r" * 16


def test_a_token_becomes_a_session_of_its_right_until_it_ends():
    clock = [1_000_000.0]
    sessions = Sessions([READ], [NEW, OLD], lambda: clock[0])
    for token, right in ((NEW, "operate"), (OLD, "operate"), (READ, "look")):
        found = sessions.right_of(token)
        assert found == (right, token)
        cookie = sessions.cookie(*found)
        session = sessions.session(cookie)
        assert session is not None
        assert session.right == right
        clock[0] += SESSION_S + 1
        assert sessions.session(cookie) is None


def test_a_wrong_token_or_none_is_no_session():
    sessions = Sessions([], [OLD])
    for typed in ("", OLD[:-1], OLD + "x", f"{OLD},{NEW}", "\u00e9"):
        assert sessions.right_of(typed) is None
    assert Sessions([], []).right_of("") is None


def test_a_cookie_that_was_changed_is_no_session():
    sessions = Sessions([READ], [OLD])
    cookie = sessions.cookie("look", READ)
    right, until, nonce, signature = cookie.split(".")
    for changed in (
        f"operate.{until}.{nonce}.{signature}", f"{right}.{int(until) + 1}.{nonce}.{signature}",
        f"{right}.{until}.{nonce[::-1]}.{signature}", f"{right}.{until}.{nonce}.{'0' * 64}", cookie + "0", "", None,
        "look.999999999999.x.y",
    ):  # fmt: skip
        assert sessions.session(changed) is None, changed


def test_another_process_with_the_token_knows_the_session_and_one_without_it_does_not():
    cookie = Sessions([], [OLD]).cookie("operate", OLD)
    assert Sessions([], [NEW, OLD]).session(cookie) is not None
    assert Sessions([], [NEW]).session(cookie) is None


def test_each_session_has_a_text_of_its_own_for_its_forms():
    sessions = Sessions([], [OLD])
    one, other = (sessions.session(sessions.cookie("operate", OLD)) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.csrf != other.csrf


def test_a_cookie_does_not_hold_the_token():
    assert OLD not in Sessions([], [OLD]).cookie("operate", OLD)


def test_wrong_tokens_from_one_address_make_it_wait_and_no_other_one():
    clock = [0.0]
    attempts = Attempts(lambda: clock[0])
    for _ in range(TRIES):
        assert attempts.wait_s("10.0.0.1") == 0
        attempts.wrong("10.0.0.1")
    assert attempts.wait_s("10.0.0.1") == TRIES_WITHIN_S
    assert attempts.wait_s("10.0.0.2") == 0
    clock[0] += TRIES_WITHIN_S
    assert attempts.wait_s("10.0.0.1") == 0


def test_wrong_tokens_from_many_addresses_make_everybody_wait():
    attempts = Attempts(lambda: 0.0)
    for n in range(100):
        attempts.wrong(f"10.0.0.{n}")
    assert attempts.wait_s("10.1.1.1") > 0
