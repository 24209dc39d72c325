#!/bin/sh
# moco bench: what it prints, not how fast it is.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh

# bench FILE ARGS...: the output of 'moco bench ARGS', as short as it can be
bench() {
  file=$1
  shift
  "$moco" bench --steps 1 --threads 2 --device "$device" "$@" >"$file"
}
# document FILE PART...: one line, an object, which has a result of each part and no other part's
document() {
  file=$1
  shift
  [ "$(wc -l <"$file")" -eq 1 ] && grep -qE '^\{"kernels":.*"limits":\{.*\},"results":\[\{.*\}\]\}$' "$file" ||
    return 1
  grep -oE '"part":"[a-z]*"' "$file" | sort -u | sed 's/.*:"//; s/"//' >"$scratch/parts"
  printf '%s\n' "$@" | diff - "$scratch/parts"
}
not() { ! "$@"; }

device=cpu
small=rows,augmentation,loss,optimizer
check 'text' bench "$scratch/text" --part "$small"
check 'text begins with the limits' grep -qE '^2 threads, .* fp32 [0-9.]+ GFLOP/s \(one thread [0-9.]+\), .*memory [0-9.]+ GB/s$' "$scratch/text"
check 'text has every recipe' test "$(grep -cE '^(demo|v1|v2|none), 32 px .* us a view' "$scratch/text")" -eq 4
check 'json' bench "$scratch/json" --part "$small" --json
check 'a disk that is full' sh -c '"$1" bench --steps 1 --part loss >/dev/full 2>"$2"; test $? -eq 1 && grep -q "^error: standard output" "$2"' \
  - "$moco" "$scratch/full"
check 'json is one document' document "$scratch/json" augmentation loss optimizer rows
check 'a given step' bench "$scratch/step" --arch resnet20 --width 1 --batch 8 --image-size 8 --json
check 'a given step alone' document "$scratch/step" steps
check 'a given step says what it is' grep -q '"what":"resnet20, batch 8".*"images_per_s":[0-9]' "$scratch/step"

device=cuda-emulated
all=gemm,layers,pointwise,rows,augmentation,loss,optimizer,steps
check 'on the emulator' bench "$scratch/emulated" --part "$all" --json
# shellcheck disable=SC2046  # words
check 'on the emulator all parts run' document "$scratch/emulated" $(echo "$all" | tr , '\n' | sort)
# rows FILE PATTERN COUNT: so many results have a name and a pass like this, a time and what was moved
rows() {
  count=$(grep -oE "\"what\":\"$2\"[^}]*\"median_ms\":[0-9][^}]*\"gb_per_s\":[0-9]" "$1" | wc -l)
  [ "$count" -eq "$3" ] || { echo "$count results of $2, expected $3"; return 1; }
}
both='","pass":"(forward|backward)'
check 'pooling in both directions' rows "$scratch/emulated" "16x16x64 max_pool$both" 2
check 'pooling before the head, too' rows "$scratch/emulated" "4x4x512 avg_pool$both" 2
check 'normalisation and softmax in both directions' \
  rows "$scratch/emulated" "[0-9x]+ (l2_normalize|cross_entropy)$both" 4
for kernel in add_bias sum_rows row_dot scale_rows concat_columns split_columns scale multiply fill \
  rank_of_target gather_rows convert 'top_k, k 20'; do
  check "$kernel" rows "$scratch/emulated" "[0-9x]+ $kernel\",\"pass\":\"" 1
done
check 'everything over all parameters' \
  rows "$scratch/emulated" 'resnet18","pass":"(sgd|ema|sgd . ema|non-finite|running)' 5
check 'rows on the CPU are of a full size' rows "$scratch/json" '64x50000 top_k, k 200","pass":"' 1
check 'on the emulator there are no limits' not grep -q per_cent_of_limit "$scratch/emulated"
check 'on the emulator, text' bench "$scratch/emulated.text" --part loss
check 'on the emulator it says that its times mean nothing' grep -qE '^cuda-emulated: its times say nothing' "$scratch/emulated.text"
check 'ladder on the emulator' bench "$scratch/ladder" --ladder --json
check 'ladder on the emulator is alone' document "$scratch/ladder" ladder
check 'ladder on the emulator ends on tensor cores' grep -qE '"what":"gemm_6_wgmma".*"what":"conv2d, bf16"' "$scratch/ladder"
check 'ladder without cuBLAS' not grep -qi cublas "$scratch/ladder"
# The stand-in of the tests: once for each precision and size, and beside each rung of the product.
MOCO_EMULATED_CUBLAS=$BUILD/fake_cublas.so
export MOCO_EMULATED_CUBLAS
check 'ladder beside cuBLAS' bench "$scratch/beside" --ladder --json
# many COUNT PATTERN: so many results have it
many() {
  count=$(grep -oE '\{"part"[^}]*\}' "$scratch/beside" | grep -cE "$2")
  [ "$count" -eq "$1" ] || { echo "$count results with $2, expected $1"; return 1; }
}
for name in fp32 tf32 bf16; do
  check "cuBLAS in $name, which is compared with nothing" many 2 "cuBLAS, $name\".*\"precision\":\"$name\".*\"size\":[0-9]+\}"
done
check 'rungs in per cent of cuBLAS' many 12 '"what":"gemm_.*"per_cent_of_cublas":[0-9]'
check 'convolutions are not compared with products' many 0 '"what":"conv.*per_cent_of_cublas'
check 'ladder beside cuBLAS, text' bench "$scratch/beside.text" --ladder
check 'per cent of cuBLAS in the text' test "$(grep -cE 'ms  +[0-9.]+% of cuBLAS  ' "$scratch/beside.text")" -eq 12

finish
