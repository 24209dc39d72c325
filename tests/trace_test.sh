#!/bin/sh
# moco pretrain --trace, moco step --trace: beside what they do anyway.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh
trace=$scratch/trace.jsonl

# names STEP: of its operations, in order
names() { sed -n "s/^{\"step\":$1,.*\"phase\":\"\([a-z]*\)\",\"name\":\"\([^\"]*\)\".*/\1 \2/p" "$trace"; }

# shellcheck disable=SC2086  # $tiny is words
pretrain() { timeout 120 "$moco" pretrain $tiny --max-steps 3 "$@"; }

check 'a traced run' pretrain --out "$scratch/run" --trace "$trace"
names 1 >"$scratch/first"
names 2 >"$scratch/second"
check 'a line for every operation' test "$(wc -l <"$scratch/first")" -gt 300
check 'the same in every step' cmp "$scratch/first" "$scratch/second"
check 'of the steps alone' test "$(sed 's/^{"step":\([0-9]*\),.*/\1/' "$trace" | sort -u | tr '\n' ' ')" = '1 2 3 '
for phase in 'forward encoder_k.layer1.0.conv1.conv2d' 'backward encoder_q.layer1.0.conv1.conv2d' \
  'optimizer encoder_q.fc.bias.sgd_step' 'ema encoder_k.fc.bias.ema' 'queue queue.enqueue'; do
  check "$phase" grep -qx "$phase" "$scratch/first"
done
cp "$trace" "$scratch/before"
check 'a file that is there' call 1 'exists already' \
  pretrain --data shapes --out "$scratch/other" --trace "$trace"
check 'it is left alone' cmp "$trace" "$scratch/before"
check 'before a run is begun' test ! -e "$scratch/other"
check 'data that is not there' call 1 'no/such' \
  pretrain --data cifar10:no/such --out "$scratch/other" --trace "$scratch/none.jsonl"
check 'leaves no empty trace' test ! -e "$scratch/none.jsonl"
check '--level alone' call 2 '--level requires --trace' \
  pretrain --data shapes --out "$scratch/other" --level names

trace=$scratch/names.jsonl
check 'names only' pretrain --out "$scratch/named" --trace "$trace" --level names
names 1 >"$scratch/first"
check 'the same operations' cmp "$scratch/first" "$scratch/second"
check 'no statistics' sh -c "! grep -q outputs '$trace'"
check 'and the same run' same "$scratch/run" "$scratch/named"

# shellcheck disable=SC2046  # words
"$moco" step --init tests/fixtures/shuffle.init.safetensors --views tests/fixtures/shuffle.views.safetensors \
  --dump "$scratch/dump" --trace "$scratch/step.jsonl" $(cat tests/fixtures/shuffle.flags)
# shellcheck disable=SC2046
"$moco" step --init tests/fixtures/shuffle.init.safetensors --views tests/fixtures/shuffle.views.safetensors \
  --dump "$scratch/faster" --trace "$scratch/faster.jsonl" $(sed 's/--lr [^ ]*/--lr 0.5/' tests/fixtures/shuffle.flags)
"$moco" debug diff "$scratch/dump" "$scratch/faster" >"$scratch/parts"
check 'with another learning rate the keys of the second step are the first to differ' \
  grep -q '^first beyond 0: step.1.k ' "$scratch/parts"
check 'moco step' grep -q '^{"step":1,.*"name":"queue.enqueue"' "$scratch/step.jsonl"

# ---- moco debug trace goes on from a checkpoint as the run does ---------------------------------

# Step 6 begins epoch 2, where the learning rate falls.
checkpoint=$scratch/falls/checkpoint.safetensors
# shellcheck disable=SC2086  # $tiny is words
check 'a run up to step 4' "$moco" pretrain $tiny --out "$scratch/falls" --schedule step:1 --epochs 2 \
  --max-steps 4
debug_trace() { timeout 120 "$moco" debug trace --checkpoint "$checkpoint" --threads 1 "$@"; }
check 'its next two steps, looked at' debug_trace --steps 2 --out "$scratch/looked.jsonl"
check 'refuses another network' call 2 '--checkpoint: another configuration than the checkpoint' \
  debug trace --checkpoint "$checkpoint" --width 7
check 'and another run' call 2 '--epochs was 2, now 3' debug trace --checkpoint "$checkpoint" --epochs 3
check 'but not the same' debug_trace --width 1 --epochs 2 --level names
check 'the next two steps, run' "$moco" pretrain --resume --threads 1 --out "$scratch/falls" --max-steps 6 \
  --trace "$scratch/run.jsonl"
# computed FILE: what the optimizer wrote
computed() {
  grep '"name":"encoder_q.fc.bias.sgd_step"' "$1" | sed -E 's/"(step|index|seconds|ms|us|ns)":[^,}]*//g'
}
computed "$scratch/looked.jsonl" >"$scratch/looked"
computed "$scratch/run.jsonl" >"$scratch/ran"
check 'two steps' test "$(wc -l <"$scratch/looked")" -eq 2
check 'are equal' cmp "$scratch/looked" "$scratch/ran"
finish
