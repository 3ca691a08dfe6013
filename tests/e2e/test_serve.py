"""`anabranch serve` and a worker beside it, asked over HTTP while the worker is killed and comes back."""

import json
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

import msgspec
import pytest

from stream.local.embedded_broker import free_port
from stream.serve.answers import POPULAR_AGAIN_S, POPULAR_WITHIN_S
from tests.e2e.conftest import anabranch, read_all, until
from tests.stream.http.test_schemathesis import check

pytestmark = pytest.mark.broker

WRITE, OPERATE = "write-token-of-the-shop", "operate-token-of-the-shop"
ENVIRONMENT = {
    "ANABRANCH_SERVE__WRITE_TOKEN": WRITE,
    "ANABRANCH_SERVE__OPERATE_TOKEN": OPERATE,
    "ANABRANCH_SERVE__DRAIN_S": "3",
    "ANABRANCH_SERVE__TIMEOUT_MS": "2000",  # the embedded broker's long poll takes a quarter of a second
}


class Shop:
    """A client of the interface at a port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.environment = ENVIRONMENT | {"ANABRANCH_SERVE__HTTP": f"127.0.0.1:{self.port}"}

    def ask(self, path: str, events: Any = None, token: str = WRITE) -> tuple[int, dict[str, Any]]:
        """The status and document of an answer; 0 without a server."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if events is not None:
            request.data = json.dumps(events).encode()
            request.headers |= {"Content-type": "application/json", "Authorization": f"Bearer {token}"}
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            return 0, {}

    def recommended(self, user: str) -> dict[str, Any]:
        """The answer for a user, which is never an error."""
        status, document = self.ask(f"/v1/users/{user}/recommendations")
        assert status == 200, document
        return document

    def is_ready(self) -> bool:
        return self.ask("/readyz")[0] == 200


def test_a_shop_sends_events_and_gets_recommendations_also_without_its_worker(config):
    shop = Shop()
    with anabranch(config, "serve", env=shop.environment) as serve, anabranch(config, "worker") as worker:
        until(shop.is_ready)
        events = [{"user": f"user-{n}", "item": item} for n in range(4) for item in ("milk", "tea", f"own-{n}")]
        assert shop.ask("/v1/events", events) == (202, {"accepted": 12, "rejected": []})
        until(lambda: (found := shop.recommended("user-1"))["items"] and found["fallback"] is None)
        assert {record.key for record in read_all(config, config.topics.clicks)} == {
            f"user-{n}".encode() for n in range(4)
        }
        until(lambda: len(read_all(config, config.topics.recommendations)) >= 4)

        status, forgotten = shop.ask("/v1/events", {"user": "user-3", "event": "forget"}, OPERATE)
        assert (status, forgotten["accepted"]) == (202, 1)
        until(lambda: any(r.value is None for r in read_all(config, config.topics.recommendations)))
        until(lambda: shop.recommended("nobody")["items"])
        time.sleep(POPULAR_WITHIN_S + POPULAR_AGAIN_S + 1)  # by then it has asked the worker what is popular

        worker.send_signal(signal.SIGKILL)
        worker.wait()
        last = shop.recommended("user-1")
        assert (last["fallback"], last["source"]) == ("last", "popularity")
        assert last["items"]
        forgotten = shop.recommended("user-3")
        assert (forgotten["fallback"], forgotten["offset"]) == ("popular", None), "who was forgotten does not come back"
        assert shop.recommended("nobody")["fallback"] == "popular"
        assert shop.ask("/v1/events", {"user": "user-1", "item": "beer"})[0] == 202, (
            "Kafka takes events without a worker"
        )

        serve.terminate()
        until(lambda: shop.ask("/readyz")[0] == 503)
        assert shop.recommended("user-1")["fallback"] == "last", "requests are answered while others look elsewhere"
        assert serve.wait(20) == 0
        published = [json.loads(r.value) for r in read_all(config, config.topics.members) if r.key == b"serve/0"]
        assert (published[0]["kind"], published[0].get("stopped", False)) == ("serve", False)
        assert published[-1]["stopped"]
    log = (config.data / "serve.log").read_text()
    assert WRITE not in log
    assert OPERATE not in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_killing_the_owner_again_and_again_is_no_error_for_anybody(config):
    shop, answers, stop = Shop(), Counter[str](), threading.Event()
    failures: list[object] = []

    def ask(client: int) -> None:
        while not stop.is_set():
            status, document = shop.ask(f"/v1/users/user-{client}/recommendations")
            answers[str(document.get("fallback")) if status == 200 else "failed"] += 1
            if status != 200:
                failures.append((status, document))
            time.sleep(0.05)

    with anabranch(config, "serve", env=shop.environment | {"ANABRANCH_SERVE__TIMEOUT_MS": "400"}):
        until(shop.is_ready)
        clients = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
        for _ in range(2):
            with anabranch(config, "worker") as worker:
                assert shop.ask("/v1/events", [{"user": f"user-{n}", "item": "milk"} for n in range(4)])[0] == 202
                until(lambda: shop.recommended("user-1")["fallback"] is None)
                for client in clients:
                    if not client.is_alive():
                        client.start()
                time.sleep(2)
                worker.send_signal(signal.SIGKILL)
                worker.wait()
                until(lambda: shop.recommended("user-1")["fallback"] == "last")
                time.sleep(1)
        stop.set()
        for client in clients:
            client.join()
    assert failures == []
    assert answers["None"] > 20
    assert answers["last"] + answers["popular"] > 20


@pytest.mark.slow
def test_a_worker_answers_its_own_users_and_asks_for_those_of_another(config, tmp_path):
    shop, users = Shop(), [f"user-{n}" for n in range(8)]
    api = shop.environment | {
        "ANABRANCH_WORKER__HTTP": f"127.0.0.1:{shop.port}",
        "ANABRANCH_WORKER__API": "true",
    }
    other = msgspec.structs.replace(config, data=tmp_path / "other")
    with anabranch(config, "worker", env=api), anabranch(other, "worker", "--instance", "other"):
        until(lambda: shop.ask("/v1/events", [{"user": user, "item": "milk"} for user in users])[0] == 202)
        until(lambda: all(shop.recommended(user)["fallback"] is None for user in users))
        found = {user: shop.recommended(user) for user in users}
        assert {found[user]["partition"] for user in users} == {0, 1}, "users of both partitions"
        assert all(answer["items"] for answer in found.values())
        status, related = shop.ask("/v1/items/milk/related")
        assert (status, related["events"], related["fallback"]) == (200, len(users), None), "of both workers"
    assert "Traceback" not in (config.data / "worker.log").read_text()


@pytest.mark.ops
def test_real_processes_answer_as_described(config, tmp_path):
    shop = Shop()
    with anabranch(config, "serve", env=shop.environment), anabranch(config, "worker"):
        until(shop.is_ready)
        assert shop.ask("/v1/events", {"user": "ann", "item": "milk"})[0] == 202
        until(lambda: shop.recommended("ann")["fallback"] is None)
        check(f"http://127.0.0.1:{shop.port}", OPERATE, tmp_path, examples=5)
