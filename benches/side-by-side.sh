#!/usr/bin/env bash
# Measures stagecast beside other engines that do the same bench job, interleaved, in one run.
#
#   benches/side-by-side.sh PEERS [ROUNDS] [ENGINES...]
#
# PEERS is a folder with `gen/run.sh` (makes and loads the job's three topics), `bin/measure.py LABEL COMMAND`
# (CPU seconds, wall, peak memory of a process tree), and one folder with a `run.sh` per engine. Needs KAFKA_LIBS
# (a folder with Kafka's jars), BS (a broker) and BROKER_PID. ENGINES: stagecast, stagecast-default (the catalogue
# that ships), raw-drain, kafka-streams, flink; all of them by default. Figures land in PEERS/runs.jsonl; a table
# is printed at the end. A machine with other work to do inflates CPU seconds too: compare within one run only.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
peers=$(cd "${1:?the folder of the peers}" && pwd)
rounds=${2:-3}
shift $(($# < 2 ? $# : 2))
engines=("$@")
[ ${#engines[@]} -gt 0 ] || engines=(raw-drain stagecast stagecast-default kafka-streams flink)
: "${KAFKA_LIBS:?folder with the jars of Kafka}" "${BS:?address of a broker}" "${BROKER_PID:?its process id}"
export BS KAFKA_LIBS BROKER_PID PREFIX=${PREFIX:-b1-}
label=sbs$$

topics() {
  java -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp "$KAFKA_LIBS/*" org.apache.kafka.tools.TopicCommand \
    --bootstrap-server "$BS" "$@"
}

topics --list | grep -qx "${PREFIX}clickstream" || "$peers/gen/run.sh"
for round in $(seq "$rounds"); do
  for engine in "${engines[@]}"; do
    export RUN=$label-$engine-$round
    case $engine in
      stagecast) command=("$here/b1/run.sh" b1) ;;
      stagecast-default) command=("$here/b1/run.sh" default) ;;
      raw-drain) command=("$peers/raw-drain/run.sh" logic "$PREFIX") ;;
      flink) command=(env MODE=sorted "$peers/flink/run.sh") ;;
      *) command=("$peers/$engine/run.sh") ;;
    esac
    "$peers/bin/measure.py" "$label-$engine" timeout 600 "${command[@]}" >/dev/null
    topics --list | { grep -F -- "-$RUN" || true; } | while read -r topic; do topics --delete --topic "$topic"; done
  done
done

python3 - "$peers/runs.jsonl" "$label-" <<'PYTHON'
import collections, json, statistics, sys
path, label = sys.argv[1:]
runs = collections.defaultdict(list)
for line in open(path):
    run = json.loads(line)
    if run["label"].startswith(label):
        runs[run["label"].removeprefix(label)].append(run)
median = lambda engine, key: statistics.median(run[key] for run in runs[engine])
floor = median("raw-drain", "cpu_s") if "raw-drain" in runs else None
print(f"{'engine':20} {'CPU s':>8} {'of floor':>9} {'wall s':>8} {'peak MB':>8} {'others CPU s':>13}")
for engine in runs:
    ratio = f"{median(engine, 'cpu_s') / floor:.2f}" if floor else "-"
    print(f"{engine:20} {median(engine, 'cpu_s'):8.1f} {ratio:>9} {median(engine, 'wall_total_s'):8.1f} "
          f"{median(engine, 'peak_rss_mb'):8.0f} {median(engine, 'others_cpu_s'):13.1f}")
PYTHON
