"""The interface for shops: paths, methods, limits and errors, as a client sees them."""

import asyncio
import json
import logging
import re

import aiohttp
import msgspec
import pytest
from aiohttp import web

from stream.config import ClickFields, ClickSettings, Config, ServeSettings
from stream.http.answers import Unsent
from stream.http.api import Api
from stream.http.server import HttpServer
from tests.stream.http.shop import OPERATE, SETTINGS, WRITE, Counts, FixedAnswers, Shop, with_shop

PROBLEM = "application/problem+json"


async def problem(response, status: int) -> dict:
    """The document of an error, which has a sentence."""
    assert (response.status, response.content_type) == (status, PROBLEM)
    document = await response.json(content_type=PROBLEM)
    assert document["status"] == status
    assert document["detail"].endswith(".")
    return document


@with_shop()
async def test_a_user_gets_recommendations(shop: Shop):
    answer = await shop.get("/v1/users/ann/recommendations?limit=3")
    assert (answer.status, answer.content_type) == (200, "application/json")
    document = await answer.json()
    assert document["user"] == "ann"
    assert [item["item"] for item in document["items"]] == ["item-0", "item-1", "item-2"]
    assert (document["source"], document["fallback"], document["model"]) == ("model", None, "000001")
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert shop.answers.counted == [("owner", 1)]


@with_shop()
async def test_an_item_has_related_ones_that_a_cache_may_keep(shop: Shop):
    answer = await shop.get("/v1/items/milk/related?limit=2")
    document = await answer.json()
    assert [item["item"] for item in document["items"]] == ["item-0", "item-1"]
    assert answer.headers["Cache-Control"] == "public, max-age=10"


@pytest.mark.parametrize(
    ("segment", "user"),
    [
        ("a%2Fb", "a/b"),
        ("a%20b+c", "a b+c"),
        ("%C3%BCmit", "ümit"),
        ("%25FF", "%FF"),
        ("%00", "\0"),
        ("a;b=c,d", "a;b=c,d"),
        ("%2E%2E", ".."),
        ("x" * 512, "x" * 512),
    ],
)
def test_ids_in_paths_are_percent_encoded_utf_8(segment, user):
    @with_shop()
    async def scenario(shop: Shop):
        answer = await shop.get(f"/v1/users/{segment}/recommendations")
        assert (await answer.json())["user"] == user
        assert shop.answers.asked == [user]

    scenario()


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/v1/users/%FF/recommendations", 400, "UTF-8"),
        ("/v1/users/%C3%28/recommendations", 400, "UTF-8"),
        ("/v1/users/%ED%A0%80/recommendations", 400, "UTF-8"),
        ("/v1/users/" + "x" * 513 + "/recommendations", 400, "512"),
        ("/v1/users/ann/recommendations?limit=0", 400, "limit is '0'"),
        ("/v1/users/ann/recommendations?limit=1001", 400, "from 1 to 1,000"),
        ("/v1/users/ann/recommendations?limit=ten", 400, "limit is 'ten'"),
        ("/v1/users/ann/recommendations?limit=", 400, "limit is ''"),
        ("/v1/users/ann/recommendations?limit=%D9%A3", 400, "limit is"),
        ("/v1/users/ann/recommendations?limit=1e2", 400, "limit is '1e2'"),
        ("/v1/items/milk/related?limit=-1", 400, "limit is '-1'"),
        ("/v1/users//recommendations", 404, "openapi.json"),
        ("/v1/users/ann", 404, "openapi.json"),
        ("/v1/", 404, "openapi.json"),
        ("/v1/users/a/b/recommendations", 404, "openapi.json"),
    ],
)
def test_a_wrong_path_is_answered_with_a_sentence(path, status, says):
    @with_shop()
    async def scenario(shop: Shop):
        assert says in (await problem(await shop.get(path), status))["detail"]
        assert shop.answers.asked == []

    scenario()


@with_shop()
async def test_methods(shop: Shop):
    path = "/v1/users/ann/recommendations"
    head = await shop.ask("HEAD", path)
    assert (head.status, await head.read()) == (200, b"")
    assert int(head.headers["Content-Length"]) == len(await (await shop.get(path)).read())
    options = await shop.ask("OPTIONS", path)
    assert (options.status, options.headers["Allow"]) == (204, "GET, HEAD, OPTIONS")
    assert "Access-Control-Allow-Methods" not in options.headers
    for method in ("POST", "DELETE", "PATCH"):
        refused = await shop.ask(method, path)
        assert refused.headers["Allow"] == "GET, HEAD, OPTIONS"
        assert "GET, HEAD" in (await problem(refused, 405))["detail"]
    assert (await shop.ask("OPTIONS", "/v1/nothing")).status == 404


@with_shop()
async def test_events_are_sent_as_they_are_under_the_key_of_their_user(shop: Shop):
    taken = await shop.send(b'{"user": "ann", "item": "milk",\n "page": 1.50}')
    assert (taken.status, await taken.json()) == (202, {"accepted": 1, "rejected": []})
    taken = await shop.send(b'[{"user": 7, "item": 8}, {"user": "bob", "item": "tea", "event": "purchase"}]')
    assert (await taken.json())["accepted"] == 2
    lines = b'{"user": "cat", "item": "a"}\n\n{"user": "dan", "item": "b"}\r\n'
    taken = await shop.send(lines, "application/x-ndjson; charset=utf-8")
    assert (await taken.json())["accepted"] == 2
    assert [(event.key, event.value) for event in shop.answers.sent] == [
        (b"ann", b'{"user":"ann","item":"milk","page":1.50}'),
        (b"7", b'{"user":7,"item":8}'),
        (b"bob", b'{"user":"bob","item":"tea","event":"purchase"}'),
        (b"cat", b'{"user":"cat","item":"a"}'),
        (b"dan", b'{"user":"dan","item":"b"}'),
    ]


@with_shop()
async def test_the_events_that_were_not_sent_are_named(shop: Shop):
    shop.answers.unsent = {b"late": Unsent("Kafka was late", again=True), b"long": Unsent("too long", again=False)}
    body = [
        {"user": "ann", "item": "milk"},
        {"user": "", "item": "milk"},
        {"user": "late", "item": "milk"},
        {"user": "ann", "item": "milk", "event": "sneeze"},
        {"user": "long", "item": "milk"},
        17,
    ]
    taken = await shop.send(json.dumps(body).encode())
    assert taken.status == 202
    document = await taken.json()
    assert document["accepted"] == 1
    rejected = {event["index"]: (event["reason"], event["again"]) for event in document["rejected"]}
    assert rejected[1] == ("user is empty", False)
    assert rejected[2] == ("Kafka was late", True)
    assert "unknown event kind 'sneeze'" in rejected[3][0]
    assert rejected[4] == ("too long", False)
    assert rejected[5] == ("not a JSON object but a number", False)
    assert shop.answers.counted == [("accepted", 1), ("invalid", 3), ("unsent", 2)]


@with_shop()
async def test_a_request_without_a_sent_event_is_an_error_that_says_whether_to_try_again(shop: Shop):
    invalid = await problem(await shop.send(b'{"user": "ann"}'), 422)
    assert invalid["rejected"] == [{"index": 0, "reason": "item is missing or null", "again": False}]
    assert shop.answers.sent == []
    shop.answers.unsent = {b"ann": Unsent("Kafka was late", again=True)}
    late = await shop.send(b'{"user": "ann", "item": "milk"}')
    assert int(late.headers["Retry-After"]) > 0
    assert (await problem(late, 503))["rejected"][0]["again"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "says"),
    [
        (b"", "application/json", 400, "not JSON"),
        (b"[]", "application/json", 400, "no event"),
        (b"\n \n", "application/x-ndjson", 400, "no event"),
        (b'{"user":', "application/json", 400, "not JSON"),
        (b"\xff\xfe", "application/json", 400, "not JSON"),
        (b"[" * 100_000, "application/json", 400, "not JSON"),
        (b'{"a":' * 50_000, "application/json", 400, "not JSON"),
        (b'{"user": "a\xff", "item": "b"}', "application/json", 422, "not JSON"),
        (b'{"user": "\\ud800", "item": "b"}', "application/json", 400, "not JSON"),
        (b"[" + b"{}," * 1000 + b"{}]", "application/json", 413, "At most 1,000"),
        (b"[" + b" " * (1 << 20) + b"]", "application/json", 413, "larger than 1,048,576"),
        (b"user=ann", "application/x-www-form-urlencoded", 415, "application/json"),
        (b"{}", "text/plain", 415, "application/json"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else None,
)
def test_a_body_that_has_no_events_is_refused(body, content_type, status, says):
    @with_shop()
    async def scenario(shop: Shop):
        assert re.search(says, (await problem(await shop.send(body, content_type), status))["detail"])
        assert shop.answers.sent == []
        assert (await shop.get("/v1/items/milk/related")).status == 200, "the process goes on"

    scenario()


@with_shop()
async def test_events_carry_the_trace_of_their_request_and_no_longer_header(shop: Shop):
    headers = {"Authorization": f"Bearer {WRITE}", "Content-Type": "application/json", "traceparent": "00-1-2-01"}
    asked = {**headers, "tracestate": "a" * 600}
    await shop.ask("POST", "/v1/events", data=b'{"user": "a", "item": "b"}', headers=asked)
    assert [event.headers for event in shop.answers.sent] == [(("traceparent", b"00-1-2-01"),)]


@with_shop()
async def test_a_compressed_body_is_refused_before_it_is_unpacked(shop: Shop):
    headers = {"Authorization": f"Bearer {WRITE}", "Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert (
        "compressed" in (await problem(await shop.ask("POST", "/v1/events", data=b"x", headers=headers), 415))["detail"]
    )


@with_shop()
async def test_a_body_without_a_length_is_cut_off_at_the_limit(shop: Shop):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 65_536

    headers = {"Authorization": f"Bearer {WRITE}", "Content-Type": "application/json"}
    try:
        refused = await shop.ask("POST", "/v1/events", data=endless(), headers=headers)
        await problem(refused, 413)
    except aiohttp.ClientError:
        pass  # the connection was closed while the client still sent
    assert sent < 1000
    assert shop.answers.sent == []


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("stream.http.api.BODY_WITHIN_S", 0.1)

    @with_shop()
    async def scenario(shop: Shop):
        url = shop.client.make_url("/")
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(
            b"POST /v1/events HTTP/1.1\r\nHost: shop\r\nContent-Length: 100\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer " + WRITE.encode() + b"\r\n\r\n{"
        )
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 408")
        writer.close()

    scenario()


@with_shop()
async def test_only_an_operator_sends_an_event_that_erases_a_user(shop: Shop):
    body = b'{"user": "ann", "event": "forget"}'
    refused = await problem(await shop.send(body), 422)
    assert "operate token" in refused["rejected"][0]["reason"]
    assert (await shop.send(body, token=OPERATE)).status == 202
    assert [event.key for event in shop.answers.sent] == [b"ann"]


@with_shop(clicks=ClickSettings(fields=ClickFields(user="customer.id", item="sku")))
async def test_events_have_the_field_names_of_the_topic(shop: Shop):
    taken = await shop.send(b'[{"customer": {"id": "ann"}, "sku": "milk"}, {"user": "ann", "item": "milk"}]')
    document = await taken.json()
    assert document["accepted"] == 1
    assert "customer.id" in document["rejected"][0]["reason"]
    described = await (await shop.get("/openapi.json")).json()
    assert "customer.id" in described["components"]["schemas"]["SentEvent"]["description"]


@with_shop()
async def test_without_the_right_token_nothing_is_sent(shop: Shop):
    for headers, status in (({}, 401), ({"Authorization": "Bearer " + "x" * 20}, 401)):
        headers |= {"Content-Type": "application/json"}
        refused = await shop.ask("POST", "/v1/events", data=b'{"user": "a", "item": "b"}', headers=headers)
        await problem(refused, status)
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert shop.answers.sent == []


@with_shop(msgspec.structs.replace(SETTINGS, client_requests_per_s=1.0))
async def test_a_client_that_asks_too_often_learns_when_to_come_back(shop: Shop):
    path = "/v1/users/ann/recommendations"
    statuses = [(await shop.get(path)).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = await shop.get(path)
    assert 1 <= int(refused.headers["Retry-After"]) <= 2
    await problem(refused, 429)
    guessed = [(await shop.get(path, Authorization="Bearer " + str(n) * 16)).status for n in range(3)]
    assert guessed == [429] * 3, "another token that is not known is not another client"
    assert (await shop.get("/readyz")).status == 200, "probes are not limited"


ORIGINS = ServeSettings(cors_origins="https://shop.example, https://m.shop.example", client_requests_per_s=0)


@with_shop(ORIGINS)
async def test_a_page_of_an_allowed_origin_may_read_answers(shop: Shop):
    path = "/v1/users/ann/recommendations"
    allowed = await shop.get(path, Origin="https://shop.example")
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert allowed.headers["Vary"] == "Origin"
    for origin in ("https://evil.example", "https://shop.example.evil.example", "null", "http://shop.example"):
        assert "Access-Control-Allow-Origin" not in (await shop.get(path, Origin=origin)).headers
    asked = {"Origin": "https://m.shop.example", "Access-Control-Request-Method": "POST"}
    preflight = await shop.ask("OPTIONS", "/v1/events", headers=asked)
    assert preflight.status == 204
    assert preflight.headers["Access-Control-Allow-Methods"] == "OPTIONS, POST"
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in preflight.headers
    error = await shop.get("/v1/users/%FF/recommendations", Origin="https://shop.example")
    assert error.headers["Access-Control-Allow-Origin"] == "https://shop.example", "a page can read errors too"
    assert "Access-Control-Allow-Origin" not in (await shop.get("/readyz", Origin="https://shop.example")).headers


@with_shop()
async def test_without_the_setting_no_other_origin_reads_answers(shop: Shop):
    answer = await shop.get("/v1/users/ann/recommendations", Origin="https://shop.example")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Vary" not in answer.headers


@with_shop()
async def test_a_fault_of_the_code_is_logged_and_its_details_are_not_answered(shop: Shop):
    shop.answers.failure = RuntimeError("secret detail")
    lines: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = lines.append  # type: ignore[method-assign]
    logging.getLogger("anabranch.http").addHandler(handler)
    try:
        answer = await shop.get("/v1/users/ann%0A/recommendations", Authorization=f"Bearer {OPERATE}")
        document = await problem(answer, 500)
    finally:
        logging.getLogger("anabranch.http").removeHandler(handler)
    assert "secret" not in json.dumps(document)
    [line] = lines
    text = logging.Formatter().format(line)
    assert "secret detail" in text
    assert OPERATE not in text


@with_shop()
async def test_a_stopping_process_answers_and_closes_the_connection(shop: Shop):
    shop.api.guard.stopping = True
    answer = await shop.get("/v1/users/ann/recommendations")
    assert (answer.status, answer.headers["Connection"]) == (200, "close")


@with_shop()
async def test_answers_say_nothing_about_the_software_below(shop: Shop):
    for path in ("/v1/users/ann/recommendations", "/v1/nothing", "/openapi.json"):
        answer = await shop.get(path)
        assert answer.headers["Server"] == "anabranch"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/users/ann/recommendations HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer %s\0\r\n\r\n",
        b"GET /v1/users/ann/recommendations HTTP/1.1\r\nHost: shop\r\nAuthorization Bearer %s\r\n\r\n",
        b"GET /v1/users/ann/recommendations?token=%s HTTP/9\r\nHost: shop\r\n\r\n",
        b"%s\r\n\r\n",
    ],
)
def test_nothing_of_a_request_that_is_no_http_is_logged(head, caplog):
    async def run() -> None:
        answers, app = FixedAnswers(), web.Application()
        Api(Config(serve=SETTINGS), answers, Counts(answers)).add_to(app)
        server = HttpServer(app, "127.0.0.1", 0)
        port = await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head % OPERATE.encode())
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await server.stop()

    with caplog.at_level(logging.DEBUG):
        asyncio.run(run())
    assert OPERATE not in caplog.text
    assert "Traceback" not in caplog.text


def test_connections_beyond_the_limit_are_closed_and_those_before_are_served(monkeypatch, caplog):
    monkeypatch.setattr("stream.http.server.MAX_CONNECTIONS", 3)

    async def run() -> None:
        server = HttpServer(web.Application(), "127.0.0.1", 0)
        port = await server.start()
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for reader, _ in opened[3:]:
            assert await asyncio.wait_for(reader.read(), 10) == b""
        for reader, writer in opened[:3]:
            writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
            assert b" 404 " in await asyncio.wait_for(reader.readline(), 10)
        opened[0][1].close()
        await opened[0][1].wait_closed()
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert b" 404 " in await asyncio.wait_for(reader.readline(), 10)
        for _, each in [*opened, (reader, writer)]:
            each.close()
        await server.stop()

    asyncio.run(run())
    assert caplog.text.count("HTTP connections are open") == 1


def test_a_connection_that_sends_no_whole_request_is_closed(monkeypatch):
    monkeypatch.setattr("stream.http.server.IDLE_S", 0.2)

    async def run() -> None:
        server = HttpServer(web.Application(), "127.0.0.1", 0)
        port = await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: sh")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await server.stop()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("settings", "name", "token", "status"),
    [
        ({}, "evil.example", "", 403),
        ({}, "evil.example:8080", "", 403),
        ({}, "127.0.0.1.evil.example", "", 403),
        ({}, "localhost:8080", "", 200),
        ({}, "127.0.0.9", "", 200),
        ({}, "[::1]:8080", "", 200),
        ({}, "shop.example", OPERATE, 200),
        ({"read_token": "read-token-of-the-shop"}, "shop.example", "", 401),
        ({"proxies": 1}, "shop.example", "", 200),
        ({"http": ":8080"}, "shop.example", "", 200),
        ({"http": "[::1]:8080"}, "evil.example", "", 403),
    ],
)
def test_a_page_whose_site_calls_this_machine_by_its_own_name_reads_nothing(settings, name, token, status):
    @with_shop(msgspec.structs.replace(SETTINGS, **settings))
    async def scenario(shop: Shop):
        headers = {"Host": name} | ({"Authorization": f"Bearer {token}"} if token else {})
        answer = await shop.get("/v1/users/ann/recommendations", **headers)
        assert answer.status == status
        if status == 403:
            assert name.split(":")[0] in (await problem(answer, 403))["detail"]
            assert not shop.answers.asked

    scenario()
