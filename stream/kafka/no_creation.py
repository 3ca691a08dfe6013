"""No client of ours creates a topic by asking for it: only `anabranch init` and `up` create topics.

Kafka creates a topic that a client names in a metadata request, with the broker's own partitions and retention, where
`auto.create.topics.enable` is true (its default) and the request allows it. The requests of both client libraries allow
it. aiokafka has no setting for that; kafka-python has one, `allow_auto_create_topics`, and 3.0 does not read it.
"""

from typing import Any

import aiokafka.admin.client
import aiokafka.client
from aiokafka.protocol.metadata import MetadataRequest
from kafka.cluster import ClusterMetadata


def only_look() -> None:
    """Let every Kafka client in this process, Faust's too, look at topics without creating them."""
    for module in (aiokafka.client, aiokafka.admin.client):
        setattr(module, MetadataRequest.__name__, looking_request)
    ClusterMetadata.DEFAULT_CONFIG["allow_auto_create_topics"] = False


def looking_request(topics: list[str] | None = None) -> Any:
    """A metadata request that creates nothing."""
    return MetadataRequest(topics, allow_auto_topic_creation=False)
