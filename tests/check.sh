#!/bin/sh
# Sourced by the tests that are shell scripts, in the repository's root. Gives the build's folder
# $BUILD (absolute), a $scratch folder, and
#
#   check NAME COMMAND...      counts: passed if the command succeeds, otherwise its output is shown
#   needs_the_optimised_build WHAT     ends the script, skipping WHAT, if $BUILD is another one
#   finish                     prints the sums
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$PWD/$BUILD ;; esac
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0

check() {
  name=$1
  shift
  if "$@" >"$scratch/check.out" 2>&1; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "failed: $name"
    sed 's/^/  /' "$scratch/check.out"
  fi
}

finish() {
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
}

needs_the_optimised_build() {
  [ "$(basename "$BUILD")" != build ] || return 0
  echo "skipped: $1: $BUILD is not the optimised build"
  finish
  exit
}
