#!/bin/sh
# What takes a GPU, one command each, each within LIMIT seconds. Appends what came of it to
# OUT/gpu-report-DATE.md, under the chip, driver, CUDA, commit and date that it is true of.
#
#   tools/gpu-check.sh suite        builds for the GPU at hand and runs every test, on the GPU too
#   tools/gpu-check.sh sanitize     the kernels' tests under compute-sanitizer's four tools
#   tools/gpu-check.sh bench        kernels and steps against the GPU's measured limits and against
#                                   cuBLAS, cuDNN and PyTorch; where a step's time goes
#   tools/gpu-check.sh train DATA   the authors' recipe on CIFAR-10, kNN along the way, PyTorch beside it;
#                                   DATA: cifar10-jpeg.tar.xz (train/CLASS/*.jpg, test/CLASS/*.jpg) or a
#                                   folder of CIFAR-10's binary files
#   tools/gpu-check.sh deps DIR     on another machine, after install-deps.sh: copies the headers and
#                                   libraries that a bare machine lacks into DIR (Debian or Ubuntu)
#
# In the environment
#   OUT=build           the report's folder                LIMIT=540    seconds for everything
#   BUILD=build         where it is built                  DEPS=DIR     filled by deps
#   DEVICE=cuda         cuda-emulated: a try on a machine without a GPU, on tiny problems
#   COMMIT=NAME         where there is no git            BUILT=1      BUILD holds what was built elsewhere
#   PRECISIONS='bf16 tf32 fp32'   of bench; one alone gets all the time
#   PRECISION=bf16 (else tf32), EPOCHS=N   of train
#   TORCH=0             of train: PyTorch is left out; on a fast GPU all 200 epochs are then within LIMIT
#
# Needs nvcc (CUDA 12 or newer), g++ 12 or newer and make. What is not there is said in a line of the
# report, and left out.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
began=$(date +%s)
LIMIT=${LIMIT:-540}
DEVICE=${DEVICE:-cuda}
case $DEVICE in cuda | cuda-emulated) ;; *) echo "error: DEVICE=$DEVICE is neither cuda nor cuda-emulated" >&2; exit 2 ;; esac
case $LIMIT in '' | *[!0-9]*) echo "error: LIMIT=$LIMIT is no number of seconds" >&2; exit 2 ;; esac
part=${1:-}
argument=${2:-}
case $argument in '' | /*) ;; *) argument=$PWD/$argument ;; esac
case ${DEPS:-} in '' | /*) ;; *) DEPS=$PWD/$DEPS ;; esac
cd "$root" || exit 1
BUILD=${BUILD:-build}
OUT=${OUT:-$BUILD}
export BUILD
# shellcheck source=tools/gpu/parts.sh
. tools/gpu/parts.sh

usage() {
  sed -n '5,14s/^# \{0,3\}//p' "$0" >&2
  exit 2
}

# ---- a bare machine --------------------------------------------------------------------------------

# The packages that install-deps.sh finds by a header.
header_packages() { awk "/^needed='/ { table = 1 } table && \$2 == \"header\" { print \$1 }" install-deps.sh; }

# fill DIR: their headers below DIR/include; the libraries, and what these need, below DIR/lib
fill() {
  mkdir -p "$1/include" "$1/lib" || return 1
  for package in $(header_packages); do
    dpkg -L "$package" >"$1/files" || return 1
    machine=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || gcc -print-multiarch)
    sed -n "s,^/usr/include/,,p" "$1/files" | while read -r file; do
      [ -f "/usr/include/$file" ] || continue
      to=$1/include/${file#"$machine"/}
      mkdir -p "$(dirname "$to")" && cp -L "/usr/include/$file" "$to" || return 1
    done || return 1
    grep -E '/lib[a-z+_]*(gtest|z|curl|crypto|archive|edit)\.(so|a)$' "$1/files" | while read -r file; do
      keep_library "$file" "$1/lib" || return 1
    done || return 1
  done
  rm -f "$1/files"
  find "$1/lib" -size +8M -exec gzip -f '{}' +  # ICU's data, which libxml2 takes along: a third of it
}

# A static library as it is; of a shared one the file that programs are linked with, and what it needs
# beyond the C and C++ libraries, which the other machine has in a version of its own.
keep_library() {
  case $1 in
    *gtest.a) cp -L "$1" "$2" ;;
    *.so)
      name=$(objdump -p "$1" | awk '$1 == "SONAME" { print $2 }')
      ln -sf "$name" "$2/$(basename "$1")" || return 1
      ldd "$1" | awk '$2 == "=>" { print $3 }' | grep -vE '/lib(c|m|dl|rt|pthread|resolv|util|gcc_s|stdc\+\+)\.so' |
        while read -r needed; do cp -L "$needed" "$2" || return 1; done || return 1
      cp -L "$1" "$2/$name"
      ;;
  esac
}

if [ "$part" = deps ]; then
  [ -n "$argument" ] || usage
  command -v dpkg >/dev/null || { echo 'error: deps copies from Debian packages: there is no dpkg here' >&2; exit 1; }
  fill "$argument" || { echo "error: $argument could not be filled: see above; did install-deps.sh run?" >&2; exit 1; }
  echo "$argument: $(du -sh "$argument" | cut -f1); elsewhere: DEPS=DIR tools/gpu-check.sh suite"
  exit 0
fi

# ---- the report ------------------------------------------------------------------------------------

say() { printf '%s\n' "$*" | tee -a "$report"; }
# A block of output as it was printed.
verbatim() { { echo '```'; cat; echo '```'; } | tee -a "$report"; }
# told COMMAND...: what it prints, in the report too; its exit code
told() {
  { "$@"; echo $? >"$scratch/code"; } | tee -a "$report"
  return "$(cat "$scratch/code")"
}
gpu() { nvidia-smi --query-gpu="$1" --format=csv,noheader 2>/dev/null | head -n 1; }

case $part in
  suite | sanitize | bench) ;;
  train) [ -e "$argument" ] || { echo "error: train: there is no '$argument'" >&2; exit 2; } ;;
  *) usage ;;
esac
mkdir -p "$OUT" || exit 1
report=$OUT/gpu-report-$(date +%Y-%m-%d).md
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
background=''  # process ids
# shellcheck disable=SC2086  # words
trap 'kill $background 2>/dev/null; exit 130' INT TERM
if [ "$DEVICE" = cuda ]; then
  answer=$(gpu compute_cap)  # or an error, which it prints on stdout
  capability=$(echo "$answer" | tr -d .)
  case $capability in
    '' | *[!0-9]*)
      echo "error: nvidia-smi finds no GPU here${answer:+ ($answer)}; DEVICE=cuda-emulated $0 $part tries the way without one" >&2
      exit 1
      ;;
  esac
fi
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
say ''
say "## $part, $(date '+%Y-%m-%d %H:%M')"
say ''
say "$(if [ "$DEVICE" = cuda ]; then gpu name,driver_version,memory.total,compute_cap | sed 's/^\(.*\), \(.*\), \(.*\), \(.*\)$/\1, driver \2, \3, compute capability \4/'; else echo 'No GPU: the emulator, whose times mean nothing'; fi); \
CUDA $("$nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p' | grep . || echo 'compiler: none'); \
$(nproc) processors; commit ${COMMIT:-$(git describe --always --dirty 2>/dev/null || echo unknown)}."
say ''

# build TARGET...: for the GPU at hand alone
build() {
  if [ -n "${BUILT:-}" ]; then
    for target in "$@"; do
      [ "$target" = all ] || [ -f "$target" ] || { say "BUILT is set, but there is no $target."; exit 1; }
    done
    return
  fi
  if [ -n "${DEPS:-}" ]; then
    find "$DEPS/lib" -name '*.gz' -exec gunzip -kf '{}' +
    # An rpath of the old kind serves what the libraries need, too, and no other program.
    export CPLUS_INCLUDE_PATH="$DEPS/include" LIBRARY_PATH="$DEPS/lib" \
      LDFLAGS="-Wl,--disable-new-dtags,-rpath,$DEPS/lib"
  fi
  architecture=${capability:-}
  [ "$architecture" = 90 ] && architecture=90a  # with the instructions that only Hopper has
  if [ "$DEVICE" = cuda ]; then
    boxed "$LIMIT" make -j"$(nproc)" BUILD="$BUILD" CUDA=1 NVCC="$nvcc" CUDA_ARCHS="$architecture" CUDA_PTX= "$@"
  else
    boxed "$LIMIT" make -j"$(nproc)" BUILD="$BUILD" CUDA=0 "$@"
  fi >"$scratch/build" 2>&1 && return 0
  if [ "$(left)" -gt 0 ]; then say 'The build failed:'; else say 'The build did not end in time:'; fi
  tail -n 20 "$scratch/build" | verbatim
  exit 1
}

outcome=0
case $part in
  suite) suite ;;
  sanitize) sanitize ;;
  bench) bench ;;
  train) train ;;
esac || outcome=$?
say ''
say "$part took $(($(date +%s) - began)) s."
echo "The report: $report"
exit "$outcome"
