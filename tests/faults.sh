#!/usr/bin/env bash
# The long runs of faults on real brokers, one after another, and a row of figures for each; a second argument
# names one of them. About 25 minutes on two free cores. STAGECAST_FAULTS_SEED=N repeats the choices of a run.
#   tests/faults.sh [OUTPUT_DIR] [long_kills|long_zombies|long_pauses|long_outages|long_network|long_storm|long_poison|long_leaders|long_disk_full]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/faults}
mkdir -p "$out"

cargo build --locked
cargo test --locked --test kafka --no-run
status=0
cargo test --locked --test kafka -- --ignored --nocapture --test-threads=1 "faults::${2:-long}" \
  >"$out/log.txt" 2>&1 || status=$?
grep -h "STAGECAST_FAULTS_SEED" "$out/log.txt" || true
echo
echo "| fault | what was done | violations | figures |"
echo "|---|---|---|---|"
sed -n 's/.*FAULT | /| /p' "$out/log.txt"
[ "$status" = 0 ] || { echo "FAILED; see $out/log.txt" >&2; grep -h "panicked\|^test .*FAILED" "$out/log.txt" >&2 || true; }
exit "$status"
