"""What each page shows: of an installation that runs, of one that does not, of none, and of a broker that is away."""

import time
from types import SimpleNamespace

import pytest

from stream.console import dead_letters, item, user
from stream.console.history import Result, Sample
from stream.console.topic_scan import Scanned
from stream.errors import AnabranchError
from stream.kafka.messages import encode
from stream.members.member import ScoreState, TrainerState
from stream.times import now_ms
from tests.console.browse import console
from tests.console.fakes import (
    NEWEST_TS,
    OPERATE,
    FakeBroker,
    FakeMembers,
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

PAGES = ["/", "/user", "/user?id=alice", "/item", "/item?id=milk", "/versions", "/dead-letters", "/cycles", "/sign-in"]
PARTS = ["/overview/now", "/overview/members", "/overview/values", "/user/now?id=alice", "/user/before?id=alice",
         "/item/now?id=milk", "/item/picture?id=milk", "/item/picture?id=milk&step=3", "/dead-letters/newest",
         "/cycles/now"]  # fmt: skip


def record(value: bytes, **more):
    given = {"key": b"alice", "headers": [], "timestamp": now_ms(), "partition": 0, "offset": 7}
    return SimpleNamespace(value=value, **given | more)


@pytest.fixture(autouse=True)
def topics(monkeypatch):
    """What the topics hold; a test may replace it."""
    held = {"recommendations": [record(encode(reply()))], "dead-letters": []}

    async def newest(config, topic, numbers, wanted, bounds):
        found = [r for r in held[topic] if wanted(r)]
        return Scanned(found, len(found), True)

    monkeypatch.setattr(user, "newest", newest)
    monkeypatch.setattr(dead_letters, "newest_records", newest)
    return held


@pytest.mark.parametrize("path", [*PAGES, *PARTS])
def test_every_page_is_shown_with_what_keeps_a_browser_safe(tmp_path, path):
    with console(tmp_path) as browser:
        page = browser.get(path)
    assert page.status == 200, page.text
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Cache-Control"] == "no-store"
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        assert tag != "style"
        if tag == "script":
            assert (attributes["src"] or "").startswith("/assets/"), attributes
        for name in ("src", "href", "action"):
            assert not (attributes.get(name) or "").startswith(("http:", "https:", "//", "javascript:")), attributes


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_one_title_one_heading_and_names_for_its_fields(tmp_path, path):
    with console(tmp_path) as browser:
        page = browser.get(path)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("h1") == tags.count("title") == tags.count("main") == 1
    labels = {attributes.get("for") for tag, attributes in page.elements if tag == "label"}
    fields = [a for tag, a in page.elements if tag == "input" and a.get("type") != "hidden"]
    assert all(field["id"] in labels for field in fields)
    assert all(a.get("scope") in ("col", "row") for tag, a in page.elements if tag == "th")


def test_the_overview_says_that_everything_answers_with_the_figures(tmp_path):
    with console(tmp_path) as browser:
        page = browser.get("/")
    assert "Everything answers Version 000004 answers." in page.text
    assert "Hit@10 of the model 8.7\xa0% popularity 5.6\xa0%" in page.text.replace("  ", " ") or "8.7" in page.text
    assert "worker 1 running shop-1" in page.text
    assert "answering" in page.text


def test_the_overview_says_what_is_wrong_first(tmp_path):
    dead = Seen(worker("1", (1,), version_problem="its hash does not match"), "dead", 12.0)
    with console(tmp_path, Seen(worker("0", (0,)), "paused"), dead, Seen(trainer(), "stopped")) as browser:
        text = browser.get("/").text
    assert "0 of 2 partitions answer" in text
    assert "Nobody serves partition 1" in text
    assert "The worker 0 is paused: clicks wait in Kafka." in text
    assert "The worker 1 on shop-1 is dead." in text


def test_a_partition_that_no_member_has_is_shown_as_served_by_nobody(tmp_path):
    with console(tmp_path, Seen(worker("0", (0,))), Seen(trainer())) as browser:
        text = browser.get("/").text
    assert "1 of 2 partitions answer" in text
    assert "nobody serves it" in text


def test_without_a_trainer_the_overview_says_that_nothing_is_learned(tmp_path):
    with console(tmp_path, Seen(worker("0", (0, 1)))) as browser:
        assert "Everything answers, nothing is learned" in browser.get("/").text


def test_a_version_that_no_event_has_tested_has_no_figure_and_two_claims_of_a_partition_count_once(tmp_path):
    untested = {"model": ScoreState(0, 0.0, 0.0, 0.0, 0.0)}
    gone = Seen(worker("1", (0,), confirmed=False, scores=untested), seen_s=0.1)
    with console(tmp_path, Seen(worker("0", (0, 1), scores=untested)), gone, Seen(trainer())) as browser:
        page = browser.get("/overview/now")
        owners = [row.owner for row in browser.console.live().partitions]
    assert "no event has tested a version" in page.text
    assert "82,000 in all, 6" in page.text
    assert owners == ["0", "0"], "the one that the group confirms, as in status"


def test_an_empty_installation_says_how_to_start_one(tmp_path):
    broker = FakeBroker(config(tmp_path))
    broker.ends = {}
    with console(tmp_path, broker=broker, members=FakeMembers()) as browser:
        text = browser.get("/").text
        assert "No worker and no trainer is known anabranch up starts both" in text
        assert "No trainer is known" in browser.get("/cycles").text
        assert "No version has been published" in browser.get("/versions").text
        assert "No value yet" in browser.get("/overview/values").text


def test_before_the_broker_was_asked_the_page_says_that_it_is_being_asked(tmp_path):
    broker = FakeBroker(config(tmp_path))
    broker.answers, broker.since_ts, broker.ends = False, 0, {}
    with console(tmp_path, broker=broker, members=FakeMembers()) as browser:
        assert "Asking the broker …" in browser.get("/").text


def test_a_broker_that_is_away_is_said_on_the_pages_beside_what_was_known(tmp_path):
    broker = FakeBroker(config(tmp_path))
    broker.answers, broker.why = False, "no Kafka broker answers at 127.0.0.1:1"
    members = FakeMembers(Seen(worker("1"), "not responding"))
    members.problem = "no Kafka broker answers"
    with console(tmp_path, broker=broker, members=members) as browser:
        overview = browser.get("/").text
        assert "The broker does not answer" in overview
        assert "worker 1" in overview
        for path in ("/versions", "/cycles"):
            assert "The broker at 127.0.0.1:1 does not answer" in browser.get(path).text


def test_a_broker_that_is_slow_but_brings_the_members_is_not_away(tmp_path):
    broker = FakeBroker(config(tmp_path))
    broker.answers, broker.why = False, "It gave no answer within 5 s."
    with console(tmp_path, broker=broker) as browser:
        assert "Everything answers" in browser.get("/").text


def test_a_topic_that_cannot_be_read_is_a_sentence_on_its_part_of_the_page(tmp_path, monkeypatch):
    async def newest(*_):
        raise AnabranchError("no Kafka broker answers at 127.0.0.1:1")

    monkeypatch.setattr(user, "newest", newest)
    monkeypatch.setattr(dead_letters, "newest_records", newest)
    with console(tmp_path) as browser:
        for path in ("/user/before?id=alice", "/dead-letters/newest"):
            page = browser.get(path, HX_Request="true")
            assert page.status == 503
            assert "This cannot be shown now no Kafka broker answers" in page.text
            assert not any(tag == "html" for tag, _ in page.elements)


def test_workers_that_do_not_answer_hold_a_page_for_a_few_seconds_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr("stream.console.console.ANSWER_WITHIN_S", 0.1)
    requests = FakeRequests()
    requests.answer = lambda _: 60.0
    monkeypatch.setattr("stream.console.console.GRACE_S", 0.1)
    with console(tmp_path, requests=requests) as browser:
        began = time.monotonic()
        page = browser.get("/user/now?id=alice", HX_Request="true")
        assert time.monotonic() - began < 5
    assert page.status == 503
    assert "No worker answered within" in page.text


def test_a_user_is_shown_with_the_reasons_and_the_sequence_newest_first(tmp_path):
    with console(tmp_path) as browser:
        page = browser.get("/user/now?id=alice")
    assert "Ranked by version 000004, 3\xa0min old." in page.text or "Ranked by version 000004" in page.text
    assert "because of 995242 , 826249" in page.text
    assert page.text.index("826548") < page.text.index("826249", page.text.index("Sequence"))


def test_a_user_without_events_gets_popular_items_and_a_hint(tmp_path):
    requests = FakeRequests()
    requests.answers = {
        "recommendation": reply(model=None, model_age_s=None, source="popularity"),
        "user": user_report(sequence=[], recommended=None, partitions=[]),
    }
    with console(tmp_path, requests=requests) as browser:
        text = browser.get("/user/now?id=nobody").text
    assert "Popular items: the user has no events." in text
    assert "No events of this user" in text


def test_half_of_a_users_page_is_shown_where_the_other_half_cannot_be_asked(tmp_path):
    requests = FakeRequests()
    requests.answers["user"] = AnabranchError("No worker answered within 4 s.")
    with console(tmp_path, requests=requests) as browser:
        text = browser.get("/user/now?id=alice").text
    assert "It cannot be asked now No worker answered" in text
    assert "Macaroni" in text


def test_partitions_that_do_not_answer_are_named_beside_what_the_others_know(tmp_path):
    requests = FakeRequests()
    requests.missing = {1: "no worker answered for partition 1 within 4 s"}
    with console(tmp_path, requests=requests) as browser:
        for path in ("/item/now?id=milk", "/item/picture?id=milk"):
            text = browser.get(path).text
            assert "Partition 1: no worker answered" in text
            assert "Macaroni" in text


def test_a_withdrawn_item_is_shown_as_such_with_the_way_back(tmp_path):
    requests = FakeRequests()
    requests.answers["item"] = item_part(withdrawn=True)
    with console(tmp_path, requests=requests) as browser:
        browser.sign_in(OPERATE)
        text = browser.get("/item/now?id=milk").text
    assert "to nobody: it is withdrawn" in text
    assert "Undo the withdrawal" in text
    assert "Withdraw " not in text


def test_what_was_recommended_when_marks_what_was_new(tmp_path, topics):
    newer, older = reply(), reply()
    older.items = older.items[1:]
    topics["recommendations"] = [record(encode(newer)), record(encode(older)), record(b"", key=b"alice"),
                                 record(encode(newer), key=b"bob")]  # fmt: skip
    with console(tmp_path) as browser:
        page = browser.get("/user/before?id=alice")
    assert [a for tag, a in page.elements if tag == "a" and a.get("class") == "new"] == [
        {"href": "/item?id=1029624", "class": "new"}
    ]
    assert "The user was forgotten: 1 removals were found." in page.text


def test_a_user_to_whom_nothing_was_recommended_has_an_empty_list_that_says_how_far_it_looked(tmp_path, topics):
    topics["recommendations"] = []
    with console(tmp_path) as browser:
        text = browser.get("/user/before?id=alice").text
    assert "No recommendation of this user was found Looked at the newest 0 messages, which are all there are." in text


@pytest.mark.parametrize("path", ["/user?id=", "/item?id="])
def test_a_name_that_no_event_can_have_is_refused_before_anybody_is_asked(tmp_path, path):
    requests = FakeRequests()
    with console(tmp_path, requests=requests) as browser:
        assert "no event can name it" in browser.get(path + "x" * 513).text
        assert browser.get(path.replace("?", "/now?") + "x" * 513, HX_Request="true").status == 503
        assert browser.get(path.replace("?", "/now?"), HX_Request="true").status == 503
    assert not requests.asked


def test_an_item_is_shown_with_what_follows_it_and_as_a_picture(tmp_path):
    with console(tmp_path) as browser:
        now = browser.get("/item/now?id=826249")
        picture = browser.get("/item/picture?id=826249")
    assert "Hamburger Buns (Private) 12 OZ" in now.text
    assert "1,204" in now.text
    circles = [a for tag, a in picture.elements if tag == "circle"]
    assert len([c for c in circles if c["class"] == "node ring1"]) == 8
    assert "followed by 8 items, the strongest first" in picture.text


def test_the_slider_asks_for_the_time_before_the_items_newest_event(tmp_path):
    requests = FakeRequests()
    with console(tmp_path, requests=requests) as browser:
        day = [label for label, _ in item.STEPS_BACK].index("1 day before")
        page = browser.get(f"/item/picture?id=826249&step={day}")
    asked = [(r.item, r.at) for r in requests.asked]
    assert asked[:2] == [("826249", 0), ("826249", NEWEST_TS - item.DAY)]
    assert {at for _, at in asked[2:]} == {NEWEST_TS - item.DAY}
    assert "1 day before" in page.text
    with console(tmp_path) as browser:
        assert browser.get("/item/picture?id=826249&step=-1&step=x").status == 200
        assert browser.get("/item/picture?id=826249&step=99999999999").status == 200


def test_an_item_without_events_is_an_empty_page_that_says_so(tmp_path):
    requests = FakeRequests()
    requests.answers["item"] = item_part(degree=0, next=[], title=None)
    with console(tmp_path, requests=requests) as browser:
        assert "No events of this item" in browser.get("/item/now?id=x").text
        assert "Nothing had followed it" in browser.get("/item/picture?id=x").text


def test_versions_are_shown_with_their_verdicts_and_intervals(tmp_path):
    settings, broker = config(tmp_path), FakeBroker(config(tmp_path))
    broker.pointers = pointers("000004", pinned=True, candidate="000003")
    publish_versions(settings)
    with console(tmp_path, settings=settings, broker=broker) as browser:
        page = browser.get("/versions")
    assert "Version 000004 is named" in page.text
    assert "yes: the trainer does not replace it" in page.text
    assert "-31.0% [-52.0, -8.0]" in page.text
    intervals = [a["class"] for tag, a in page.elements if tag == "path" and "interval" in (a.get("class") or "")]
    assert intervals == ["interval promoted", "interval kept", "interval promoted"]


def test_versions_without_an_interval_are_listed_without_a_plot(tmp_path):
    settings = config(tmp_path)
    publish_versions(settings, 1)
    with console(tmp_path, settings=settings) as browser:
        page = browser.get("/versions")
    assert "000001" in page.text
    assert "What the gate found" not in page.text


def test_an_artifact_store_that_cannot_be_read_is_said_on_the_page(tmp_path):
    import msgspec

    settings = msgspec.structs.replace(config(tmp_path), artifacts="nothing://there")
    with console(tmp_path, settings=settings) as browser:
        for path in ("/versions", "/cycles"):
            page = browser.get(path)
            assert page.status == 200
            assert "The artifact store cannot be read from here" in page.text


def test_dead_letters_are_counted_by_reason_whatever_values_the_reasons_name(tmp_path, topics):
    def letter(reason: str, value: bytes = b"{}"):
        return record(value, headers=[("reason", reason.encode()), ("topic", b"clicks"), ("offset", b"12")])

    topics["dead-letters"] = [letter(f"event 'buy{n}' is unknown") for n in range(5)] + [
        letter("user is missing", b"\xff\x00" + b"x" * 5_000),
        record(b"", key=None, headers=None),
    ]
    with console(tmp_path) as browser:
        page = browser.get("/dead-letters/newest")
    assert "event … is unknown 5 71" in page.text
    assert "topic clicks · offset 12" in page.text
    assert "\\xff\\x00xxx" in page.text
    assert "… 4,402 more bytes" in page.text
    assert "no reason is given" in page.text
    assert "(no value)" in page.text


def test_many_reasons_are_shown_as_few(tmp_path, topics):
    topics["dead-letters"] = [
        record(b"x", headers=[("reason", f"reason {chr(97 + n % 26)}{chr(97 + n // 26)}".encode())]) for n in range(200)
    ]
    with console(tmp_path) as browser:
        page = browser.get("/dead-letters/newest")
    rows = [tag for tag, a in page.elements if tag == "article"]
    assert "other reasons" in page.text
    assert len(rows) <= 90


def test_a_cycle_is_shown_while_it_runs_and_results_after_it(tmp_path):
    state = TrainerState(
        doing="learning", since_ts=now_ms(), what="at the gate", share=0.62, failures=2, failure="it is not a number",
        last="version 000004, promoted", last_ts=now_ms() - 9_000,
    )  # fmt: skip
    with console(tmp_path, Seen(trainer(trainer=state))) as browser:
        browser.console.history.add_result(Result(now_ms(), "version 000009 was kept"))
        text = browser.get("/cycles").text
    assert "Learning running" in text
    assert "62" in text
    assert "at the gate" in text
    assert "it is not a number" in text
    assert "version 000009 was kept" in text


def test_the_plots_get_their_values_and_the_table_has_them_too(tmp_path):
    with console(tmp_path) as browser:
        now = now_ms()
        for n in range(30):
            hit = (0.08, 0.05, None, 0.06)
            version = f"00000{1 + n // 15}"
            browser.console.history.add(Sample(now + (n + 1) * 10_000, hit, hit, 41.0, 99.0, 7, 390.0, version))
        plots = browser.get("/overview/history.json")
        table = browser.get("/overview/values")
    assert plots.headers["Content-Type"].startswith("application/json")
    assert '"versions":[[' in plots.html
    assert '"000002"]' in plots.html
    assert len([tag for tag, _ in table.elements if tag == "tr"]) == 13
    assert "8.00\xa0%" in table.html or "8.00" in table.text


def test_a_page_that_fails_says_where_the_reason_is_and_shows_no_traceback(tmp_path, caplog):
    requests = FakeRequests()
    requests.answers["item"] = SimpleNamespace()
    with console(tmp_path, requests=requests) as browser:
        page = browser.get("/item/now?id=milk")
    assert page.status == 500
    assert "The log of anabranch serve has the reason." in page.text
    assert "Traceback" not in page.html
    assert "the page /item/now failed" in caplog.text


def test_operators_see_buttons_and_others_do_not(tmp_path):
    settings, broker = config(tmp_path), FakeBroker(config(tmp_path))
    broker.pointers = pointers()
    publish_versions(settings)
    with console(tmp_path, settings=settings, broker=broker) as browser:
        assert "Roll back" not in browser.get("/versions").text
        assert browser.sign_in(OPERATE).status == 200
        assert "Roll back to 000003" in browser.get("/versions").text
        assert "Withdraw" in browser.get("/item/now?id=milk").text
        assert "Learn now" in browser.get("/cycles").text
        assert "Pause all workers" in browser.get("/").text


def test_a_record_that_names_partitions_which_the_topic_does_not_have_adds_no_row(tmp_path):
    forged = worker("0", tuple(range(100)))
    with console(tmp_path, Seen(forged)) as browser:
        assert [row.number for row in browser.console.live().partitions] == [0, 1]


@pytest.mark.parametrize("path", ["/user/before?id=alice", "/dead-letters/newest"])
def test_a_page_waits_for_its_turn_to_read_a_topic_for_a_bounded_time(tmp_path, monkeypatch, path):
    monkeypatch.setattr("stream.console.console.SCANS", 0)  # others read
    monkeypatch.setattr("stream.console.console.ANSWER_WITHIN_S", 0.05)
    with console(tmp_path) as browser:
        page = browser.get(path)
        assert page.status == 503
        assert "Too many pages read topics now" in page.text
