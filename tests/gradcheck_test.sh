#!/bin/sh
# moco gradcheck as a program: the table, --explain and --dump for every operation.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh

"$moco" gradcheck --draws 5 >"$scratch/table"
ops=$(awk 'NR > 1 { print $1 }' "$scratch/table")
check 'every operation is in the table' test "$(echo "$ops" | wc -w)" -ge 18
check 'with its worst error and the place' \
  sh -c "! grep -vE '^operation|^[a-z0-9_]+ +5 +[0-9]+ +[0-9.e+-]+  ok +draw [0-4], input [0-3] \[[0-9, ]*\]: \[[0-9, ]+\]$' '$scratch/table'"

# What a header says stands in the text: its lines that define y or a gradient.
explains() {
  "$moco" gradcheck --explain "$1" >"$scratch/explained" || return 1
  header=$(sed -n '1s/.*(\(.*\))$/\1/p' "$scratch/explained")
  grep -q "^Variable $1(" "$header" || return 1
  sed '/^Draw /,$d' "$scratch/explained" | grep -E ' = ' >"$scratch/formula" || return 1
  while IFS= read -r line; do
    grep -qF -- "$line" "$header" || return 1
  done <"$scratch/formula"
  grep -qE '(^| )d[a-z]' "$scratch/formula" || return 1  # a gradient: dx, da, db
  # A line for each number of the first input, analytic beside numeric.
  awk '/^in0\[/ { rows++; d = $(NF-2) - $(NF-1); if (d < 0) d = -d
         if (d > 1e-6 || $NF > 1e-5) bad = 1 }
       END { exit !(rows > 0 && !bad) }' "$scratch/explained"
}

# holds FILE NAME...: has the file these tensors?
holds() {
  file=$1
  shift
  "$moco" inspect "$file" >"$scratch/inspected" || return 1
  for tensor in "$@"; do
    grep -qF "$tensor" "$scratch/inspected" || return 1
  done
}

for op in $ops; do
  check "$op is explained" explains "$op"
done
check 'all are dumped' "$moco" gradcheck --dump "$scratch/vectors" --draws 3
for op in $ops; do
  check "the vectors of $op" holds "$scratch/vectors/$op.safetensors" \
    0.in0 0.out 0.cotangent 0.grad0 2.in0 2.grad0
done
check 'of an operation with two inputs both' holds "$scratch/vectors/conv2d.safetensors" 1.in1 1.grad1
check 'and its constants' holds "$scratch/vectors/conv2d.safetensors" 0.stride 0.padding
check 'labels' holds "$scratch/vectors/cross_entropy.safetensors" 0.label
check 'twice the same' "$moco" gradcheck --dump "$scratch/again" --draws 3 relu
check 'to the byte' cmp "$scratch/vectors/relu.safetensors" "$scratch/again/relu.safetensors"

check 'no such operation' call 2 'no operation is called convolve' gradcheck --explain convolve
check 'one of the two' call 2 'excludes' gradcheck --explain --dump "$scratch/x" relu
: >"$scratch/file"
check 'a file is no folder' call 1 "error: $scratch/file: cannot be created: " gradcheck --dump "$scratch/file" relu

finish
