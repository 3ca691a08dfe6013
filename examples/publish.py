"""Publish one click: python examples/publish.py HOST:PORT USER ITEM"""

import json
import sys
import time

from kafka import KafkaAdminClient, KafkaProducer

broker, user, item = sys.argv[1:4]
click = {"user": user, "item": item, "ts": int(time.time() * 1000), "event": "click"}

# A client that names a missing topic can create it, with the wrong number of partitions: so all topics are listed.
admin = KafkaAdminClient(bootstrap_servers=broker)
if "clicks" not in admin.list_topics():
    sys.exit(f"{broker} has no topic 'clicks': `anabranch init --broker {broker}` creates it")
admin.close()

producer = KafkaProducer(bootstrap_servers=broker)
# The key is the user: all clicks of one user belong in one partition.
sent = producer.send("clicks", key=user.encode(), value=json.dumps(click).encode()).get(timeout=10)
producer.close()
print(f"published to {sent.topic}, partition {sent.partition}, offset {sent.offset}")
