#!/bin/sh
# A wrong sign in one backward, found by what docs/DEBUGGING.md says: the sign is planted in a copy of
# the sources, what depends on it is built, and the document's commands are run there.
#
#   BUILD=build tests/wrong_sign_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
if [ "$(basename "$BUILD")" != build ]; then
  echo "skipped: the wrong sign: $BUILD is another kind of build than the copy would be"
  echo '0 passed, 0 failed'
  exit 0
fi
passed=0 failed=0
copy=$(mktemp -d) || exit 1
trap 'rm -rf "$copy"' EXIT

check() {
  name=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "failed: $name"
    cat "$copy/output"
  fi
}

# The commands of the section, those of its blocks marked sh.
awk '/^## / { section = /^## A wrong sign/ } section && /^```/ { block = /^```sh/; next } section && block' \
  docs/DEBUGGING.md >"$copy/commands"
mkdir "$copy/build" "$copy/tests"
cp -a Makefile src "$copy" || exit 1
cp -a tests/fixtures "$copy/tests" || exit 1
cp -a "$BUILD/obj" "$BUILD/libmocograd.a" "$BUILD/moco" "$copy/build" || exit 1
cd "$copy" || exit 1

# on LINE: runs that command of the document; exit code to $code
on() {
  code=0
  sh -c "$(sed -n "$1p" commands)" >output 2>&1 </dev/null || code=$?
}
failing() { [ "$code" -ne 0 ] && grep -qE "$1" output; }
fine() { [ "$code" -eq 0 ] && grep -qE "$1" output; }

check 'the document has four commands' test "$(wc -l <commands)" -eq 4

# As it should be.
on 2
check 'the console finds nothing' fine '^check all passed: '
on 3
on 4
check 'every result and gradient is that of PyTorch' fine '^23[0-9] tensors agree within 1e-09$'

right='(access.load(drow + j) - access.load(row + j) \* along)'
check 'the right sign is where it is looked for' test "$(grep -c "$right" src/cpu/loss.cpp)" -eq 1
sed -i "s/$right/(access.load(drow + j) + access.load(row + j) * along)/" src/cpu/loss.cpp
make -j2 BUILD=build CXXFLAGS=-O1 build/moco >output 2>&1
check 'the wrong sign is built' test $? -eq 0

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

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
