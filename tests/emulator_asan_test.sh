#!/bin/sh
# The emulator's own tests once more under AddressSanitizer, which finds the accesses out of bounds.
#
#   BUILD=build tests/emulator_asan_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh
. tests/emulated_program.sh
needs_the_optimised_build 'the emulator under AddressSanitizer'

emulated_program '-O1 -g1 -fsanitize=address' tests/cuda_emulator_test.cpp -lgtest_main -lgtest -pthread || exit 1
output=$scratch/output
"$scratch/program" --gtest_color=no >"$output" 2>&1
check 'the tests of tests/cuda_emulator_test.cpp pass' awk '{ print } /FAILED/ { failed = 1 } /PASSED/ { passed = 1 }
  END { exit failed || !passed }' "$output"
check 'accesses out of bounds are looked for' grep -q '^\[       OK \].*AccessesOutOfBoundsAreFound' "$output"
finish
