#!/bin/sh
# Plants the bugs of tests/mutants/*.txt one by one in a copy of the sources, builds, and runs the
# test that must notice: it must fail. The last line is 'N mutants, M survived'.
#
#   BUILD=build tools/mutants.sh               all; needs an up-to-date build, to begin from
#   BUILD=build tools/mutants.sh --sample N    N of them, always the same, spread over the lists
#   BUILD=build tools/mutants.sh --barriers    instead: every barrier and wait of the CUDA kernels, left out
#   tools/mutants.sh --texts                   only whether each can be planted; builds nothing
#
# A list's lines:
#
#   file PATH     the source that the mutants below change   } each holds until the next
#   kill WHAT     what must notice them                      } of its kind
#   == NAME       a mutant
#   - TEXT        what is there, exactly once; further lines follow it in the file
#   + TEXT        what is planted instead: no line, one or more
#
# WHAT is 'gradcheck OPERATION', a filter of the GoogleTest program, or a script tests/*_test.sh. It
# is first run on the same sources, compiled by the same flags, without the mutant. A mutant that
# cannot be planted or built, whose test fails already or does not exist, or has not ended after five
# minutes, counts as survived.
#
# Kernels are planted and run for the baseline instruction set alone, and CUDA kernels for the emulator,
# which every machine has.
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
limit=300 # seconds
sample=0
texts_only='' barriers=''
case ${1:-} in
  --sample) sample=${2:?needs a number} ;;
  --texts) texts_only=yes ;;
  --barriers) barriers=yes ;;
esac

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
mkdir "$scratch/all"

# ---- the lists ---------------------------------------------------------------------------------------

# A list of every kernel's barriers, waits and fences, each left out, between the lines around it, and of the
# emulator's tests that run the kernel.
leave_out_barriers() {
  awk '
    function tests_of(file) {
      if (file ~ /augment/) return "*AugmentKernel*cuda_emulated*"
      if (file ~ /stem/) return "*Conv2dStem*cuda_emulated*:*Conv2dSums*cuda_emulated*"
      if (file ~ /windows/) return "*Conv2dWindows*cuda_emulated*:*Conv2dSums*cuda_emulated*"
      if (file ~ /pipelined|warpgroup|staged|result_sums/) return "*Conv2d*cuda_emulated*"
      if (file ~ /ladder/) return "*Ladder*"
      return "*cuda_emulated*:EmulatorTest.*"
    }
    FNR == 1 { print "file " FILENAME; print "kill " tests_of(FILENAME); split("", line) }
    { line[FNR] = $0 }
    waiting {
      print "== " FILENAME ":" FNR - 1 ":" line[FNR - 1]
      for (i = FNR - 4; i <= FNR; ++i) if (i > 0) print "- " line[i]
      for (i = FNR - 4; i <= FNR; ++i) if (i > 0 && i != FNR - 1) print "+ " line[i]
      waiting = 0
    }
    /^ *(if constexpr \([^)]*\) )?(__syncthreads|__syncwarp|warpgroup_barrier|barrier|async_copy_wait<.*>|wait_for_bulk_copy|wgmma_wait<.*>|wgmma_fence|fence_before_wgmma)\(.*\);/ {
      waiting = 1
    }' src/cuda/*.cu src/cuda/*.h src/cuda/ladder/*.cu
}

if [ -n "$barriers" ]; then
  leave_out_barriers >"$scratch/barriers"
  lists=$scratch/barriers
else
  lists=$(echo tests/mutants/*.txt)
fi

# A mutant is a folder: its file, kill and name, the old text and the new.
# shellcheck disable=SC2086  # $lists is words
awk -v all="$scratch/all" '
  function put(what, text) { print text >>(folder "/" what) }
  /^file / { file = substr($0, 6) }
  /^kill / { kill = substr($0, 6) }
  /^== /   {
    folder = sprintf("%s/%03d", all, ++count)
    system("mkdir " folder)
    put("name", substr($0, 4)); put("file", file); put("kill", kill)
    printf "" >(folder "/old"); printf "" >(folder "/new")
  }
  /^- / { put("old", substr($0, 3)) }
  /^\+ / { put("new", substr($0, 3)) }' $lists

# The folders of those that are to be tried.
chosen() {
  find "$scratch/all" -mindepth 1 | grep -E '/[0-9]+$' | sort |
    awk -v n="$sample" '{ line[NR] = $0 }
      END { if (!n || n > NR) n = NR
            for (i = 0; i < n; ++i) print line[int((i + 0.5) * NR / n) + 1] }'
}

# replace FILE OLD NEW: changes the file; fails unless the text of OLD is in it exactly once
replace() {
  perl -0777 -e '
    my ($file, $old, $new) = @ARGV;
    my ($text, $from, $to) = map { open(my $in, "<", $_) or die "$_: $!"; <$in> // "" } @ARGV;
    s/\n\z// for $from, $to;
    my $count = () = $text =~ /\Q$from\E/g;
    die "$file: found $count times, not once:\n$from\n" if $count != 1;
    substr($text, index($text, $from), length $from) = $to;
    open(my $out, ">", $file) or die "$file: $!";
    print $out $text;' "$@"
}

if [ -n "$texts_only" ]; then
  mutants=0 stale=0
  for folder in "$scratch"/all/*; do
    cp "$(cat "$folder/file")" "$scratch/source" || exit 1
    mutants=$((mutants + 1))
    replace "$scratch/source" "$folder/old" "$folder/new" && continue
    stale=$((stale + 1))
    echo "cannot be planted in $(cat "$folder/file"): $(cat "$folder/name")"
  done
  echo "$mutants mutants, $stale cannot be planted"
  [ "$stale" -eq 0 ]
  exit
fi

# ---- building and running ----------------------------------------------------------------------------

copy=$scratch/copy
mkdir -p "$copy/build"
cp -a Makefile src tests "$copy" || exit 1
cp -a "$BUILD/obj" "$copy/build" || exit 1
find "$copy/build" -name '*.o' -exec strip -gp {} + # links in a fraction of the time
export MOCO_ISA=baseline
unset MAKEFLAGS MAKELEVEL
other_kernels=$(cd "$copy" && find build/obj -name '*.avx*.o' | sed 's/^/-o /')

# programs KILLER: what it runs
programs() {
  case $1 in
    'gradcheck '* | tests/*.sh) echo build/moco ;;
    *Parity* | *EvaluationProgram*) echo build/moco build/tests ;;
    *) echo build/tests ;;
  esac
}

# build PROGRAM...: linked anew, so that none keeps an earlier mutant
build() {
  rm -f "$copy/build/libmocograd.a" "$copy/build/moco" "$copy/build/tests"
  # shellcheck disable=SC2086  # $other_kernels is words
  make -C "$copy" BUILD=build MODE=release CUDA=0 -j"$(nproc)" CXXFLAGS='-O1 -g0' $other_kernels "$@" \
    >"$scratch/log" 2>&1
}

# object FILE: what FILE is compiled to
object() {
  name=$copy/build/obj/${1%.*}
  for object in "$name.baseline.o" "$name.emulated.o"; do
    if [ -f "$object" ]; then echo "$object" && return; fi
  done
  echo "$name.o"
}

# Runs a killer; its exit code.
run() {
  case $1 in
    'gradcheck '*) set -- "$copy/build/moco" gradcheck "${1#gradcheck }" --draws 20 ;;
    tests/*.sh) set -- sh "$1" ;;
    *) set -- "$copy/build/tests" --gtest_filter="$1" --gtest_fail_fast ;;
  esac
  BUILD=$copy/build timeout "$limit" "$@" >"$scratch/log" 2>&1 </dev/null
}

# Is there such a test, and does it pass?
works() {
  case $1 in
    'gradcheck '* | tests/*.sh) ;;
    *) "$copy/build/tests" --gtest_list_tests --gtest_filter="$1" | grep -q '^  ' || return 1 ;;
  esac
  run "$1"
}

# outcome: what becomes of the mutant of $file, $kill and $folder
outcome() {
  grep -qxF -- "$kill" "$scratch/useless" && echo 'SURVIVED (fails without it, or does not exist)' && return
  replace "$copy/$file" "$folder/old" "$folder/new" >&2 || { echo 'SURVIVED (not planted)' && return; }
  # shellcheck disable=SC2046  # words
  build $(programs "$kill") || { cat "$scratch/log" >&2 && echo 'SURVIVED (does not build)' && return; }
  run "$kill"
  case $? in
    0) echo SURVIVED ;;
    124) echo 'SURVIVED (too slow to tell)' ;;
    *) echo noticed ;;
  esac
}

# ---- all of it ---------------------------------------------------------------------------------------

chosen >"$scratch/chosen"
while read -r folder; do cat "$folder/file"; done <"$scratch/chosen" | sort -u >"$scratch/files"
(cd "$copy" && xargs touch -c) <"$scratch/files"
if ! build build/moco build/tests; then
  cat "$scratch/log"
  echo '0 mutants, 0 survived'
  exit 1
fi
: >"$scratch/useless"
while read -r folder; do cat "$folder/kill"; done <"$scratch/chosen" | sort -u >"$scratch/kills"
while IFS= read -r kill; do
  works "$kill" || echo "$kill" >>"$scratch/useless"
done <"$scratch/kills"

mutants=0 survived=0
while read -r folder; do
  name=$(cat "$folder/name") file=$(cat "$folder/file") kill=$(cat "$folder/kill")
  object=$(object "$file")
  cp -p "$copy/$file" "$scratch/source" || exit 1
  case $file in
    *.h) # what includes it is built again the next time
      result=$(outcome)
      cp "$scratch/source" "$copy/$file"
      ;;
    *)
      cp -p "$object" "$scratch/object" || exit 1
      result=$(outcome)
      cp -p "$scratch/source" "$copy/$file" # with their times: nothing is built again
      cp -p "$scratch/object" "$object"
      ;;
  esac
  mutants=$((mutants + 1))
  case $result in SURVIVED*) survived=$((survived + 1)) ;; esac
  echo "$result: $name (by $kill)"
done <"$scratch/chosen"

echo "$mutants mutants, $survived survived"
[ "$survived" -eq 0 ] && [ "$mutants" -gt 0 ]
