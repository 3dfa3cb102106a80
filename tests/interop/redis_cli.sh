#!/usr/bin/env bash
# Drives the server with redis-cli, as a person at a terminal and a mass-insert script would.
# Usage: redis_cli.sh HOST PORT [UNIX_SOCKET]
set -uo pipefail
HOST=$1 PORT=$2 SOCKET=${3:-}
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/check.sh"

cli() { redis-cli --no-raw -h "$HOST" -p "$PORT" "$@" 2>&1; }
k="cli:$$" # this run's keys, so that a second run against the same server passes too

echo "# first sight and repeats"
equals "SET NX PX of a new key" 'OK' "$(cli SET "$k:a" 1 NX PX 60000)"
equals "SET NX PX of the same key" '(nil)' "$(cli SET "$k:a" 1 NX PX 60000)"
equals "SET NX EX of the same key" '(nil)' "$(cli SET "$k:a" 1 NX EX 60)"
equals "GET" '"1"' "$(cli GET "$k:a")"
equals "GET of a key that is not there" '(nil)' "$(cli GET "$k:none")"
matches "TTL" '^\(integer\) (59|60)$' "$(cli TTL "$k:a")"
equals "TTL of a key that is not there" '(integer) -2' "$(cli TTL "$k:none")"
equals "SET NX GET answers the value that stands" '"1"' "$(cli SET "$k:a" 2 NX GET)"
equals "EXISTS counts" '(integer) 2' "$(cli EXISTS "$k:a" "$k:a" "$k:none")"
equals "DEL" '(integer) 1' "$(cli DEL "$k:a" "$k:none")"
equals "after DEL it is new again" 'OK' "$(cli SET "$k:a" 1 NX PX 60000)"
equals "SET without an expiry" 'OK' "$(cli SET "$k:plain" hello)"
ours matches "SET without an expiry takes the default TTL" '^\(integer\) (3600|3599)$' "$(cli TTL "$k:plain")"
equals "PERSIST" '(integer) 1' "$(cli PERSIST "$k:a")"
ours matches "PERSIST re-arms the longest TTL" '^\(integer\) 31(536000|535999)$' "$(cli TTL "$k:a")"

echo "# native verbs"
ours equals "ONCE.SEEN new" 'NEW' "$(cli ONCE.SEEN "$k:seen" 60s)"
ours equals "ONCE.SEEN repeat" 'DUP' "$(cli ONCE.SEEN "$k:seen" 60s)"
ours equals "SEEN by its plain name" 'DUP' "$(cli SEEN "$k:seen" 60s)"
ours equals "a verb in small letters" 'DUP' "$(cli once.seen "$k:seen" 60s)"
ours equals "MSEEN" '"NND"' "$(cli MSEEN 60s "$k:m1" "$k:m2" "$k:m2")"
ours equals "PEEK" '"DN"' "$(cli PEEK "$k:m1" "$k:none")"
ours matches "ONCE.TTL in milliseconds" '^\(integer\) (600[012][0-9]|59[0-9]{3})$' "$(cli ONCE.TTL "$k:m1")"
ours matches "a duration without a unit is refused" '^\(error\) ERR ' "$(cli SEEN "$k:bare" 60)"
ours equals "the refused key was not stored" '"N"' "$(cli PEEK "$k:bare")"
ours matches "INSPECT names the state" 'state' "$(cli INSPECT "$k:seen")"

echo "# RESP3"
matches "HELLO 3" '"proto" => \(integer\) 3' "$(cli -3 HELLO 3)"
equals "SET NX over RESP3" 'OK' "$(cli -3 SET "$k:three" 1 NX PX 60000)"
equals "a null over RESP3" '(nil)' "$(cli -3 SET "$k:three" 1 NX PX 60000)"
ours equals "SEEN over RESP3" 'DUP' "$(cli -3 SEEN "$k:three" 60s)"
ours matches "INSPECT is a map over RESP3" '^1# .*state.* => ' "$(cli -3 INSPECT "$k:three" | sort | grep -m1 state)"
matches "HELLO 4 is refused" 'NOPROTO' "$(cli HELLO 4)"

echo "# errors in Redis's words"
equals "unknown command" "(error) ERR unknown command 'nosuch', with args beginning with: 'one' 'two'" "$(cli nosuch one two)"
equals "unknown command without arguments" "(error) ERR unknown command 'NOSUCH', with args beginning with:" "$(cli NOSUCH)"
for words in GET "GET a b" "SET $k:x" "SETEX $k:x 10" "EXPIRE $k:x" MGET DEL ECHO; do
  verb=${words%% *}
  # shellcheck disable=SC2086 # the words are meant to be split
  equals "wrong arity: $words" "(error) ERR wrong number of arguments for '${verb,,}' command" "$(cli $words)"
done
matches "wrong arity of a subcommand" '^\(error\) ERR .*wrong number of arguments for' "$(cli CLIENT SETNAME)"
matches "unknown subcommand" '^\(error\) ERR unknown subcommand' "$(cli CLIENT nosuch)"
equals "options that exclude each other" '(error) ERR syntax error' "$(cli SET "$k:x" 1 NX XX)"
equals "an expiry that is no number" '(error) ERR value is not an integer or out of range' "$(cli SET "$k:x" 1 PX soon)"
equals "an expiry of nothing" "(error) ERR invalid expire time in 'set' command" "$(cli SET "$k:x" 1 PX 0)"
equals "SELECT out of range" '(error) ERR DB index is out of range' "$(cli SELECT 99999)"
equals "EXEC without MULTI" '(error) ERR EXEC without MULTI' "$(cli EXEC)"
equals "none of them stored the key" '(integer) 0' "$(cli EXISTS "$k:x")"

echo "# sessions"
equals "PING" 'PONG' "$(cli PING)"
equals "PING with a word" '"word"' "$(cli PING word)"
equals "ECHO" '"a b"' "$(cli ECHO 'a b')"
equals "MULTI and EXEC" "OK
QUEUED
QUEUED
1) OK
2) (nil)" "$(printf '%s\n' MULTI "SET $k:tx 1 NX PX 60000" "SET $k:tx 1 NX PX 60000" EXEC | cli)"
equals "DISCARD" "OK
QUEUED
OK
(nil)" "$(printf '%s\n' MULTI "SET $k:dropped 1 PX 60000" DISCARD "GET $k:dropped" | cli)"
equals "SELECT keeps databases apart" '(integer) 0' "$(cli -n 4 EXISTS "$k:three")"
equals "a database in the URL" 'OK' "$(redis-cli -u "redis://$HOST:$PORT/4" SET "$k:three" 1 NX PX 60000 2>&1)"
matches "TIME" '^1\) "[0-9]{10}"' "$(cli TIME)"
equals "WAIT without replicas" '(integer) 0' "$(cli WAIT 0 100)"
matches "CLIENT ID" '^\(integer\) [1-9]' "$(cli CLIENT ID)"
matches "COMMAND COUNT" '^\(integer\) [1-9]' "$(cli COMMAND COUNT)"
equals "RESET" 'RESET' "$(cli RESET | tr -d '"')"
info=$(cli --raw INFO | tr -d '\r')
matches "INFO has sections" '# Server' "$info"
matches "INFO names a Redis version" $'\nredis_version:[0-9]+\\.[0-9]+' "$info"
matches "INFO says that it is not loading" $'\nloading:0\n' "$info"
if [ -n "$SOCKET" ]; then
  equals "over the Unix socket" '(nil)' "$(redis-cli --no-raw -s "$SOCKET" SET "$k:three" 1 NX PX 60000 2>&1)"
fi

echo "# mass insert and iteration"
cli -n 5 FLUSHDB >/dev/null
# mass_insert PREFIX: 10,000 SET NX commands as redis-cli --pipe wants them.
mass_insert() {
  awk -v prefix="$1" 'BEGIN { for (i = 10000; i < 20000; i++) {
    key = prefix i
    printf "*6\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$1\r\n1\r\n$2\r\nNX\r\n$2\r\nPX\r\n$5\r\n60000\r\n", length(key), key } }'
}
matches "redis-cli --pipe inserts 10,000 keys" 'errors: 0, replies: 10000' "$(mass_insert pipe: | cli -n 5 --pipe)"
equals "DBSIZE" '(integer) 10000' "$(cli -n 5 DBSIZE)"
matches "the same again" 'errors: 0, replies: 10000' "$(mass_insert pipe: | cli -n 5 --pipe)"
equals "stores nothing new" '(integer) 10000' "$(cli -n 5 DBSIZE)"
equals "--scan finds each key once" '10000' "$(redis-cli -h "$HOST" -p "$PORT" -n 5 --scan | sort -u | wc -l)"
equals "--scan --pattern" '100' "$(redis-cli -h "$HOST" -p "$PORT" -n 5 --scan --pattern 'pipe:123*' | sort -u | wc -l)"
equals "KEYS" '10' "$(redis-cli -h "$HOST" -p "$PORT" -n 5 KEYS 'pipe:1234?' | sort -u | wc -l)"
matches "SCAN TYPE string" 'pipe:' "$(cli -n 5 SCAN 0 TYPE string COUNT 100)"
matches "--bigkeys walks the database" 'Sampled 10000 keys' "$(cli -n 5 --bigkeys)"
equals "FLUSHDB" 'OK' "$(cli -n 5 FLUSHDB)"
equals "empties the database" '(integer) 0' "$(cli -n 5 DBSIZE)"
equals "and no other" '(integer) 1' "$(cli EXISTS "$k:three")"

echo "# Bloom filter verbs, exact and expiring"
bloom="bloom.$$"
ours equals "BF.RESERVE" 'OK' "$(cli BF.RESERVE "$bloom" 0.01 1000)"
ours equals "BF.ADD of a new item" '(integer) 1' "$(cli BF.ADD "$bloom" a)"
ours equals "BF.ADD of the same item" '(integer) 0' "$(cli BF.ADD "$bloom" a)"
ours equals "BF.MADD" $'1) (integer) 0\n2) (integer) 1\n3) (integer) 0' "$(cli BF.MADD "$bloom" a b b)"
ours equals "BF.EXISTS" '(integer) 1' "$(cli BF.EXISTS "$bloom" a)"
ours equals "BF.EXISTS of an item that is not there" '(integer) 0' "$(cli BF.EXISTS "$bloom" z)"
ours equals "BF.MEXISTS" $'1) (integer) 1\n2) (integer) 0' "$(cli BF.MEXISTS "$bloom" b z)"
ours equals "BF.INSERT" $'1) (integer) 1\n2) (integer) 0' "$(cli BF.INSERT "$bloom" CAPACITY 1000 ITEMS c a)"
ours equals "BF.CARD" '(integer) 3' "$(cli BF.CARD "$bloom")"
ours matches "BF.INFO" 'Number of items inserted' "$(cli BF.INFO "$bloom")"
ours equals "the same items by the native verb" 'DUP' "$(cli ONCE.SEEN a 60s NS "$bloom")"

summary
