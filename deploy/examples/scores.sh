#!/usr/bin/env bash
# Customers whose newest score is high, from the compacted topic: kcat, jq.  Usage: scores.sh [BROKERS]
set -euo pipefail
# A score without a value (`null`) takes back the one before: of an erased customer, or one who refuses to be scored.
kcat -C -q -e -b "${1:-localhost:9092}" -t churn-scores -o beginning -X isolation.level=read_committed -f '%k\t%s\n' |
  awk -F '\t' '{ newest[$1] = $2 } END { for (id in newest) if (newest[id] != "") print newest[id] }' |
  jq -r 'select(.band == "high") | [.customer_id, .p_churn, .contributions[0].feature] | @tsv' | sort -k2,2gr
