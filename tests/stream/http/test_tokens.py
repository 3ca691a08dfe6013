"""What a token allows, and what a caller without the right one is answered."""

import pytest

from stream.config import ServeSettings
from stream.http.problems import Problem
from stream.http.tokens import Tokens

READ, WRITE, OPERATE = "read-" + "r" * 16, "write-" + "w" * 16, "operate-" + "o" * 16
ALL = ServeSettings(read_token=READ, write_token=f"{WRITE},new-{WRITE}", operate_token=OPERATE)


def refusal(settings: ServeSettings, authorization: str | None, right) -> Problem | None:
    tokens = Tokens(settings)
    try:
        tokens.require(tokens.caller(authorization), right)
    except Problem as problem:
        return problem
    return None


@pytest.mark.parametrize(
    ("token", "rights"),
    [(READ, {"read"}), (WRITE, {"write"}), (f"new-{WRITE}", {"write"}), (OPERATE, {"read", "write", "operate"})],
)
def test_a_token_allows_what_its_setting_says_and_nothing_else(token, rights):
    for right in ("read", "write", "operate"):
        refused = refusal(ALL, f"Bearer {token}", right)
        assert (refused is None) == (right in rights)
        if refused is not None:
            assert refused.details.status == 403
            assert f'error="insufficient_scope", scope="{right}"' in refused.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Basic dTpw", "Bearer", f"Token {READ}"],
    ids=["none", "empty", "basic", "bare", "else"],
)
def test_without_a_token_the_answer_says_which_scheme_to_use(authorization):
    for right in ("read", "write", "operate"):
        refused = refusal(ALL, authorization, right)
        assert refused is not None
        assert refused.details.status == 401
        assert refused.headers["WWW-Authenticate"].startswith('Bearer realm="anabranch"')


@pytest.mark.parametrize("token", [READ[:-1], READ + "r", READ.upper(), "\udcff" * 20, "x" * 100_000])
def test_a_token_that_is_not_known_is_refused_also_where_everybody_may_read(token):
    for settings in (ALL, ServeSettings(write_token=WRITE)):
        refused = refusal(settings, f"Bearer {token}", "read")
        assert refused is not None
        assert refused.details.status == 401
        assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
        assert token not in refused.details.detail


def test_everybody_may_read_and_nobody_write_unless_a_token_is_set():
    assert refusal(ServeSettings(), None, "read") is None
    for right in ("write", "operate"):
        refused = refusal(ServeSettings(), None, right)
        assert refused is not None
        assert refused.details.status == 403
        assert f"serve.{right}_token is not set" in refused.details.detail


def test_one_token_in_two_settings_has_both_rights():
    both = ServeSettings(read_token=READ, write_token=READ)
    assert [refusal(both, f"bearer  {READ}", right) for right in ("read", "write")] == [None, None]


def test_callers_have_different_names_that_do_not_show_their_tokens():
    tokens = Tokens(ALL)
    names = {tokens.caller(f"Bearer {token}").name for token in (READ, WRITE, OPERATE)}
    assert len(names) == 3
    assert not any(name in token for name in names for token in (READ, WRITE, OPERATE))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"read_token": "short"}, "fewer than 16 characters"),
        ({"write_token": "x" * 16 + ","}, "fewer than 16 characters"),
        ({"operate_token": "with a space in it"}, "no client can send"),
        ({"read_token": "ümlaut-ümlaut-ümlaut"}, "no client can send"),
        ({"cors_origins": "shop.example"}, "which is no origin"),
        ({"cors_origins": "https://shop.example/"}, "which is no origin"),
    ],
)
def test_settings_that_could_not_work_are_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        ServeSettings(**settings)


def test_no_token_is_shown():
    assert READ not in repr(ALL)
    assert WRITE not in str(ALL.__rich_repr__())
