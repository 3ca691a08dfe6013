"""Text of others is shown, and never run: ids, titles, reasons, messages, versions, errors."""

import urllib.parse
from types import SimpleNamespace

import pytest

from stream.console import dead_letters, user
from stream.console.topic_scan import Scanned
from stream.kafka.documents import Step, TitledFollower
from stream.kafka.messages import Recommended, encode
from stream.members.member import TrainerState
from stream.times import now_ms
from tests.console.browse import console
from tests.console.fakes import (
    EVIL,
    OPERATE,
    TURNED,
    FakeBroker,
    FakeRequests,
    Seen,
    config,
    item_part,
    pointers,
    publish_versions,
    reply,
    trainer,
    user_report,
    worker,
)

ID = EVIL + TURNED
QUOTED = urllib.parse.quote(ID)


@pytest.fixture
def evil(monkeypatch, tmp_path):
    """An installation in which every text that comes from others is evil."""
    message = reply(user=ID, items=[Recommended(ID, 1.0, [ID], ID)], model=ID, source=ID)
    letter = SimpleNamespace(
        value=ID.encode(), key=ID.encode(), timestamp=now_ms(), partition=0, offset=1,
        headers=[(name, ID.encode()) for name in ("reason", "topic", "partition", "offset", ID)],
    )  # fmt: skip

    async def newest(config, topic, *_):
        found = [letter] if topic == config.topics.dead_letters else [
            SimpleNamespace(value=encode(message), key=ID.encode(), timestamp=now_ms(), partition=0, offset=1)
        ]  # fmt: skip
        return Scanned(found, 1, True)

    monkeypatch.setattr(user, "newest", newest)
    monkeypatch.setattr(dead_letters, "newest_records", newest)
    requests = FakeRequests()
    requests.answers = {
        "recommendation": message,
        "user": user_report(user=ID, sequence=[Step(ID, now_ms(), ID)], recommended=message),
        "item": item_part(item=ID, title=ID, next=[TitledFollower(ID + str(n), ID, 1.0) for n in range(5)]),
    }
    broker = FakeBroker(config(tmp_path))
    broker.pointers, broker.why = pointers(candidate="000002"), ID
    settings = config(tmp_path)
    publish_versions(settings, reason=ID)
    learning = TrainerState(doing="learning", what=ID, last=ID, last_ts=now_ms(), failures=1, failure=ID)
    seen = [
        Seen(worker(ID, (0, 1), host=ID, software=ID, version=ID, version_problem=ID, last_error=ID, last_error_ts=1)),
        Seen(worker("gone", host=ID), "dead"),
        Seen(trainer(ID, host=ID, trainer=learning)),
    ]
    with console(tmp_path, *seen, settings=settings, broker=broker, requests=requests) as browser:
        yield browser


@pytest.mark.parametrize("signed_in", [False, True])
@pytest.mark.parametrize(
    "path",
    ["/", "/overview/now", "/overview/members", "/overview/values", f"/user?id={QUOTED}", f"/user/now?id={QUOTED}",
     f"/user/before?id={QUOTED}", f"/item?id={QUOTED}", f"/item/now?id={QUOTED}", f"/item/picture?id={QUOTED}",
     "/versions", "/dead-letters", "/dead-letters/newest", "/cycles", "/cycles/now", f"/sign-in?to=/{QUOTED}"],
)  # fmt: skip
def test_no_text_of_others_becomes_markup_or_turns_a_line_round(evil, path, signed_in):
    if signed_in:
        evil.sign_in(OPERATE)
    page = evil.get(path)
    assert page.status == 200, page.text
    assert "<script>alert" not in page.html
    assert [a for tag, a in page.elements if tag == "script" and not (a.get("src") or "").startswith("/assets/")] == []
    for tag, attributes in page.elements:
        assert not {"onerror", "onload", "onclick", "style"} & attributes.keys(), (tag, attributes)
        assert not (attributes.get("href") or "/").startswith("javascript:")
    assert "\u202e" not in page.html
    assert "\x1b" not in page.html


def test_an_error_that_names_a_text_of_others_is_escaped_too(tmp_path):
    from stream.errors import AnabranchError

    requests = FakeRequests()
    requests.answers["item"] = AnabranchError(ID)
    with console(tmp_path, requests=requests) as browser:
        page = browser.get("/item/now?id=milk")
    assert page.status == 503
    assert "<script>alert" not in page.html
    assert "<script>alert(1)</script>" in page.text


def test_an_id_travels_whole_in_links_and_forms(tmp_path):
    """A page shows an invisible character as an escape, and its links name the id as it is."""
    requests = FakeRequests()
    requests.answers["item"] = item_part(item=ID, next=[TitledFollower(ID, None, 1.0)])
    with console(tmp_path, requests=requests) as browser:
        browser.sign_in(OPERATE)
        page = browser.get(f"/item/now?id={QUOTED}")
        forms = [a["action"] for tag, a in page.elements if tag == "form"]
        links = [a["href"] for tag, a in page.elements if tag == "a"]
    assert f"/item/withdraw?{urllib.parse.urlencode({'id': ID})}" in forms
    assert f"/item?{urllib.parse.urlencode({'id': ID})}" in links
