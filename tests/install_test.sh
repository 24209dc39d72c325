#!/bin/sh
# install-deps.sh on machines that are not this one: a folder of stand-ins is its whole PATH.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh
unset CXX
packages=$(awk "/^needed='/ { table = 1; next } /^'/ { table = 0 } table { printf \"%s%s\", between, \$1; between = \" \" }" install-deps.sh)

# stand_in NAME COMMANDS...: a program of that machine
stand_in() {
  name=$1
  shift
  printf '#!/bin/sh\n%s\n' "$*" >"$scratch/machine/$name"
  chmod +x "$scratch/machine/$name"
}

# install CODE: on that machine; says nothing on stderr but where it fails
install() {
  code=0
  PATH=$scratch/machine /bin/sh ./install-deps.sh >"$scratch/stdout" 2>"$scratch/stderr" || code=$?
  cat "$scratch/stdout" "$scratch/stderr"
  [ "$code" -eq "$1" ] && { [ "$1" -ne 0 ] || [ ! -s "$scratch/stderr" ]; }
}

# asked COMMAND PACKAGES: that the last line of the log is that command with these packages
asked() {
  tail -n 1 "$scratch/log" | grep -qx "$1 install -q -y --no-install-recommends $2" && return 0
  cat "$scratch/log"
  return 1
}

mkdir "$scratch/machine"
stand_in id 'echo 1000'
check 'nothing there, not even apt' install 1
check 'every word of it is understood' test "$(grep -c 'not found' "$scratch/stderr")" -eq 0
check 'the missing are listed with their reason' grep -q '^libstb-dev .*PNG' "$scratch/stderr"

stand_in env "shift; exec \"\$@\""
stand_in apt-get "echo apt-get \"\$@\" >>$scratch/log"
check 'neither root nor sudo' install 1
check 'it says so' grep -q 'neither root nor sudo' "$scratch/stderr"
check 'nothing was installed' test ! -e "$scratch/log"

stand_in sudo "printf 'sudo ' >>$scratch/log; exec \"\$@\""
check 'with sudo' install 0
check 'all packages, with sudo' asked 'sudo apt-get' "$packages"

stand_in id 'echo 0'
check 'as root' install 0
check 'all packages, without sudo' asked apt-get "$packages"

stand_in gdb ''
stand_in make ''
check 'two are there' install 0
check 'the rest is installed' asked apt-get "$(echo "$packages" | sed 's/ make / /; s/ gdb$//')"

stand_in g++ 'case "$1" in -dumpversion) echo 12 ;; *) cat >/dev/null ;; esac'
ln -s "$(command -v cat)" "$scratch/machine/cat"
rm "$scratch/log"
check 'everything is there' install 0
check 'it says so' grep -qx 'Everything is installed.' "$scratch/stdout"
check 'nothing is installed' test ! -e "$scratch/log"

stand_in g++ 'case "$1" in -dumpversion) echo 11.4.0 ;; *) cat >/dev/null ;; esac'
check 'a compiler that is too old' install 1
check 'it says so' grep -q '^error: g++ is version 11.4.0, C++20 needs 12' "$scratch/stderr"
rm "$scratch/machine/gdb"
check 'it is too old after installing as well' install 1
check 'what was missing is installed' asked apt-get gdb
check 'it says so' grep -q '^error: g++ is version 11.4.0' "$scratch/stderr"
stand_in gdb ''
stand_in g++-12 'echo 12'
export CXX=g++-12
check 'another compiler is new enough' install 0
finish
