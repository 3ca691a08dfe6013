"""Publish one click: python examples/publish.py HOST:PORT USER ITEM"""

import json
import sys
import time

from kafka import KafkaProducer

broker, user, item = sys.argv[1:4]
click = {"user": user, "item": item, "ts": int(time.time() * 1000), "event": "click"}

producer = KafkaProducer(bootstrap_servers=broker)
# The key is the user: all clicks of one user belong in one partition.
sent = producer.send("clicks", key=user.encode(), value=json.dumps(click).encode()).get(timeout=10)
producer.close()
print(f"published to {sent.topic}, partition {sent.partition}, offset {sent.offset}")
