#!/bin/sh
# The whole program on the CUDA kernels, which the emulator runs on this machine's CPU.
#
#   BUILD=build tests/device_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh

emulated='--device cuda-emulated'
run="$tiny --seed 3 --epochs 2 --save-every 2"

# shellcheck disable=SC2086  # the variables are lists of flags
{
  check 'pretrain' "$moco" pretrain $run $emulated --out "$scratch/whole"
  check 'pretrain, stopped' "$moco" pretrain $run $emulated --out "$scratch/parts" --max-steps 2
  check 'resumed on the device' "$moco" pretrain --resume $emulated --threads 1 --out "$scratch/parts"
  check 'ends where a whole run does' same "$scratch/whole" "$scratch/parts"

  check 'with other orders of its threads' env MOCO_EMULATOR_SEED=7 "$moco" pretrain $run $emulated \
    --out "$scratch/seed"
  check 'it ends the same' same "$scratch/whole" "$scratch/seed"
  check 'with no step recorded' env MOCO_CUDA_GRAPH=0 "$moco" pretrain $run $emulated --out "$scratch/plain"
  check 'it ends the same, too' same "$scratch/whole" "$scratch/plain"
  export MOCO_EMULATOR_MEMORY=500000
  "$moco" pretrain $run $emulated --out "$scratch/large" --max-steps 3 >"$scratch/large.out" 2>&1
  check 'images too large for the device are augmented on the CPU' grep -q \
    'more than a quarter of the memory of cuda-emulated: their views are made on the CPU' "$scratch/large.out"
  check 'and the run goes on' test -f "$scratch/large/checkpoint.safetensors"
  export MOCO_EMULATOR_MEMORY=200000
  check 'too little memory is an error' call 1 'cannot allocate' pretrain $run $emulated --out "$scratch/none"
  unset MOCO_EMULATOR_MEMORY

  check 'pretrain on the CPU' "$moco" pretrain $run --device cpu --out "$scratch/moves" --max-steps 2
  "$moco" pretrain --resume $emulated --threads 1 --max-steps 5 --out "$scratch/moves" >"$scratch/moves.out" 2>&1
  check 'a run that moves to another device says so' grep -q 'this run computes with cuda-emulated' \
    "$scratch/moves.out"
  check 'and back' "$moco" pretrain --resume --device cpu --threads 1 --out "$scratch/moves"

  bf16="$run $emulated --precision bf16"
  check 'bf16: pretrain' "$moco" pretrain $bf16 --out "$scratch/bf16"
  check 'bf16: pretrain, stopped' "$moco" pretrain $bf16 --out "$scratch/bf16-parts" --max-steps 2
  check 'bf16: resumed' "$moco" pretrain --resume $emulated --precision bf16 --out "$scratch/bf16-parts"
  check 'bf16: ends where a whole run does' same "$scratch/bf16" "$scratch/bf16-parts"
  check 'bf16: not the numbers of fp32' test "$(events "$scratch/bf16")" != "$(events "$scratch/whole")"

  checkpoint=$scratch/whole/checkpoint.safetensors
  for command in 'eval knn' 'eval linear --epochs 3 --batch 8' 'embed --out '"$scratch/embedded"; do
    for device in cpu cuda-emulated; do
      check "$command on $device" "$moco" $command --checkpoint "$checkpoint" --data "cifar10:$data" \
        --device $device
      tail -n 1 "$scratch/check.out" >"$scratch/last.$device"
    done
    check "$command is the same on both" cmp "$scratch/last.cpu" "$scratch/last.cuda-emulated"
  done
  check 'gradcheck' "$moco" gradcheck --draws 1 $emulated conv2d linear
  check 'debug trace' "$moco" debug trace --data "cifar10:$data" --arch resnet20 --width 1 --dim 4 --batch 8 \
    --bn-splits 2 --queue 20 --image-size 8 $emulated
}
finish
