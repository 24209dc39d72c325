#!/bin/sh
# moco ablate: a grid of runs from a recipe, interrupted and gone on with, and its table.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh

grid=$scratch/grid.toml out=$scratch/out
# recipe LINES...: the tiny run, and these lines
recipe() {
  {
    echo '[pretrain]'
    echo "$tiny" | tr '\n' ' ' | sed 's/ *--\([a-z0-9-]*\) \([^ ]*\)/\1 = "\2"\n/g' | grep -v '^ *$'
    printf '%s\n' "$@"
  } >"$grid"
}
ablate() { timeout 120 "$moco" ablate "$grid" --out "$@"; }

# ---- the grid ----------------------------------------------------------------------------------------

recipe 'epochs = 2' 'momentum = [0.9, 0.99]' 'symmetric = [false, true]  # [a, comment]' 'seed = [0, 1,]'
ablate "$out" --dry-run >"$scratch/listed"
check 'every combination, the last key fastest' test "$(tr '\n' ' ' <"$scratch/listed")" = "momentum=0.9,symmetric=false,seed=0 \
momentum=0.9,symmetric=false,seed=1 momentum=0.9,symmetric=true,seed=0 momentum=0.9,symmetric=true,seed=1 \
momentum=0.99,symmetric=false,seed=0 momentum=0.99,symmetric=false,seed=1 momentum=0.99,symmetric=true,seed=0 \
momentum=0.99,symmetric=true,seed=1 "
check 'nothing is run for a list' test ! -e "$out"
check 'a flag wins over a list' test "$(ablate "$out" --dry-run --seed 3 --symmetric | tr '\n' ' ')" = 'momentum=0.9 momentum=0.99 '

check 'eight runs' ablate "$out"
check 'each in a folder of its own' test "$(find "$out" -name checkpoint.safetensors | wc -l)" -eq 8
check 'a table' test "$(grep -c '| 2 of 2 |' "$out/table.md")" -eq 4
check 'of what was varied' grep -q '^| momentum | symmetric | runs | loss | top1, % | kNN, % | images/s |$' "$out/table.md"

# A run of the grid is moco pretrain's.
# shellcheck disable=SC2086  # words are flags
"$moco" pretrain $tiny --epochs 2 --momentum 0.99 --symmetric --seed 1 --out "$scratch/alone" >/dev/null
check 'its runs are those of moco pretrain' same "$out/momentum=0.99,symmetric=true,seed=1" "$scratch/alone"
knn=$(sed -n 's/.*"event":"knn","epoch":2,"top1":\([0-9]*\).*/\1/p' "$out/momentum=0.9,symmetric=true,seed=0/metrics.jsonl")
ablate "$scratch/one" --momentum 0.9 --symmetric --seed 0 >/dev/null
check 'a grid of one is a run' test -e "$scratch/one/run/checkpoint.safetensors"
check 'whose kNN is in the table' grep -q "^| 1 of 1 | .* | $knn\.00 | " "$scratch/one/table.md"

# ---- interrupted -------------------------------------------------------------------------------------

cp "$out/table.md" "$scratch/first.md"
check 'nothing is left to do' ablate "$out"
check 'and the table is the same' cmp "$scratch/first.md" "$out/table.md"
recipe 'epochs = 4000' 'knn-every = 0' 'seed = [0, 1]'
sed -i '/^knn-every = "2"/d' "$grid"
"$moco" ablate "$grid" --out "$scratch/stopped" >"$scratch/stopped.out" 2>&1 &
waited=0
while ! grep -q '"step":20,' "$scratch/stopped/seed=0/metrics.jsonl" 2>/dev/null && [ $waited -lt 300 ]; do
  sleep 0.1
  waited=$((waited + 1))
done
kill -TERM $!
code=0
wait $! || code=$?
check 'a signal ends it: exit code 143' test $code -eq 143
check 'with a word how to go on' grep -q 'stopped; the same call goes on' "$scratch/stopped.out"
check 'the run is saved' test -e "$scratch/stopped/seed=0/checkpoint.safetensors"
check 'and the next not begun' test ! -e "$scratch/stopped/seed=1"

# ---- what goes wrong -----------------------------------------------------------------------------------

check 'no RECIPE' call 2 'RECIPE is required' ablate --out "$out"
check 'no --out' call 2 '--out is required' ablate "$grid"
check 'a recipe that is not there' call 2 "File does not exist: $scratch/none" ablate "$scratch/none" --out "$out"
# wrong TEXT LINES...
wrong() {
  text=$1
  shift
  recipe "$@"
  call 2 "$text" ablate "$grid" --out "$scratch/wrong"
}
check 'a list that does not end' wrong "grid.toml: line 12: 'seed': a list that does not end in its line" 'seed = [1, 2'
check 'one of nothing' wrong "'seed': a list of nothing" 'seed = []'
check 'a hole in it' wrong "'seed' has no value" 'seed = [1,,2]'
check 'an unknown key' wrong "'arch2' " 'arch2 = [1]'
check 'the same twice' wrong "'seed' has 1 twice" 'seed = [1, 2, 1]'
check 'something behind it' wrong "'seed': something stands behind its list" 'seed = [1] 2'
check 'a value out of range, before any run' wrong "--momentum: '2' is not a number in [0, 1]" 'momentum = [0.5, 2]'
recipe 'momentum = [0.5, 0.9]'
check 'splits that do not divide' call 2 'does not divide' ablate "$grid" --out "$scratch/wrong" --seed 1 --batch 9
check 'one value written in two ways' wrong 'two runs are the same: lr=0.1 and lr=1e-1' 'lr = [0.1, 0.2, 1e-1]'
check 'a name that no folder can have' wrong 'a folder cannot have a name as long as' \
  "init = [\"$(printf 'x%.0s' $(seq 300))\", \"b\"]"
hundred="[$(seq -s, 100)]"
check 'a grid without end' wrong 'more than 1000 runs' "seed = $hundred" "weight-decay = $hundred" "lr = $hundred"
check 'a key that is no setting of a run' wrong "'out' is nothing that the runs of a grid can set" 'out = "x"'
check 'a precision that the CPU lacks, before any run' wrong '--precision tf32' 'precision = ["fp32", "tf32"]'
check 'wrong grids leave no folder' test ! -e "$scratch/wrong"
printf '[eval]\n' >"$grid"
check 'a recipe without [pretrain]' call 2 'has no [pretrain]' ablate "$grid" --out "$out"
printf '[pretrain]\nseed = [1, 2]\n' >"$grid"
check 'no data' call 2 '--data is required' ablate "$grid" --out "$out"
check 'a list for moco pretrain' call 2 "line 2: 'seed' has a list of values" pretrain --recipe "$grid" --out "$scratch/x"
recipe 'epochs = 2' 'momentum = [0.9, 0.99]' 'symmetric = [false, true]' 'seed = [0, 1]' 'lr = 0.5'
check 'other settings than before' call 2 "$out/momentum=0.9,symmetric=false,seed=0: " ablate "$grid" --out "$out"

check 'another precision than before' call 2 \
  "$out/momentum=0.9,symmetric=false,seed=0: --precision was fp32, now bf16" ablate "$grid" --out "$out" --lr 0.06 \
  --precision bf16
recipe 'init = ["a/b", "a,[b]#"]'
check 'folders of paths' test "$(ablate "$scratch/x" --dry-run | tr '\n' ' ')" = 'init=a%2Fb init=a%2C%5Bb%5D%23 '

# A run that cannot be done ends the grid, whose table tells of the others.
recipe 'epochs = 1' 'seed = [0, 1]'
sed -i "s,^data = .*,data = [\"cifar10:$data\"\, \"folder:$scratch/none\"]," "$grid"
check 'data that are not there' call 1 "/data=folder:" ablate "$grid" --out "$scratch/half"
check 'are told with their own words' grep -q "$scratch/none: " "$scratch/call.err"
check 'the runs before are in the table' grep -q "^| cifar10:$data | 2 of 2 |" "$scratch/half/table.md"
check 'those after are not' grep -q '^| folder:.* | 0 of 2 |' "$scratch/half/table.md"
mkdir -p "$scratch/full/table.md"
check 'a table that cannot be written' call 1 "$scratch/full/table.md" ablate "$grid" --out "$scratch/full"
check 'is told before the first run' test "$(ls "$scratch/full")" = table.md

recipe 'lr = [1e6, 0.01]' 'epochs = 3'
check 'a run that diverges' call 1 'runs diverged: lr=1e6' ablate "$grid" --out "$scratch/diverged"
check 'is told where, and how to look at it' grep -q 'moco debug replay' "$scratch/call.out"
check 'stands in the table' grep -q '^| 1e6 | 0 of 1, diverged |' "$scratch/diverged/table.md"
check 'and the others are run' grep -q '^| 0.01 | 1 of 1 |' "$scratch/diverged/table.md"

finish
