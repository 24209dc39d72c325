#!/bin/sh
# A wrong sign in one backward, and one in one kernel, found by what docs/DEBUGGING.md says: the sign is
# planted in a copy of the sources, what depends on it is built, and the document's commands are run there.
#
#   BUILD=build tests/wrong_sign_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh
needs_the_optimised_build 'the wrong sign'

# The commands of the section, those of its blocks marked sh.
awk '/^## / { section = /^## A wrong sign/ } section && /^```/ { block = /^```sh/; next } section && block' \
  docs/DEBUGGING.md >"$scratch/commands"
mkdir "$scratch/build" "$scratch/tests"
sources=$PWD
cp -a Makefile src "$scratch" || exit 1
cp -a tests/fixtures "$scratch/tests" || exit 1
cp -a "$BUILD/obj" "$BUILD/libmocograd.a" "$BUILD/moco" "$scratch/build" || exit 1
cd "$scratch" || exit 1

# on LINE: runs that command of the document; exit code to $code
on() {
  code=0
  sh -c "$(sed -n "$1p" commands)" >output 2>&1 </dev/null || code=$?
}
# plant FILE FROM TO WHAT: FROM, a basic expression, is there once and becomes TO; the program is built.
plant() {
  check "$4 is looked for where it is" test "$(grep -c "$2" "$1")" -eq 1
  sed -i "s/$2/$3/" "$1"
  make -j2 BUILD=build CXXFLAGS=-O1 build/moco >output 2>&1
  check "$4 is built" test $? -eq 0
}
failing() { cat output && [ "$code" -ne 0 ] && grep -qE "$1" output; }
fine() { cat output && [ "$code" -eq 0 ] && grep -qE "$1" output; }

check 'the document has four commands' test "$(wc -l <commands)" -eq 4

# As it should be.
on 2
check 'the console finds nothing' fine '^check all passed: '
on 3
on 4
check 'every result and gradient is that of PyTorch' fine '^23[0-9] tensors agree within 1e-09$'

plant src/cpu/loss.cpp '(access.load(drow + j) - access.load(row + j) \* along)' \
  '(access.load(drow + j) + access.load(row + j) * along)' 'the sign'

on 1
check 'one command: gradcheck' failing '^l2_normalize .*FAILED'
check 'and no other operation' test "$(grep -c FAILED output)" -eq 1
on 2
check 'two in the console' failing '^check %[0-9]* l2_normalize.* FAILED: '
on 3
check 'step' test "$code" -eq 0
on 4
check 'against PyTorch: the gradient that it wrote is the first' \
  failing '^first beyond 1e-09: step.0.backward.encoder_q.fc.2.linear '

# In Winograd's weight gradient, which is f32's alone: what ran is not what double computes.
cp "$sources/src/cpu/loss.cpp" src/cpu/loss.cpp
plant src/cpu/winograd_weight.cpp 'store(z + (i \* E + j) \* stride, row\[j\])' \
  'store(z + (i * E + j) * stride, -row[j])' "Winograd's sign"
on 1
check 'gradcheck does not run it' fine conv2d
on 2
check 'the console does' failing '^check %[0-9]* encoder_q.*conv2d FAILED: the gradient of in1 in f32 '

finish
