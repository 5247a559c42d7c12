#!/usr/bin/env bash
# Fetches a Kafka broker from the Maven registry for the tests that need a real one, into target/kafka or the directory
# given: its jars, which is all that a broker is. Needs Maven, and Java 17 to run it. Does nothing where it is there
# already. Prints the directory, as LOG_AGENT_TEST_KAFKA takes it.
set -euo pipefail
cd "$(dirname "$0")/.."
version=3.9.1
dir=${1:-target/kafka}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
if [ ! -e "$dir/libs/kafka_2.13-$version.jar" ]; then
  cat >"$dir/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>log-agent</groupId>
  <artifactId>kafka-broker</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$version</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-nop</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
POM
  rm -rf "$dir/libs.new"
  mvn -q -B -f "$dir/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$dir/libs.new" >&2
  rm -rf "$dir/libs"
  mv "$dir/libs.new" "$dir/libs"
fi
echo "$dir"
