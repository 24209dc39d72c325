#!/bin/sh
# The kernel tests and a short pretraining run on emulated old processors: Nehalem has no AVX, Haswell
# no AVX-512. An instruction that such a processor lacks kills the process there, wherever the linker
# took it from. Ends with 'N passed, M failed'; takes some minutes.
#
#   tools/old_cpu_test.sh [BUILD]        BUILD: the folder of an optimised build, default build
#
# Needs qemu-x86_64 (Debian: qemu-user); without it nothing is run, and a line says so. With
# MOCO_ISA=baseline|avx2|avx512 in the environment the same kernels run without an emulator, but only
# the emulator would notice an instruction that does not belong to them.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
if ! command -v qemu-x86_64 >/dev/null; then
  echo 'skipped: old processors: qemu-x86_64 is not installed (Debian: apt-get install qemu-user)'
  exit 0
fi
for program in "$build/tests" "$build/moco"; do
  [ -x "$program" ] || { echo "error: $program is not there: run make" >&2; exit 1; }
done
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0

# check NAME COMMAND...: counts; shows the output of what failed
check() {
  name=$1
  shift
  if "$@" >"$scratch/output" 2>&1; then
    passed=$((passed + 1))
    echo "passed: $name"
  else
    failed=$((failed + 1))
    echo "failed: $name"
    tail -n 20 "$scratch/output" | sed 's/^/  /'
  fi
}

# All families but for their longest tests, which an emulator does not end in minutes.
long='*WinogradTest.Images*:*WinogradTest.Layers*:*WinogradTest.Tiles*:*WinogradTest.ChannelsAround*'
long=$long:'*WinogradTest.Several*:*WinogradTest.StrideTwo*:*EveryForm*:*SideBySide*:*LargeGroups*'
kernels() {  # PROCESSOR SET
  emulate "$1" "$build/tests" --gtest_filter="Kernels/*/$2_f32:-$long" &&
    grep -qE '^\[==========\] [1-9][0-9]* tests from 13 test suites ran' "$scratch/output"
}
emulate() {
  processor=$1
  shift
  qemu-x86_64 -cpu "$processor" "$@"
}
steps() {  # PROCESSOR: two steps of the demo
  emulate "$1" "$build/moco" pretrain --recipe recipes/demo.toml --out "$scratch/$1" --width 4 --batch 32 \
    --bn-splits 2 --max-steps 2 --knn-every 0 && [ -s "$scratch/$1/checkpoint.safetensors" ]
}
refused() {  # PROCESSOR SET
  MOCO_ISA=$2 emulate "$1" "$build/moco" gradcheck relu
  [ $? -eq 2 ]
}

check 'Nehalem: kernels' kernels Nehalem baseline
check 'Nehalem: pretraining' steps Nehalem
check 'Nehalem: no AVX2 to be forced' refused Nehalem avx2
check 'Haswell: kernels' kernels Haswell avx2
check 'Haswell: pretraining' steps Haswell
check 'Haswell: no AVX-512 to be forced' refused Haswell avx512

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
