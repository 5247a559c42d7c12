#!/usr/bin/env bash
# The message brokers that tests run against: nats-server, mosquitto and RabbitMQ.
#
#   tests/servers.sh install       installs what is missing, from the system's packages, and leaves nothing running
#   tests/servers.sh start [DIR]   starts one of each on the loopback, on ports of its own, with its data in DIR (by
#                                  default a new temporary directory), and prints where they are as lines to evaluate
#   tests/servers.sh stop DIR      ends those that were started with DIR
#
# Tests need only what `install` does: each starts a broker of its own and ends it. `start` is for trying things by hand:
#
#   eval "$(tests/servers.sh start)"; ... ; tests/servers.sh stop "$LOG_AGENT_TEST_SERVERS"
set -euo pipefail

rabbitmq=/usr/lib/rabbitmq/bin/rabbitmq-server
export PATH=$PATH:/usr/sbin

install() {
  local missing=() policy=/usr/sbin/policy-rc.d ours=
  command -v nats-server >/dev/null || missing+=(nats-server)
  command -v mosquitto >/dev/null || missing+=(mosquitto)
  [ -x "$rabbitmq" ] || missing+=(rabbitmq-server)
  [ ${#missing[@]} -eq 0 ] && return
  echo "installing: ${missing[*]}" >&2
  # A package may start its service as it is installed; this says that none is to be started.
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    ours=yes
  fi
  local status=0
  apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || status=$?
  [ -z "$ours" ] || rm -f "$policy"
  return "$status"
}

# A port that nothing listens on, below those that outgoing connections take theirs from.
free_port() {
  local port
  while :; do
    port=$((RANDOM % 20000 + 10000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

# run NAME COMMAND...: starts it in the background and remembers its process.
run() {
  local name=$1
  shift
  "$@" </dev/null >"$dir/$name.log" 2>&1 &
  echo $! >"$dir/$name.pid"
}

await() {
  local port=$1 name=$2
  for _ in $(seq 600); do
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
    kill -0 "$(cat "$dir/$name.pid")" 2>/dev/null || break
    sleep 0.1
  done
  echo "$name does not answer; it said:" >&2
  tail -n 20 "$dir/$name.log" >&2
  return 1
}

start() {
  dir=${1:-$(mktemp -d)}
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  local port
  echo "export LOG_AGENT_TEST_SERVERS='$dir'"
  if command -v nats-server >/dev/null; then
    port=$(free_port)
    run nats-server nats-server -a 127.0.0.1 -p "$port" -js -sd "$dir/nats"
    await "$port" nats-server
    echo "export LOG_AGENT_TEST_NATS='nats://127.0.0.1:$port'"
  else
    echo "SKIPPED: nats-server is not installed" >&2
  fi
  if command -v mosquitto >/dev/null; then
    port=$(free_port)
    mkdir -p "$dir/mosquitto"
    printf 'listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nuser %s\n' \
      "$port" "$dir/mosquitto" "$(id -un)" >"$dir/mosquitto.conf"
    run mosquitto mosquitto -c "$dir/mosquitto.conf"
    await "$port" mosquitto
    echo "export LOG_AGENT_TEST_MQTT='mqtt://127.0.0.1:$port'"
  else
    echo "SKIPPED: mosquitto is not installed" >&2
  fi
  if [ -x "$rabbitmq" ]; then
    port=$(free_port)
    local mapper distribution
    mapper=$(free_port)
    distribution=$(free_port)
    mkdir -p "$dir/rabbitmq"
    printf 'listeners.tcp.1 = 127.0.0.1:%s\nlog.console = true\nlog.file = false\n' "$port" >"$dir/rabbitmq.conf"
    echo '[].' >"$dir/rabbitmq.plugins"
    run epmd epmd -address 127.0.0.1 -port "$mapper"
    await "$mapper" epmd
    # RUNNING_UNDER_SYSTEMD: the script becomes the broker, so that its process is the one to end.
    run rabbitmq env HOME="$dir/rabbitmq" ERL_EPMD_PORT="$mapper" RABBITMQ_NODENAME="log-agent-$port@localhost" \
      RABBITMQ_DIST_PORT="$distribution" RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf" RABBITMQ_CONF_ENV_FILE=/dev/null \
      RABBITMQ_ENABLED_PLUGINS_FILE="$dir/rabbitmq.plugins" RABBITMQ_MNESIA_BASE="$dir/rabbitmq/mnesia" \
      RABBITMQ_LOG_BASE="$dir/rabbitmq/log" RABBITMQ_PID_FILE="$dir/rabbitmq/pid" RUNNING_UNDER_SYSTEMD=true \
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}' "$rabbitmq"
    await "$port" rabbitmq
    echo "export LOG_AGENT_TEST_AMQP='amqp://127.0.0.1:$port'"
  else
    echo "SKIPPED: rabbitmq-server is not installed" >&2
  fi
}

stop() {
  dir=$1
  local name pid
  for name in rabbitmq epmd mosquitto nats-server; do
    [ -e "$dir/$name.pid" ] || continue
    pid=$(cat "$dir/$name.pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 300); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    rm "$dir/$name.pid"
  done
}

case ${1:-} in
  install) install ;;
  start) start "${2:-}" ;;
  stop) stop "${2:?which directory}" ;;
  *)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
    exit 64
    ;;
esac
