#!/bin/sh
# A run that diverges: who is named, what is left, and that it can be computed again.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh
# shellcheck disable=SC2086  # $tiny is words
pretrain() { timeout 120 "$moco" pretrain $tiny --epochs 4 "$@"; }
diverge='--epochs 4 --lr 1e6 --weight-decay 1 --save-every 1'  # weights grow a million times a step

run=$scratch/run
# shellcheck disable=SC2086  # $tiny and $diverge are words
check 'a run that diverges names an operation' \
  call 1 ' wrote f32 [' pretrain $tiny $diverge --out "$run"
steps=$(grep -c '"event":"step"' "$run/metrics.jsonl")
check 'its step' grep -q "^error: step $((steps + 1)): encoder_" "$scratch/call.err"
check 'its source line' grep -q '^  in encoder_.* (src/autograd/ops/.*\.cpp:[0-9]*)' "$scratch/call.err"
check 'what it read' grep -q 'it read f32 .* min .* max .* mean .* std ' "$scratch/call.err"
check 'how to replay it' \
  grep -qF "moco debug replay $run/replay.safetensors" "$scratch/call.err"
check 'the checkpoint is that of the step before' \
  sh -c "'$moco' inspect '$run/checkpoint.safetensors' | grep -qE '^step +[:=] $steps\$'"
check 'and finite' sh -c "! '$moco' inspect '$run/checkpoint.safetensors' | grep -qiE '[^a-z](nan|inf)'"

cp "$run/checkpoint.safetensors" "$scratch/before"
cp "$run/replay.safetensors" "$scratch/replay"
check 'resumed it fails there again' call 1 "step $((steps + 1)): " pretrain --resume --out "$run"
check 'and leaves the same checkpoint' cmp "$scratch/before" "$run/checkpoint.safetensors"
check 'and the same replay' cmp "$scratch/replay" "$run/replay.safetensors"

replay() { timeout 60 "$moco" debug replay "$@" >"$scratch/out" 2>&1; }
check 'the replay is identical' replay "$run/replay.safetensors" --threads 1
check 'and says so' grep -q '^trace hash [0-9a-f]*: identical$' "$scratch/out"
check 'and names the same operation' grep -qF \
  "$(sed -n "s/^error: step $((steps + 1)): //p" "$scratch/call.err")" "$scratch/out"
check 'with another number of threads too' replay "$run/replay.safetensors" --threads 3
check 'it writes a trace' replay "$run/replay.safetensors" --out "$scratch/trace" --level shapes
check 'of every operation' test "$(wc -l <"$scratch/trace")" -gt 100
check 'which has a name' call 2 --out debug replay "$run/replay.safetensors" --out ''
check 'and without which there is no level' call 2 '--level requires --out' \
  debug replay "$run/replay.safetensors" --level shapes
check 'but over no file' call 1 'exists already' \
  debug replay "$run/replay.safetensors" --out "$scratch/trace"
MOCO_ISA=baseline "$moco" debug replay "$run/replay.safetensors" >"$scratch/baseline" 2>&1
code=$?
check 'other kernels are told' sh -c "grep -q 'computed with .* then and with baseline now' '$scratch/baseline' ||
  grep -q ': identical' '$scratch/baseline'"
check 'and end with 1, unless the numbers are the same' \
  test "$code" -eq "$(grep -c 'not identical' "$scratch/baseline")"

bf16=$scratch/bf16
# shellcheck disable=SC2086
check 'in bf16 the hint names the precision' call 1 'error: step ' \
  pretrain $tiny $diverge --out "$bf16" --precision bf16
check 'after the file' grep -qF \
  "moco debug replay $bf16/replay.safetensors --precision bf16 computes" "$scratch/call.err"
check 'so called it is identical' replay "$bf16/replay.safetensors" --precision bf16
check 'and says so in bf16' grep -q '^trace hash [0-9a-f]*: identical$' "$scratch/out"
check 'without it is not' sh -c "! '$moco' debug replay '$bf16/replay.safetensors' >'$scratch/fp32'"
check 'and the precision is named' \
  grep -q 'computed with .*, bf16 then and with .* now, .*--precision' "$scratch/fp32"

check 'a checkpoint is no replay' call 1 'the metadata have no usable learning_rate' \
  debug replay "$run/checkpoint.safetensors"
head -c 5000 "$run/replay.safetensors" >"$scratch/short"
check 'half a file is none' call 1 "$scratch/short" debug replay "$scratch/short"

off=$scratch/off
# shellcheck disable=SC2086
check 'without the guard it fails at the same step' \
  call 1 'error: moco: encoder_' pretrain $tiny $diverge --out "$off" --nan-guard off
check 'and says what is left' grep -q 'hint: .*the last checkpoint is unharmed$' "$scratch/call.err"
check 'but leaves no replay' test ! -e "$off/replay.safetensors"
check 'and the same checkpoint' cmp "$scratch/before" "$off/checkpoint.safetensors"

# ---- invariants ---------------------------------------------------------------------------------

plain=$scratch/plain
check 'a run' pretrain --out "$plain"
for flags in '' '--symmetric'; do
  # shellcheck disable=SC2086
  check "every invariant holds $flags" \
    pretrain --out "$scratch/checked$flags" --check-invariants $flags
done
check 'and checking changes nothing' same "$plain" "$scratch/checked"

fixture=tests/fixtures/symmetric
# shellcheck disable=SC2046  # the file holds flags
check 'in moco step too' "$moco" step --init $fixture.init.safetensors \
  --views $fixture.views.safetensors $(cat $fixture.flags) --dump "$scratch/dump" --check-invariants

finish
