#!/usr/bin/env bash
# Makes the receivers that the tests of the wire formats run against, in target/receivers or the directory given:
# VictoriaLogs and an OpenTelemetry Collector with Go, from their modules, and OpenSearch with Maven, as its jars. What is
# there already stays. Prints the directory, as LOG_AGENT_TEST_RECEIVERS takes it.
#
# What cannot be made, since Go, Java or Maven is not there or too old, is said and left out: its tests are skipped. Each
# Go program needs a cache of a few hundred megabytes while it is built, in GOCACHE and GOMODCACHE as always.
set -euo pipefail
cd "$(dirname "$0")/.."
# The versions of the collector's parts are in tests/receivers/otelcol/go.mod, that of OpenSearch in its pom.xml.
victoria_logs=github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs@v1.52.1
here=$PWD/tests/receivers
dir=${1:-target/receivers}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

# What was made of something: another version, or another source, is made anew.
is_made() { [ "$(cat "$dir/$1.of" 2>/dev/null)" = "$2" ]; }
made() { echo "$2" >"$dir/$1.of"; }
sum() { cat "$@" | sha256sum | cut -c1-64; }

victoria_logs() {
  is_made victoria-logs "$victoria_logs" && return
  GOBIN=$dir go install -trimpath -ldflags='-s -w' "$victoria_logs" &&
    made victoria-logs "$victoria_logs"
}

otelcol() {
  local of
  of=$(sum "$here"/otelcol/*)
  is_made otelcol "$of" && return
  go build -C "$here/otelcol" -mod=readonly -trimpath -ldflags='-s -w' -o "$dir/otelcol" . &&
    made otelcol "$of"
}

opensearch() {
  local of
  of=$(sum "$here"/opensearch/*)
  is_made opensearch "$of" && return
  rm -rf "$dir/opensearch" "$dir/opensearch.new"
  mkdir -p "$dir/opensearch.new" &&
    cp "$here"/opensearch/* "$dir/opensearch.new" &&
    mvn -q -B -f "$dir/opensearch.new/pom.xml" dependency:copy-dependencies \
      -DincludeScope=runtime -DoutputDirectory="$dir/opensearch.new/libs" &&
    mv "$dir/opensearch.new" "$dir/opensearch" &&
    made opensearch "$of"
}

for receiver in victoria_logs otelcol opensearch; do
  "$receiver" >&2 || echo "SKIPPED $receiver: it cannot be made here" >&2
done
echo "$dir"
