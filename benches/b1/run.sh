#!/usr/bin/env bash
# Does the bench job B1 once, in a group and topics of its own, and prints one JSON line about it.
#
#   BS=127.0.0.1:9092 [PREFIX=b1-] [RUN=r1] benches/b1/run.sh [CATALOGUE]
#
# The topics ${PREFIX}clickstream, purchase and support must be there, of equal partition counts. CATALOGUE is
# `b1` (the job's 18 features) or `default` (everything that ships: the job's model and lifecycle on top of it).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
catalogue=${1:-b1}
prefix=${PREFIX:-b1-}
run=${RUN:-$$}
stagecast=${STAGECAST:-$here/../../target/release/stagecast}
[ -x "$stagecast" ] || cargo build --release --locked --manifest-path "$here/../../Cargo.toml"

settings=(--config "$here/stagecast.toml"
  --set "app.id=stagecast-$prefix$run" --set "app.instance=bench" --set "http.listen=127.0.0.1:0"
  --set "kafka.bootstrap.servers=${BS:-127.0.0.1:9092}"
  --set "source.clickstream.topic=${prefix}clickstream" --set "source.purchase.topic=${prefix}purchase"
  --set "source.support.topic=${prefix}support"
  --set "topics.stage_changes=${prefix}out-stages-$run" --set "topics.churn_scores=${prefix}out-scores-$run"
  --set "topics.churn_alerts=${prefix}out-alerts-$run" --set "topics.churn_outcomes=${prefix}out-outcomes-$run"
  --set "topics.dlq=${prefix}dlq-$run" --set "topics.state=${prefix}state-$run")
case $catalogue in
  b1) ;;
  default) settings+=(--set "features.file=$here/default.toml") ;;
  *) echo "b1 or default, not $catalogue" >&2; exit 2 ;;
esac

"$stagecast" topics create "${settings[@]}" >/dev/null
python3 - "$catalogue" "$stagecast" run --until-end "${settings[@]}" <<'PYTHON'
import json, resource, subprocess, sys, time
catalogue, command = sys.argv[1], sys.argv[2:]
began = time.time()
subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
wall, used = time.time() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "engine": "stagecast-" + catalogue, "wall_s": round(wall, 2), "cpu_s": round(used.ru_utime + used.ru_stime, 2),
    "peak_rss_mb": round(used.ru_maxrss / 1024),
}))
PYTHON
