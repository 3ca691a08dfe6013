"""`ensure` creates missing topics and changes no existing one."""

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from stream.errors import TopicMismatch
from stream.kafka.topics import check, ensure, log_ends

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
    topics = msgspec.structs.asdict(config.topics)
    names = {key: f"{name}-again" for key, name in topics.items() if isinstance(name, str)}
    again = msgspec.structs.replace(config, topics=msgspec.structs.replace(config.topics, **names))
    ensure(again)
    compacted = {name for name, settings in made.items() if settings.get("cleanup.policy") == "compact"}
    assert compacted == {again.topics.recommendations, again.topics.items, again.topics.models}
    assert compacted < made.keys()
    assert made[again.topics.clicks] == {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}


def test_a_missing_topic_is_named_with_the_command_that_creates_it(config):
    elsewhere = msgspec.structs.replace(config, topics=msgspec.structs.replace(config.topics, items="nowhere"))
    with pytest.raises(TopicMismatch, match="'nowhere': run `anabranch init`"):
        check(elsewhere)


def test_requests_with_a_different_number_of_partitions_than_clicks_are_refused(config):
    mixed = msgspec.structs.replace(config.topics, requests=config.topics.items)
    with pytest.raises(TopicMismatch, match="has 2 partitions"):
        check(msgspec.structs.replace(config, topics=mixed))
