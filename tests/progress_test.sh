#!/bin/sh
# What a person sees: one line that is rewritten on a terminal, plain lines elsewhere, colours where
# they are welcome.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh
escape=$(printf '\033')
return_key=$(printf '\r')
# The line of a step, with all that it has to tell.
step='epoch 1/2 step [1-5]/5  loss [0-9.]*  top1 *[0-9.]*%  [0-9]* images/s  ETA [0-9]*s  lr [0-9.]*  waited [0-9.]*s'

# on_terminal SETTING COMMAND...: its output on a pseudo-terminal of 120 columns, NO_COLOR as told
on_terminal() {
  setting=$1
  shift
  env -u NO_COLOR TERM=xterm "$setting" script -qec "stty cols 120; $*" /dev/null </dev/null \
    >"$scratch/terminal"
}

# shows, lacks PATTERN FILE
shows() { grep -q -- "$1" "$2" || { cat -v "$2" && return 1; }; }
lacks() { ! grep -q -- "$1" "$2" || { cat -v "$2" && return 1; }; }

# shellcheck disable=SC2086  # $tiny is words
"$moco" pretrain $tiny --epochs 2 --out "$scratch/plain" >"$scratch/lines" 2>"$scratch/errors"
check 'no terminal: no carriage return' lacks "$return_key" "$scratch/lines"
check 'no terminal: no escape sequence' lacks "$escape" "$scratch/lines"
check 'no terminal: an estimate before the first epoch ends' \
  sh -c "sed '/^epoch 1\/2  loss/q' '$scratch/lines' | grep -q '^$step\$'"
check 'nothing on stderr' test ! -s "$scratch/errors"
sed 1d "$scratch/lines" >"$scratch/logged"
check 'log.txt is what was shown after the first line' cmp "$scratch/logged" "$scratch/plain/log.txt"

# shellcheck disable=SC2086
"$moco" pretrain $tiny --epochs 1 --out "$scratch/one" >"$scratch/short" 2>&1
check 'one epoch of cosine learns nothing: a warning' shows "^warning: --epochs 1 .* nothing is learnt" "$scratch/short"
check 'two epochs learn: none' lacks '^warning: --epochs' "$scratch/lines"

if ! script -qec true /dev/null >/dev/null 2>&1; then
  echo 'skipped: what a terminal shows: no program script (util-linux), or no pseudo-terminals here'
  finish
  exit
fi
# shellcheck disable=SC2086
on_terminal NO_COLOR= "$moco" pretrain $tiny --epochs 2 --out "$scratch/seen"
check 'a terminal: each step of an epoch rewrites the line' \
  test "$(tr '\r' '\n' <"$scratch/terminal" | grep -c "^$step$escape\[K\$")" -eq 5
check 'a terminal: kNN in green' shows "$escape\[1;32mepoch 2/2  kNN" "$scratch/terminal"
check 'log.txt has neither' lacks "[$return_key$escape]" "$scratch/seen/log.txt"

mkdir "$scratch/no-test"
cp "$data/data_batch_1.bin" "$scratch/no-test/"
# shellcheck disable=SC2086
on_terminal NO_COLOR= "$moco" pretrain ${tiny#*"$data"} --data "cifar10:$scratch/no-test" --max-steps 1 \
  --out "$scratch/warned"
check 'a warning about kNN' shows '^warning: .*: no kNN' "$scratch/warned/log.txt"
check 'is not green' lacks "$escape\[1;32m" "$scratch/terminal"

# shellcheck disable=SC2086
on_terminal NO_COLOR=1 "$moco" pretrain $tiny --epochs 2 --out "$scratch/grey"
check 'NO_COLOR: no colour' lacks "$escape\[[0-9;]*m" "$scratch/terminal"
check 'NO_COLOR: the line is still rewritten' shows "$return_key$step" "$scratch/terminal"

on_terminal NO_COLOR= "$moco" data info "cifar10:$data"
check 'a terminal: pictures' shows "$escape\[38;2;" "$scratch/terminal"
on_terminal NO_COLOR=1 "$moco" data info "cifar10:$data"
check 'NO_COLOR: no pictures' lacks "$escape" "$scratch/terminal"
finish
