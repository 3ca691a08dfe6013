"""The console in real Chromium: what a person sees and does, in light and dark, at desk and phone width."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from aiohttp import web

from stream.console import dead_letters, user
from stream.console.console import CONSOLE
from stream.console.history import Sample
from stream.console.routes import add_routes
from stream.console.topic_scan import Scanned
from stream.kafka.messages import encode
from stream.members.member import TrainerState
from stream.times import now_ms
from tests.console.chromium import axe, chromium, missing, tab, violations
from tests.console.fakes import (
    EVIL,
    OPERATE,
    FakeBroker,
    FakeMembers,
    FakeRequests,
    Seen,
    config,
    pointers,
    publish_versions,
    reply,
    trainer,
    worker,
)

pytestmark = [pytest.mark.ops, pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=missing() or "")]

PAGES = ["/", "/?range=week", "/user?id=alice", "/item?id=826249", "/versions", "/dead-letters", "/cycles", "/user",
         "/sign-in"]  # fmt: skip
STATES = ["good", "away", "empty", "ill"]


def made(state, data):
    """The application of an installation in this state."""
    settings = config(data)
    broker, requests = FakeBroker(settings), FakeRequests()
    learning = TrainerState(
        doing="learning", since_ts=now_ms() - 22_000, share=0.62, what="training without the newest events",
        last="version 000004, 25,102 new events in 24.1 s: promoted", last_ts=now_ms() - 180_000,
    )  # fmt: skip
    members = FakeMembers(
        Seen(worker("0", (0,))), Seen(worker("shop-2", (1,), host="shop-2")), Seen(trainer(trainer=learning))
    )
    if state == "good":
        broker.pointers = pointers(candidate="000003")
        publish_versions(settings, 7)
    elif state == "away":
        broker.answers, broker.why = False, "no Kafka broker answers at 127.0.0.1:1"
        members = FakeMembers(Seen(worker("0", (0,)), "not responding"), Seen(trainer(), "dead"))
        members.problem = "no Kafka broker answers at 127.0.0.1:1"
        requests.answer = lambda _: TimeoutError()
    elif state == "empty":
        broker.ends, members = {}, FakeMembers()
        requests.answer = lambda _: TimeoutError()
    else:
        members = FakeMembers(
            Seen(worker(EVIL, (0,), last_error=EVIL, last_error_ts=now_ms()), "paused"), Seen(trainer(), "stopped")
        )
    app = web.Application()
    add_routes(app, settings, members, lambda: requests, broker)
    history, now = app[CONSOLE].history, now_ms()
    for n in range(300 if state != "empty" else 0):
        hit = (0.03 + n / 6_000, 0.02 + n / 12_000, 0.021 + n / 13_000, 0.025 + n / 9_000)
        history.add(Sample(now - (300 - n) * 10_000, hit, hit, 41.0, 99.0, 7, 390.0, f"00000{1 + n // 100}"))
    return app


@pytest.fixture(scope="module")
def topics():
    """Records of the topics that the pages read."""
    letters = [
        SimpleNamespace(
            value=f'{{"user": "{EVIL}", "event": "buy"}}'.encode() + b"\xff", key=b"k", timestamp=now_ms() - n * 9_000,
            partition=0, offset=n, headers=[("reason", f"event 'buy{n}' is unknown".encode()), ("topic", b"clicks")],
        )
        for n in range(12)
    ]  # fmt: skip
    sent = [
        SimpleNamespace(value=encode(reply()), key=b"alice", timestamp=now_ms() - n * 60_000, partition=0, offset=n)
        for n in range(4)
    ]

    async def newest(config, topic, *_):
        found = letters if topic == config.topics.dead_letters else sent
        return Scanned(found, len(found), True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(user, "newest", newest)
        patch.setattr(dead_letters, "newest_records", newest)
        yield


@pytest.fixture(scope="module")
def addresses(topics, tmp_path_factory) -> Iterator[dict[str, str]]:
    """A console of each state, by its address."""
    import asyncio

    loop, found, started = asyncio.new_event_loop(), {}, threading.Event()

    async def serve() -> list[web.AppRunner]:
        runners = []
        for state in STATES:
            runner = web.AppRunner(made(state, tmp_path_factory.mktemp(state)), access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            found[state] = f"http://127.0.0.1:{runner.addresses[0][1]}"
            runners.append(runner)
        started.set()
        return runners

    runners: list[web.AppRunner] = []

    def run() -> None:
        asyncio.set_event_loop(loop)
        runners.extend(loop.run_until_complete(serve()))
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(20)
    yield found
    for runner in runners:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


def open_page(page, address: str) -> None:
    """Load a page with all its parts."""
    page.goto(address)
    for _ in range(50):
        page.wait_for_timeout(100)
        if not page.locator(".later").count():
            return
    raise AssertionError(f"{address} still loads parts")


@pytest.mark.parametrize(
    ("state", "dark", "phone"),
    [*((state, False, False) for state in STATES), ("good", True, False), ("good", False, True), ("ill", True, True)],
)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(browser, addresses, state, dark, phone):
    source = axe()
    with tab(browser, dark=dark, phone=phone) as page:
        for path in PAGES if state == "good" else PAGES[:1] + PAGES[2:7]:
            open_page(page, addresses[state] + path)
            assert violations(page, source) == [], f"{state} {path}"
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{state} {path} is too wide"
        page.complaints[:] = [c for c in page.complaints if "status of 503" not in c and "503" not in c]


def test_an_operator_signs_in_and_axe_finds_nothing_on_what_operators_see(browser, addresses):
    source = axe()
    with tab(browser) as page:
        page.goto(addresses["good"] + "/versions")
        page.get_by_role("link", name="Sign in").first.click()
        page.get_by_label("Token").fill(OPERATE)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/versions")
        assert page.get_by_role("button", name="Roll back to 000003").is_visible()
        for path in PAGES[:7]:
            open_page(page, addresses["good"] + path)
            assert violations(page, source) == [], path


def test_a_question_is_asked_before_a_version_is_moved(browser, addresses):
    with tab(browser) as page:
        page.goto(addresses["good"] + "/sign-in?to=/versions")
        page.get_by_label("Token").fill(OPERATE)
        page.get_by_role("button", name="Sign in").click()
        asked = []
        page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        page.get_by_role("button", name="Roll back to 000003").click()
        page.wait_for_timeout(300)
        assert asked == ["Serve version 000003 instead, and pin it?"]
        assert page.url.endswith("/versions")


def test_the_plots_are_drawn_and_switch_between_measures(browser, addresses):
    with tab(browser) as page:
        open_page(page, addresses["good"] + "/")
        page.wait_for_selector("#plot-quality canvas")
        drawn = "document.querySelector('#plot-quality canvas').getContext('2d')" \
            ".getImageData(0, 0, 800, 200).data.some((v) => v)"  # fmt: skip
        assert page.evaluate(drawn)
        assert "the live model 8." in page.locator("#plot-quality").get_attribute("aria-label").replace("7.9", "8.")
        page.get_by_role("button", name="NDCG@10").click()
        assert "NDCG@10. Last values" in page.locator("#plot-quality").get_attribute("aria-label")
        page.get_by_text("The values as a table").click()
        page.wait_for_selector("#values table")


def test_the_overview_follows_the_installation_by_itself(browser, addresses):
    with tab(browser) as page:
        open_page(page, addresses["good"] + "/")
        with page.expect_response("**/overview/now", timeout=5_000):
            pass
        with page.expect_response("**/overview/members", timeout=6_000):
            pass


def test_times_are_shown_in_the_readers_zone_with_utc_beside_them(browser, addresses):
    with tab(browser) as page:
        open_page(page, addresses["good"] + "/versions")
        time = page.locator("time").first
        assert " UTC)" in time.get_attribute("title")
        offset = "new Date(document.querySelector('time').dateTime).toLocaleTimeString('en-GB')"
        assert page.evaluate(offset) in time.text_content()


def test_the_slider_is_moved_with_the_keyboard_and_the_picture_follows(browser, addresses):
    with tab(browser) as page:
        open_page(page, addresses["good"] + "/item?id=826249")
        slider = page.get_by_role("slider")
        slider.focus()
        with page.expect_response("**/item/picture?*step=9*", timeout=5_000):
            page.keyboard.press("ArrowLeft")
        page.wait_for_selector("text=1 hour before: the graph before")
        assert slider.get_attribute("aria-valuetext") == "1 hour before"
        assert page.locator("svg.graph circle").count() > 4


def test_the_keyboard_reaches_the_content_and_its_focus_is_seen(browser, addresses):
    with tab(browser) as page:
        open_page(page, addresses["good"] + "/user?id=alice")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"


def test_evil_names_are_text_in_a_real_browser(browser, addresses):
    with tab(browser) as page:
        dialogs = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        for path in ("/", "/dead-letters", "/cycles"):
            open_page(page, addresses["ill"] + path)
            if path != "/cycles":
                assert page.get_by_text(EVIL).count()
        assert dialogs == []


def test_a_policy_stops_what_is_not_ours(browser, addresses):
    with tab(browser) as page:
        open_page(page, addresses["good"] + "/")
        ran = page.evaluate(
            "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
            " document.body.append(s); return window.ran }"
        )
        assert ran is None
        assert any("Content Security Policy" in complaint for complaint in page.complaints)
        page.complaints.clear()
