#!/usr/bin/env bash
# The blocks of recipes.md that are for programs: HAProxy, redis_exporter, redis-benchmark, as they stand there but
# for the ports. A program that is not installed is skipped, unless ONCED_PEERS=required.
# Usage: ONCED_BINARY=PATH recipes.sh HOST PORT
set -uo pipefail
HOST=$1 PORT=$2 PAGE=recipes.md DEADLINE_S=30
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/check.sh"

scratch=$(mktemp -d)
started=()
cleanup() {
  local pid
  for pid in "${started[@]}"; do kill -KILL "$pid" 2>/dev/null; done
  rm -rf "$scratch"
}
trap cleanup EXIT

# start LOG COMMAND...: in the background, ended at the latest with this script; its pid is $!.
start() {
  local log=$1
  shift
  "$@" >"$scratch/$log" 2>&1 </dev/null &
  started+=($!)
}

# stop PID: waits until it has ended.
stop() { kill -TERM "$1" && wait "$1" 2>/dev/null; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# block HEADING LANGUAGE N: the N-th such block of that section.
block() {
  awk -v heading="## $1" -v open="\`\`\`$2" -v n="$3" '
    /^## / { inside = $0 == heading }
    /^```$/ { if (printing) exit }
    printing { print }
    inside && $0 == open { printing = ++found == n }' "$PAGE"
}

# installed PROGRAM: whether its recipe can be run.
installed() {
  command -v "$1" >/dev/null 2>&1 && return
  if [ "${ONCED_PEERS:-}" = required ]; then
    equals "$1 is installed" yes no
  else
    skipped=$((skipped + 1))
    echo "skip  $1: it is not installed"
  fi
  return 1
}

# becomes NAME REGEX COMMAND...: the command's output comes to contain a match.
becomes() {
  local name=$1 regex=$2 got='' end=$((SECONDS + DEADLINE_S))
  shift 2
  while got=$("$@" 2>&1) && [[ $got =~ $regex ]] && break; [ $SECONDS -lt $end ]; do sleep 0.05; done
  matches "$name" "$regex" "$got"
}

# --- HAProxy ------------------------------------------------------------------------------------

# A server that gives one answer to everything, as onced has it while it starts or once its log has failed.
ANSWERS='
import socketserver, sys
class Answers(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(1 << 16):
            self.request.sendall(sys.argv[2].encode())
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()'

# Whether the server is up, the check's status, and what it said.
health() { echo 'show stat' | nc -U "$scratch/$1.stats" | awk -F, '$1 == "onced" && $2 == "first" { print $18, $37, $57, $66 }'; }

# haproxy_with NAME BACKEND_LINES: starts it with the page's configuration and those lines for its check.
haproxy_with() {
  local name=$1 check=$2 config=$scratch/$1.cfg
  {
    printf 'global\n    stats socket %s/%s.stats\n' "$scratch" "$name"
    block HAProxy haproxy 1 | sed -e "s/6622/$front/; s/6623/$back/" |
      awk -v check="$check" '/option redis-check/ && check != "" { print check; next } { print }'
  } >"$config"
  equals "HAProxy, $name: the configuration is valid" 0 "$(haproxy -q -c -f "$config" >&2; echo $?)"
  start "$name.log" haproxy -db -f "$config"
}

haproxy_recipe() {
  local front back onced stub proxy ready
  installed haproxy || return
  front=$(free_port) back=$(free_port)
  haproxy_with redis-check ''
  proxy=$!
  becomes "HAProxy: nobody listens: down" '^DOWN' health redis-check
  matches "HAProxy: down: a client gets no connection" 'closed|reset|refused' "$(redis-cli -p "$front" PING 2>&1)"

  start stub.log python3 -c "$ANSWERS" "$back" $'-LOADING the log is being read\r\n'
  stub=$!
  becomes "HAProxy: while the log is read: down" '^DOWN.*L7TOUT' health redis-check
  stop $stub

  start onced.log "$ONCED_BINARY" serve --listen "127.0.0.1:$back"
  onced=$!
  becomes "HAProxy: it serves: up" '^UP.*L7OK' health redis-check
  equals "HAProxy: the first time" OK "$(redis-cli -p "$front" SET order-17 1 NX PX 60000)"
  equals "HAProxy: the second time" '' "$(redis-cli -p "$front" SET order-17 1 NX PX 60000)"
  equals "HAProxy: the line protocol" DUP "$(printf 'SEEN order-17 60s\nQUIT\n' | nc -N 127.0.0.1 "$front" | head -n 1)"
  stop $onced
  becomes "HAProxy: it has ended: down" '^DOWN' health redis-check
  stop $proxy

  front=$(free_port)
  ready=$(block HAProxy haproxy 2)
  matches "HAProxy: the readiness block" 'ready yes' "$ready"
  haproxy_with tcp-check "${ready//\\/\\\\}"
  proxy=$!
  start stub.log python3 -c "$ANSWERS" "$back" $'ROWS 2\nready no\nlog failed\n'
  stub=$!
  becomes "HAProxy: the log has failed: down" '^DOWN.*L7TOUT' health tcp-check
  stop $stub
  start onced.log "$ONCED_BINARY" serve --listen "127.0.0.1:$back"
  onced=$!
  becomes "HAProxy: ready: up" '^UP.*L7OK' health tcp-check
  equals "HAProxy: ready: it answers" PONG "$(redis-cli -p "$front" PING)"
  stop $onced
  stop $proxy
}

# --- redis_exporter -----------------------------------------------------------------------------

exporter_recipe() {
  local web exporter metrics metric databases hits misses
  installed prometheus-redis-exporter || return
  web=$(free_port)
  redis() { redis-cli -h "$HOST" -p "$PORT" "$@" >/dev/null; }
  scrape() { python3 -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())' "http://127.0.0.1:$web/metrics"; }
  value() { awk -v name="$1" '$1 == name { printf "%.0f", $2 }' <<<"$metrics"; }
  redis NS SET orders
  redis SEEN order-17 60s NS orders
  redis FORGET exported
  start exporter.log bash -c "exec $(block redis_exporter sh 1 | sed -e "s/127.0.0.1:6623/$HOST:$PORT/; s/9121/$web/")"
  exporter=$!
  becomes "redis_exporter: it answers" 'redis_up 1' scrape
  metrics=$(scrape)
  hits=$(value redis_keyspace_hits_total) misses=$(value redis_keyspace_misses_total)
  redis -n 3 FLUSHDB
  redis -n 3 SET exported 1 NX EX 60
  redis SEEN exported 60s
  redis SEEN exported 60s
  redis SET exported 1 NX EX 60
  redis GET exported
  metrics=$(scrape)
  equals "redis_exporter: seen before" $((hits + 2)) "$(value redis_keyspace_hits_total)"
  equals "redis_exporter: new" $((misses + 2)) "$(value redis_keyspace_misses_total)"
  equals "redis_exporter: no error" 0 "$(value 'redis_exporter_last_scrape_error{err=""}')"
  equals "redis_exporter: it complains of nothing" '' "$(grep -E 'level=(error|warn)' "$scratch/exporter.log")"
  while read -r metric; do
    matches "redis_exporter: $metric" '^[0-9]' "$(value "$metric")"
  done < <(awk '/^## / { inside = $0 == "## redis_exporter" } inside' "$PAGE" | grep -oE '^\| `redis_[^|]*' | grep -oE 'redis_[^`]*')
  databases=$(redis-cli -h "$HOST" -p "$PORT" CONFIG GET databases | tail -n 1)
  equals "redis_exporter: as many databases as there are" "$databases" "$(grep -c '^redis_db_keys{' <<<"$metrics")"
  equals "redis_exporter: keys of db3" 1 "$(value 'redis_db_keys{db="db3"}')"
  equals "redis_exporter: other namespaces are not shown" '' "$(grep orders <<<"$metrics")"
  stop $exporter
}

# --- redis-benchmark ----------------------------------------------------------------------------

benchmark_recipe() {
  local output keys
  installed redis-benchmark || return
  output=$(block redis-benchmark sh 1 | sed -e "s/6623/$PORT/; /^redis-cli/i redis-cli -p $PORT -n 15 DBSIZE" | bash 2>&1 | tr '\r' '\n')
  equals "redis-benchmark: rates of the question, of SET and of GET" 3 "$(grep -c 'requests per second' <<<"$output")"
  equals "redis-benchmark: no error" '' "$(grep -iE 'err|denied|refused' <<<"$output")"
  # Of 200,000 draws 181,269 differ; SET adds a key of another form for each of its draws.
  keys=$(tail -n 2 <<<"$output" | head -n 1)
  within "redis-benchmark: keys" 270000 280000 "$keys"
  equals "redis-benchmark: emptied" 0 "$(redis-cli -h "$HOST" -p "$PORT" -n 15 DBSIZE)"
  redis-cli -h "$HOST" -p "$PORT" NS SET db15 MAXKEYS 1000 >/dev/null
  output=$(block redis-benchmark sh 1 | sed -n "1s/6623/$PORT/p" | bash 2>&1)
  matches "redis-benchmark: full" 'no room' "$output"
  redis-cli -h "$HOST" -p "$PORT" NS SET db15 MAXKEYS 0 >/dev/null
  redis-cli -h "$HOST" -p "$PORT" -n 15 FLUSHDB >/dev/null
  matches "redis-benchmark: without -t" 'Protocol error' "$(redis-benchmark -p "$PORT" -q -n 10 2>&1)"
}

haproxy_recipe
exporter_recipe
benchmark_recipe
summary
