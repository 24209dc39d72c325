#!/bin/sh
# The emulator's own tests once more under AddressSanitizer, which finds the accesses out of bounds.
#
#   BUILD=build tests/emulator_asan_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh
needs_the_optimised_build 'the emulator under AddressSanitizer'

for source in src/cuda/emulator/*.cpp src/tensor/error.cpp tests/cuda_emulator_test.cpp; do
  object=$scratch/$(basename "$source").o
  echo "$object: $source; g++ -std=c++20 -O1 -g1 -fsanitize=address -Isrc -Itests -c -o \$@ -x c++ \$<"
  objects="${objects:-} $object"
done >"$scratch/rules"
# shellcheck disable=SC2086  # objects are words
make -s -j2 -f "$scratch/rules" $objects || exit 1
# shellcheck disable=SC2086
g++ -fsanitize=address -o "$scratch/program" $objects -Wl,-T,src/cuda/emulator/shared_memory.ld \
  -lgtest_main -lgtest -pthread || exit 1

check 'the tests of tests/cuda_emulator_test.cpp pass' "$scratch/program" --gtest_color=no
"$scratch/program" --gtest_color=no --gtest_filter='*AccessesOutOfBoundsAreFound' >"$scratch/bounds" 2>&1
check 'accesses out of bounds are looked for' grep -q '^\[       OK \].*AccessesOutOfBoundsAreFound' "$scratch/bounds"
finish
