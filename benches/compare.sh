#!/usr/bin/env bash
# Server CPU per key and memory per key, this server beside those that are installed.
#
#   benches/compare.sh [ROUNDS]        (default 3; prints Markdown)
#
# Each server runs alone on core 0, the load generator on core 1: 50 connections, 36-character
# UUID keys, 30 % repeats, one hour to live, 1, 16 and 128 requests in flight per connection.
# CPU is what /proc says the server used (user and system) over the keys asked for; each figure is
# the median of the rounds. Memory is resident bytes after 5 million different keys, less before.
# Only loopback ports are used, every run ends by its number of requests, and only processes
# that were started here are stopped.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-3}
port=7390
onced=target/release/onced
scratch=$(mktemp -d)
server_pid=
trap 'stop_server; rm -rf "$scratch"' EXIT

stop_server() {
  if [ -n "$server_pid" ]; then
    kill "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
    server_pid=
  fi
}

# start_server COMMAND...: runs it on core 0 and waits until its port answers.
start_server() {
  stop_server
  port=$((port + 1))
  taskset -c 0 "${@//PORT/$port}" >"$scratch/server.log" 2>&1 &
  server_pid=$!
  for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
    sleep 0.05
  done
  echo "no answer from: $*" >&2
  cat "$scratch/server.log" >&2
  exit 1
}

cpu_ticks() { awk '{ print $14 + $15 }' "/proc/$server_pid/stat"; }
resident_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$server_pid/status"; }

# load OPTION...: runs the load generator on core 1; leaves its JSON in $scratch/load.json.
load() {
  taskset -c 1 "$onced" bench --server "127.0.0.1:$port" --connections 50 --ttl 1h --json "$@" >"$scratch/load.json"
}

# us_per_key KEYS_PER_REQUEST OPTION...: server CPU in microseconds per key over one load.
us_per_key() {
  local keys=$1 before after requests
  shift
  before=$(cpu_ticks)
  load "$@"
  after=$(cpu_ticks)
  requests=$(sed -n 's/.*"replies":\([0-9]*\).*/\1/p' "$scratch/load.json")
  awk -v ticks=$((after - before)) -v n="$requests" -v keys="$keys" -v hz="$(getconf CLK_TCK)" \
    'BEGIN { printf "%.3f\n", ticks / hz * 1e6 / n / keys }'
}

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# row NAME PROTOCOL COMMAND KEYS_PER_REQUEST SERVER...: a line of the table.
row() {
  local name=$1 protocol=$2 command=$3 keys=$4 cells= depth requests
  shift 4
  for depth in 1 16 128; do
    case $depth in 1) requests=300000 ;; 16) requests=2000000 ;; *) requests=4000000 ;; esac
    requests=$((requests / keys))
    for _ in $(seq "$rounds"); do
      start_server "$@"
      us_per_key "$keys" --protocol "$protocol" --command "$command" --pipeline "$depth" \
        --requests "$requests" --repeat 30
    done >"$scratch/cells"
    cells+=" $(median <"$scratch/cells") |"
  done
  start_server "$@"
  local before
  before=$(resident_kib)
  load --protocol "$protocol" --command "$command" --pipeline 64 --requests $((5000000 / keys)) --repeat 0
  cells+=" $(awk -v kib=$(($(resident_kib) - before)) 'BEGIN { printf "%.0f", kib * 1024 / 5e6 }') |"
  stop_server
  echo "| $name |$cells"
}

cargo build --release --quiet
echo "$(date -u +%F), $(nproc) cores, $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)"
echo
echo "| µs of server CPU per key | 1 in flight | 16 in flight | 128 in flight | resident bytes per key, 5M keys |"
echo "|---|---|---|---|---|"
serve=("$onced" serve --workers 1 --listen 127.0.0.1:PORT --log warn)
row 'onced, `SET k 1 NX PX` (RESP)' resp set 1 "${serve[@]}"
row 'onced, `SEEN` (line)' line seen 1 "${serve[@]}"
row 'onced, `MSEEN` of 100 (line)' line mseen 100 "${serve[@]}"
if command -v redis-server >/dev/null; then
  version=$(redis-server --version | sed -n 's/.* v=\([0-9.]*\).*/\1/p')
  row "Redis $version, \`SET k 1 NX PX\`" resp set 1 \
    redis-server --port PORT --bind 127.0.0.1 --save '' --appendonly no
fi
if command -v memcached >/dev/null; then
  version=$(memcached --version | awk '{ print $2 }')
  row "memcached $version, \`add\`" memcached add 1 \
    memcached -l 127.0.0.1 -p PORT -t 1 -m 4096 -u "$(id -un)"
fi
