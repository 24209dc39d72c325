#!/bin/sh
# Plants each bug of tests/mutants.txt in a copy of the sources, builds, and runs gradcheck on the
# operation that it breaks: the bug must be noticed. The last line is 'N mutants, M survived'.
#
#   BUILD=build tools/mutants.sh         needs an up-to-date build, to begin from
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
copy=$(mktemp -d) || exit 1
trap 'rm -rf "$copy"' EXIT
trap 'exit 130' INT TERM

cp -a Makefile src "$copy" || exit 1
mkdir "$copy/build"
cp -a "$BUILD/obj" "$BUILD/libmocograd.a" "$BUILD/moco" "$copy/build" || exit 1

# replace FILE: the lines of $copy/old by those of $copy/new; fails unless they are there exactly once
replace() {
  perl -0777 -e '
    my ($file, $old_file, $new_file) = @ARGV;
    my ($text, $old, $new) = map { open(my $in, "<", $_) or die "$_: $!"; my $all = <$in>; $all // "" } $file, $old_file, $new_file;
    my $count = () = $text =~ /\Q$old\E/g;
    die "$file: found $count times, not once:\n$old" if $count != 1;
    $text =~ s/\Q$old\E/$new/;
    open(my $out, ">", $file) or die "$file: $!";
    print $out $text;' "$copy/$1" "$copy/old" "$copy/new"
}

mutants=0 survived=0
# try: builds and judges the mutant described by $name and $file
try() {
  [ -n "$name" ] || return 0
  mutants=$((mutants + 1))
  cp -p "$copy/$file" "$copy/original"
  outcome=SURVIVED
  if ! replace "$file"; then
    outcome='SURVIVED (not planted)'
  elif ! make -C "$copy" -j"$(nproc)" CXXFLAGS=-O1 build/moco >"$copy/log" 2>&1; then
    outcome='SURVIVED (does not build)'
    cat "$copy/log"
  elif ! "$copy/build/moco" gradcheck "${name%%:*}" --draws 50 >"$copy/log" 2>&1; then
    outcome=noticed
  fi
  case $outcome in SURVIVED*) survived=$((survived + 1)) ;; esac
  echo "$outcome: $name"
  cp "$copy/original" "$copy/$file"  # with a new time, so that it is built again
}

name='' file=''
while IFS= read -r line; do
  case $line in
    '== '*)
      try
      name=${line#== }
      : >"$copy/old"
      : >"$copy/new"
      ;;
    'file '*) file=${line#file } ;;
    '- '*) printf '%s\n' "${line#- }" >>"$copy/old" ;;
    '+ '*) printf '%s\n' "${line#+ }" >>"$copy/new" ;;
  esac
done <tests/mutants.txt
try

echo "$mutants mutants, $survived survived"
[ "$survived" -eq 0 ] && [ "$mutants" -gt 0 ]
