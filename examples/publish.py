"""Publish one click: python examples/publish.py HOST:PORT USER ITEM [--topic clicks]"""

import argparse
import json
import time

from connect import WITHIN_S, connected
from kafka import KafkaProducer

parse = argparse.ArgumentParser(description="Publish one click.")
parse.add_argument("broker", metavar="HOST:PORT")
parse.add_argument("user", metavar="USER")
parse.add_argument("item", metavar="ITEM")
parse.add_argument("--topic", default="clicks", help="the topic of clicks")
given = parse.parse_args()
click = {"user": given.user, "item": given.item, "ts": int(time.time() * 1000), "event": "click"}

with connected(given.broker, given.topic) as client:
    producer = KafkaProducer(**client, max_block_ms=WITHIN_S * 1000)
    # The key is the user: all clicks of one user belong in one partition.
    record = {"key": given.user.encode(), "value": json.dumps(click).encode()}
    sent = producer.send(given.topic, **record).get(timeout=WITHIN_S)
    producer.close(timeout=WITHIN_S)
    print(f"published to {sent.topic}, partition {sent.partition}, offset {sent.offset}")
