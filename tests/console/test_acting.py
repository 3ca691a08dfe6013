"""Looking and acting: who may, and what stops a page of another site."""

import asyncio
import logging

import msgspec
import pytest

from stream.console import overview, versions
from stream.console.session import COOKIE, TRIES
from stream.kafka.messages import CommandReply
from tests.console.browse import console
from tests.console.fakes import OPERATE, READ, FakeBroker, config, pointers, publish_versions

ACTIONS = [
    "/pause",
    "/versions/serve",
    "/versions/unpin",
    "/versions/shadow",
    "/cycles/start",
    "/item/withdraw?id=milk",
]


@pytest.fixture
def sent(monkeypatch):
    """What was published and commanded; nothing reaches a broker."""
    done: list[tuple] = []

    async def publish_pointer(config, pointer):
        done.append(("pointer", pointer))
        return pointer

    async def read_pointers(config):
        return pointers("000004")

    async def send_command(config, name, until, within_s, **more):
        done.append((name, more))
        return CommandReply("1", until[0], f"{name}: done")

    async def publish_withdrawal(config, item, *, withdrawn):
        done.append(("withdrawal", item, withdrawn))

    monkeypatch.setattr(versions, "publish_pointer", publish_pointer)
    monkeypatch.setattr(versions, "read_pointers", read_pointers)
    monkeypatch.setattr("stream.kafka.pointers.publish_pointer", publish_pointer)
    for module in (overview, "stream.console.cycles"):
        target = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{target}.send_command", send_command)
    monkeypatch.setattr("stream.console.item.publish_withdrawal", publish_withdrawal)
    return done


@pytest.fixture
def browser(tmp_path, sent):
    settings, broker = config(tmp_path), FakeBroker(config(tmp_path))
    broker.pointers = pointers("000004")
    publish_versions(settings)
    with console(tmp_path, settings=settings, broker=broker) as opened:
        yield opened


@pytest.mark.parametrize("action", ACTIONS)
def test_nobody_acts_without_the_operate_token(browser, sent, action):
    page = browser.post(action, {"csrf": ""})
    assert page.status == 403
    assert "Sign in with the operate token first." in page.text
    assert sent == []


@pytest.mark.parametrize("action", ACTIONS)
def test_nobody_acts_with_the_read_token(tmp_path, sent, action):
    with console(tmp_path, settings=config(tmp_path, read_token=READ)) as browser:
        browser.sign_in(READ)
        assert browser.post(action, {"csrf": ""}).status == 403
    assert sent == []


@pytest.mark.parametrize("action", ACTIONS)
def test_a_form_needs_the_text_of_its_own_session(browser, sent, action):
    browser.sign_in(OPERATE)
    for csrf in ("", "0" * 64, "\u00e9"):
        page = browser.post(action, {"csrf": csrf})
        assert page.status == 403
        assert "This form is of another session" in page.text
    assert sent == []


@pytest.mark.parametrize("action", [*ACTIONS, "/sign-in", "/sign-out"])
def test_a_form_of_another_site_is_refused(browser, sent, action):
    browser.sign_in(OPERATE)
    for headers in (
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"}, {"Origin": "http://["},
    ):  # fmt: skip
        page = browser.post(action, {}, **headers)
        assert page.status == 403, headers
        assert "sent by a page of another site" in page.text
    assert sent == []


def test_where_no_operate_token_is_set_nobody_can_act(tmp_path, sent):
    with console(tmp_path, settings=config(tmp_path, operate_token="")) as browser:
        assert browser.sign_in("").status == 401
        page = browser.post("/pause", {})
        assert page.status == 403
        assert "serve.operate_token" in page.text
    assert sent == []


def test_looking_can_need_the_read_token(tmp_path):
    with console(tmp_path, settings=config(tmp_path, read_token=READ)) as browser:
        assert browser.get("/", follow=False).headers["Location"] == "/sign-in?to=%2F"
        assert browser.get("/user?id=a&x=1", follow=False).headers["Location"] == "/sign-in?to=%2Fuser%3Fid%3Da%26x%3D1"
        assert browser.get("/overview/history.json").status == 401
        assert browser.get("/overview/now", HX_Request="true").status == 401
        assert "alice" not in browser.get("/user/now?id=alice", HX_Request="true").text
        assert "Everything answers" in browser.post("/sign-in", {"token": READ, "to": "/"}).text
        assert "Sign out" in browser.get("/").text


def test_the_operate_token_lets_look_too(tmp_path):
    with console(tmp_path, settings=config(tmp_path, read_token=READ)) as browser:
        assert "Everything answers" in browser.sign_in(OPERATE).text


def test_the_cookie_is_kept_from_scripts_and_other_sites(browser):
    page = browser.post("/sign-in", {"token": OPERATE, "to": "/"}, follow=False)
    cookie = page.headers["Set-Cookie"]
    assert page.status == 303
    assert cookie.startswith(f"{COOKIE}=operate.")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    behind_tls = browser.post("/sign-in", {"token": OPERATE, "to": "/"}, follow=False, X_Forwarded_Proto="https")
    assert "Secure" in behind_tls.headers["Set-Cookie"]


def test_after_signing_in_nobody_is_sent_to_another_site(browser):
    for to in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\n/evil.example"):
        page = browser.post("/sign-in", {"token": OPERATE, "to": to}, follow=False)
        assert page.headers["Location"] == "/", to


def test_a_wrong_token_is_a_sentence_and_too_many_are_a_pause(browser, caplog):
    with caplog.at_level(logging.DEBUG):
        for _ in range(TRIES):
            page = browser.sign_in("a-guess-" + "x" * 12)
            assert page.status == 401
            assert "This is not a token of this installation" in page.text
        page = browser.sign_in(OPERATE)
    assert page.status == 429
    assert "Too many wrong tokens. Try again in" in page.text
    assert int(page.headers["Retry-After"]) <= 60
    assert "a-guess" not in caplog.text
    assert OPERATE not in caplog.text


def test_signing_out_ends_acting(browser, sent):
    browser.sign_in(OPERATE)
    assert "Sign in" in browser.post("/sign-out", {}).text
    assert browser.post("/pause", {"csrf": "x"}).status == 403


def test_a_body_that_is_too_large_or_endless_is_refused(browser):
    browser.sign_in(OPERATE)
    assert browser.post("/pause", {"csrf": "x" * 20_000}).status == 413
    assert browser.post("/sign-in", {"token": "x" * 20_000}).status == 413


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/x-www-form-urlencoded", b"token=\xff\xfe", 400),
        ("application/x-www-form-urlencoded; charset=no-such", b"token=a", 415),
        ("application/x-www-form-urlencoded; charset=utf-16", b"token=a", 415),
        ("multipart/form-data; boundary=x", b"{}", 415),
        ("text/plain", b"token=a", 415),
    ],
)
@pytest.mark.parametrize("path", ["/sign-in", "/pause"])
def test_a_body_that_is_no_form_is_refused_and_fills_no_log(browser, sent, caplog, path, content_type, body, status):
    browser.sign_in(OPERATE)
    page = browser.post(path, body, Content_Type=content_type)
    assert page.status == status
    assert not sent
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_form_that_does_not_come_holds_its_connection_for_a_bounded_time(browser, monkeypatch):
    monkeypatch.setattr("stream.console.form.WITHIN_S", 0.05)

    async def endless():
        yield b"token="
        await asyncio.sleep(60)

    headers = {"Content_Length": "1000", "Content_Type": "application/x-www-form-urlencoded"}
    assert browser.post("/sign-in", endless(), **headers).status == 408


def test_a_console_on_this_machine_answers_to_no_other_name(browser, tmp_path):
    page = browser.get("/", Host="evil.example:8080")
    assert page.status == 403
    assert "listens on this machine only" in page.text
    assert browser.get("/", Host="localhost:8080").status == 200
    settings = config(tmp_path / "open", http="0.0.0.0:0")
    with console(tmp_path / "open", settings=settings) as opened:
        assert opened.get("/", Host="console.example").status == 200


def test_an_operator_rolls_back_and_sees_what_serves(browser, sent):
    browser.sign_in(OPERATE)
    page = browser.submit("/versions", "/versions/serve")
    assert "Version 000003 serves from now on, and is pinned" in page.text
    [(_, pointer)] = sent
    assert (pointer.version, pointer.pinned, pointer.by) == ("000003", True, "operator")
    assert "serves from now on" not in browser.get("/versions").text


def test_an_operator_serves_a_version_of_the_list(browser, sent):
    browser.sign_in(OPERATE)
    page = browser.submit("/versions", "/versions/serve", version="000002")
    assert "Version 000002 serves from now on" in page.text


def test_a_version_that_is_not_there_is_a_sentence(browser, sent):
    browser.sign_in(OPERATE)
    for version in ("000099", "../../etc", "x" * 5_000):
        page = browser.submit("/versions", "/versions/serve", version=version)
        assert page.status == 503
        assert "there is no version" in page.text
    page = browser.submit("/versions", "/versions/shadow", version="../../etc")
    assert page.status == 503
    assert sent == []


def test_an_operator_pins_and_scores(browser, sent):
    browser.sign_in(OPERATE)
    assert "Version 000004 is pinned" in browser.submit("/versions", "/versions/unpin").text
    assert "Version 000002 is scored" in browser.submit("/versions", "/versions/shadow", version="000002").text
    assert [(p.version, p.role, p.pinned) for _, p in sent] == [
        ("000004", "champion", True), ("000002", "candidate", False),
    ]  # fmt: skip


def test_an_operator_withdraws_an_item_pauses_and_starts_a_cycle(browser, sent):
    browser.sign_in(OPERATE)
    page = browser.submit("/item/now?id=milk", "/item/withdraw?id=milk")
    assert "milk is recommended to nobody from now on." in page.text
    assert "pause: done" in browser.submit("/", "/pause").text
    assert "retrain: done" in browser.submit("/cycles", "/cycles/start", do="shadow").text
    assert sent == [("withdrawal", "milk", True), ("pause", {}), ("retrain", {"shadow": True})]


def test_an_action_that_the_broker_does_not_take_is_a_sentence_within_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr("stream.console.console.ACT_WITHIN_S", 0.5)
    settings = msgspec.structs.replace(config(tmp_path), broker="127.0.0.1:1")
    with console(tmp_path, settings=settings) as browser:
        browser.sign_in(OPERATE)
        page = browser.submit("/cycles", "/cycles/start")
    assert page.status == 503
    assert "no Kafka broker answers" in page.text or "no answer within" in page.text


def test_behind_a_proxy_one_clients_wrong_tokens_make_no_other_client_wait(tmp_path):
    with console(tmp_path, settings=config(tmp_path, proxies=1)) as browser:
        for _ in range(TRIES + 1):
            page = browser.post("/sign-in", {"token": "wrong"}, X_Forwarded_For="203.0.113.7")
        assert page.status == 429
        assert browser.post("/sign-in", {"token": "wrong"}, X_Forwarded_For="203.0.113.8").status == 401
