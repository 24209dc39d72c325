#!/bin/sh
# Installs what building and testing mocograd needs and this machine lacks, with apt (Debian 12,
# Ubuntu 24.04 or newer). Does nothing, and needs no root, when everything is there. CXX=g++-12 in the
# environment says which compiler make is to take.
set -eu

# package, how to see that it is there (a command or a header), why
needed='
g++                   command g++                    C++20 compiler, 12 or newer; binutils with nm come with it
make                  command make                   the build
libgtest-dev          header  gtest/gtest.h          tests
libcli11-dev          header  CLI/CLI.hpp            command line and recipes
libstb-dev            header  stb/stb_image.h        PNG and JPEG decoding, PNG writing
zlib1g-dev            header  zlib.h                 .gz files of the MNIST family; PNG files are checked with it
libcurl4-openssl-dev  header  curl/curl.h            moco data fetch: https
libssl-dev            header  openssl/evp.h          moco data fetch: checksums
libarchive-dev        header  archive.h              moco data fetch: tar.gz
libedit-dev           header  histedit.h             line editing of moco debug console (BSD; GNU readline is GPL)
gdb                   command gdb                    tests of the breakpoints of docs/TOUR.md and of tools/gdb/mocograd.py
'

is_there() {
  case $1 in
    command) command -v "$2" >/dev/null ;;
    header) echo "#include <$2>" | g++ -std=c++20 -E -x c++ - >/dev/null 2>&1 ;;
  esac
}

# Packages do not help where the system's own compiler is too old.
check_compiler() {
  command -v "${CXX:-g++}" >/dev/null || return 0  # what was to install it has told
  version=$("${CXX:-g++}" -dumpversion)
  if [ "${version%%.*}" -lt 12 ]; then
    echo "error: ${CXX:-g++} is version $version, C++20 needs 12 or newer; another one: CXX=g++-12 $0 && make CXX=g++-12" >&2
    exit 1
  fi
}

missing=$(echo "$needed" | while read -r package kind what _; do
  [ -z "$package" ] || is_there "$kind" "$what" || printf '%s ' "$package"
done)
if [ -z "$missing" ]; then
  check_compiler
  echo 'Everything is installed.'
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  printf 'error: missing: %s\nThere is no apt-get here. Install by other means:\n%s' "$missing" "$needed" >&2
  exit 1
fi
as_root=
if [ "$(id -u)" -ne 0 ]; then
  as_root=sudo
  if ! command -v sudo >/dev/null; then
    echo "error: missing: ${missing}; neither root nor sudo. As root: apt-get install $missing" >&2
    exit 1
  fi
fi
echo "Installing: $missing"
$as_root apt-get update -q
# shellcheck disable=SC2086  # words are package names
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
check_compiler
