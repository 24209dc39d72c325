#!/bin/sh
# A sample of the planted bugs is noticed (all of them: make mutants), and what must notice the others exists.
#
#   BUILD=build tests/mutants_test.sh
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/check.sh
needs_the_optimised_build 'planted bugs'

# Bugs that the sample leaves out can still be planted, and what must notice them is there.
check 'every bug can be planted' tools/mutants.sh --texts
sed -n 's/^kill //p' tests/mutants/*.txt | grep -v '^gradcheck \|^tests/' | sort -u >"$scratch/filters"
while read -r filter; do
  count=$("$BUILD/tests" --gtest_list_tests --gtest_filter="$filter" | grep -c '^  ')
  check "no test is called $filter" test "$count" -gt 0
done <"$scratch/filters"

output=$(tools/mutants.sh --sample 4 2>&1)
echo "$output"
sums=$(echo "$output" | sed -n '$s/^\([1-9][0-9]*\) mutants, \([0-9][0-9]*\) survived$/\1 \2/p')
read -r mutants survived <<EOF
${sums:-1 1}
EOF
passed=$((passed + mutants - survived)) failed=$((failed + survived))
finish
