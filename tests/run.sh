#!/bin/sh
# Runs every test of one build and ends with 'N passed, M failed'; exits 1 unless M is 0 and N is not.
#
#   BUILD=build tests/run.sh
#
#   $BUILD/tests         the GoogleTest program, one process
#   $BUILD/examples/*    each program is one test: it passes by exiting with 0
#   tests/*_test.sh      run with BUILD (absolute) in the environment; each ends with its own line
#                        'N passed, M failed', and prints 'skipped: WHAT: WHY' for what it left out
#
# Output of what passed is dropped. A crash, or a failing exit code with no failed test to explain it,
# counts as one failure.
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
export BUILD

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
passed=0 failed=0 skipped=0

# add NAME PASSED FAILED SKIPPED: adds to the sums
add() {
  passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
  echo "$1: $2 passed, $3 failed, $4 skipped"
}

# run COMMAND...: output to $scratch/output, exit code to $code
run() {
  code=0
  "$@" >"$scratch/output" 2>&1 </dev/null || code=$?
}

# Shows the output of tests that failed or were skipped; writes 'passed failed skipped' to a file.
# A test that was started and never ended is a crash.
summarize_googletest() {
  awk -v code="$code" -v counts="$scratch/counts" '
    function show() { printf "%s", buffer; buffer = "" }
    index($0, "[ RUN      ]")             { running = 1; buffer = $0 "\n"; next }
    running && index($0, "[       OK ]")  { passed++; running = 0; next }
    running && index($0, "[  SKIPPED ]")  { skipped++; running = 0; buffer = buffer $0 "\n"; show(); next }
    running && index($0, "[  FAILED  ]")  { failed++; running = 0; buffer = buffer $0 "\n"; show(); next }
    running                               { buffer = buffer $0 "\n"; next }
    /^\[[- =A-Z]*\]/ || /^$/              { next }
    /^Note: |^Running main|FAILED TEST|^ *YOU HAVE/ { next }
                                          { print }
    END {
      if (running) { show(); print "crashed: exit code " code; failed++ }
      else if (code != 0 && !failed) { print "exit code " code " with no failed test"; failed++ }
      print passed + 0, failed + 0, skipped + 0 > counts
    }' "$scratch/output"
}

run "$BUILD/tests" --gtest_color=no
summarize_googletest
read -r p f s <"$scratch/counts"
add tests "$p" "$f" "$s"

for program in "$BUILD"/examples/*; do
  if [ ! -f "$program" ] || [ ! -x "$program" ]; then continue; fi
  run "$program"
  if [ "$code" -eq 0 ]; then
    add "examples/${program##*/}" 1 0 0
  else
    cat "$scratch/output"
    echo "exit code $code"
    add "examples/${program##*/}" 0 1 0
  fi
done

for script in tests/*_test.sh; do
  [ -f "$script" ] || continue
  run sh "$script"
  sums=$(sed -n '$s/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$scratch/output")
  read -r p f <<EOF
${sums:-0 0}
EOF
  if [ -z "$sums" ] || { [ "$code" -ne 0 ] && [ "$f" -eq 0 ]; }; then
    echo "exit code $code, and no last line 'N passed, M failed' that explains it" >>"$scratch/output"
    f=$((f + 1))
  fi
  if [ "$f" -gt 0 ]; then
    cat "$scratch/output"
  else
    grep '^skipped: ' "$scratch/output"
  fi
  add "$script" "$p" "$f" "$(grep -c '^skipped: ' "$scratch/output")"
done

[ "$skipped" -eq 0 ] || echo "$skipped skipped (reasons above)"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
