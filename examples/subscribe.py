"""Read recommendations as they come: python examples/subscribe.py HOST:PORT [--topic recommendations]"""

import argparse
import json
import sys

from connect import connected, shown
from kafka import KafkaConsumer

parse = argparse.ArgumentParser(description="Read recommendations as they come.")
parse.add_argument("broker", metavar="HOST:PORT")
parse.add_argument("--topic", default="recommendations", help="the topic of recommendations")
given = parse.parse_args()

with connected(given.broker, given.topic) as client:
    for record in KafkaConsumer(given.topic, **client, auto_offset_reset="earliest"):
        if record.value is None:  # a tombstone: the user was forgotten
            continue
        try:
            message = json.loads(record.value)
            items = ", ".join(shown(r["item"]) for r in message["items"])
            by = message["model"] or message["source"]
            print(f"{shown(message['user'])}: {items}  (by {shown(by)})", flush=True)
        except (ValueError, KeyError, TypeError):
            print(f"partition {record.partition}, offset {record.offset}: not a recommendation", file=sys.stderr)
