# The parts of tools/gpu-check.sh, which sources this: one function each, and what reads the output of
# the tools that they run.
# shellcheck shell=sh disable=SC2154  # $scratch, $argument and the functions of the report are its

left() { echo $((LIMIT - $(date +%s) + began)); }  # seconds
# least A B: the smaller
least() { [ "$1" -lt "$2" ] && echo "$1" || echo "$2"; }
# boxed SECONDS COMMAND...: stopped as by Ctrl-C after so many, at most those that are left. Ctrl-C
# itself reaches it, too.
boxed() {
  seconds=$(least "$1" "$(left)")
  shift
  [ "$seconds" -gt 0 ] || return 124
  timeout --foreground --signal=INT --kill-after=10 "$seconds" "$@"
}
has_torch() {
  python3 -c 'import sys, torch; sys.exit(sys.argv[1] == "cuda" and not torch.cuda.is_available())' "$DEVICE" 2>/dev/null
}

# ---- suite -----------------------------------------------------------------------------------------

# on_two_processors SLOT: this shell, on two of its own of those that it may use. Threads that wait for
# threads without a processor wait long.
on_two_processors() {
  taskset -pc $$ 2>/dev/null | sed 's/.*: //' | tr , '\n' |
    awk -F- '{ for (i = $1; i <= ($2 == "" ? $1 : $2); ++i) print i }' >"$scratch/processors.$1"
  count=$(wc -l <"$scratch/processors.$1")
  [ "$count" -gt 0 ] || return 0
  pair=$(awk -v first=$((2 * $1 % count)) 'NR == first + 1 || NR == first + 2' "$scratch/processors.$1" | paste -sd ,)
  taskset -pc "$pair" $$ >/dev/null 2>&1
}

# Tests side by side: the GoogleTest program in pieces, the examples and the scripts, each on two processors.
# On the emulator only what is new there: cuBLAS's stand-in, and why a GPU is refused.
suite() {
  set --
  for source in examples/*.cpp; do set -- "$@" "$BUILD/examples/$(basename "$source" .cpp)"; done
  build all "$BUILD/tests" "$@"
  filter='*'
  [ "$DEVICE" = cuda ] || filter='Cublas*:DeviceProblem.*:*GemmTest*/cuda_emulated*'
  pieces=$((($(nproc) + 1) / 2))
  i=0
  while [ "$i" -lt "$pieces" ]; do
    echo "job $scratch/tests.$i env GTEST_TOTAL_SHARDS=$pieces GTEST_SHARD_INDEX=$i $BUILD/tests --gtest_color=no \
      --gtest_filter='$filter'"
    i=$((i + 1))
  done >"$scratch/jobs"
  if [ "$DEVICE" = cuda ]; then
    for program in "$@"; do
      name=$scratch/example.$(basename "$program")
      echo "job $name $program && echo 1 passed, 0 failed >>$name"
    done
    for script in tests/*_test.sh; do
      echo "job $scratch/script.$(basename "$script" .sh) sh $script"
    done
  fi >>"$scratch/jobs"
  export LIMIT began scratch
  # shellcheck disable=SC2016  # that shell's
  xargs -P "$pieces" --process-slot-var=slot -d '\n' -n 1 sh -c '. tools/gpu/parts.sh
    on_two_processors "$slot"; eval "$1"; exit 0' job <"$scratch/jobs"
  summarize_suite "$scratch"/tests.* "$scratch"/example.* "$scratch"/script.* >"$scratch/sums"
  tee -a "$report" <"$scratch/sums"
  on_gpu=$(cat "$scratch"/tests.* | passed_on_gpu)
  say "Of the passed on the GPU: $on_gpu."
  if [ "$DEVICE" = cuda ] && [ "$on_gpu" -eq 0 ]; then return 1; fi
  grep -qE '^[0-9]+ passed, 0 failed' "$scratch/sums"
}

# job FILE COMMAND...: what it prints, and its exit code where that is not 0
job() {
  output=$1 code=0
  shift
  boxed "$LIMIT" "$@" >"$output" 2>&1 </dev/null || code=$?
  [ "$code" -eq 0 ] || echo "exit code $code" >>"$output"
  return "$code"
}

passed_on_gpu() { grep '^\[       OK \]' | grep -cE '/cuda(_[^e]| )'; }

# summarize_suite FILE...: sums over the outputs of GoogleTest pieces and of scripts, and what failed
summarize_suite() {
  for file in "$@"; do
    [ ! -f "$file" ] || awk -v name="$(basename "$file")" '
      /^\[       OK \]/ && / ms\)$/      { passed++; running = "" }
      /^\[  FAILED  \].* ms\)$/          { failed++; running = ""; print "failed: " $4 }
      /^\[  SKIPPED \].* ms\)$/          { skipped++; running = "" }
      /^\[ RUN      \]/                  { running = $4 }
      /^failed: /                        { print name ": " $0 }
      /^skipped: /                       { skipped++; print }
      /^[0-9]+ passed, [0-9]+ failed$/   { passed += $1; failed += $3; told = $3 }
      /^exit code /                      { code = $3 }
      END {
        if (running) { failed++; print "failed: " running ": not ended, exit code " code }
        else if (code == 124) { failed++; print "failed: " name ": not ended in time" }
        else if (code && !failed) { failed++; print "failed: " name ": exit code " code }
        print "SUM", passed + 0, failed + 0, skipped + 0
      }' "$file"
  done | awk '$1 == "SUM" { p += $2; f += $3; s += $4; next } { print "- " $0 }
    END { print "\n" p " passed, " f " failed, " s " skipped" }'
}

# ---- sanitize --------------------------------------------------------------------------------------

# The four tools side by side, each in pieces, racecheck, the slowest, in more. Left out are the longest
# shapes, which they make a hundred times longer, f64, whose kernels have the source of f32's, and NVIDIA's own
# kernels. In a random order, so that another run, if time ends it, reaches other tests. Calls that fail are not
# reported: the tests provoke some, and the program checks each.
sanitize() {
  sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
  if [ ! -x "$sanitizer" ] || [ "$DEVICE" != cuda ]; then
    say 'compute-sanitizer: not available here (it comes with the CUDA toolkit, and needs a GPU).'
    return
  fi
  build "$BUILD/tests"
  say "compute-sanitizer $("$sanitizer" --version | sed -n 's/^Version \([0-9.]*\).*/\1/p')"
  say ''
  seconds=$(($(left) - 15))
  [ "$seconds" -gt 0 ] || { say 'No time is left after the build.'; return 1; }
  filter='*/cuda_*-*/cuda_emulated*:*f64*:*cublas*:*LargerThanOneTask*:*LargeGroups*:*EveryKernelStride*:*ManyRows*'
  filter=$filter:'*GemmTest.SmallShapesAndPrimes*'
  for tool in memcheck racecheck initcheck synccheck; do
    pieces=$(sanitizer_pieces "$tool" "$(nproc)")
    flags=$([ "$tool" != memcheck ] || echo --report-api-errors=no)
    i=0
    while [ "$i" -lt "$pieces" ]; do
      # shellcheck disable=SC2086  # none or one
      GTEST_TOTAL_SHARDS=$pieces GTEST_SHARD_INDEX=$i timeout --signal=INT --kill-after=10 "$seconds" \
        "$sanitizer" --tool "$tool" $flags "$BUILD/tests" --gtest_color=no --gtest_shuffle --gtest_filter="$filter" \
        >"$scratch/$tool.$i" 2>&1 &
      background="$background $!"
      i=$((i + 1))
    done
  done
  wait
  for tool in memcheck racecheck initcheck synccheck; do say "- $(summarize_sanitizer "$tool" "$scratch/$tool".*)"; done
  code=0
  for tool in memcheck racecheck initcheck synccheck; do
    for piece in "$scratch/$tool".*; do sanitizer_is_content "$piece" || code=1; done
    if cat "$scratch/$tool".* | grep '^========= ' | grep -qE "$findings"; then
      say '' && say "$tool reports something in $(tests_with_findings "$scratch/$tool".*); the first lines:"
      cat "$scratch/$tool".* | grep '^========= ' | head -n 40 | verbatim
      code=1
    fi
  done
  return "$code"
}

findings='Error|Invalid|Race|Uninitialized|Barrier'
# tests_with_findings FILE...: the tests during which something was reported, comma-separated
tests_with_findings() {
  awk -v findings="$findings" '
    FNR == 1                            { test = "no test" }
    /^\[ RUN      \]/                   { test = $4 }
    /^========= / && $0 ~ findings      { if (!seen[test]++) printf "%s%s", (n++ ? ", " : ""), test }
    END                                 { print "" }' "$@"
}

# sanitizer_pieces TOOL PROCESSORS: how many processes run its tests; they share the GPU, too
sanitizer_pieces() {
  case $1 in racecheck) pieces=$(($2 / 2)) ;; *) pieces=$(($2 / 8)) ;; esac
  [ "$pieces" -gt 0 ] && echo "$pieces" || echo 1
}

# sanitizer_is_content FILE: whether it came to its summary, with tests that passed and none that failed
sanitizer_is_content() {
  grep -q '^========= .*SUMMARY' "$1" && grep -q '^\[       OK \]' "$1" && ! grep -q '^\[  FAILED  \]' "$1"
}

# summarize_sanitizer TOOL FILE...: how many tests ended under it, how many pieces came to their summary,
# and the findings that the summaries count
summarize_sanitizer() {
  tool=$1
  shift
  awk -v tool="$tool" '
    BEGIN                      { pieces = ARGC - 1 }
    /^\[==========\] Running/  { all += $3 }
    /^\[       OK \]/          { passed++ }
    /^\[  SKIPPED \].*ms\)$/   { skipped++ }
    /^\[  FAILED  \].*ms\)$/   { failed++ }
    /^========= .*SUMMARY: / && !/not printed/ { ended++; sub(/.*SUMMARY: /, ""); findings += $1 }
    /^========= Error: /       { if (!error) error = $0 }
    END {
      sub(/^========= /, "; ", error)
      printf "%s: %d of %d tests passed, %d failed, %d skipped; %d of %d pieces came to their end, %d findings%s\n",
        tool, passed, all, failed, skipped, ended, pieces, findings, error
    }' "$@"
}

# ---- bench -----------------------------------------------------------------------------------------

bench() {
  build "$BUILD/moco"
  precisions=${PRECISIONS:-bf16 tf32 fp32} failure=0
  if ! has_torch; then
    say 'PyTorch: not available here (python3 has no torch that finds the device): cuDNN, its passes and its step are not compared.'
    benched 60 --ladder || failure=$?
    for precision in $precisions; do benched 130 --precision "$precision" --steps 10 || failure=$?; done
  else
    told boxed "$(($(left) - 65))" python3 tools/gpu_peers.py --moco "$BUILD/moco" --device "$DEVICE" \
      --seconds "$(($(left) - 95))" --precisions "$precisions" 2>"$scratch/errors" || failure=$?
    grep -E 'error|Error' "$scratch/errors" | tail -n 3 | tee -a "$report"
  fi
  profile || failure=$?
  [ "$failure" -eq 0 ] || say "The exit code of what failed last: $failure."
  return "$failure"
}

# benched SECONDS FLAGS...: moco bench
benched() {
  box=$1
  shift
  say '' && say "\`moco bench $*\`:" && say '```'
  told boxed "$box" "$BUILD/moco" bench --device "$DEVICE" "$@" 2>&1
  code=$?
  say '```'
  return "$code"
}

# Where the time of three steps goes, kernel by kernel: by the first profiler that works here. Their
# launches are not recorded, so that each is seen.
profile() {
  say '' && say '### Kernels of three steps' && say ''
  if [ "$DEVICE" != cuda ]; then
    say 'Profilers: not available here (they need a GPU).'
    return
  fi
  export MOCO_CUDA_GRAPH=0
  set -- "$BUILD/moco" pretrain --data shapes --device cuda --precision bf16 --arch resnet18 --batch 512 \
    --max-steps 3 --knn-every 0 --save-every 0 --out
  if command -v nsys >/dev/null &&
    boxed 45 nsys profile -o "$scratch/step" --trace=cuda "$@" "$scratch/by-nsys" >"$scratch/nsys" 2>&1 &&
    boxed 30 nsys stats --report cuda_gpu_kern_sum --format csv "$scratch/step.nsys-rep" >"$scratch/kernels" 2>&1 &&
    nsys_kernels <"$scratch/kernels" | grep -q .; then
    say "By \`MOCO_CUDA_GRAPH=0 nsys profile $* DIR\`:"
    nsys_kernels <"$scratch/kernels" >"$scratch/launches"
  elif command -v ncu >/dev/null && boxed 60 ncu --csv --print-units base --clock-control none \
    --metrics gpu__time_duration.sum "$@" "$scratch/by-ncu" >"$scratch/ncu" 2>&1 && ncu_kernels <"$scratch/ncu" | grep -q .; then
    say "By \`MOCO_CUDA_GRAPH=0 ncu --metrics gpu__time_duration.sum $* DIR\`:"
    ncu_kernels <"$scratch/ncu" >"$scratch/launches"
  else
    say "Profilers: neither nsys nor ncu works here. By events, without cuBLAS's kernels, \`MOCO_KERNEL_TIMES=1 $* DIR\`:"
    export MOCO_KERNEL_TIMES=1
    boxed 60 "$@" "$scratch/by-events" 2>"$scratch/times" >"$scratch/stdout" || { tail -n 1 "$scratch/times" | verbatim; return 1; }
    own_kernels <"$scratch/times" >"$scratch/launches"
  fi
  say ''
  kernel_table <"$scratch/launches" | tee -a "$report"
}

# From the profilers' CSV: 'launches nanoseconds name' a line, of each kernel or each launch.
nsys_kernels() {
  awk -F, '/^[0-9.]+,[0-9]+,/ { name = $0; for (i = 0; i < 8; ++i) sub(/^[^,]*,/, "", name); gsub(/"/, "", name); print $3, $2, name }'
}
ncu_kernels() {
  awk -F'","' '/gpu__time_duration/ { gsub(/[",]/, "", $NF); print 1, $NF, $5 }'
}
# From our own: 'kernel LAUNCHES MS NAME'.
own_kernels() {
  awk '$1 == "kernel" { name = $0; sub(/^kernel [^ ]* [^ ]* /, "", name); printf "%d %.0f %s\n", $2, 1e6 * $3, name }'
}

# Sums by the kernel's own name, longest first.
kernel_table() {
  awk '{
      name = $0; sub(/^[^ ]+ [^ ]+ /, "", name)
      sub(/^void /, "", name); gsub(/\(anonymous namespace\)::|<unnamed>::|mocograd::|cuda_device::/, "", name)
      sub(/[<(].*/, "", name)
      launches[name] += $1; time[name] += $2; total += $2
    }
    END { for (name in time) printf "%.3f|%d|%.1f|%s\n", time[name] / 1e6, launches[name], 100 * time[name] / total, name }' |
    sort -t '|' -k 1,1 -gr | awk -F'|' '
      BEGIN { print "| kernel | launches | ms | share |\n| --- | ---: | ---: | ---: |" }
      NR <= 25 { printf "| %s | %d | %.3f | %.1f %% |\n", $4, $2, $1, $3 }'
}

# ---- train -----------------------------------------------------------------------------------------

# Unpacks DATA if need be; says which folder of CIFAR-10's binary files it is.
cifar_folder() {
  if [ -d "$argument" ]; then echo "$argument" && return; fi
  mkdir "$scratch/jpeg"
  boxed "$LIMIT" tar -xf "$argument" -C "$scratch/jpeg" 2>/dev/null || boxed "$LIMIT" python3 -c 'if True:  # where there is no xz
    import sys, tarfile
    tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$argument" "$scratch/jpeg" || return 1
  train=$(find "$scratch/jpeg" -type d -name train | head -n 1)
  [ -n "$train" ] || { echo "error: $argument has no folder train" >&2; return 1; }
  boxed "$LIMIT" "$BUILD/moco" data pack "folder:$(dirname "$train")" --out "$scratch/cifar" >&2 && echo "$scratch/cifar"
}

# metric FILE NAME: the last value of that name in metrics.jsonl
metric() { sed -n "s/.*\"$2\":\([0-9.eE+-]*\).*/\1/p" "$1" | tail -n 1; }

# pretrain SECONDS FLAGS...: with the authors' recipe, tiny on the emulator
pretrain() {
  seconds=$1
  shift
  if [ "$DEVICE" != cuda ]; then
    set -- --arch resnet20 --width 1 --batch 8 --bn-splits 2 --image-size 8 --queue 64 "$@"
  fi
  boxed "$seconds" "$BUILD/moco" pretrain --recipe recipes/cifar10-authors.toml --data "cifar10:$folder" \
    --device "$DEVICE" --precision "$precision" --save-every 0 "$@" >"$scratch/log" 2>&1
}

# average_rate FILE: images a second over all its steps
average_rate() {
  sed -n '/"event":"step"/s/.*"images_per_s":\([0-9.eE+-]*\).*/\1/p' "$1" |
    awk '{ time += 1 / $1 } END { printf "%.1f\n", time ? NR / time : 0 }'
}

# What pretrain left: epoch, loss, rate and kNN.
our_line() {
  metrics=$scratch/run/metrics.jsonl
  boxed "$LIMIT" "$BUILD/moco" eval knn --checkpoint "$scratch/run/checkpoint.safetensors" \
    --data "cifar10:$folder" --device "$DEVICE" >"$scratch/knn"
  case $? in 0) top1="$(metric "$scratch/knn" top1) %" ;; 124 | 137) top1='not in time' ;; *) top1='failed' ;; esac
  printf -- '- mocograd: epoch %d, loss %.3f, %.1f images/s on average; kNN top-1 %s, by epoch: %s' \
    "$(metric "$metrics" epoch)" "$(metric "$metrics" loss)" "$(average_rate "$metrics")" \
    "$top1" "$(knn_by_epoch "$metrics")"
}

# complaint FILE: what a program that failed has to say: its error, else its last line
complaint() { { grep '^error' "$1" || tail -n 1 "$1" | grep . || echo 'no time was left'; } | tail -n 1; }

# knn_by_epoch FILE: 'EPOCH: TOP1', comma-separated
knn_by_epoch() {
  sed -n 's/.*"event":"knn","epoch":\([0-9]*\),"top1":\([0-9.e+-]*\).*/\1 \2/p' "$1" |
    awk '{ printf "%s%d: %.2f", (NR > 1 ? ", " : ""), $1, $2 } END { print "" }'
}

# PyTorch comes first: it knows how many epochs both can train, and the cosine's length is theirs.
train() {
  build "$BUILD/moco"
  folder=$(cifar_folder) || { say 'The data could not be unpacked, or not in time.'; exit 1; }
  precision=${PRECISION:-tf32} images=$(($(cat "$folder"/data_batch_*.bin | wc -c) / 3073))
  pretrain 60 --knn-every 0 --max-steps "$([ "$DEVICE" = cuda ] && echo 30 || echo 2)" --out "$scratch/warm" ||
    { say "moco pretrain: $(complaint "$scratch/log")"; exit 1; }
  rate=$(metric "$scratch/warm/metrics.jsonl" images_per_s) epochs=${EPOCHS:-}
  if [ "${TORCH:-1}" = 0 ]; then
    echo 'PyTorch: left out (TORCH=0).' >"$scratch/torch"
  elif has_torch; then
    boxed "$(($(left) - 15))" python3 tools/gpu_pretrain.py --data "$folder" --device "$DEVICE" \
      --precision "$precision" --seconds "$(($(left) - 45))" \
      --epochs "${epochs:-200}" --beside "$([ -n "$epochs" ] && echo 0 || echo "$rate")" \
      >"$scratch/torch" 2>"$scratch/errors" || echo "PyTorch: exit code $?" >>"$scratch/torch"
    epochs=${epochs:-$(sed -n 's/^PyTorch trains \([0-9]*\) epochs$/\1/p' "$scratch/torch")}
    grep Error "$scratch/errors" | tail -n 1 >>"$scratch/torch"
  else
    echo 'PyTorch: not available here (python3 has no torch that finds the device).' >"$scratch/torch"
  fi
  epochs=${epochs:-$(epochs_within "$(($(left) - 30))" "$images" "$rate")}
  say "The authors' recipe (recipes/cifar10-authors.toml), cosine over $epochs epochs of $images images, \
--precision $precision$([ "$DEVICE" = cuda ] || echo ', of which the emulator takes three steps'):" && say ''
  sed '/^PyTorch trains/d; s/^/- /' "$scratch/torch" | tee -a "$report"
  if [ "$DEVICE" = cuda ]; then set -- --knn-every 20; else set -- --knn-every 0 --max-steps 3; fi
  pretrain "$(($(left) - 10))" --epochs "$epochs" --out "$scratch/run" "$@"
  code=$?
  [ -f "$scratch/run/checkpoint.safetensors" ] ||
    { say "- moco pretrain: exit code $code: $(complaint "$scratch/log")"; exit 1; }
  say "$(our_line)$([ "$code" -eq 0 ] || echo '; stopped by the clock')"
}

# epochs_within SECONDS IMAGES RATE: 1 to 200
epochs_within() {
  awk -v seconds="$1" -v images="$2" -v rate="$3" \
    'BEGIN { n = int(0.9 * rate * seconds / images); print (n < 1 ? 1 : n > 200 ? 200 : n) }'
}
