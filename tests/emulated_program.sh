#!/bin/sh
# Sourced by tests that compile the emulator in a way of their own, after tests/check.sh.
#
#   emulated_program 'FLAGS' SOURCE LIBRARIES...    SOURCE and the emulator become $scratch/program

# shellcheck disable=SC2154  # $scratch is tests/check.sh's
emulated_program() {
  flags=$1 kernel=$2
  shift 2
  for source in src/cuda/emulator/*.cpp src/tensor/error.cpp "$kernel"; do
    object=$scratch/$(basename "$source").o
    echo "$object: $source; g++ -std=c++20 $flags -Isrc -Itests -c -o \$@ -x c++ \$<"
    objects="${objects:-} $object"
  done >"$scratch/rules"
  # shellcheck disable=SC2086  # words
  make -s -j2 -f "$scratch/rules" $objects &&
    g++ $flags -o "$scratch/program" $objects -Wl,-T,src/cuda/emulator/shared_memory.ld "$@"
}
