#!/bin/sh
# Kills runs with SIGKILL at random moments and resumes them until they are finished, N kills in all.
# Each finished run must equal an uninterrupted one: checkpoint and metrics.
#
#   BUILD=build tools/kill_test.sh 100
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh
kills=${1:-100}
flags="--save-every 1 --epochs 12"

# shellcheck disable=SC2086  # words
"$moco" pretrain $tiny $flags --out "$scratch/whole" >/dev/null || exit 1
begin=$(date +%s%N)
# shellcheck disable=SC2086
"$moco" pretrain $tiny $flags --out "$scratch/timed" >/dev/null
milliseconds=$((($(date +%s%N) - begin) / 1000000))
done=0 runs=0 wrong=0
while [ "$done" -lt "$kills" ]; do
  out=$scratch/killed
  rm -rf "$out"
  finished=
  while [ -z "$finished" ]; do
    resume=
    [ ! -e "$out/checkpoint.safetensors" ] || resume=--resume
    # shellcheck disable=SC2086
    "$moco" pretrain $tiny $flags $resume --out "$out" >/dev/null 2>"$scratch/stderr" &
    run=$!
    random=$(od -An -N2 -tu2 /dev/urandom)
    sleep "$(awk "BEGIN { print $random / 65536 * $milliseconds * 0.6 / 1000 }")"
    [ "$done" -ge "$kills" ] || kill -9 "$run" 2>/dev/null
    code=0
    wait "$run" 2>/dev/null || code=$?
    case $code in
      0) finished=yes ;;
      137) done=$((done + 1)) ;;
      *) echo "exit code $code: $(cat "$scratch/stderr")" && exit 1 ;;
    esac
  done
  runs=$((runs + 1))
  same "$scratch/whole" "$out" || wrong=$((wrong + 1))
  [ -z "$(find "$out" -name '*.tmp-*')" ] || { echo 'a temporary file was left' && exit 1; }
done
echo "$done kills, $runs runs finished, $wrong of them unequal"
[ "$wrong" -eq 0 ]
