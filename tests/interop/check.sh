# shellcheck shell=bash
# Counting assertions for the interop scripts in bash: source it, call `equals` and `matches`,
# end with `summary`. One line is printed per check.
#
# With INTEROP_PEER=redis the server is a real Redis: checks marked `ours`, which only onced can
# pass, are then skipped, so that everything else is held against the original.

passed=0 failed=0 skipped=0

# verdict STATUS NAME DETAIL: counts and prints one check; STATUS is 0 for success.
verdict() {
  if [ "$1" -eq 0 ]; then
    passed=$((passed + 1))
    echo "ok    $2"
  else
    failed=$((failed + 1))
    echo "FAIL  $2: $3"
  fi
}

# equals NAME WANT GOT: the same text, but for blanks at line ends.
equals() {
  local got
  # shellcheck disable=SC2001 # each line's end, not the text's
  got=$(sed 's/[[:space:]]*$//' <<<"$3")
  [ "$got" = "$2" ]
  verdict $? "$1" "got '${got//$'\n'/\\n}', want '${2//$'\n'/\\n}'"
}

# matches NAME REGEX GOT: the text contains a match of the extended regular expression.
matches() {
  [[ $3 =~ $2 ]]
  verdict $? "$1" "got '${3//$'\n'/\\n}', want a match of '${2//$'\n'/\\n}'"
}

# within NAME LOW HIGH GOT: a whole number between the two, both included.
within() {
  [[ $4 =~ ^-?[0-9]+$ ]] && [ "$4" -ge "$2" ] && [ "$4" -le "$3" ]
  verdict $? "$1" "got '$4', want $2 to $3"
}

# ours CHECK NAME...: runs the check against onced, skips it against Redis.
ours() {
  if [ "${INTEROP_PEER:-}" = redis ]; then
    skipped=$((skipped + 1))
    echo "skip  $2"
  else
    "$@"
  fi
}

# summary: the count; its status is the script's. A script that checked nothing has failed.
summary() {
  [ $((passed + failed)) -gt 0 ] || verdict 1 "something was checked" "nothing was"
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
}
