"""Ask for a recommendation and wait for it: python examples/request.py HOST:PORT USER [--topic requests]"""

import argparse
import json
import sys
import time
import uuid

from connect import WITHIN_S, connected, shown
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

WAIT_S = 2.0

parse = argparse.ArgumentParser(description="Ask for a recommendation and wait for it.")
parse.add_argument("broker", metavar="HOST:PORT")
parse.add_argument("user", metavar="USER")
parse.add_argument("--topic", default="requests", help="the topic of requests")
parse.add_argument("--replies", default="replies", help="the topic of replies")
given = parse.parse_args()

with connected(given.broker, given.topic, given.replies) as client:
    answers = KafkaConsumer(**client)
    partitions = [TopicPartition(given.replies, n) for n in answers.partitions_for_topic(given.replies)]
    answers.assign(partitions)
    # Before the request goes out: from here on no answer is missed.
    answers.seek_to_end()
    for partition in partitions:
        answers.position(partition, timeout_ms=WITHIN_S * 1000)

    producer = KafkaProducer(**client, max_block_ms=WITHIN_S * 1000)
    request = {"user": given.user, "id": str(uuid.uuid4())}
    producer.send(given.topic, key=given.user.encode(), value=json.dumps(request).encode()).get(timeout=WITHIN_S)

    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        for records in answers.poll(timeout_ms=100).values():
            for record in records:
                if request["id"].encode() not in (record.value or b""):
                    continue
                answer = json.loads(record.value)
                items = ", ".join(shown(r["item"]) for r in answer["items"])
                print(items, f" (by {shown(answer['model'] or answer['source'])})")
                sys.exit()
# A page shows the user's last message of `recommendations` then: a request is not repeated for you.
sys.exit(f"no answer in {WAIT_S:.0f} s: does a worker run? `anabranch status` shows its lag")
