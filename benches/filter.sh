#!/usr/bin/env bash
# `onced filter` of whole lines beside awk, on lines made here: same output, and lines a second.
#
#   benches/filter.sh [LINES] [ROUNDS]        (default 10000000 and 3; prints Markdown)
#
# One line in five or so repeats an earlier one. Both write to a file, whose contents are
# compared; figures are the median of the rounds. Needs about 2 GB of disk for ten million lines.
set -euo pipefail
cd "$(dirname "$0")/.."

lines=${1:-10000000}
rounds=${2:-3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cargo build --release --quiet
awk -v n="$lines" 'BEGIN {
  srand(7)
  for (i = 0; i < n; i++) {
    id = int(rand() * n * 2)
    print "2026-11-23T10:00:00Z host" id % 50 " app[" id % 9999 "]: event " id " did something of note"
  }
}' >"$scratch/lines"

# rate COMMAND...: lines a second, the output in $scratch/out.
rate() {
  local began ended
  began=$(date +%s%N)
  "$@" "$scratch/lines" >"$scratch/out"
  ended=$(date +%s%N)
  awk -v n="$lines" -v ns=$((ended - began)) 'BEGIN { printf "%.0f\n", n * 1e9 / ns }'
}

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

rate awk '!seen[$0]++' >"$scratch/awk-rate"
mv "$scratch/out" "$scratch/expected"
for _ in $(seq "$rounds"); do
  rate target/release/onced filter
  cmp "$scratch/out" "$scratch/expected" >&2
done >"$scratch/onced-rate"

echo "$(date -u +%F), $(nproc) cores, $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -1), Linux $(uname -r)"
echo
echo "| $lines lines, $(wc -l <"$scratch/expected") of them distinct | lines a second |"
echo "|---|---|"
echo "| \`onced filter\` | $(median <"$scratch/onced-rate") |"
echo "| \`awk '!seen[\$0]++'\` | $(cat "$scratch/awk-rate") |"
