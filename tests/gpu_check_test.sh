#!/bin/sh
# tools/gpu-check.sh without a GPU: what it says then, and how it reads the output of the tools that it
# runs on one.
#
#   BUILD=build tests/gpu_check_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh
. tools/gpu/parts.sh

# reads TEXT COMMAND...: that the command, given stdin, prints exactly the text
reads() {
  expected=$1
  shift
  printf '%s\n' "$expected" >"$scratch/expected"
  "$@" | diff "$scratch/expected" -
}

# refused CODE TEXT ARGS...: one error line and this code
refused() {
  expected=$1 text=$2 code=0
  shift 2
  OUT=$scratch/out tools/gpu-check.sh "$@" >"$scratch/stdout" 2>"$scratch/stderr" || code=$?
  cat "$scratch/stderr"
  [ "$code" -eq "$expected" ] && grep -qF -- "$text" "$scratch/stderr"
}

check 'no part' refused 2 'gpu-check.sh suite'
check 'an unknown part' refused 2 'gpu-check.sh suite' polish
DEVICE=gpu check 'an unknown device' refused 2 'error: DEVICE=gpu is neither' suite
LIMIT=9m check 'a limit that is no number' refused 2 'error: LIMIT=9m is no number' suite
check 'train without data' refused 2 'error: train: there is no' train
nothing_built() {
  OUT=$scratch/out BUILT=1 BUILD=$scratch/none DEVICE=cuda-emulated tools/gpu-check.sh bench >"$scratch/stdout" 2>&1
  [ $? -eq 1 ] && grep -q "^BUILT is set, but there is no $scratch/none/moco" "$scratch/stdout"
}
check 'nothing built, though it was said' nothing_built
if ! command -v nvidia-smi >/dev/null; then
  check 'no GPU' refused 1 'error: nvidia-smi finds no GPU here; DEVICE=cuda-emulated' suite
else
  echo 'skipped: a machine without a GPU: nvidia-smi is here'
fi

# stands_in NAME TEXT CODE: a program of this name that prints this and ends so, in $scratch/bin
stands_in() {
  mkdir -p "$scratch/bin"
  printf '#!/bin/sh\necho "%s"\nexit %s\n' "$2" "$3" >"$scratch/bin/$1"
  chmod +x "$scratch/bin/$1"
}
path=$PATH
PATH=$scratch/bin:$PATH
stands_in nvidia-smi 'Failed to initialize NVML: Driver/library version mismatch' 18
check 'an nvidia-smi that fails' refused 1 \
  'nvidia-smi finds no GPU here (Failed to initialize NVML: Driver/library version mismatch); DEVICE=' suite
if command -v dpkg >/dev/null; then
  stands_in cp '' 1
  check 'headers that cannot be copied' refused 1 'could not be filled' deps "$scratch/deps"
else
  echo 'skipped: headers that cannot be copied: dpkg is not here'
fi
PATH=$path

# shellcheck disable=SC2034  # parts.sh reads them
LIMIT=100 began=$(date +%s)
check 'a command ends in time' boxed 5 true
check 'a command is stopped' sh -c '. tools/gpu/parts.sh; LIMIT=100 began=$(date +%s); boxed 1 sleep 9; [ $? -eq 124 ]'
check 'with no time left nothing runs' \
  sh -c '. tools/gpu/parts.sh; LIMIT=0 began=$(date +%s); boxed 5 touch "$1"; [ $? -eq 124 ] && ! [ -e "$1" ]' - "$scratch/ran"
job "$scratch/job" sh -c 'echo half a line; exit 3'
check 'a job keeps its output and exit code' reads 'half a line
exit code 3' cat "$scratch/job"

# ---- the suite's output --------------------------------------------------------------------------------

cat >"$scratch/tests.0" <<'TEXT'
Note: This is test shard 1 of 2.
[==========] Running 4 tests from 1 test suite.
[ RUN      ] Kernels/GemmTest.A/cuda_f32
[       OK ] Kernels/GemmTest.A/cuda_f32 (3 ms)
[ RUN      ] Kernels/GemmTest.A/cuda_f64
c[0] is 1, expected 2 within 0
[  FAILED  ] Kernels/GemmTest.A/cuda_f64, where GetParam() = (8-byte object, 4-byte object) (0 ms)
[ RUN      ] Device.Skips
[  SKIPPED ] Device.Skips (0 ms)
[  FAILED  ] Kernels/GemmTest.A/cuda_f64, where GetParam() = (8-byte object, 4-byte object)
[ RUN      ] Device.Crashes
exit code 139
TEXT
printf 'skipped: this: that\n3 passed, 0 failed\n' >"$scratch/script.a_test"
printf 'failed: a check\n  why\n3 passed, 1 failed\nexit code 1\n' >"$scratch/script.b_test"
printf 'half a line\nexit code 124\n' >"$scratch/script.c_test"
check 'sums of the suite, and what failed' reads \
  '- failed: Kernels/GemmTest.A/cuda_f64,
- failed: Device.Crashes: not ended, exit code 139
- skipped: this: that
- script.b_test: failed: a check
- failed: script.c_test: not ended in time

7 passed, 4 failed, 2 skipped' summarize_suite "$scratch/tests.0" "$scratch"/script.*

printf '[       OK ] A.B/%s (3 ms)\n' cuda_f32 cuda cuda_symmetric cuda_emulated_f32 avx2_f32 >"$scratch/passed"
check 'what passed on the GPU' reads 3 passed_on_gpu <"$scratch/passed"

# ---- compute-sanitizer's -------------------------------------------------------------------------------

cat >"$scratch/memcheck" <<'TEXT'
========= COMPUTE-SANITIZER
[==========] Running 3 tests from 1 test suite.
[       OK ] Kernels/GemmTest.A/cuda_f32 (300 ms)
[  SKIPPED ] Kernels/GemmTest.B/cuda_f32 (0 ms)
[       OK ] Kernels/GemmTest.C/cuda_f32 (300 ms)
========= ERROR SUMMARY: 0 errors
TEXT
check 'a sanitizer that ended' reads \
  'memcheck: 2 of 3 tests passed, 0 failed, 1 skipped; 1 of 1 pieces came to their end, 0 findings' \
  summarize_sanitizer memcheck "$scratch/memcheck"
sed '$d' "$scratch/memcheck" >"$scratch/stopped"
check 'a sanitizer that was stopped' reads \
  'racecheck: 2 of 3 tests passed, 0 failed, 1 skipped; 0 of 1 pieces came to their end, 0 findings' \
  summarize_sanitizer racecheck "$scratch/stopped"
printf '========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)\n' | cat "$scratch/stopped" - >"$scratch/hazards"
check "a tool's pieces" reads \
  'racecheck: 6 of 9 tests passed, 0 failed, 3 skipped; 2 of 3 pieces came to their end, 2 findings' \
  summarize_sanitizer racecheck "$scratch/memcheck" "$scratch/stopped" "$scratch/hazards"
printf '========= COMPUTE-SANITIZER\n========= Error: Device not supported\n' >"$scratch/refused"
check 'a sanitizer that refuses the device' reads \
  'initcheck: 0 of 0 tests passed, 0 failed, 0 skipped; 0 of 1 pieces came to their end, 0 findings; Error: Device not supported' \
  summarize_sanitizer initcheck "$scratch/refused"
cat >"$scratch/copies" <<'TEXT'
[==========] Running 2 tests from 1 test suite.
[ RUN      ] Kernels/BranchTest.A/cuda_f32
[       OK ] Kernels/BranchTest.A/cuda_f32 (300 ms)
[ RUN      ] Kernels/BranchTest.B/cuda_f32
========= Host API memory access error at host access to 0x48ea0ce800 of size 64 bytes
=========     Uninitialized access to 0x48ea0ce800 on access by cudaMemcpy source
[       OK ] Kernels/BranchTest.B/cuda_f32 (300 ms)
========= ERROR SUMMARY: 140 errors
========= ERROR SUMMARY: 40 errors were not printed. Use --print-limit option to adjust the number of printed errors
TEXT
check 'a sanitizer that finds more than it prints' reads \
  'initcheck: 2 of 2 tests passed, 0 failed, 0 skipped; 1 of 1 pieces came to their end, 140 findings' \
  summarize_sanitizer initcheck "$scratch/copies"
check 'where a sanitizer finds something' reads Kernels/BranchTest.B/cuda_f32 tests_with_findings "$scratch/copies"
check 'pieces on 16 processors' reads 8 sanitizer_pieces racecheck 16
check 'pieces on 1 processor' reads 1 sanitizer_pieces memcheck 1
not() { ! "$@"; }
check 'content: it ended' sanitizer_is_content "$scratch/memcheck"
check 'not content: it was stopped' not sanitizer_is_content "$scratch/stopped"
check 'not content: it refused' not sanitizer_is_content "$scratch/refused"
{ cat "$scratch/memcheck" && echo '[  FAILED  ] Kernels/GemmTest.D/cuda_f32 (1 ms)'; } >"$scratch/failed"
check 'not content: a test failed' not sanitizer_is_content "$scratch/failed"

# ---- what is built -------------------------------------------------------------------------------------

# A compiler that only notes for which GPUs it was called.
cat >"$scratch/nvcc" <<'TEXT'
#!/bin/sh
case $1 in --version) echo 'release 12.0, V12.0.1' && exit ;; esac
echo "$@" | grep -o 'code=[a-z0-9_]*' | tr '\n' ' ' >>"$(dirname "$0")/made"
while [ "$1" != -o ]; do shift; done
touch "$2"
TEXT
chmod +x "$scratch/nvcc"
# made_for ARCHS
made_for() {
  : >"$scratch/made"
  MAKEFLAGS='' make -s BUILD="$scratch/build" CUDA=1 NVCC="$scratch/nvcc" CUDA_ARCHS="$1" CUDA_PTX= \
    "$scratch/build/obj/src/cuda/pool.device.o" >/dev/null 2>&1 || echo failed
  echo >>"$scratch/made"
  cat "$scratch/made"
}
check 'code for a GPU' reads 'code=sm_80 ' made_for 80
check 'is not made again' reads '' made_for 80
check 'but for another one' reads 'code=sm_80 code=sm_90a ' made_for '80 90a'
check 'nor where there is no compiler' not env MAKEFLAGS= make -n CUDA=1 NVCC=

# ---- the profilers' ------------------------------------------------------------------------------------

cat >"$scratch/nsys" <<'TEXT'
Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns),Name
75.0,3000,3,1000.0,1000.0,900,1100,10.0,"void mocograd::cuda_device::<unnamed>::tile_product_kernel<float, A, B>(T2, T3)"
25.0,1000,2,500.0,500.0,400,600,1.0,"void mocograd::cuda_device::<unnamed>::fill_kernel<float>(long, float)"
TEXT
check "nsys's kernels" reads \
  '3 3000 void mocograd::cuda_device::<unnamed>::tile_product_kernel<float, A, B>(T2, T3)
2 1000 void mocograd::cuda_device::<unnamed>::fill_kernel<float>(long, float)' nsys_kernels <"$scratch/nsys"

cat >"$scratch/ncu" <<'TEXT'
==PROF== Connected to process 7
"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device","CC","Section Name","Metric Name","Metric Unit","Metric Value"
"0","7","moco","127.0.0.1","void mocograd::cuda_device::(anonymous namespace)::add_kernel<float>(long, const T1 *, T1 *)","1","7","(256, 1, 1)","(4, 1, 1)","0","9.0","Command line profiler metrics","gpu__time_duration.sum","ns","1,234"
"1","7","moco","127.0.0.1","void mocograd::cuda_device::(anonymous namespace)::add_kernel<double>(long, const T1 *, T1 *)","1","7","(256, 1, 1)","(4, 1, 1)","0","9.0","Command line profiler metrics","gpu__time_duration.sum","ns","766"
TEXT
check "ncu's kernels" reads \
  '1 1234 void mocograd::cuda_device::(anonymous namespace)::add_kernel<float>(long, const T1 *, T1 *)
1 766 void mocograd::cuda_device::(anonymous namespace)::add_kernel<double>(long, const T1 *, T1 *)' \
  ncu_kernels <"$scratch/ncu"

printf 'a line\nkernel 3 0.0015 void mocograd::cuda_device::(anonymous namespace)::add_kernel<float>(long)\n' >"$scratch/own"
check 'our own times' reads '3 1500 void mocograd::cuda_device::(anonymous namespace)::add_kernel<float>(long)' \
  own_kernels <"$scratch/own"

ncu_kernels <"$scratch/ncu" >"$scratch/launches"
nsys_kernels <"$scratch/nsys" >>"$scratch/launches"
check 'the table: by name, longest first' reads \
  '| kernel | launches | ms | share |
| --- | ---: | ---: | ---: |
| tile_product_kernel | 3 | 0.003 | 50.0 % |
| add_kernel | 2 | 0.002 | 33.3 % |
| fill_kernel | 2 | 0.001 | 16.7 % |' kernel_table <"$scratch/launches"

printf '{"event":"step","loss":7.5,"images_per_s":12}\n{"event":"step","loss":6.25,"images_per_s":1.5e3}\n' \
  >"$scratch/metrics.jsonl"
check 'the last loss' reads 6.25 metric "$scratch/metrics.jsonl" loss
printf '{"event":"knn","epoch":0,"top1":12.5}\n{"event":"epoch","epoch":20,"top1":3}\n{"event":"knn","epoch":20,"top1":60.125}\n' \
  >"$scratch/knn.jsonl"
check 'kNN by epoch' reads '0: 12.50, 20: 60.12' knn_by_epoch "$scratch/knn.jsonl"
check 'epochs within the seconds' reads 18 epochs_within 100 50000 10000
check 'one at least' reads 1 epochs_within 1 50000 10
check 'no more than the recipe has' reads 200 epochs_within 1000 50000 100000
check 'the average rate: of images, by seconds' reads 23.8 average_rate "$scratch/metrics.jsonl"

# ---- bench, on the emulator and, where there is one, beside PyTorch on the CPU --------------------------

export DEVICE=cuda-emulated
# bench_reports FOLDER: tools/gpu-check.sh bench, in one precision
bench_reports() { OUT=$1 BUILT=1 PRECISIONS=bf16 tools/gpu-check.sh bench; }
# lines COUNT PATTERN: so many lines of the report are like this
lines() {
  count=$(grep -cE -- "$2" "$benched"/gpu-report-*.md)
  [ "$count" -eq "$1" ] || { echo "$count lines like $2, expected $1"; return 1; }
}
if [ ! -x "$BUILD/moco" ]; then
  echo "skipped: bench: there is no $BUILD/moco"
elif ! has_torch; then
  benched=$scratch/alone
  check 'bench without PyTorch' bench_reports "$benched"
  check 'bench says that there is no PyTorch' lines 1 '^PyTorch: not available here'
  check 'bench has the ladder without PyTorch, too' lines 8 '^(gemm_1_naive|gemm_6_wgmma|conv2d, ....|conv_1_naive)  '
  echo 'skipped: bench beside PyTorch: python3 has no torch'
else
  benched=$scratch/beside
  check 'bench beside PyTorch' bench_reports "$benched"
  check 'every rung in per cent of PyTorch' lines 16 '^\| (gemm_[1-6]|conv).* \| [0-9.]+ % \|$'
  for counted in 'pointwise 36' 'rows 17' 'loss 8' 'optimizer 8' 'augmentation 1'; do
    check "beside PyTorch: ${counted% *}" lines "${counted#* }" "^\\| ${counted% *} .* \\| [0-9.]+ × \\|\$"
  done
  check 'what PyTorch does not have by itself' lines 5 '^\| (optimizer .* running|augmentation .* (v1|v2|none), ).* – \|'
  check 'ways to compile: the usual ones' lines 4 '^Left out, on the CPU: .*(8 BN.*NCHW|1 BN.*last), compiled(, CUDA graphs)?\.$'
  check 'ways to compile: all of them' lines 12 '^Left out, on the CPU: .*, compiled(, CUDA graphs|, max-autotune)?\.$'
  check 'nothing else was left out' lines 12 '^Left out'
  python3 tools/gpu_peers.py --moco "$BUILD/moco" --device "$DEVICE" --precisions bf16 --seconds 0 >"$scratch/no-time"
  check 'what there was no time for' reads 8 grep -c '^Left out, for lack of time: .' "$scratch/no-time"
  python3 tools/gpu_peers.py --moco false --device "$DEVICE" --precisions bf16 >"$scratch/fails" 2>&1
  check 'a moco that fails' test $? -ne 0
fi

finish
