#!/usr/bin/env python3
"""Prints churn alerts as they come, each exactly once as far as this terminal is concerned.

pip install confluent-kafka;  alerts.py [BROKERS [GROUP]];  with UNTIL_END=1 it stops where the topic ends.
"""
import json
import os
import sys

from confluent_kafka import Consumer, KafkaError

brokers = sys.argv[1] if len(sys.argv) > 1 else "localhost:9092"
group = sys.argv[2] if len(sys.argv) > 2 else "alerts-example"

consumer = Consumer({
    "bootstrap.servers": brokers,
    "group.id": group,
    "auto.offset.reset": "earliest",
    # What an aborted transaction wrote is never seen. The default of this client; Java's is the other one.
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
})
at_end = set()
consumer.subscribe(["churn-alerts"], on_assign=lambda *_: at_end.clear())

try:
    while not (os.environ.get("UNTIL_END") and at_end and len(at_end) == len(consumer.assignment())):
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            if message.error().code() == KafkaError._PARTITION_EOF:
                at_end.add(message.partition())
                continue
            raise SystemExit(message.error())
        at_end.discard(message.partition())
        alert = json.loads(message.value())
        reason = alert["contributions"][0]["feature"] if alert["contributions"] else "-"
        print(alert["ts"], alert["customer_id"], alert["policy"], alert["group"], f'{alert["p_churn"]:.3f}', reason,
              alert["action"] or "-", sep="\t", flush=True)
except KeyboardInterrupt:
    pass
finally:
    consumer.close()
