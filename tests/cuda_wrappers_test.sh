#!/bin/sh
# The functions that wrap one instruction each (src/cuda/async_copy.h, bulk_copy.h, mma.h, wgmma.h) are
# accepted by nvcc and by its assembler for every generation of GPU that they tell apart, without a warning.
#
#   BUILD=build tests/cuda_wrappers_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
if ! command -v nvcc >/dev/null || [ "$(basename "${BUILD:-build}")" != build ]; then
  echo 'skipped: instructions compiled by nvcc: no nvcc, or a build with a sanitizer'
  echo '0 passed, 0 failed'
  exit 0
fi
passed=0 failed=0
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

for arch in 75 80 90a; do
  if nvcc -std=c++20 -arch="sm_$arch" -Wno-deprecated-gpu-targets -Isrc -Itests -cubin \
    -o "$scratch/kernels" tests/emulator_kernels.cu >"$scratch/output" 2>&1 && [ ! -s "$scratch/output" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "failed: sm_$arch"
    cat "$scratch/output"
  fi
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
