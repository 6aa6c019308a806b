#!/usr/bin/env bash
# Holds what ships for operating against the tools that will read it: promtool passes the rules' own tests, and
# systemd-analyze reads the unit. Where promtool is missing it is taken out of Debian's package, without the server.
# Schemas of the manifests are for schemas.mjs; what needs no tool at all, main.rs checks.
set -euo pipefail
cd "$(dirname "$0")/../.."

# The folder of a promtool of our own, which stays for the next time.
unpack_promtool() {
  local folder="${CARGO_TARGET_DIR:-target}/promtool"
  mkdir -p "$folder" && folder=$(cd "$folder" && pwd)
  [ -x "$folder/usr/bin/promtool" ] || (
    cd "$folder"
    { [ "$(id -u)" != 0 ] || apt-get update -qq; } && apt-get download -qq prometheus && dpkg -x prometheus_*.deb .
  ) >/dev/null 2>&1
  echo "$folder/usr/bin"
}

if ! command -v promtool >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1 && folder=$(unpack_promtool); then
  PATH="$folder:$PATH"
fi
if command -v promtool >/dev/null 2>&1; then
  promtool check config deploy/prometheus/prometheus.yml
  promtool test rules deploy/prometheus/tests.yml
else
  echo "promtool is not to be had (Debian: apt install prometheus): the rules' own tests are not run" >&2
fi

if command -v systemd-analyze >/dev/null 2>&1; then
  # It looks for the program where the unit will have it; here any program will do.
  unit=$(mktemp -d)
  trap 'rm -r "$unit"' EXIT
  sed "s|/usr/local/bin/stagecast|$(command -v true)|" deploy/systemd/stagecast.service >"$unit/stagecast.service"
  problems=$(systemd-analyze verify "$unit/stagecast.service" 2>&1) && [ -z "$problems" ] || {
    echo "deploy/systemd/stagecast.service: $problems" >&2
    exit 1
  }
  echo "deploy/systemd/stagecast.service is understood"
fi
