#!/bin/sh
# Rules of the source tree that a compiler does not check. Ends with 'N passed, M failed'.
#
#   BUILD=build tests/architecture_test.sh
#
# A rule is one call of `rule NAME OFFENDERS`: no offending lines means passed.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh

rule() { check "$1" nothing "$2"; }
nothing() { [ -z "$1" ] || { echo "$1" && return 1; }; }

sources() { find src -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | LC_ALL=C sort; }

# ---- include arrows only point down ----------------------------------------------------------------

# What a floor may include, itself among it. The kernels of cpu and cuda are reached through
# tensor/backend.h alone; only the command line, which chooses device and threads, sees them.
floors_below() {
  case $1 in
    tensor) echo tensor ;;
    cpu) echo tensor cpu ;;
    cuda) echo tensor cuda ;;
    autograd) echo tensor autograd ;;
    nn) echo tensor autograd nn ;;
    io) echo tensor io ;;
    data) echo tensor io data ;;
    moco) echo tensor autograd nn io data moco ;;
    debug) echo tensor autograd nn io data moco debug ;;
    cli) echo tensor cpu cuda autograd nn io data moco debug cli ;;
  esac
}

for floor in src/*/; do
  floor=$(basename "$floor")
  below=$(floors_below "$floor" | tr ' ' '|')
  rule "src/$floor includes only from: ${below:-nothing, as floors_below does not list it}" \
    "$(grep -rnE '^ *# *include *"' "src/$floor" | grep -vE "include *\"(${below:-none})/")"
done

rule 'only src/cuda and .cu files include CUDA headers' \
  "$(sources | grep -vE '^src/cuda/|\.cu$' |
    xargs grep -nE '# *include *[<"](cuda_|cuda\.h|cublas|mma\.h|cooperative_groups)')"

# An instruction that CUDA C++ has no name for is a function of a header, with a twin for the emulator.
rule 'kernels hold no inline assembler' \
  "$(find src tests -name '*.cu' -exec grep -nwHE '(__)?asm(__)?' {} +)"

# ---- code for one instruction set stays out of the others ------------------------------------------

# A weak symbol (an inline function, a template) of an object built with AVX flags may be the copy that
# the linker keeps for everybody, and kills a processor without AVX. So each has to live in the
# namespace of its instruction set. DW.ref.* are pointers, not code. Without optimisation nothing is
# inlined and every object is full of weak symbols; such a build is not one to ship.
if [ "$(basename "$BUILD")" = build ] && [ -d "$BUILD/obj/src/cpu" ]; then
  for isa in avx2 avx512; do
    rule "weak symbols of the $isa kernels are in namespace mocograd::$isa" \
      "$(nm -C -A --defined-only "$BUILD"/obj/src/cpu/*."$isa".o \
        "$BUILD"/obj/src/cpu/ladder/*."$isa".o 2>&1 |
        grep -E ' [WVu] |^nm: ' | grep -vE "mocograd::$isa::| V DW\.ref\.")"
  done
else
  echo "skipped: weak symbols of the kernels: $BUILD holds no optimised build"
fi

# ---- texts -----------------------------------------------------------------------------------------

if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
  rule 'no absolute path of one machine' \
    "$(git grep -nIE '(^|[^A-Za-z0-9_.])/(home|root|mnt|opt|work|tmp|Users)/[A-Za-z]')"
  rule 'only .ci/run looks outside the repository' "$(git grep -nIE '\.\./shar[e]d' -- ':!.ci/run')"
  rule 'nothing is left for later' "$(git grep -nIwE 'TOD[O]|FIXM[E]|XX[X]')"
else
  echo 'skipped: paths and notes in tracked files: not a git checkout'
fi

# quoted_lines: the places in sources that the texts quote and that are not what they are said to be
quoted_lines() {
  grep -oHE 'src/autograd/ops/[a-z_0-9]+\.cpp:[0-9]+' README.md docs/*.md | while IFS=: read -r text file number; do
    sed -n "${number}p" "$file" | grep -qE '_result\(|backend\(\)\.' || echo "$text: $file:$number is no operation's"
  done
  sed -n 's/^kernel  *\([a-z0-9_]*\)  \(.*\):\([0-9]*\)$/\1 \2 \3/p' docs/DEBUGGING.md | while read -r kernel file number; do
    sed -n "$((number - 2)),${number}p" "$file" | grep -q "::$kernel(" || echo "docs/DEBUGGING.md: $file:$number does not begin $kernel"
  done
}
rule 'the lines of sources that the texts quote are where they say' "$(quoted_lines)"

rule 'no source file is longer than 400 lines' \
  "$(sources | xargs wc -l | awk '$2 != "total" && $1 > 400 { print $2 ": " $1 " lines" }')"

finish
