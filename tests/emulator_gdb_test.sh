#!/bin/sh
# A kernel on the CUDA emulator, in gdb: stop in one thread of one block, look at its variables and at
# shared memory, step over a barrier, and walk the stack up to the caller of the launch.
#
#   BUILD=build tests/emulator_gdb_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh
. tests/emulated_program.sh
if ! command -v gdb >/dev/null; then
  echo 'skipped: the emulator in gdb: gdb is not installed'
  finish
  exit
fi
needs_the_optimised_build 'the emulator in gdb'

# shows TEXT: passed if a line of gdb's output contains it, below the line that the last call found
line=0
shows() {
  found=$(awk -v text="$1" -v after="$line" 'NR > after && index($0, text) { print NR; exit }' \
    "$scratch/session")
  if [ -n "$found" ]; then
    passed=$((passed + 1)) line=$found
  else
    failed=$((failed + 1))
    printf 'failed: after line %s of the session, no line contains: %s\n' "$line" "$1"
    cat "$scratch/session"
  fi
}

emulated_program '-O0 -g3' tests/gdb/emulated_kernel.cu || exit 1

cat >"$scratch/commands" <<'END'
break emulated_kernel.cu:18 if blockIdx.x == 2 && threadIdx.x == 5
run
print blockIdx
print threadIdx
info locals
print tile[5]
next
print tile
print threadIdx
next
print neighbour
backtrace -frame-arguments none
frame function add_neighbours
print blocks
finish
END
timeout 60 gdb -nx -batch -iex 'set debuginfod enabled off' -x "$scratch/commands" "$scratch/program" \
  </dev/null >"$scratch/session" 2>&1

shows 'Breakpoint 1, mocograd::cuda_emulated::(anonymous namespace)::add_neighbours_kernel'
shows '__syncthreads();'
shows '= {x = 2, y = 0, z = 0}'
shows '= {x = 5, y = 0, z = 0}'
shows 'i = 69'
shows 'mine = 138'
shows '= 138'
# over the barrier, still in the same thread, and all of the tile is written
shows 'const float neighbour = '
shows '= {128, 130, 132, 134, 136, 138, 140, 142, 144,'
shows '= {x = 5, y = 0, z = 0}'
shows '= 140'
shows '#0  mocograd::cuda_emulated::(anonymous namespace)::add_neighbours_kernel'
shows 'mocograd_fiber_entry ()'
shows 'mocograd::emulator::run ('
shows 'mocograd::cuda_emulated::(anonymous namespace)::add_neighbours (x=..., y=...)'
shows 'main () at tests/gdb/emulated_kernel.cu'
shows '= 4'
shows 'main () at tests/gdb/emulated_kernel.cu'

# places FILE: the frames of its first backtrace, and where each is
places() { sed -n '/^#0 /,/^#11 /p' "$1" | sed -nE 's/^(#[0-9]+ ).* at ([a-z_/.]+:[0-9]+)$/\1\2/p' | head -n 11; }
check 'the backtrace in docs/EMULATOR.md is this one' test "$(places docs/EMULATOR.md)" = "$(places "$scratch/session")"

finish
