#!/bin/sh
# The whole program on the CUDA kernels, which the emulator runs on this machine's CPU, and on a GPU where there
# is one.
#
#   BUILD=build tests/device_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh

run="$tiny --seed 3 --epochs 2 --save-every 2"

# evaluate DEVICE: there, the checkpoint of the whole run; the last lines to $here/evaluated.DEVICE
# shellcheck disable=SC2086
evaluate() {
  for command in 'eval knn' 'eval linear --epochs 3 --batch 8' 'embed --out '"$here/embedded"; do
    check "$command on $1" "$moco" $command --checkpoint "$here/whole/checkpoint.safetensors" \
      --data "cifar10:$data" --device "$1"
    tail -n 1 "$scratch/check.out" >>"$here/evaluated.$1"
  done
}

# right FLAGS...: each operation of a step, its result and its gradient, as they are in double
right() {
  printf 'backward\ncheck all\n' | "$moco" debug console --arch resnet20 --width 8 --dim 8 --batch 4 --bn-splits 1 \
    --queue 16 --image-size 8 "$@" | grep '^check all passed: '
}

# on_device DEVICE: what holds on both
# shellcheck disable=SC2086  # the variables are lists of flags
on_device() {
  here=$scratch/$1 on="--device $1"
  mkdir "$here"
  check "$1: pretrain" "$moco" pretrain $run $on --out "$here/whole"
  check "$1: pretrain, stopped" "$moco" pretrain $run $on --out "$here/parts" --max-steps 2
  check "$1: resumed" "$moco" pretrain --resume $on --threads 1 --out "$here/parts"
  check "$1: ends where a whole run does" same "$here/whole" "$here/parts"
  check "$1: with no step recorded" env MOCO_CUDA_GRAPH=0 "$moco" pretrain $run $on --out "$here/plain"
  check "$1: it ends the same" same "$here/whole" "$here/plain"

  check "$1: pretrain on the CPU" "$moco" pretrain $run --device cpu --out "$here/moves" --max-steps 2
  "$moco" pretrain --resume $on --threads 1 --max-steps 5 --out "$here/moves" >"$here/moves.out" 2>&1
  check "$1: a run that moves to another device says so" grep -q "this run computes with $1" "$here/moves.out"
  check "$1: and back" "$moco" pretrain --resume --device cpu --threads 1 --out "$here/moves"

  bf16="$run $on --precision bf16"
  check "$1: bf16: pretrain" "$moco" pretrain $bf16 --out "$here/bf16"
  check "$1: bf16: pretrain, stopped" "$moco" pretrain $bf16 --out "$here/bf16-parts" --max-steps 2
  check "$1: bf16: resumed" "$moco" pretrain --resume $on --precision bf16 --out "$here/bf16-parts"
  check "$1: bf16: ends where a whole run does" same "$here/bf16" "$here/bf16-parts"
  check "$1: bf16: not the numbers of fp32" test "$(events "$here/bf16")" != "$(events "$here/whole")"

  for precision in fp32 tf32 bf16; do
    check "$1: $precision: every operation of a step" right $on --precision $precision
  done
  evaluate "$1"
  check "$1: gradcheck" "$moco" gradcheck --draws 1 $on conv2d linear
  check "$1: debug trace" "$moco" debug trace --data "cifar10:$data" --arch resnet20 --width 1 --dim 4 --batch 8 \
    --bn-splits 2 --queue 20 --image-size 8 $on
}

# What only the emulator can be told.
# shellcheck disable=SC2086
on_the_emulator() {
  here=$scratch/cuda-emulated on='--device cuda-emulated'
  check 'with other orders of its threads' env MOCO_EMULATOR_SEED=7 "$moco" pretrain $run $on --out "$here/seed"
  check 'it ends the same, too' same "$here/whole" "$here/seed"
  evaluate cpu
  check 'evaluated as on the CPU' cmp "$here/evaluated.cpu" "$here/evaluated.cuda-emulated"
  export MOCO_EMULATOR_MEMORY=500000
  "$moco" pretrain $run $on --out "$here/large" --max-steps 3 >"$here/large.out" 2>&1
  check 'images too large for the device are augmented on the CPU' grep -q \
    'more than a quarter of the memory of cuda-emulated: their views are made on the CPU' "$here/large.out"
  check 'and the run goes on' test -f "$here/large/checkpoint.safetensors"
  views_before=$("$moco" inspect "$here/large/checkpoint.safetensors" | grep -c 'views by baseline')
  MOCO_ISA=baseline "$moco" pretrain --resume $on --out "$here/large" --max-steps 4 >"$here/resumed.out" 2>&1
  check 'by other instructions with a warning' test "$(grep -c 'computed with .*views by .*, this run computes with .*, views by baseline' \
    "$here/resumed.out")" -eq $((1 - views_before))
  export MOCO_EMULATOR_MEMORY=200000
  check 'too little memory is an error' call 1 'cannot allocate' pretrain $run $on --out "$here/none"
  unset MOCO_EMULATOR_MEMORY
}

# Where the driver is older than the build: said by auto too, which then takes the CPU.
# shellcheck disable=SC2086
with_an_old_driver() {
  too_old='the NVIDIA driver is made for CUDA 11.0, this build needs '
  export LD_LIBRARY_PATH="$BUILD/old_driver"
  check 'cuda with an old driver is an error' call 1 "--device cuda: $too_old" pretrain $run --device cuda \
    --out "$scratch/old-driver"
  "$moco" pretrain $run --max-steps 1 --out "$scratch/old-driver" >"$scratch/old-driver.out" 2>&1
  check 'auto with an old driver goes on' test -f "$scratch/old-driver/checkpoint.safetensors"
  check 'on the CPU, and says why' grep -q "^warning: --device auto takes the CPU: $too_old" "$scratch/old-driver.out"
  unset LD_LIBRARY_PATH
}

on_device cuda-emulated
on_the_emulator
# shellcheck disable=SC2086
"$moco" pretrain $run --device cuda --max-steps 1 --out "$scratch/gpu" >"$scratch/gpu.out" 2>&1
if grep -q '^error: --device cuda: this ' "$scratch/gpu.out"; then
  echo "skipped: the whole program on a GPU: $(grep '^error: ' "$scratch/gpu.out")"
else
  on_device cuda
fi
if grep -q '^error: --device cuda: this build' "$scratch/gpu.out"; then
  echo "skipped: an old driver: $(grep '^error: ' "$scratch/gpu.out")"
else
  with_an_old_driver
fi
finish
