#!/bin/sh
# tools/gdb/mocograd.py in gdb, on a running program and on its core file. The program and the floors
# that it stops in are compiled without optimisation, everything else comes from the library.
#
#   BUILD=build tests/gdb_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh
needs_the_optimised_build 'the printers for gdb'
if ! command -v gdb >/dev/null; then
  echo 'skipped: the printers for gdb: gdb is not installed'
  finish
  exit
fi

# shows FILE TEXT: a line of the file begins with the text
shows() { check "a line of $1 begins with: $2" begins "$scratch/$1" "$2"; }
begins() { cat "$1" && awk -v text="$2" 'index($0, text) == 1 { found = 1 } END { exit !found }' "$1"; }

sources='tests/gdb/program.cpp src/tensor/error.cpp src/nn/module.cpp src/nn/layers.cpp
  src/autograd/ops/conv2d.cpp src/autograd/variable.cpp'
for source in $sources; do
  echo "$scratch/$(basename "$source" .cpp).o: $source; g++ -std=c++20 -O0 -g3 -Isrc -pthread -c -o \$@ \$<"
  objects="${objects:-} $scratch/$(basename "$source" .cpp).o"
done >"$scratch/rules"
# shellcheck disable=SC2086  # objects are words
make -s -j2 -f "$scratch/rules" $objects || exit 1
flags=$(env -u MAKEFLAGS -u MAKELEVEL make -s BUILD="$BUILD" link-flags) || exit 1
# shellcheck disable=SC2086
g++ -o "$scratch/program" $objects "$BUILD/libmocograd.a" $flags || exit 1

# in_gdb OUTPUT ARGUMENT...
in_gdb() {
  output=$1
  shift
  timeout 60 gdb -nx -batch -iex 'set debuginfod enabled off' -x tools/gdb/mocograd.py "$@" \
    </dev/null >"$scratch/$output" 2>&1
}

cat >"$scratch/values" <<'END'
frame function main
echo SHAPES\n
output shape
echo \n
output scalar
echo \nTENSORS\n
print undefined
print numbers
print labels
print damaged
echo VARIABLES\n
print image
print constant
print leaf
print product
print *product.node_._M_ptr
echo SLICES\n
mocotensor numbers
mocotensor numbers [1]
mocotensor numbers [:, -1]
mocotensor numbers [::2, 1:3]
mocotensor image [1, 4, 3, 2]
mocotensor image [0, :2, 0, :2]
mocotensor halves [2, ::3]
mocotensor leaf.node_._M_ptr->grad
END

# values FILE: what the commands above have to print
values() {
  shows "$1" '[128, 32, 32, 3]'
  shows "$1" '[]'
  shows "$1" '$1 = undefined'
  shows "$1" '$2 = f32 [3, 4] cpu min 0 max 11 mean 5.5 std 3.452: 0, 1, 2, 3, 4, 5, 6, 7, ... = {'
  shows "$1" '$3 = i64 [3] cpu min 1 max 4 mean 2.667 std 1.247: 3, 1, 4 = {data = 0x'
  shows "$1" '$4 = f64 [2, 2] cpu min 1 max 3 mean 2 std 1, 1 NaN, 1 Inf: 1, nan, 3, inf = {'
  shows "$1" '$5 = f32 [2, 5, 4, 3], constant = {data = f32 [2, 5, 4, 3] cpu min 0.5 max 0.5'
  shows "$1" '$6 = i64 [3], constant = {'
  shows "$1" '$7 = f32 [2], requires_grad, leaf [2] gradient arrived = {data = f32 [2] cpu'
  shows "$1" '$8 = f32 [2], requires_grad, multiply [2] (src/autograd/ops/pointwise.cpp:'
  shows "$1" '$9 = multiply [2] (src/autograd/ops/pointwise.cpp:'
  shows "$1" 'numbers f32 [3, 4]'
  shows "$1" '[[0, 1, 2, 3],'
  shows "$1" ' [8, 9, 10, 11]]'
  shows "$1" '[4, 5, 6, 7]'
  shows "$1" '[3, 7, 11]'
  shows "$1" '[[1, 2],'
  shows "$1" ' [9, 10]]'
  shows "$1" '0.5'
  shows "$1" '[[0.5, 0.5],'
  shows "$1" ' [0.5, 0.5]]'
  check "no warning in $1" sh -c "! grep -n 'RTTI' '$scratch/$1'"
  shows "$1" 'halves bf16 [3, 4] [2, ::3]'
  shows "$1" '[8, 11]'
  shows "$1" '[3, 3]'
}

# ---- a running program, and its core file --------------------------------------------------------

in_gdb live -ex 'break look' -ex run -x "$scratch/values" \
  -ex "generate-core-file $scratch/look.core" "$scratch/program"
values live
in_gdb after -x "$scratch/values" "$scratch/program" "$scratch/look.core"
values after

# What cannot be shown is told in one line.
in_gdb wrong -ex 'frame function main' -ex 'mocotensor shape' "$scratch/program" "$scratch/look.core"
shows wrong 'mocotensor: shape is mocograd::Shape, neither a tensor nor a variable'
in_gdb wrong -ex 'frame function main' -ex 'mocotensor numbers [0, 7]' "$scratch/program" "$scratch/look.core"
shows wrong 'mocotensor: 7 is outside of a dimension of 4'
in_gdb wrong -ex 'frame function main' -ex 'mocotensor numbers [x]' "$scratch/program" "$scratch/look.core"
shows wrong "mocotensor: 'x' is neither an integer nor begin:end:step"
in_gdb wrong -ex 'frame function main' -ex 'mocotensor undefined' "$scratch/program" "$scratch/look.core"
shows wrong 'mocotensor: undefined is undefined'
in_gdb wrong -ex 'frame function main' -ex 'mocotensor no_such' "$scratch/program" "$scratch/look.core"
shows wrong 'mocotensor: No symbol "no_such" in current context'

# ---- a breakpoint in a kernel shows the operation and the module ---------------------------------

# in_kernel KERNEL FILE OPERATION: stops there, and looks once more at the core file of that moment
in_kernel() {
  in_gdb "$1" -ex "break CpuBackend::$1" -ex run -ex mocowhere -ex backtrace \
    -ex "generate-core-file $scratch/$1.core" "$scratch/program"
  in_gdb "$1.after" -ex mocowhere "$scratch/program" "$scratch/$1.core"
  for where in "$1" "$1.after"; do
    shows "$where" 'module     encoder.conv1'
    shows "$where" "operation  $3  src/autograd/ops/conv2d.cpp:"
    shows "$where" "kernel     $1  src/cpu/$2:"
  done
}

in_kernel conv2d_forward conv2d.cpp conv2d
in_kernel conv2d_backward_weight conv2d_weight.cpp 'backward of conv2d'

in_gdb emulated -ex 'break CudaBackend::conv2d_backward_weight' -ex 'run emulated' -ex mocowhere "$scratch/program"
shows emulated 'module     encoder.conv1'
shows emulated 'operation  backward of conv2d  src/autograd/ops/conv2d.cpp:'
shows emulated 'kernel     conv2d_backward_weight  src/cuda/conv2d.cu:'

# Where the path itself is not known to the debugger, here because the library's error.o has no types.
# shellcheck disable=SC2046,SC2086
g++ -o "$scratch/program" $(echo "$objects" | sed "s|$scratch/error.o||") "$BUILD/libmocograd.a" \
  $flags || exit 1
for kernel in conv2d_forward conv2d_backward_weight; do
  in_gdb frames -ex "break CpuBackend::$kernel" -ex run -ex mocowhere "$scratch/program"
  shows frames 'module     encoder.conv1  (from the frames: '
done

finish
