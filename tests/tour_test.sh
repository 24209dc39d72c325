#!/bin/sh
# docs/TOUR.md: at every stop the files exist, the breakpoint fires, and the test's filter names a test.
#
#   BUILD=build tests/tour_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh
tour=docs/TOUR.md

grep -o '](\.\./[^)]*)\|]([a-z_]*\.[a-z]*)' "$tour" | sed 's/^](//; s/)$//' >"$scratch/links"
folder=
while read -r link; do
  case $link in
    ../*) folder=$(dirname "${link#../}") path=${link#../} ;;
    *) path=$folder/$link ;;  # beside the file linked before it
  esac
  check "$tour links to $path, which is not there" test -f "$path"
done <"$scratch/links"

sed -n 's/^- test: `\(.*\)`$/\1/p' "$tour" >"$scratch/filters"
while read -r filter; do
  count=$("$BUILD/tests" --gtest_list_tests --gtest_filter="$filter" | grep -c '^  ')
  check "$tour: no test is called $filter" test "$count" -gt 0
done <"$scratch/filters"

# fires FUNCTION PROGRAM ARGUMENT...: does the breakpoint stop the program?
fires() {
  function=$1
  shift
  gdb -nx -batch -iex 'set debuginfod enabled off' -ex "break $function" -ex run -ex 'backtrace 3' \
    --args "$@" </dev/null >"$scratch/gdb" 2>&1
  grep -qE '^(Thread .* hit )?Breakpoint [0-9.]+, ' "$scratch/gdb"
}

sed -n 's/^- break `\(.*\)` in `\(.*\)`$/\1 \2/p' "$tour" >"$scratch/breaks"
stops=$(grep -c '^### ' "$tour")
check "$tour: each of the $stops stops has a breakpoint and a test" \
  test "$(wc -l <"$scratch/breaks")" -eq "$stops" -a "$(wc -l <"$scratch/filters")" -eq "$stops"
if command -v gdb >/dev/null; then
  while read -r function program; do
    # shellcheck disable=SC2046,SC2086  # the program's arguments are words
    check "$tour: break $function in $program does not fire" \
      fires "$function" $(echo "$BUILD/$program" | sed "s|OUT|$scratch/run|")
  done <"$scratch/breaks"
else
  echo 'skipped: the breakpoints of the tour: gdb is not installed'
fi

finish
