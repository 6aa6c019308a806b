#!/usr/bin/env bash
# Starts one real Apache Kafka broker by hand, without Docker, and prints its address; Ctrl-C stops it and
# deletes its data. Needs Java 17 and Maven.  Usage: tests/kafka/start.sh [PORT]
# KAFKA_JVM: options of its Java, which is kept small unless they say otherwise.
set -euo pipefail

port=${1:-9092}
controller_port=$((port + 1))
here=$(cd "$(dirname "$0")" && pwd)
libs=${STAGECAST_TEST_KAFKA_LIBS:-$here/../../target/kafka-libs}

command -v java >/dev/null || { echo "java is missing: install Java 17 (Debian: apt install openjdk-17-jre-headless)" >&2; exit 1; }
if [ ! -d "$libs" ]; then
  command -v mvn >/dev/null || { echo "mvn is missing: install Maven (Debian: apt install maven)" >&2; exit 1; }
  echo "fetching Kafka (43 MB, once)" >&2
  # Only a complete folder gets the final name.
  mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DoutputDirectory="$libs.$$" >&2
  mv "$libs.$$" "$libs"
fi

data=$(mktemp -d)
broker=
stop() {
  trap - EXIT INT TERM
  [ -z "$broker" ] || { kill "$broker" 2>/dev/null && wait "$broker"; } || true
  rm -rf "$data"
}
trap stop EXIT
trap 'exit 0' INT TERM

cat >"$data/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$data/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
PROPERTIES

tool() { java -cp "$libs/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn "$@"; }
tool kafka.tools.StorageTool format -t "$(tool kafka.tools.StorageTool random-uuid)" -c "$data/server.properties" >/dev/null

# shellcheck disable=SC2086 # Options, not one word.
java ${KAFKA_JVM:--Xmx512m -XX:+UseSerialGC} -cp "$libs/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=error \
  kafka.Kafka "$data/server.properties" >"$data/broker.log" 2>&1 &
broker=$!

# The broker opens its port when it is ready to answer.
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  kill -0 "$broker" 2>/dev/null || { echo "the broker stopped:" >&2; tail -20 "$data/broker.log" >&2; exit 1; }
  sleep 0.2
done
echo "127.0.0.1:$port"
wait "$broker"
