"""Ask for a recommendation now and wait for the answer: python examples/request.py HOST:PORT USER"""

import json
import sys
import time
import uuid

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

WAIT_S = 2.0

broker, user = sys.argv[1:3]
answers = KafkaConsumer(bootstrap_servers=broker)
if not {"requests", "replies"} <= answers.topics():  # a client that names a missing topic can create it
    sys.exit(f"{broker} has no topics 'requests' and 'replies': `anabranch init --broker {broker}` creates them")
partitions = [TopicPartition("replies", n) for n in answers.partitions_for_topic("replies") or ()]
answers.assign(partitions)
# Before the request goes out: from here on no answer is missed.
answers.seek_to_end()
for partition in partitions:
    answers.position(partition)

producer = KafkaProducer(bootstrap_servers=broker)
request = {"user": user, "id": str(uuid.uuid4())}
producer.send("requests", key=user.encode(), value=json.dumps(request).encode()).get(timeout=10)

until = time.monotonic() + WAIT_S
while time.monotonic() < until:
    for records in answers.poll(timeout_ms=100).values():
        for record in records:
            answer = json.loads(record.value)
            if answer["id"] == request["id"]:
                print(", ".join(r["item"] for r in answer["items"]), f" (by {answer['model'] or answer['source']})")
                sys.exit()
# A page shows the user's last message of `recommendations` then: a request is not repeated for you.
sys.exit(f"no answer in {WAIT_S:.0f} s: does a worker run?")
