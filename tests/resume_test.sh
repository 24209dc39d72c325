#!/bin/sh
# An interrupted run, resumed, ends bit for bit where an uninterrupted one does.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh
# shellcheck disable=SC2086  # $tiny is words
pretrain() { timeout 120 "$moco" pretrain $tiny --epochs 4 "$@"; }
resume() { timeout 120 "$moco" pretrain --resume --out "$@"; }

whole=$scratch/whole
check 'a whole run' pretrain --out "$whole"
check 'a step event for every step' test "$(grep -c '"event":"step"' "$whole/metrics.jsonl")" -eq 20
check 'an epoch event for every epoch' \
  test "$(grep -c '"event":"epoch"' "$whole/metrics.jsonl")" -eq 4
check 'kNN before, every second epoch, and after' \
  test "$(grep -o '"event":"knn","epoch":[0-9]*' "$whole/metrics.jsonl" | tr -dc '0-9\n' | tr '\n' ' ')" = '0 2 4 '
check 'the fields of a step event' grep -qE \
  '^\{"event":"step","step":1,"epoch":1,"loss":[0-9.]+,"top1":[0-9.]+,"lr":[0-9.]+,"images_per_s":[0-9.]+' \
  "$whole/metrics.jsonl"
check 'the log is what was shown' grep -q 'epoch 4/4' "$whole/log.txt"

split=1
while [ "$split" -le 19 ]; do
  out=$scratch/split$split
  pretrain --out "$out" --max-steps "$split" >/dev/null 2>&1
  resume "$out" >/dev/null 2>&1
  check "stopped after $split steps" same "$whole" "$out"
  split=$((split + 1))
done
out=$scratch/thrice
pretrain --out "$out" --max-steps 3 --save-every 2 >/dev/null 2>&1
resume "$out" --max-steps 9 --threads 2 >/dev/null 2>&1
printf '{"event":"step","step":10,"lo' >>"$out/metrics.jsonl"
printf 'half' >"$out/checkpoint.safetensors.tmp-aB3xYz"
pretrain --out "$out" --resume --save-every 100 --max-steps 20 >/dev/null 2>&1
check 'half a line is cut off' grep -qv '"lo$' "$out/metrics.jsonl"
check 'what a killed save left is gone' test ! -e "$out/checkpoint.safetensors.tmp-aB3xYz"
out=$scratch/again
check 'config.toml is a recipe' "$moco" pretrain --recipe "$whole/config.toml" --out "$out" --threads 1
check 'for the same run' same "$whole" "$out"
check 'nothing is left to do' resume "$whole"
check 'and nothing was changed' same "$whole" "$out"

out=$scratch/bf16
pretrain --precision bf16 --out "$out" >/dev/null 2>&1
check 'bf16: the checkpoint says so' sh -c '"$1" inspect "$2" | grep "^kernels.*bf16"' - \
  "$moco" "$out/checkpoint.safetensors"
check 'bf16: config.toml is a recipe for the same run' "$moco" pretrain --recipe "$scratch/bf16/config.toml" \
  --out "$scratch/bf16-again" --threads 1
check 'bf16: down to the last bit' same "$scratch/bf16" "$scratch/bf16-again"
out=$scratch/bf16-split
pretrain --precision bf16 --out "$out" --max-steps 7 >/dev/null 2>&1
resume "$out" --precision bf16 --threads 2 >/dev/null 2>&1
check 'bf16: stopped after 7 steps' same "$scratch/bf16" "$out"
check 'bf16: not the numbers of fp32' test "$(events "$whole")" != "$(events "$scratch/bf16")"

# ---- refused ----------------------------------------------------------------------------------------

check 'another flag' call 2 '--lr was 0.06, now 0.5' pretrain --resume --out "$whole" --lr 0.5
check 'epochs, which cosine depends on' call 2 '--epochs was 4, now 5' \
  pretrain --resume --out "$whole" --epochs 5
printf '[pretrain]\ndim = 5\n' >"$scratch/other.toml"
check 'a recipe counts as given' call 2 '--dim was 4, now 5' \
  pretrain --resume --out "$whole" --recipe "$scratch/other.toml"
check 'fewer steps than there are' call 2 'the run is at step 20 already' \
  pretrain --resume --out "$whole" --max-steps 3
mkdir "$scratch/other"
images "$scratch/other/data_batch_1.bin" 41
check 'other data' call 1 'fingerprint was' \
  pretrain --resume --out "$whole" --data "cifar10:$scratch/other"
cp -r "$data" "$scratch/moved"
check 'the same data elsewhere' resume "$whole" --data "cifar10:$scratch/moved"
check 'no checkpoint' call 1 'holds no checkpoint' pretrain --resume --out "$scratch/nothing"
check 'a folder that holds a run' call 1 'already holds a run' \
  pretrain --data shapes --out "$whole"
mkdir "$scratch/begun"
: >"$scratch/begun/metrics.jsonl"
check 'a folder where no step was made' pretrain --out "$scratch/begun" --max-steps 1
rm "$scratch/begun/checkpoint.safetensors"
check 'a run without a checkpoint, to begin' call 1 'begun/metrics.jsonl' \
  pretrain --data shapes --out "$scratch/begun"
check 'is told so' grep -q 'it has no checkpoint to go on from' "$scratch/call.err"
check 'a run without a checkpoint, to resume' call 1 'holds no checkpoint' pretrain --resume --out "$scratch/begun"
check 'is told so, too' grep -q 'the run there has none to go on from' "$scratch/call.err"
cp -r "$whole" "$scratch/damaged"
head -c 5000 "$whole/checkpoint.safetensors" >"$scratch/damaged/checkpoint.safetensors"
check 'a damaged checkpoint' call 1 'checkpoint.safetensors' \
  pretrain --resume --out "$scratch/damaged"

# ---- signals and kills ------------------------------------------------------------------------------

# shellcheck disable=SC2086
"$moco" pretrain $tiny --epochs 100000 --out "$scratch/long" >"$scratch/long.out" 2>&1 &
long=$!
until grep -qs '"step":3,' "$scratch/long/metrics.jsonl" || ! kill -0 "$long"; do sleep 0.05; done
check 'one process at a time' call 1 'another process' pretrain --resume --out "$scratch/long"
kill -TERM "$long"
wait "$long"
check 'SIGTERM ends with 143' test $? -eq 143
command=$(sed -n 's/^stopped; to go on: //p' "$scratch/long/log.txt")
check 'and says how to go on' test -n "$command"
check 'without flags that were not given' test "$command" = "$moco pretrain --resume --out $scratch/long"
steps=$(($(grep -c '"event":"step"' "$scratch/long/metrics.jsonl") + 4))
check 'which works' sh -c "$command --max-steps $steps"
# shellcheck disable=SC2086
timeout 120 "$moco" pretrain $tiny --epochs 100000 --out "$scratch/straight" --max-steps "$steps" \
  >/dev/null 2>&1
check 'and ends where it should' same "$scratch/straight" "$scratch/long"
rm -r "$scratch/long"
# shellcheck disable=SC2086
"$moco" pretrain $tiny --epochs 100000 --conv direct --device cpu --out "$scratch/long" >/dev/null 2>&1 &
long=$!
until grep -qs '"step":1,' "$scratch/long/metrics.jsonl" || ! kill -0 "$long"; do sleep 0.05; done
kill -INT "$long"
wait "$long"
check 'SIGINT ends with 130' test $? -eq 130
check 'what computes is said again' grep -q '^stopped; to go on: .* --device cpu --conv direct$' "$scratch/long/log.txt"

check 'kill -9' tools/kill_test.sh 8
finish
