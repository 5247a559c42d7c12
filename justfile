# Recipes for people who work on log-agent. `just` lists them.

default:
    @just --list

# Everything that has to hold before a change lands.
ci:
    bash .ci/run

# Formatting, lints and documentation, without tests.
lint:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings
    cargo clippy --locked --all-targets --no-default-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# The tests of the README.
test:
    cargo test --locked

# Files to server, with fsync; then the drain of a backlog.
bench:
    cargo bench --bench throughput -- --runs 5
    cargo bench --bench throughput -- --runs 5 --batch 100
    cargo bench --bench throughput -- --mode backlog --lines 20000000

# The stages alone.
bench-stages:
    cargo bench --bench payload
    cargo bench --bench tail

# Ten thousand files: what they cost when nothing happens, and how soon a line is in the spool when something does.
bench-scale:
    cargo bench --bench scale

# Power cuts, damaged bytes, failing calls and crashes, every one of them, for longer than CI has time for.
faults-long:
    LOG_AGENT_TEST_POWER_CUTS=300 cargo test --locked --test promises -- durability
    LOG_AGENT_TEST_ALL=1 LOG_AGENT_TEST_CASES=1000 cargo test --locked --lib -- spool:: --skip crash_tests
    LOG_AGENT_TEST_ALL=1 LOG_AGENT_TEST_CASES=50 cargo test --locked --lib -- spool::crash_tests
    LOG_AGENT_TEST_STEPS=400 LOG_AGENT_TEST_STRIDE=1 cargo test --locked --test promises -- kill_points
    LOG_AGENT_TEST_FAULTS=all cargo test --locked --test promises -- --nocapture system_faults
    LOG_AGENT_TEST_CASES=10000 cargo test --locked --lib -- fuzzing::
    just fuzz 60

# Deaths, a failing server and rotations at random for so many minutes, with a table of what it took at the end.
soak minutes="30":
    LOG_AGENT_TEST_SOAK_MINUTES={{minutes}} cargo test --locked --test promises -- --nocapture soak::whatever

# A backlog of so many gigabytes: how soon it is sent, and what its drain takes. Needs the room on the disk of the
# temporary directory for a while.
backlog gigabytes="20":
    LOG_AGENT_TEST_BACKLOG_GB={{gigabytes}} cargo test --locked --release --test promises -- --nocapture backlog::

# Every decoder of what comes from disks and networks under a fuzzer, each for so many seconds. What it finds is in
# fuzz/artifacts; cargo-fuzz is installed where it is missing.
fuzz seconds="60":
    cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
    for target in $(cargo fuzz list); do \
        mkdir -p fuzz/corpus/$target && \
        RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer=none $target fuzz/corpus/$target fuzz/seeds/$target -- \
            -max_total_time={{seconds}} -rss_limit_mb=1024 -print_final_stats=1 || exit 1; \
    done

# What each strategy delivers in a second, one after the other, from a backlog of so many megabytes. Kafka is a real broker
# where `LOG_AGENT_TEST_KAFKA` names one.
throughput megabytes="400":
    LOG_AGENT_TEST_THROUGHPUT_MB={{megabytes}} cargo test --locked --release --test promises -- \
        --nocapture --test-threads 1 delivery::throughput

# Deaths of agents and message brokers for longer than CI has time for.
queues-long:
    LOG_AGENT_TEST_ROUNDS=60 cargo test --locked --test promises -- --nocapture deaths_of

# Random sequences of writes, rotations and deaths for longer than CI has time for.
tail-long:
    LOG_AGENT_TEST_CASES=500 cargo test --locked --test promises -- --nocapture tailing::model

# Kafka against a real broker: restarts, limits, a missing topic, passwords and deaths. Needs Java 17 and Maven.
kafka:
    LOG_AGENT_TEST_KAFKA="$(bash tests/kafka.sh)" cargo test --locked --test promises -- --nocapture delivery::kafka::real

# The wire formats against receivers that others wrote: VictoriaLogs, the OpenTelemetry Collector and OpenSearch. Needs Go
# 1.26, Java 17 and Maven; making them takes some minutes the first time.
receivers:
    LOG_AGENT_TEST_RECEIVERS="$(bash tests/receivers.sh)" cargo test --locked --test promises -- --nocapture formats::real

# Licences, sources and known vulnerabilities of the dependencies (needs cargo-deny).
deny:
    cargo deny check
