"""What is wrong with a topic that somebody else created, in one sentence with the command that fixes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.config import Config, TopicSettings
from stream.kafka.shapes import SHAPES, FoundTopic, deviations, shapes

CONFIG = Config(broker="broker:9092")
DEFAULTS = {
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "min.insync.replicas": "1",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
}


def as_created(replication: int = 1) -> dict[str, FoundTopic]:
    return {
        name: FoundTopic(2 if shape.like_clicks else 1, replication, DEFAULTS | shape.settings(replication))
        for name, shape in shapes(CONFIG).items()
    }


def found_with(topic: str, **settings: str) -> list[tuple[str, bool]]:
    topics = as_created()
    own = {name.replace("_", "."): value for name, value in settings.items()}
    topics[topic] = topics[topic]._replace(settings=dict(topics[topic].settings) | own)
    return [(deviation.text, deviation.fatal) for deviation in deviations(CONFIG, topics)]


@pytest.mark.parametrize("replication", [1, 2, 3])
def test_what_init_creates_has_no_deviation(replication):
    assert deviations(CONFIG, as_created(replication), brokers=replication) == []


@pytest.mark.parametrize(
    ("topic", "policy", "fatal"),
    [
        ("clicks", "compact", True),
        ("clicks", "compact,delete", True),
        ("dead-letters", "compact", True),
        ("replies", "compact", True),
        ("models", "delete", True),
        ("models", "compact,delete", True),
        ("items", "delete", False),
        ("recommendations", "delete", False),
        ("requests", "compact", False),
        ("commands", "compact", False),
        ("examples", "compact", False),
        ("examples", "delete", False),
    ],
)
def test_a_wrong_cleanup_policy_is_named_with_its_consequence_and_the_command(topic, policy, fatal):
    [(text, refused)] = found_with(topic, cleanup_policy=policy)
    assert refused is fatal
    right = shapes(CONFIG)[topic].cleanup
    right = f"[{right}]" if "," in right else right  # the tool takes a comma for the end of a setting
    assert text.startswith(f"the topic {topic!r} has cleanup.policy={policy}: ")
    assert text.endswith(
        f"`kafka-configs.sh --bootstrap-server broker:9092 --alter --entity-type topics --entity-name {topic} "
        f"--add-config cleanup.policy={right}` fixes it"
    )


@pytest.mark.parametrize("policy", ["delete", "compact,delete", ""])
def test_pointers_that_no_retention_removes_are_kept_as_well_as_compacted_ones(policy):
    assert found_with("models", cleanup_policy=policy, retention_ms="-1") == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"message_timestamp_type": "CreateTime"}, "keeps its producers' clocks"),
        ({"retention_ms": "3600000"}, "keeps events for 1 h"),
        ({"retention_bytes": "1000000"}, "keeps 1,000,000 bytes of each partition"),
        ({"max_message_bytes": "2000000"}, "'clicks' accepts messages of 2,000,000 bytes, 'dead-letters' of 1,048,588"),
    ],
)
def test_clicks_that_lose_something_are_a_warning(settings, said):
    [(text, fatal)] = found_with("clicks", **settings)
    assert said in text
    assert "--entity-name" in text
    assert not fatal


def test_an_installation_from_before_the_examples_works_and_learns_what_it_misses():
    topics = as_created()
    del topics["examples"]
    [deviation] = deviations(CONFIG, topics)
    assert not deviation.fatal
    assert deviation.text.startswith("the broker at broker:9092 has no topic 'examples': run `anabranch init`. Until ")


def test_requests_with_other_partitions_than_clicks_are_refused():
    topics = as_created() | {"clicks": FoundTopic(1)}
    [deviation] = deviations(CONFIG, topics)
    assert deviation.fatal
    assert "'clicks' has 1 partition, 'requests' has 2" in deviation.text


def test_one_replica_is_a_warning_only_where_there_are_more_brokers():
    assert deviations(CONFIG, as_created(), brokers=1) == []
    [deviation] = deviations(CONFIG, as_created(), brokers=3)
    assert deviation.text.startswith("one replica of 'clicks', 'recommendations', 'dead-letters', ")
    assert not deviation.fatal


@pytest.mark.parametrize(("replicas", "in_sync"), [(1, "2"), (3, "3"), (3, "1")])
def test_numbers_of_replicas_that_lose_or_stop_messages_are_one_line_for_all_topics(replicas, in_sync):
    topics = {
        name: topic._replace(settings=dict(topic.settings) | {"min.insync.replicas": in_sync})
        for name, topic in as_created(replicas).items()
    }
    [deviation] = deviations(CONFIG, topics, brokers=replicas)
    assert "min.insync.replicas" in deviation.text
    assert "for topic in clicks recommendations" in deviation.text


def test_a_topic_too_small_for_our_messages_is_a_warning():
    [(text, fatal)] = found_with("recommendations", max_message_bytes="1000")
    assert "'recommendations'" in text
    assert not fatal


def test_names_from_the_settings_are_used():
    config = Config(broker="b:1", topics=TopicSettings(models="pointers"))
    [deviation] = deviations(config, {name: FoundTopic(1) for name in shapes(CONFIG)})
    assert deviation.text == "the broker at b:1 has no topic 'pointers': run `anabranch init`"


@given(st.sampled_from(sorted(SHAPES)), st.dictionaries(st.sampled_from(sorted(DEFAULTS)), st.text(max_size=5)))
def test_settings_that_no_kafka_has_are_no_error(field, settings):
    topics = as_created()
    name = getattr(CONFIG.topics, field)
    deviations(CONFIG, topics | {name: topics[name]._replace(settings=settings)})
