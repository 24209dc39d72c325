#!/bin/sh
# Every system call of a run's files goes wrong once, and so do allocations: one clear line, exit code
# 1, and the old or the new checkpoint is there, from which the run ends where it should.
#
#   KINDS=all EVERY=1 tests/faults_test.sh     every kind of fault, every one of 500 allocations
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh
injection=$BUILD/fault_injection.so
if [ "$(basename "$BUILD")" != build ] || [ ! -e "$injection" ]; then
  echo "skipped: faults: $BUILD is a build with sanitizers, or has no fault_injection.so"
  finish
  exit
fi

# The run is at step 3 and goes on to step 4, with one save.
# shellcheck disable=SC2086  # words
{
  "$moco" pretrain $tiny --save-every 1 --max-steps 3 --out "$scratch/begun" &&
    cp -r "$scratch/begun" "$scratch/whole" &&
    "$moco" pretrain --resume --max-steps 4 --threads 1 --out "$scratch/whole"
} >/dev/null || exit 1

out=$scratch/faulty
log=$scratch/injected
# with_fault VARIABLE=VALUE... COMMAND...: runs it; sets $code, and $injected where a fault happened
with_fault() {
  rm -f "$log"
  code=0
  timeout 60 env LD_PRELOAD="$injection" MOCO_FAULT_LOG="$log" "$@" \
    >"$scratch/fault.out" 2>"$scratch/fault.err" </dev/null || code=$?
  injected=
  [ ! -e "$log" ] || injected=yes
}

one_clear_line() {
  [ "$(grep -c '^error: ' "$scratch/fault.err")" -eq 1 ] && grep -q "^error: .*$1" "$scratch/fault.err" &&
    [ "$(grep -vcE '^error: |^  ' "$scratch/fault.err")" -eq 0 ]
}

# True if the fault was told as it should be and nothing is lost.
is_harmless() {
  case $1:$code in
    kill:137 | short:0) ;;
    enospc:1) one_clear_line 'No space left on device' ;;
    eio:1) one_clear_line 'Input/output error' ;;
    *:0) grep -q '^close' "$log" ;; # of what was only read, or is written already
    *) false ;;
  esac || return 1
  "$moco" pretrain --resume --max-steps 4 --threads 1 --out "$out" && same "$scratch/whole" "$out" &&
    [ -z "$(find "$out" -name '*.tmp-*')" ]
}

# walk KIND...: the kinds in turn, one for each call; all four for each where KINDS=all
walk() {
  k=1 wrong=
  while [ "$k" -lt 1000 ]; do
    kind=$(echo "$@" | cut -d ' ' -f $((k % $# + 1)))
    rm -rf "$out"
    cp -r "$scratch/begun" "$out"
    with_fault MOCO_FAULT_IN="$out" MOCO_FAULT_CALL="$k" MOCO_FAULT_KIND="$kind" \
      "$moco" pretrain --resume --max-steps 4 --threads 1 --out "$out"
    [ -n "$injected" ] || break
    if ! is_harmless "$kind" >"$scratch/why" 2>&1; then
      wrong="$wrong $k:$kind"
      cat "$scratch/fault.err" "$scratch/why"
    fi
    k=$((k + 1))
  done
  echo "$((k - 1)) system calls; wrong at:$wrong"
  [ "$k" -gt 20 ] && [ -z "$wrong" ]
}
if [ "${KINDS:-}" = all ]; then
  for kind in enospc eio short kill; do check "$kind at every system call" walk "$kind"; done
else
  check 'a fault at every system call' walk enospc eio short kill kill
fi

# An error leaves nothing; after a kill all is there, or a second try works or is told what happened.
mkdir -p "$scratch/pictures/a"
cp tests/fixtures/images/rgb.png "$scratch/pictures/a/"
packs_again() {
  "$moco" data pack "folder:$scratch/pictures" --out "$scratch/packed" && return 0
  [ -e "$scratch/packed/data_batch_1.bin" ] && [ -e "$scratch/packed/batches.meta.txt" ] && return 0
  grep -q '^rename' "$log" && grep -q 'killed before it was done' "$scratch/why"
}
packing() {
  k=1 wrong=
  while [ "$k" -lt 1000 ]; do
    case $((k % 2)) in 0) kind=eio ;; *) kind='kill' ;; esac
    rm -rf "$scratch/packed"
    with_fault MOCO_FAULT_IN="$scratch/packed" MOCO_FAULT_CALL="$k" MOCO_FAULT_KIND="$kind" \
      "$moco" data pack "folder:$scratch/pictures" --out "$scratch/packed"
    [ -n "$injected" ] || break
    case $kind:$code in
      eio:1) [ ! -e "$scratch/packed" ] || wrong="$wrong $k:$kind" ;;
      kill:137 | eio:0) ;;
      *) wrong="$wrong $k:$kind" ;;
    esac
    [ ! -e "$scratch/packed" ] || [ "$code" -ne 137 ] || packs_again >"$scratch/why" 2>&1 ||
      { wrong="$wrong $k:$kind" && cat "$scratch/why"; }
    k=$((k + 1))
  done
  echo "$((k - 1)) system calls; wrong at:$wrong"
  [ "$k" -gt 10 ] && [ -z "$wrong" ]
}
check 'a fault at every system call of data pack' packing

# ---- memory -----------------------------------------------------------------------------------------

# allocations VARIABLE STEP TEXT: every STEP-th of the first 500 fails
allocations() {
  k=1 bad=
  while [ "$k" -le 500 ]; do
    rm -rf "$out"
    # shellcheck disable=SC2086
    with_fault "$1=$k" "$moco" pretrain $tiny --max-steps 1 --out "$out"
    # What the C++ library asks for in reserve, and what a stream does without, is no failure.
    if [ -n "$injected" ] && [ "$code" -ne 0 ]; then
      { [ "$code" -eq 1 ] && one_clear_line "$3"; } || { bad="$bad $k" && cat "$scratch/fault.err"; }
    fi
    k=$((k + $2))
  done
  [ -z "$bad" ] || { echo "wrong at:$bad" && return 1; }
}
check 'an allocation fails' allocations MOCO_FAULT_ALLOC "${EVERY:-37}" 'memory'
check "the engine's own says how much it was" allocations MOCO_FAULT_ALIGNED "${EVERY:-37}" \
  'cannot allocate [0-9]* bytes'

# ---- threads ----------------------------------------------------------------------------------------

# As many threads start as are left; a run ends where it should without the thread that writes its checkpoints.
threads() {
  k=1 bad=
  while [ "$k" -lt 100 ]; do
    rm -rf "$out"
    cp -r "$scratch/begun" "$out"
    with_fault "MOCO_FAULT_THREAD=$k" "$moco" pretrain --resume --max-steps 4 --threads 3 --out "$out"
    [ -n "$injected" ] || break
    case $code in
      0) same "$scratch/whole" "$out" || bad="$bad $k" ;;
      1) one_clear_line 'cannot start [0-9]* threads: Resource temporarily unavailable' || bad="$bad $k" ;;
      *) bad="$bad $k" ;;
    esac
    last=$code k=$((k + 1))
  done
  echo "$((k - 1)) threads; wrong at:$bad"
  [ "$k" -gt 4 ] && [ "$last" -eq 0 ] && [ -z "$bad" ]
}
check 'no further thread can be started' threads

# ---- a disk that is full ----------------------------------------------------------------------------

# shellcheck disable=SC2086
full() {
  rm -rf "$out"
  cp -r "$scratch/begun" "$out"
  code=0
  (ulimit -f 8 && "$moco" pretrain --resume --max-steps 4 --threads 1 --out "$out") \
    >"$scratch/fault.out" 2>"$scratch/fault.err" || code=$?
  [ "$code" -eq 1 ] && one_clear_line 'File too large' && cmp "$scratch/begun/checkpoint.safetensors" \
    "$out/checkpoint.safetensors"
}
check 'a limit on the size of files' full
check 'standard output on a full device' sh -c \
  "\"$moco\" inspect '$scratch/begun/checkpoint.safetensors' >/dev/full 2>'$scratch/fault.err'; test \$? -eq 1"
check 'says so' one_clear_line 'standard output'

vanishing() {
  rm -rf "$out"
  # shellcheck disable=SC2086
  "$moco" pretrain $tiny --epochs 100000 --save-every 1 --out "$out" >/dev/null 2>"$scratch/fault.err" &
  run=$!
  until grep -qs '"step":1,' "$out/metrics.jsonl" || ! kill -0 "$run"; do sleep 0.05; done
  mv "$out" "$scratch/elsewhere"
  code=0
  wait "$run" || code=$?
  "$moco" inspect "$scratch/elsewhere/checkpoint.safetensors" >/dev/null && [ "$code" -eq 1 ] &&
    one_clear_line 'No such file'
}
check 'the folder vanishes' vanishing
finish
