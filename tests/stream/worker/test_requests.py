"""Requests beyond what can be answered between two polls are refused, fairly and with a reply."""

import asyncio
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.config import KafkaSettings, WorkerSettings
from stream.kafka.click_values import MAX_ID_BYTES, Invalid
from stream.kafka.messages import Request
from stream.kafka.signing import signed
from stream.worker.asked import Asked, choose, read_request
from stream.worker.requests import SENT_AT_ONCE
from tests.stream.fakes import CLICKS, REQUESTS
from tests.stream.kafka.test_decode import Record
from tests.stream.worker.test_pipeline import Shop, with_shop


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (b'{"user": "ann"}', Asked("ann", "")),
        (b'{"user": 7, "id": 8}', Asked("7", 8)),
        (b'{"user": "ann", "limit": 3}', Asked("ann", "", limit=3)),
        (b'{"user": "ann", "want": "user"}', Asked("ann", "", want="user")),
        (b'{"item": "milk", "id": 1, "want": "item"}', Asked("", 1, want="item", item="milk")),
        (b'{"want": "popular"}', Asked("", "", want="popular")),
        (b'{"user": "ann", "id": "' + b"x" * MAX_ID_BYTES + b'"}', Asked("ann", "x" * MAX_ID_BYTES)),
    ],
)
def test_a_valid_request_is_read(value, asked):
    assert read_request(value) == asked


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "truncated"),
        (b'{"user": ""}', "user is empty"),
        (b'{"user": "' + b"u" * 513 + b'"}', "user is 513 bytes long, more than 512"),
        (b'{"user": "ann", "id": "' + b"x" * 513 + b'"}', "id is 513 bytes long, more than 512"),
        (b'{"user": "\\ud800"}', "truncated"),
        (b'{"user": "ann", "id": "\\ud800 \\u0041"}', "surrogate|UTF-8"),
        (b'{"user": true}', "Expected"),
        (b'{"item": "milk"}', "user is empty"),
        (b'{"user": "ann", "want": "item"}', "item is empty"),
        (b'{"user": "ann", "want": "all"}', "Invalid enum value"),
        (b'{"user": "ann", "limit": 1001}', "<= 1000"),
        (b'{"user": "ann", "limit": -1}', ">= 0"),
        (b'{"user": 1' + b"0" * 5000 + b"}", "out of range"),
    ],
)
def test_an_invalid_request_has_a_reason(value, reason):
    with pytest.raises(Invalid, match=reason):
        read_request(value)


SUBJECTS = [("a", ""), ("b", ""), ("", "milk")]
polls = st.dictionaries(
    st.integers(0, 3),
    st.lists(st.sampled_from(SUBJECTS).map(lambda s: Asked(s[0], "", item=s[1])), max_size=30),
    max_size=4,
)


@given(polls, st.integers(1, 40))
def test_as_many_as_fit_are_answered_and_nobody_gets_a_second_answer_before_all_have_one(asked, limit):
    chosen = choose(asked, limit)
    assert sum(map(len, chosen.values())) == min(limit, sum(map(len, asked.values())))
    answers = {
        (number, subject): sum(requests[at].subject == subject for at in chosen[number])
        for number, requests in asked.items()
        for subject in SUBJECTS
    }
    left = {
        (number, request.subject)
        for number, requests in asked.items()
        for at, request in enumerate(requests)
        if at not in chosen[number]
    }
    for one in left:
        assert all(count <= answers[one] + 1 for count in answers.values())


@with_shop
async def test_a_flood_of_one_user_is_refused_and_others_are_answered(shop: Shop):
    settings = WorkerSettings(requests_per_poll=10)
    shop.config = msgspec.structs.replace(shop.config, worker=settings)
    flooded = Shop(shop.config, shop.monkeypatch)
    await shop.close()
    await flooded.assign()
    flooded.apply({"user": "ann"}, {"user": "bob"})
    flood = [Record(json.dumps({"user": "ann", "id": n}).encode(), n) for n in range(1000)]
    bob = Record(b'{"user": "bob", "id": "bob"}', 1000)
    await flooded.poll({CLICKS: flooded.records({"user": "cat"}), REQUESTS: [*flood, bob]})
    replies = [json.loads(value) for _, value in flooded.producer.to("replies")]
    assert len(replies) == 1001
    answered = [r["id"] for r in replies if r["status"] == "ok"]
    assert answered == [*range(9), "bob"]
    refused = [r for r in replies if r["status"] == "too many"]
    assert all(r["items"] == [] and r["offset"] == -1 for r in refused)
    assert flooded.pipeline.requests.too_many == len(refused) == 991
    assert flooded.store.progress.next_offset == 3, "clicks go on"
    await flooded.close()


@with_shop
async def test_requests_that_were_polled_while_the_store_closed_are_read_again(shop: Shop):
    asked = [Record(b'{"user": null}', 4), Record(b'{"user": "ann", "id": 1}', 5)]
    opening = asyncio.Event()
    shop.monkeypatch.setattr("stream.stores.opener.read_logs", lambda *_: opening.wait())
    await shop.revoke()
    await shop.assignment.on_partitions_assigned([CLICKS])
    assert await shop.pipeline.requests.answer({0: asked}) == {0: 4}
    assert await shop.pipeline.requests.answer({7: asked}) == {}, "another worker's"


@with_shop
async def test_requests_that_the_lease_was_too_short_for_are_read_again(shop: Shop):
    shop.apply({"user": "ann"})
    requests = [Record(json.dumps({"user": "ann", "id": n}).encode(), n) for n in range(SENT_AT_ONCE + 700)]

    def on_send(topic: str) -> None:  # the lease runs out while the first refusals are sent
        if len(shop.producer.to("replies")) == SENT_AT_ONCE + 100:
            shop.lease.held = False

    async def refused(offsets) -> None:
        raise TimeoutError

    real, shop.consumer.commit = shop.consumer.commit, refused
    shop.producer.on_send = on_send
    shop.consumer.sought.clear()
    await shop.poll({REQUESTS: requests})
    [again] = shop.consumer.sought
    shop.consumer.commit, shop.producer.on_send = real, lambda topic: None
    await shop.poll({}, {REQUESTS: requests[again:]})
    replied = {json.loads(value)["id"] for _, value in shop.producer.to("replies")}
    assert replied == set(range(len(requests)))


@with_shop
async def test_a_user_an_item_and_what_is_popular_are_answered_beside_recommendations(shop: Shop):
    shop.apply({"user": "ann"}, {"user": "ann", "item": "bread"}, {"user": "bob"})
    requests = [
        {"user": "ann", "id": 1, "want": "user"},
        {"item": "milk", "id": 2, "want": "item"},
        {"want": "popular", "id": 3},
        {"user": "ann", "id": 4, "limit": 1},
        {"user": "zoe", "id": 5, "want": "user"},
        {"want": "item", "id": 6},
    ]
    await shop.poll({REQUESTS: [Record(json.dumps(r).encode(), n) for n, r in enumerate(requests)]})
    replies = {key: json.loads(value) for key, value in shop.producer.to("replies")}
    ann, milk, popular, recommended, zoe = (replies[str(n).encode()] for n in range(1, 6))
    assert [step["item"] for step in ann["user"]["sequence"]] == ["milk", "bread"]
    assert ann["user"]["partitions"] == [0]
    assert milk["item"]["degree"] == 2
    assert [follower["item"] for follower in milk["item"]["next"]] == ["bread"]
    assert [item["item"] for item in popular["popular"]] == ["milk", "bread"]
    assert (recommended["user"], len(recommended["items"])) == ("ann", 1)
    assert zoe["user"] == {"user": "zoe", "sequence": [], "recommended": None, "partitions": []}
    assert shop.producer.to("dead-letters") == [(None, b'{"want": "item", "id": 6}')]


@with_shop
async def test_of_too_many_requests_for_documents_the_rest_is_refused_and_says_so(shop: Shop):
    settings = WorkerSettings(requests_per_poll=2)
    shop.config = msgspec.structs.replace(shop.config, worker=settings)
    flooded = Shop(shop.config, shop.monkeypatch)
    await shop.close()
    await flooded.assign()
    asked = [{"item": "milk", "id": n, "want": "item"} for n in range(5)] + [{"item": "tea", "id": 5, "want": "item"}]
    await flooded.poll({REQUESTS: [Record(json.dumps(r).encode(), n) for n, r in enumerate(asked)]})
    replies = [json.loads(value) for _, value in flooded.producer.to("replies")]
    assert sorted(r["id"] for r in replies if "status" not in r) == [0, 5], "the first of every item goes before"
    refused = [r for r in replies if r.get("status") == "too many"]
    assert [r["id"] for r in refused] == [1, 2, 3, 4]
    assert not any("item" in r for r in refused)
    await flooded.close()


@with_shop
async def test_a_document_that_its_topic_does_not_take_is_replied_to_as_too_large(shop: Shop):
    shop.apply(*({"user": "ann", "item": f"an item with a long name {n}"} for n in range(30)))
    shop.producer.max_bytes = 500
    await shop.poll({REQUESTS: [Record(b'{"user": "ann", "id": 1, "want": "user"}', 0)]})
    [(_, reply)] = shop.producer.to("replies")
    assert json.loads(reply)["status"] == "too large"


@with_shop
async def test_with_a_signing_key_a_history_is_shown_to_those_who_have_the_key(shop: Shop):
    key = "the key of this shop's operators"
    shop.config = msgspec.structs.replace(shop.config, kafka=KafkaSettings(signing_key=key))
    keyed = Shop(shop.config, shop.monkeypatch)
    await shop.close()
    await keyed.assign()
    keyed.apply({"user": "ann"}, {"user": "ann", "item": "bread"})
    asked = [
        Request(user="ann", id=1, want="user"),
        signed(Request(user="ann", id=2, want="user"), (key,)),
        signed(Request(user="ann", id=3, want="user"), ("the key of somebody else",)),
        msgspec.structs.replace(signed(Request(user="bob", id=4, want="user"), (key,)), user="ann"),
        Request(user="ann", id=5),
        Request(item="milk", id=6, want="item"),
    ]
    await keyed.poll({REQUESTS: [Record(msgspec.json.encode(r), n) for n, r in enumerate(asked)]})
    replies = {key: json.loads(value) for key, value in keyed.producer.to("replies")}
    assert {key for key, reply in replies.items() if reply.get("status") == "refused"} == {b"1", b"3", b"4"}
    assert not any("user" in replies[key] for key in (b"1", b"3", b"4")), "not even that the user is known"
    assert [step["item"] for step in replies[b"2"]["user"]["sequence"]] == ["milk", "bread"]
    assert replies[b"5"]["status"] == "ok", "pages have no key"
    assert replies[b"6"]["item"]["degree"] == 1
    await keyed.close()
