#!/bin/sh
# A sample of the planted bugs is noticed (all of them: make mutants).
#
#   BUILD=build tests/mutants_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh
needs_the_optimised_build 'planted bugs'
output=$(tools/mutants.sh --sample 4 2>&1)
echo "$output"
sums=$(echo "$output" | sed -n '$s/^\([1-9][0-9]*\) mutants, \([0-9][0-9]*\) survived$/\1 \2/p')
read -r mutants survived <<EOF
${sums:-1 1}
EOF
echo "$((mutants - survived)) passed, $survived failed"
[ "$survived" -eq 0 ]
