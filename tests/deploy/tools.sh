#!/usr/bin/env bash
# Holds what ships for operating against the tools that will read it, as far as they are there: promtool (Debian: apt
# install prometheus) and kubernetes-validate (pip install kubernetes-validate; it knows no custom resources).
set -euo pipefail
cd "$(dirname "$0")/../../deploy"

if command -v promtool >/dev/null 2>&1; then
  promtool check config prometheus/prometheus.yml
  promtool test rules prometheus/tests.yml
else
  echo "promtool is not there: the Prometheus rules are checked for the names they use only" >&2
fi

if command -v kubernetes-validate >/dev/null 2>&1; then
  kubernetes-validate --strict kubernetes/{namespace,statefulset,service,poddisruptionbudget}.yaml
else
  echo "kubernetes-validate is not there: the manifests are checked for the files they name only" >&2
fi
