"""Read recommendations as they come: python examples/subscribe.py HOST:PORT"""

import json
import sys

from kafka import KafkaConsumer

broker = sys.argv[1]
consumer = KafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest")
if "recommendations" not in consumer.topics():  # a client that subscribes to a missing topic can create it
    sys.exit(f"{broker} has no topic 'recommendations': `anabranch init --broker {broker}` creates it")
consumer.subscribe(["recommendations"])
for record in consumer:
    if record.value is None:  # a tombstone: the user was forgotten
        continue
    message = json.loads(record.value)
    items = ", ".join(r["item"] for r in message["items"])
    print(f"{message['user']}: {items}  (by {message['model'] or message['source']})", flush=True)
