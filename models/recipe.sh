#!/usr/bin/env bash
# Makes the model that ships, from nothing but the program: the same files, byte for byte, every time.
# Needs 2 GB of disk and a few minutes.  Usage: models/recipe.sh [FOLDER FOR THE EVENTS]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
cargo build --release
stagecast=target/release/stagecast

events=${1:-}
if [ -z "$events" ]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  events=$scratch/events
fi

# 18 months: three months of history, 24 cuts, the last month for the last labels.
[ -e "$events/truth.ndjson" ] || "$stagecast" simulate --customers 20000 --days 540 --seed 7 --out "$events"
"$stagecast" train --input "$events" --output models/churn.json \
  --label no_order --horizon 30d --lead 0d --active-within 90d --monotone
