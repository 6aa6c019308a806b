#!/usr/bin/env python3
"""Posts the alerts of the treatment group to a campaign tool.

pip install confluent-kafka;  webhook.py URL [BROKERS [GROUP]];  with UNTIL_END=1 it stops where the topic ends.

An alert is posted at least once: its position is committed only after the tool has taken it. `Idempotency-Key` is
the alert's id, which is the same however often it is computed or posted, so that the tool can tell a repetition.
The control group is left alone: comparing both groups, in churn-outcomes, is what measures the campaign.
"""
import json
import os
import sys
import time
import urllib.error
import urllib.request

from confluent_kafka import Consumer, KafkaError

if len(sys.argv) < 2:
    sys.exit(__doc__)
url = sys.argv[1]
brokers = sys.argv[2] if len(sys.argv) > 2 else "localhost:9092"
group = sys.argv[3] if len(sys.argv) > 3 else "campaign-webhook"


def post(alert, patience=(1, 2, 4, 8, 16)):
    """Tries again while the tool is away; a refusal (4xx) would be one the next time, too."""
    body = json.dumps({
        "customer_id": alert["customer_id"], "campaign": alert["policy"], "action": alert["action"],
        "p_churn": alert["p_churn"], "value_at_risk": alert["value_at_risk"], "at": alert["ts"],
    }).encode()
    headers = {"content-type": "application/json", "idempotency-key": alert["alert_id"]}
    if token := os.environ.get("WEBHOOK_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    for wait in (*patience, None):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10):
                return True
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                return False
            failure = error
        except OSError as error:
            failure = error
        if wait is None:
            sys.exit(f"{url}: {failure}; nothing is lost, start again")
        time.sleep(wait)


consumer = Consumer({
    "bootstrap.servers": brokers,
    "group.id": group,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
})
at_end, posted, refused, control = set(), 0, 0, 0
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
        if alert["group"] == "control":
            control += 1
        elif post(alert):
            posted += 1
        else:
            refused += 1
            print(f"refused: alert {alert['alert_id']}", file=sys.stderr)
        consumer.commit(message, asynchronous=False)
except KeyboardInterrupt:
    pass
finally:
    consumer.close()
    print(f"{posted} posted, {refused} refused, {control} in the control group", file=sys.stderr)
