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

# Power cuts, damaged bytes and random crashes for longer than CI has time for.
faults-long:
    LOG_AGENT_TEST_POWER_CUTS=50 cargo test --locked --test promises -- durability
    LOG_AGENT_TEST_ALL=1 LOG_AGENT_TEST_CASES=1000 cargo test --locked --lib -- spool::

# Random sequences of writes, rotations and deaths for longer than CI has time for.
tail-long:
    LOG_AGENT_TEST_CASES=500 cargo test --locked --test promises -- --nocapture tailing::model

# Kafka against a real broker: restarts, limits, a missing topic, passwords and deaths. Needs Java 17 and Maven.
kafka:
    LOG_AGENT_TEST_KAFKA="$(bash tests/kafka.sh)" cargo test --locked --test promises -- --nocapture delivery::kafka::real

# Licences, sources and known vulnerabilities of the dependencies (needs cargo-deny).
deny:
    cargo deny check
