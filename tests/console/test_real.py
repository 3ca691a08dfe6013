"""The console of a real installation, in real Chromium: clicks come in, a version is learned, an operator acts."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from stream.kafka.pointers import read_pointers
from stream.local.embedded_broker import free_port
from tests.console.chromium import chromium, missing, tab
from tests.console.fakes import EVIL, OPERATE
from tests.e2e.conftest import anabranch, producer, read_all, succeed, until

pytestmark = [
    pytest.mark.ops,
    pytest.mark.slow,
    pytest.mark.broker,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

__all__ = ["producer"]

QUICK = {
    "ANABRANCH_TRAINER__EVERY_EVENTS": "100000",
    "ANABRANCH_TRAINING__EPOCHS": "2",
    "ANABRANCH_TRAINING__WARM_UP_EPOCHS": "2",
    "ANABRANCH_TRAINING__INCREMENT_EPOCHS": "1",
    "ANABRANCH_MODEL__DIM": "16",
    "ANABRANCH_GATE__LATENCY_RATIO": "1000",  # on a busy machine any candidate may be slow
    "ANABRANCH_GATE__FORGOTTEN_SHARE": "1",
}


def pointers(config):
    with ThreadPoolExecutor(1) as thread:  # the browser's driver has a loop in this one
        return thread.submit(lambda: asyncio.run(read_pointers(config))).result()


def loaded(page, address: str):
    """Load a page with all its parts."""
    page.goto(address)
    for _ in range(150):
        page.wait_for_timeout(100)
        if not page.locator(".later").count():
            return
    raise AssertionError(f"{address} still loads parts")


def test_an_operator_watches_an_installation_learn_and_acts_on_it(config, producer):
    def click(user: str, item: str, n: int) -> None:
        value = json.dumps({"user": user, "item": item, "ts": 1_600_000_000_000 + 60_000 * n}).encode()
        producer.send(config.topics.clicks, key=user.encode(), value=value)

    home = f"http://127.0.0.1:{(port := free_port())}"
    serve = {"ANABRANCH_SERVE__HTTP": f"127.0.0.1:{port}", "ANABRANCH_SERVE__OPERATE_TOKEN": OPERATE}
    for n in range(600):
        click(f"user-{n % 20}", f"item-{n % 7}", n)
    producer.send(config.topics.clicks, key=b"x", value=b'{"user": "x"}')
    producer.send(config.topics.clicks, key=b"x", value=f'{{"user": "x", "item": "{EVIL}'.encode())
    producer.send(config.topics.items, key=b"item-3", value=b'{"item": "item-3", "title": "Green tea"}')
    producer.flush()
    with (
        anabranch(config, "worker"), anabranch(config, "trainer", env=QUICK), anabranch(config, "serve", env=serve),
        chromium() as browser, tab(browser) as page,
    ):  # fmt: skip
        until(lambda: "HTTP on" in (config.data / "serve.log").read_text())
        loaded(page, home + "/")
        page.get_by_text("Everything answers", exact=True).wait_for(timeout=120_000)  # the trainer runs too
        succeed(config, "retrain", "--wait", within_s=600)
        for n in range(600, 900):
            click(f"user-{n % 20}", f"item-{n % 7}", n)
        producer.flush()
        page.get_by_text("900 in all").wait_for(timeout=120_000)
        succeed(config, "retrain", "--wait", within_s=600)
        until(lambda: "serving version 000002" in (config.data / "worker.log").read_text())

        loaded(page, home + "/")
        page.get_by_text("Everything answers", exact=True).wait_for(timeout=30_000)
        page.get_by_text("Version 000002 answers.").wait_for(timeout=30_000)
        click("user-3", "item-4", 901)
        producer.flush()
        page.get_by_role("link", name="user-3", exact=True).wait_for(timeout=60_000)
        page.wait_for_selector("text=/median of a sample/", timeout=60_000)

        page.get_by_role("link", name="user-3", exact=True).click()
        page.wait_for_url("**/user?id=user-3")
        loaded(page, home + "/user?id=user-3")
        assert page.get_by_text("Ranked by version 000002").count()
        assert page.get_by_role("link", name="Green tea").count() or page.get_by_role("link", name="item-3").count()
        assert page.locator("#sequence").locator("..").get_by_role("row").count() == 47
        assert page.locator("#before").locator("..").get_by_role("row").count() >= 2

        loaded(page, home + "/item?id=item-3")
        assert page.get_by_role("heading", name="Green tea").count()
        assert page.locator("svg.graph circle.ring1").count() == 5
        with page.expect_response("**/item/picture?*step=0*"):
            page.get_by_role("slider").fill("0")
        page.wait_for_selector("text=Nothing had followed it at this time")

        loaded(page, home + "/dead-letters")
        assert page.get_by_role("article").count() == 2
        assert page.get_by_text(EVIL).count() == 1

        page.goto(home + "/sign-in?to=/versions")
        page.get_by_label("Token").fill(OPERATE)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/versions")
        page.on("dialog", lambda dialog: dialog.accept())

        def press(name: str) -> None:
            """Press a button of the versions, once it is there: the pointers are read every ten seconds."""
            button = page.get_by_role("button", name=name)

            def is_offered() -> bool:
                loaded(page, home + "/versions")
                return bool(button.count())

            until(is_offered)
            button.click()

        press("Roll back to 000001")
        page.get_by_role("status").get_by_text("Version 000001 serves from now on").wait_for(timeout=30_000)
        champion = pointers(config).champion
        assert champion is not None
        assert (champion.version, champion.pinned, champion.by) == ("000001", True, "operator")
        until(lambda: "serving version 000001" in (config.data / "worker.log").read_text())
        press("Unpin")
        page.get_by_text("Version 000001 serves until the trainer promotes another.").wait_for(timeout=30_000)

        loaded(page, home + "/item?id=item-3")
        page.get_by_role("button", name="Withdraw", exact=True).click()
        page.get_by_text("item-3 is recommended to nobody from now on.").wait_for(timeout=30_000)
        until(lambda: any(b'"withdrawn":true' in (r.value or b"") for r in read_all(config, config.topics.items)))

        def is_withdrawn() -> bool:
            loaded(page, home + "/item?id=item-3")
            return bool(page.get_by_text("to nobody: it is withdrawn").count())

        until(is_withdrawn)
        page.get_by_role("button", name="Undo the withdrawal").click()
        page.get_by_text("item-3 may be recommended again.").wait_for(timeout=30_000)

        loaded(page, home + "/")
        page.get_by_role("button", name="Pause all workers").click()
        page.get_by_text("The worker 0 is paused").wait_for(timeout=30_000)
        page.get_by_role("button", name="Resume all workers").click()
        page.get_by_text("Everything answers", exact=True).wait_for(timeout=30_000)


def test_a_worker_that_dies_is_seen_within_seconds_and_plots_outlive_a_restart(config, producer):
    home = f"http://127.0.0.1:{(port := free_port())}"
    serve = {"ANABRANCH_SERVE__HTTP": f"127.0.0.1:{port}"}
    with anabranch(config, "worker") as worker, chromium() as browser, tab(browser) as page:
        with anabranch(config, "serve", env=serve):
            until(lambda: "HTTP on" in (config.data / "serve.log").read_text())
            loaded(page, home + "/")
            page.get_by_text("Everything answers, nothing is learned").wait_for(timeout=60_000)
            until(lambda: len(page.request.get(home + "/overview/history.json").json()["t"]) > 1)
            worker.kill()
            page.get_by_text("Nobody serves partition 0, 1").first.wait_for(timeout=20_000)
        with anabranch(config, "serve", env=serve):
            until(lambda: (config.data / "serve.log").read_text().count("HTTP on") == 2)
            assert len(page.request.get(home + "/overview/history.json").json()["t"]) > 1
        page.complaints.clear()  # the page asked while nobody served
