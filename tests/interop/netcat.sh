#!/usr/bin/env bash
# Speaks the line protocol with nothing but printf and netcat.
# Usage: netcat.sh HOST PORT [UNIX_SOCKET]
set -uo pipefail
HOST=$1 PORT=$2 SOCKET=${3:-}
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/check.sh"

# -N closes our sending side at the end of input; the replies must still come, then the end.
say() { timeout 20 nc -N "$HOST" "$PORT"; }
# ask FORMAT WORDS...: one conversation; a reply that never ends shows as its timeout.
ask() {
  # shellcheck disable=SC2059 # the format is the request
  printf "$@" | say || echo "(netcat ended with status $?)"
}
k="nc:$$" # this run's keys

echo "# conversations"
equals "SEEN, MSEEN and QUIT" $'NEW\nDUP\nDND\nBYE' \
  "$(ask 'SEEN %s 60s\nSEEN %s 60s\nMSEEN 60s %s %s %s\nQUIT\n' "$k:a" "$k:a" "$k:a" "$k:b" "$k:b")"
equals "half-closed without QUIT" $'NEW\nDUP' "$(ask 'SEEN %s 60s\nSEEN %s 60s\n' "$k:half" "$k:half")"
equals "nothing after QUIT runs" $'BYE\nN' "$(ask 'QUIT\nSEEN %s 60s\n' "$k:late"; ask 'PEEK %s\n' "$k:late")"
equals "CRLF, tabs, empty lines and small letters" $'NEW\nDUP' "$(ask 'seen\t%s  60s\r\n\r\n\nSeEn %s 60S\r\n' "$k:crlf" "$k:crlf")"
equals "quoted words" $'NEW\nDUP\nNEW' "$(ask 'SEEN "%s a b" 60s\nSEEN "%s\\x20a b" 60s\nSEEN "%s\\x00\\r\\n" 60s\n' "$k" "$k" "$k")"
equals "PING" $'PONG\nword' "$(ask 'PING\nPING word\n')"
equals "PEEK, TOUCH and FORGET" $'NEW\nDN\nOK\nOK 1\nN' \
  "$(ask 'SEEN %s 60s\nPEEK %s %s\nTOUCH %s 2h GT\nFORGET %s\nPEEK %s\n' "$k:p" "$k:p" "$k:none" "$k:p" "$k:p" "$k:p")"
matches "TTL in milliseconds" $'^NEW\n(600[012][0-9]|59[0-9]{3})\nNIL$' "$(ask 'SEEN %s 60s\nTTL %s\nTTL %s\n' "$k:ttl" "$k:ttl" "$k:none")"
equals "namespaces are apart" $'NEW\nOK\nNEW\nDUP' "$(ask 'SEEN %s 60s\nUSE apart\nSEEN %s 60s\nSEEN %s 60s NS default\n' "$k:ns" "$k:ns" "$k:ns")"
rows=$(ask 'STATS\n')
equals "ROWS n is followed by n lines" "${rows%%$'\n'*}" "ROWS $(($(wc -l <<<"$rows") - 1))"
within "STATS has rows" 2 1000 "$(wc -l <<<"$rows")"
if [ -n "$SOCKET" ]; then
  equals "over the Unix socket" $'DUP\nBYE' "$(printf 'SEEN %s 60s\nQUIT\n' "$k:a" | timeout 20 nc -N -U "$SOCKET")"
fi

echo "# records"
run=$(ask 'BEGIN %s LEASE 20s\n' "$k:job")
matches "BEGIN of a new key" '^RUN [1-9][0-9]* 20000 1$' "$run"
token=$(cut -d' ' -f2 <<<"$run")
matches "BEGIN again" '^BUSY [1-9][0-9]*$' "$(ask 'BEGIN %s\n' "$k:job")"
equals "COMPLETE with a body" $'OK\nDONE 7 5\nhello' "$(ask 'COMPLETE %s %s CODE 7 LEN 5\nhello\nBEGIN %s\n' "$k:job" "$token" "$k:job")"
other=$(ask 'BEGIN %s\n' "$k:other" | cut -d' ' -f2)
equals "another record's token is stale" 'STALE' "$(ask 'COMPLETE %s %s\n' "$k:job" "$other")"

echo "# a batch of lines"
# many: 10,000 SEEN lines.
many() { awk -v k="$k" 'BEGIN { for (i = 0; i < 10000; i++) print "SEEN " k ":many:" i " 60s" }'; }
equals "10,000 lines at once" '10000 NEW' "$(many | say | sort | uniq -c | xargs)"
equals "and again" '10000 DUP' "$(many | say | sort | uniq -c | xargs)"

echo "# mistakes"
matches "an unknown verb costs only its line" $'^ERR UNKNOWN [^\n]+\nPONG$' "$(ask 'NOSUCH a b\nPING\n')"
matches "an unbalanced quote costs only its line" $'^ERR SYNTAX [^\n]+\nPONG$' "$(ask 'SEEN "abc 60s\nPING\n')"
matches "a duration without a unit is refused with a hint" $'^ERR [A-Z]+ [^\n]*unit[^\n]*\nN$' "$(ask 'SEEN %s 60\nPEEK %s\n' "$k:bare" "$k:bare")"
matches "a word too few" $'^ERR ARGS [^\n]+\nPONG$' "$(ask 'SEEN\nPING\n')"
matches "a TTL beyond the longest" $'^ERR RANGE [^\n]+\nPONG$' "$(ask 'SEEN %s 366d\nPING\n' "$k:range")"
matches "the body of an unknown verb does not run" $'^ERR UNKNOWN [^\n]+\nPONG\nN$' \
  "$(body="SEEN $k:body 60s"; ask 'NOSUCH LEN %d\n%s\nPING\nPEEK %s\n' ${#body} "$body" "$k:body")"

echo "# HTTP requests sent here by mistake or malice"
for request in 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n' 'POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n' 'Host: localhost\r\n'; do
  reply=$(ask "$request"'SEEN %s 60s\n' "$k:smuggled")
  matches "${request%%\\*}: one error line, then closed" $'^ERR [^\n]+$' "$reply"
done
equals "nothing after them ran" 'N' "$(ask 'PEEK %s\n' "$k:smuggled")"

summary
