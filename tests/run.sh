#!/usr/bin/env bash
# Passes the tests. What they need besides Rust, a C compiler and make is Java 17 and Maven, for the real
# Apache Kafka that they start themselves, Chromium with Node.js 20 and npm, for the live page and schemas, and promtool,
# for the alert rules; on Debian and Ubuntu, as root, this installs what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

missing() { ! command -v "$1" >/dev/null 2>&1; }
if missing java || { missing mvn && [ -z "${STAGECAST_TEST_KAFKA_LIBS:-}" ]; }; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq && apt-get install -y -qq openjdk-17-jre-headless maven >/dev/null
  else
    echo "install Java 17 and Maven first (Debian: apt install openjdk-17-jre-headless maven)" >&2
    exit 1
  fi
fi

# Each only where it is missing: a Node.js from elsewhere brings its own npm, and Debian's does not go with it.
wanted=()
if missing node || missing npm; then wanted+=(nodejs npm); fi
if [ -z "${CHROMIUM:-}" ] && missing chromium && missing chromium-browser && missing google-chrome; then wanted+=(chromium); fi
if [ ${#wanted[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq && apt-get install -y -qq "${wanted[@]}" >/dev/null
  else
    echo "install Chromium, Node.js and npm first (Debian: apt install chromium nodejs npm)" >&2
    exit 1
  fi
fi

cargo test --locked --no-fail-fast "$@"

# Named tests are wanted alone.
if [ $# -eq 0 ]; then
  cargo build --locked
  tests/openssl.sh
  tests/deploy/tools.sh
  npm ci --prefix tests/deploy --no-audit --no-fund --silent
  node tests/deploy/schemas.mjs
  npm ci --prefix tests/interfaces --no-audit --no-fund --silent
  node tests/interfaces/validate.mjs
  npm ci --prefix tests/page --no-audit --no-fund --silent
  node tests/page/page.test.mjs "${CARGO_TARGET_DIR:-target}/debug/stagecast"
fi
