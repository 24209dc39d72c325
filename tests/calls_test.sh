#!/bin/sh
# Wrong calls: exit code 2 and one line that names the flag and what is allowed. Recipes.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh
out=$scratch/out

"$moco" >"$scratch/stdout" 2>"$scratch/stderr"
check 'moco alone: exit code 2' test $? -eq 2
check 'moco alone: usage on stderr' grep -q Usage "$scratch/stderr"
check 'moco alone: nothing on stdout' test ! -s "$scratch/stdout"
check '--version' "$moco" --version

check 'an unknown command' call 2 "'polish'" polish
check 'an unknown flag' call 2 "--polish" pretrain --data shapes --out "$out" --polish
check 'an unknown flag with a value' call 2 "no command or flag '--polish'" \
  pretrain --data shapes --out "$out" --polish shoes
check 'an unknown flag beside a missing one' call 2 "--polish" pretrain --polish
check 'an unknown command beside --help' call 2 "'polish'" polish --help
check 'an unknown flag beside --help' call 2 "'--polish'" pretrain --polish --help
check 'an unknown word beside --version' call 2 "'polish'" --version polish
check 'a call for help with a flag that is known' "$moco" pretrain --data shapes --help
check 'no --out' call 2 '--out is required' pretrain --data shapes
check 'no --data' call 2 '--data is required' pretrain --out "$out"
check 'eval alone' call 2 'subcommand' eval
check 'step alone' call 2 'is required' step
check 'inspect alone' call 2 'is required' inspect
check 'an unknown data set' call 2 'there is no such data set' pretrain --data mars --out "$out"
check 'a flag twice' call 2 '--batch is given twice' \
  pretrain --data shapes --out "$out" --batch 8 --batch 9
check 'a flag three times' call 2 '--queue is given 3 times' \
  debug trace --queue 8 --queue 9 --queue 8
for command in 'pretrain --data shapes' 'embed --checkpoint x --data shapes' 'export --checkpoint x' \
  'data fetch cifar10' 'data pack folder:x' 'debug trace' 'debug graph'; do
  # shellcheck disable=SC2086  # words
  check "$command with an empty --out" call 2 '--out is empty' $command --out ''
done

for entry in '--init pretrain --data shapes --out x' '--init step --views x --dump x' \
  '--dump step --init x --views x' '--trace step --init x --views x --dump x' '--dump gradcheck' \
  '--trace pretrain --data shapes --out x' '--png eval knn --checkpoint x --data shapes' \
  '--png data info shapes'; do
  # shellcheck disable=SC2086  # words
  check "an empty $entry" call 2 "${entry%% *} is empty" ${entry#* } "${entry%% *}" ''
done

# ---- data sets, files and standard streams ------------------------------------------------------------

check 'data info names no flag that it lacks' call 2 "error: SPEC: 'foo:bar': there is no such data set" \
  data info foo:bar
check 'pretrain names its flag' call 2 "error: --data: 'foo:bar': there is no such data set; known are shapes" \
  pretrain --data foo:bar --out "$out"
check 'a SPEC that no configuration can hold' call 2 'is not UTF-8' \
  pretrain --data "$(printf 'cifar10:/x\377')" --out "$out"
check 'control characters stay within the line' call 1 'a\x0ab\x1b[31m\xc2\x9bc: ' \
  inspect "$(printf 'a\nb\033[31m\302\233c')"
check 'which is one' test "$(wc -l <"$scratch/call.err")" -eq 1
for command in pretrain step; do
  "$moco" $command --help >"$scratch/help"
  check "$command --help tells of recipes" grep -q -- '--recipe FILE' "$scratch/help"
done
"$moco" pretrain --help >"$scratch/help"
check 'help names the data sets' grep -qF 'stl10:DIR, idx:DIR, folder:DIR' "$scratch/help"
pair='--init tests/fixtures/shuffle.init.safetensors --views tests/fixtures/shuffle.views.safetensors'
# shellcheck disable=SC2046,SC2086  # words
{
  check 'a dump that cannot be written' call 1 '/nowhere/dump: cannot be written' \
    step $pair $(cat tests/fixtures/shuffle.flags) --trace "$scratch/untraced" --dump "$scratch/nowhere/dump"
  check 'is told before the first step' test ! -e "$scratch/untraced"
  "$moco" step $pair $(cat tests/fixtures/shuffle.flags) --dump /dev/stdout | cat >"$scratch/piped"
  check 'a dump into a pipe that a link names' "$moco" inspect "$scratch/piped"
}
# lost_pipe ARGS...: its exit code and stderr, where the reader of its stdout is gone
lost_pipe() {
  { sleep 0.1 && "$moco" "$@" 2>"$scratch/lost.err" || echo $? >"$scratch/lost.code"; } | true
}
lost_pipe data info "cifar10:$data"
check 'a pipe that nobody reads: exit code 1' grep -qx 1 "$scratch/lost.code"
check 'and one line' grep -q '^error: standard output cannot be written' "$scratch/lost.err"
check 'not more' test "$(wc -l <"$scratch/lost.err")" -eq 1
# shellcheck disable=SC2086
lost_pipe pretrain $tiny --epochs 100000 --out "$scratch/unread"
check 'a run that nobody reads stops' grep -qx 1 "$scratch/lost.code"
check 'and is saved' test -e "$scratch/unread/checkpoint.safetensors"
# shellcheck disable=SC2086
closed() { "$moco" pretrain $tiny --max-steps 1 --out "$scratch/closed" <&- >&- 2>&-; }
check 'closed standard streams' closed
check 'get nothing of the run, and it nothing of theirs' \
  test "$(grep -cv '^{"event"' "$scratch/closed/metrics.jsonl")" -eq 0

check 'one number in a group of batch norm' call 2 'has no variance' pretrain --data "cifar10:$data" \
  --out "$out" --arch resnet20 --batch 4 --bn-splits 4 --image-size 4
check 'nothing was begun' test ! -e "$out"

integers='--width:4096 --dim:65536 --queue:16777216 --bn-splits:65536 --batch:1048576
  --image-size:4096 --threads:1024'
for entry in $integers; do
  flag=${entry%%:*} high=${entry##*:}
  for value in 0 -1 1.5 abc '' 010 0x10 1e2 $((high + 1)) 99999999999999999999; do
    text="from 1 to $high"
    [ "$value" != 010 ] || text='leading zeros'
    check "$flag '$value'" call 2 "$text" pretrain --data shapes --out "$out" "$flag=$value"
  done
  check "$flag without a value" call 2 "$flag" pretrain --data shapes --out "$out" "$flag"
done
for flag in --seed --knn-every --save-every; do
  for value in -1 1.5 abc 99999999999999999999; do
    check "$flag '$value'" call 2 'an integer >= 0' pretrain --data shapes --out "$out" "$flag=$value"
  done
done
for entry in --momentum:'[0, 1]' --sgd-momentum:'[0, 1]' --temperature:'(0, 1000]' --lr:'[0, 1e+06]' \
  --weight-decay:'[0, 1e+06]'; do
  flag=${entry%%:*} range=${entry#*:}
  for value in -0.1 1e7 nan inf abc '' 0,5 0x1; do
    check "$flag '$value'" call 2 "a number in $range" pretrain --data shapes --out "$out" "$flag=$value"
  done
done
check '--temperature 0' call 2 '(0, 1000]' pretrain --data shapes --out "$out" --temperature 0
check '--max-steps 0' call 2 '>= 1' pretrain --data shapes --out "$out" --max-steps 0
check '--epochs' call 2 'from 0 to' pretrain --data shapes --out "$out" --epochs=-1
for entry in --arch:resnet18,resnet20 --stem:cifar,imagenet --head:linear,mlp --augment:demo,v1 \
  --device:auto,cpu --precision:fp32,tf32; do
  check "${entry%%:*} x" call 2 "${entry#*:}" pretrain --data shapes --out "$out" "${entry%%:*}" x
done
for value in linear step: step:0 step:2,1 step:1,,2 step:x; do
  check "--schedule $value" call 2 'schedule' pretrain --data shapes --out "$out" --schedule "$value"
done
check 'the flag is named once' call 2 "error: --schedule step:: ''" \
  pretrain --data shapes --out "$out" --schedule step:
check '--symmetric=7' call 2 "'7'" pretrain --data shapes --out "$out" --symmetric=7
check 'splits that do not divide' call 2 'does not divide' \
  pretrain --data "cifar10:$data" --out "$out" --batch 9 --bn-splits 2
check 'a batch beyond the data' call 2 'has only 42' \
  pretrain --data "cifar10:$data" --out "$out" --batch 64
check 'wrong calls leave no folder' test ! -e "$out"
if [ ! -e /dev/nvidiactl ]; then
  check 'a device that is not there' call 1 '--device cuda: this ' \
    pretrain --data shapes --out "$out" --device cuda
else
  echo 'skipped: a device that is not there: there is a GPU'
fi
check 'tf32 on the CPU' call 2 '--precision tf32: the CPU' \
  pretrain --data shapes --out "$out" --device cpu --precision tf32
check 'tf32 of f64' call 2 '--dtype f64: with --precision tf32' \
  step --init x --views x --dump x --dtype f64 --precision tf32 --device cuda-emulated
check 'splits that do not divide, in a benchmark' call 2 '--bn-splits 2 does not divide --batch 7' \
  bench --steps 2 --arch resnet20 --batch 7 --bn-splits 2
check 'bf16 of f64' call 2 '--dtype f64: with --precision bf16' \
  step --init x --views x --dump x --dtype f64 --precision bf16
check 'eval knn --k 0' call 2 'an integer >= 1' eval knn --checkpoint x --data shapes --k 0
check 'a checkpoint that is missing' call 1 'none.safetensors' \
  eval knn --checkpoint "$scratch/none.safetensors" --data shapes
check 'bench --part polish' call 2 '--part' bench --part gemm,polish
check 'bench --steps 0' call 2 'from 1 to' bench --steps 0
for pair in '--ladder --layers' '--ladder --part gemm' '--ladder --arch resnet20' \
  '--ladder --batch 8' '--layers --part gemm' '--layers --arch resnet20'; do
  # shellcheck disable=SC2086  # words
  check "bench $pair" call 2 'excludes' bench $pair
done
check 'bench --part gemm --batch 8' call 2 '--part: --arch and --batch' bench --part gemm --batch 8
check 'data pack shapes' call 2 "SPEC is folder:DIR, got 'shapes'" data pack shapes --out "$out"
check 'gradcheck --draws x' call 2 'an integer' gradcheck --draws x
check 'step --dtype f16' call 2 'f32,f64' step --init a --views b --dump c --dtype f16

# ---- where the steps of moco debug come from ----------------------------------------------------

given="--init tests/fixtures/shuffle.init.safetensors --views tests/fixtures/shuffle.views.safetensors"
for other in '--data shapes' '--steps 2' '--checkpoint x'; do
  # shellcheck disable=SC2086  # words
  check "given views and $other" call 2 'excludes' debug trace $given $other
done
# shellcheck disable=SC2046,SC2086  # words
{
  check 'splits that do not divide the views' call 2 '--bn-splits 3 does not divide the ' \
    step $given --dump "$scratch/dump" $(sed 's/--bn-splits [0-9]*//' tests/fixtures/shuffle.flags) \
    --bn-splits 3
  header='{"queue":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
  printf '\073\0\0\0\0\0\0\0%s\0\0' "$header" >"$scratch/bf16.safetensors"
  check 'weights in bf16' call 1 "bf16.safetensors: queue must be F32 or F64, got bf16 [1]" \
    step --init "$scratch/bf16.safetensors" --views tests/fixtures/shuffle.views.safetensors \
    --dump "$scratch/dump" $(cat tests/fixtures/shuffle.flags)
  check 'weights of another network' call 1 'tests/fixtures/shuffle.init.safetensors: ' \
    step $given --dump "$scratch/dump" --arch resnet20
}
mkdir -p "$scratch/folder/a"
for i in 1 2 3 4 5 6 7 8; do cp tests/fixtures/images/rgb.png "$scratch/folder/a/$i.png"; done
echo no picture >"$scratch/folder/a/9.png"
step='--arch resnet20 --width 1 --dim 4 --queue 16 --batch 8 --bn-splits 1 --image-size 8'
# shellcheck disable=SC2086  # words
{
  check 'a bad image' call 1 '9.png' debug trace --data "folder:$scratch/folder" $step
  check 'is skipped' "$moco" debug trace --data "folder:$scratch/folder" $step --on-bad-image skip
}
check 'a bad image in data info' call 1 '9.png' data info "folder:$scratch/folder"
check 'is skipped there' "$moco" data info "folder:$scratch/folder" --on-bad-image skip
"$moco" debug console --help >"$scratch/help"
check 'the width of the console' grep -qE -- '--width .*\[8\]|--width .*=8' "$scratch/help"
"$moco" debug trace --help >"$scratch/help"
check 'help tells what has no effect' grep -q 'without effect' "$scratch/help"

# ---- recipes ----------------------------------------------------------------------------------------

recipe() {
  printf '%b' "$2" >"$scratch/recipe.toml"
  call 2 "$1" pretrain --data shapes --out "$out" --recipe "$scratch/recipe.toml"
}
check 'a missing recipe' call 2 'nowhere.toml' \
  pretrain --data shapes --out "$out" --recipe "$scratch/nowhere.toml"
check 'an unknown key' recipe "recipe.toml: line 2: unknown key 'colour' in [pretrain]" \
  '[pretrain]\ncolour = 3\n'
check 'an unknown section' recipe 'line 1: [paint] is no command' '[paint]\n'
check 'a key before any section' recipe "line 1: 'lr' stands before" 'lr = 3\n'
check 'a key twice' recipe "line 3: 'lr' is there twice" '[pretrain]\nlr = 1\nlr = 2\n'
check 'a line without sense' recipe 'line 2' '[pretrain]\nx\n'
check 'a string without end' recipe "line 2: 'arch'" '[pretrain]\narch = "resnet18\n'
check 'a list' recipe "line 2: 'lr'" '[pretrain]\nlr = [1, 2]\n'
check 'a value out of range' recipe 'from 1 to 1048576' '[pretrain]\nbatch = 0\n'
check 'no boolean' recipe "'3'" '[pretrain]\nsymmetric = 3\n'
check 'no section for the command' recipe 'recipe.toml: has no [pretrain]' '[step]\nlr = 1\n'
check 'a section twice' recipe 'line 2: [pretrain] is there twice' '[pretrain]\n[pretrain]\n'
printf '[pretrain]\ndata = "shapes"\nlr = -1\n' >"$scratch/recipe.toml"
check 'step reads [pretrain]' call 2 "--lr: '-1'" step --recipe "$scratch/recipe.toml" --init x --views x --dump x
printf '[step]\nlr = -2\n' >>"$scratch/recipe.toml"
check 'after [step]' call 2 "'-2'" step --recipe "$scratch/recipe.toml" --init x --views x --dump x
for command in bench 'inspect x' 'eval knn --checkpoint x --data shapes'; do
  # shellcheck disable=SC2086  # words
  check "a recipe that is not for $command" call 2 "has no [${command%% *}]" \
    $command --recipe "$scratch/recipe.toml"
done
check 'resume is no part of a recipe' recipe "unknown key 'resume'" '[pretrain]\nresume = true\n'

mv "$data" "$scratch/a #b, 'c'"
printf '[pretrain] # comment\ndata = "cifar10:%s" # comment\nmax-steps = 1\nepochs = 3\n' \
  "$scratch/a #b, 'c'" >"$scratch/recipe.toml"
check 'a path with everything in it' "$moco" pretrain --recipe "$scratch/recipe.toml" --out "$out" \
  --arch resnet20 --width 1 --batch 8 --epochs 7
check 'is written as it was' grep -qF "data = \"cifar10:$scratch/a #b, 'c'\"" "$out/config.toml"
check 'flags win over the recipe' grep -qx 'epochs = 7' "$out/config.toml"
mv "$scratch/a #b, 'c'" "$data"
for file in recipes/*.toml; do
  rm -rf "$out"
  call_of_file="pretrain --recipe $file"
  ! grep -q '= \[' "$file" || call_of_file="ablate $file --seed 0 --momentum 0.9"
  # shellcheck disable=SC2086  # words
  check "$file" "$moco" $call_of_file --data "cifar10:$data" --out "$out" --width 1 \
    --image-size 8 --batch 8 --bn-splits 1 --queue 16 --knn-every 0 --max-steps 1
done
finish
