#!/usr/bin/env bash
# Drives the server with redis-benchmark: it must run through without one error reply.
# The figures it prints are read for being there, not for being good: that is what `onced bench`
# is for.
# Usage: redis_benchmark.sh HOST PORT
set -uo pipefail
HOST=$1 PORT=$2
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/check.sh"

# bench NAME RESULTS ARGS...: runs it, wants exit 0, no error text and RESULTS positive rates.
# redis-benchmark stops with status 1 at the first error reply.
bench() {
  local name=$1 results=$2 output status rates
  shift 2
  output=$(timeout 60 redis-benchmark -h "$HOST" -p "$PORT" -q "$@" 2>&1 </dev/null)
  status=$?
  output=$(tr '\r' '\n' <<<"$output" | grep -v '^ *$' | grep -v 'rps=')
  echo "$output"
  equals "$name: exit status" 0 "$status"
  equals "$name: no errors or warnings" '' "$(grep -iE 'err|warn|fail|denied|refused' <<<"$output")"
  rates=$(grep -cE '(^|[^0-9.])[1-9][0-9]*\.[0-9]+ requests per second' <<<"$output")
  equals "$name: results with a rate above zero" "$results" "$rates"
}

# redis-benchmark tries for ever to reach a server that is not there.
pong=$(redis-cli -h "$HOST" -p "$PORT" PING 2>&1)
equals "the server answers" PONG "$pong"
[ "$pong" = PONG ] || { summary; exit 1; }

count() { redis-cli -h "$HOST" -p "$PORT" -n "$1" DBSIZE; }
for db in 6 7; do redis-cli -h "$HOST" -p "$PORT" -n "$db" FLUSHDB >/dev/null; done

bench "ping, set and get" 3 -t ping_mbulk,set,get -P 16 -n 100000
bench "set and get without pipelining" 2 -t set,get -n 20000
bench "first sights" 1 --dbnum 6 -r 100000 -n 100000 -P 16 SET key:__rand_int__ 1 NX PX 600000
# 100,000 draws out of 100,000 keys meet 1 - 1/e of them.
within "first sights: as many keys as were drawn" 62500 64000 "$(count 6)"
bench "over RESP3" 1 -3 --dbnum 7 -n 20000 -P 16 SET key 1 NX PX 600000
equals "over RESP3: one key" 1 "$(count 7)"
if [ "${INTEROP_PEER:-}" != redis ]; then
  bench "the native verb" 1 -r 100000 -n 100000 -P 16 SEEN native:__rand_int__ 10m
fi

summary
