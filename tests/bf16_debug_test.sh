#!/bin/sh
# The tools that look into a step, where activations are stored in bf16.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh

debug() { timeout 120 "$moco" debug "$@"; }
# A step on the built-in pictures.
small() { debug "$@" --precision bf16 --width 2 --batch 8 --bn-splits 2 --threads 1; }

trace=$scratch/trace.jsonl
check 'a trace' small trace --out "$trace"
check 'of activations in bf16' \
  grep -q '"name":"encoder_q.layer1.0.conv1.conv2d".*"outputs":.*"dtype":"bf16"' "$trace"
check 'and a head in f32' grep -q '"name":"encoder_q.fc.linear".*"outputs":.*"dtype":"f32"' "$trace"

printf 'backward\ncheck all\n' >"$scratch/script"
small console --script "$scratch/script" >"$scratch/console" 2>&1
check 'every backward is right' grep '^check all passed: ' "$scratch/console"

# shellcheck disable=SC2046  # words
step() {
  "$moco" step --init tests/fixtures/shuffle.init.safetensors --views tests/fixtures/shuffle.views.safetensors \
    --operations $(cat tests/fixtures/shuffle.flags) --dump "$@"
}
check 'a dump' step "$scratch/ours" --precision bf16
check 'another' step "$scratch/again" --precision bf16
check 'one in f32' step "$scratch/f32"
check 'two runs agree to the bit' debug diff "$scratch/ours" "$scratch/again"
check 'f32 and bf16 do not' sh -c "! '$moco' debug diff '$scratch/ours' '$scratch/f32' >'$scratch/diff'"
check 'from the first activation on' \
  grep -q '^first beyond 0: step.0.forward.encoder_k.conv1.conv2d ' "$scratch/diff"

# shellcheck disable=SC2086  # $tiny is words
check 'a run' "$moco" pretrain $tiny --out "$scratch/run" --max-steps 1 --precision bf16
check 'its features' "$moco" embed --checkpoint "$scratch/run/checkpoint.safetensors" --precision bf16 \
  --data "cifar10:$data" --out "$scratch/features"
check 'are f32' grep -qa "'descr': '<f4'" "$scratch/features/features.npy"
finish
