"""Read recommendations as they come: python examples/subscribe.py HOST:PORT"""

import json
import sys

from kafka import KafkaConsumer

consumer = KafkaConsumer("recommendations", bootstrap_servers=sys.argv[1], auto_offset_reset="earliest")
for record in consumer:
    if record.value is None:  # a tombstone: the user was forgotten
        continue
    message = json.loads(record.value)
    items = ", ".join(r["item"] for r in message["items"])
    print(f"{message['user']}: {items}  (by {message['model'] or message['source']})", flush=True)
