"""`ensure` creates missing topics and changes no existing one."""

from types import SimpleNamespace

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from stream.errors import TopicMismatch
from stream.kafka.shapes import SHAPES
from stream.kafka.topics import check, create_missing, ensure, log_ends
from stream.operate.withdraw import withdraw_item

pytestmark = pytest.mark.broker


def test_ensure_creates_missing_topics_and_then_finds_them(config):
    found = ensure(config)
    assert not any(topic.created for topic in found)
    assert {t.name: t.partitions for t in found}[config.topics.clicks] == 2
    check(config)
    assert log_ends(config, config.topics.clicks) == {0: 0, 1: 0}


def test_topics_with_one_current_message_for_each_key_are_compacted(config, monkeypatch):
    made = {}

    async def create(admin, topics, *rest, real=AIOKafkaAdminClient.create_topics):
        made.update({topic.name: topic.topic_configs for topic in topics})
        return await real(admin, topics, *rest)

    monkeypatch.setattr(AIOKafkaAdminClient, "create_topics", create)
    names = {field: f"{getattr(config.topics, field)}-again" for field in SHAPES}
    again = msgspec.structs.replace(config, topics=msgspec.structs.replace(config.topics, **names))
    ensure(again)
    compacted = {name for name, settings in made.items() if settings.get("cleanup.policy") == "compact"}
    assert compacted == {again.topics.recommendations, again.topics.items, again.topics.models, again.topics.members}
    assert compacted < made.keys()
    assert made[again.topics.clicks] == {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}


def test_a_broker_that_sets_the_replicas_in_sync_by_itself_gets_the_topics_without_ours(config, monkeypatch):
    asked = []

    async def create(admin, topics, *rest):
        asked.append({topic.name: topic.topic_configs for topic in topics})
        code = 40 if any("min.insync.replicas" in topic.topic_configs for topic in topics) else 0
        return SimpleNamespace(topic_errors=[(topic.name, code) for topic in topics])

    monkeypatch.setattr(AIOKafkaAdminClient, "create_topics", create)
    monkeypatch.setattr("stream.kafka.topics.VISIBLE_WITHIN_S", 0.0)
    names = {field: f"{getattr(config.topics, field)}-managed" for field in SHAPES}
    topics = msgspec.structs.replace(config.topics, replication=3, **names)
    made = create_missing(msgspec.structs.replace(config, topics=topics))
    assert all(topic.created for topic in made)
    first, second = asked
    assert first.keys() == second.keys() == set(names.values())
    assert second[topics.clicks] == {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}


def test_a_missing_topic_is_named_with_the_command_that_creates_it(config):
    elsewhere = msgspec.structs.replace(config, topics=msgspec.structs.replace(config.topics, items="nowhere"))
    with pytest.raises(TopicMismatch, match="'nowhere': run `anabranch init`"):
        check(elsewhere)
    with pytest.raises(TopicMismatch, match="'nowhere': run `anabranch init`"):
        withdraw_item(elsewhere, "milk", withdrawn=True)


def test_requests_with_a_different_number_of_partitions_than_clicks_are_refused(config):
    mixed = msgspec.structs.replace(config.topics, requests=config.topics.items, items=config.topics.requests)
    with pytest.raises(TopicMismatch, match="has 2 partitions"):
        check(msgspec.structs.replace(config, topics=mixed))
