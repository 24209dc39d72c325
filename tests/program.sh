#!/bin/sh
# Sourced by the tests that run the program itself. Beside what tests/check.sh gives: $moco, a tiny
# $data set with the $tiny flags of a run on it (an epoch has 5 steps), and
#
#   call CODE TEXT ARGS...   succeeds if 'moco ARGS' exits with CODE and its stderr has exactly one
#                            line 'error: …', which contains TEXT
#   events DIR               its metrics, without what the clock decides
#   same DIR DIR             equal checkpoints, to the byte, and equal metrics
. tests/check.sh
moco=$BUILD/moco

call() {
  expected=$1 text=$2
  shift 2
  code=0
  timeout 60 "$moco" "$@" >"$scratch/call.out" 2>"$scratch/call.err" </dev/null || code=$?
  [ "$code" -eq "$expected" ] && [ "$(grep -c '^error: ' "$scratch/call.err")" -eq 1 ] &&
    grep '^error: ' "$scratch/call.err" | grep -qF -- "$text" && return 0
  echo "moco $*: exit code $code, expected $expected and '$text'"
  cat "$scratch/call.err"
  return 1
}

events() { sed -E 's/"(images_per_s|seconds|data_wait_s)":[^,}]*//g' "$1/metrics.jsonl"; }

same() {
  cmp "$1/checkpoint.safetensors" "$2/checkpoint.safetensors" || return 1
  events "$1" >"$scratch/events.1"
  events "$2" >"$scratch/events.2"
  diff "$scratch/events.1" "$scratch/events.2"
}

# images FILE COUNT: records of CIFAR-10's binary format
images() {
  i=0
  while [ "$i" -lt "$2" ]; do
    # shellcheck disable=SC2059  # the format is an octal escape
    printf "\\$(printf %03o $((i % 10)))"
    yes "$i $((i * i))" | head -c 3072
    i=$((i + 1))
  done >"$1"
}

data=$scratch/cifar
mkdir "$data"
images "$data/data_batch_1.bin" 42
images "$data/test_batch.bin" 10
# shellcheck disable=SC2034  # for those who source this
tiny="--data cifar10:$data --arch resnet20 --width 1 --dim 4 --batch 8 --bn-splits 2 --queue 20
  --image-size 8 --knn-every 2 --threads 1"
