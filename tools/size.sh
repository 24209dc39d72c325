#!/bin/sh
# Lines of code by floor, the five longest files, and functions of more than 60 lines.
#
# Comments and blank lines are not counted, except in a function's length, which runs from the line
# with its name to its closing brace, both in the first column (methods inside a class are not seen).
# The ladders and the CUDA emulator have lines of their own, outside of the budget for src.
set -eu
cd "$(dirname "$0")/.."

# shellcheck disable=SC2016  # $0 is awk's
find src tests examples -name '*.h' -o -name '*.cpp' -o -name '*.cu' |
  LC_ALL=C sort | xargs awk '
  FNR == 1 {
    split(FILENAME, part, "/")
    floor = part[1] == "src" ? "src/" part[2] : part[1]
    if (part[3] == "ladder" || part[3] == "emulator") floor = part[3] ": " floor
    if (!(floor in files)) order[++floors] = floor
    files[floor]++
    in_comment = start = 0
  }

  { line = $0 }
  in_comment      { if (!sub(/^.*\*\//, "", line)) next; in_comment = 0 }
                  { gsub(/\/\*([^*]|\*+[^*\/])*\*+\//, "", line); sub(/\/\/.*/, "", line) }
  /\/\*/          { if (sub(/\/\*.*/, "", line)) in_comment = 1 }
  line ~ /[^ \t]/ { code[floor]++; code_of_file[FILENAME]++ }

  /^[A-Za-z_]/ && !/^(namespace|class|struct|enum|union|using|template|extern)/ && !/;$/ {
    start = FNR; name = $0
  }
  /^}$/ && start {
    lines = FNR - start + 1
    if (lines > 60) long[++longs] = sprintf("%5d  %s:%d  %s", lines, FILENAME, start, name)
    start = 0
  }

  END {
    print "lines  files"
    for (i = 1; i <= floors; i++) {
      printf "%5d  %5d  %s\n", code[order[i]], files[order[i]], order[i]
      if (order[i] ~ /^src/) { total += code[order[i]]; count += files[order[i]] }
    }
    printf "%5d  %5d  all of src (the budget is 10000)\n", total, count

    print "\nlongest files"
    for (rank = 1; rank <= 5; rank++) {
      longest = ""
      for (file in code_of_file)
        if (longest == "" || code_of_file[file] > code_of_file[longest] ||
            (code_of_file[file] == code_of_file[longest] && file < longest)) longest = file
      if (longest == "") break
      printf "%5d  %s\n", code_of_file[longest], longest
      delete code_of_file[longest]
    }

    print "\nfunctions of more than 60 lines" (longs ? "" : ": none")
    for (i = 1; i <= longs; i++) print long[i]
  }'
