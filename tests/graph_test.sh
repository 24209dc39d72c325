#!/bin/sh
# moco debug graph, from the command line to the page in a browser.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh

graph() {
  # shellcheck disable=SC2086  # words are flags
  timeout 60 "$moco" debug graph $step "$@"
}
step="--data cifar10:$data --arch resnet20 --width 1 --dim 4 --batch 8 --bn-splits 2 --queue 20
  --image-size 8 --threads 1"

check 'no --out' call 2 '--out is required' debug graph
check 'neither ending nor format' call 2 'must end in .dot or .html' debug graph --out "$scratch/graph.png"
check 'an unknown format' call 2 '--format' debug graph --out "$scratch/graph.html" --format svg
check 'a folder that is not there' call 1 "$scratch/none/graph.dot" debug graph --data "cifar10:$data" \
  --arch resnet20 --width 1 --batch 8 --bn-splits 2 --image-size 8 --out "$scratch/none/graph.dot"

check 'a page' graph --out "$scratch/graph.html"
check 'of a later step, in another format than the ending says' \
  graph --out "$scratch/page.txt" --format html --steps 3
check 'its title' grep -q 'graph of training step 2' "$scratch/page.txt"
check 'DOT' graph --out "$scratch/graph.dot"
check 'DOT begins with digraph' grep -q '^digraph' "$scratch/graph.dot"

# The graph is drawn where the step fails, too.
# shellcheck disable=SC2086
check 'a loss that is not finite' call 1 'not finite' debug graph $step --lr 1e6 --steps 50 \
  --out "$scratch/broken.html"
check 'the hint leads to the console, and to no checkpoint' \
  grep -q 'hint: a smaller --lr may help; moco debug console, break nan, ' "$scratch/call.err"

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
if [ -n "$browser" ]; then
  timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$scratch/browser" \
    --virtual-time-budget=3000 --dump-dom \
    "file://$scratch/graph.html#encoder_q.layer1.1.add" >"$scratch/dom" 2>/dev/null </dev/null
  nodes=$(grep -o 'aria-label="encoder_q[^"]*"' "$scratch/dom" | sort | uniq -c | awk '$1 == 1' | wc -l)
  listed=$(grep -o '"name":"encoder_q\.[^"]*","label"' "$scratch/graph.html" | wc -l)
  check "the browser draws every node of encoder_q once: $nodes of $listed" \
    test "$nodes" -eq "$listed" -a "$nodes" -gt 100
  check 'the node in the address is selected' grep -q 'class="node operation selected"' "$scratch/dom"
  check 'and described' grep -q '<h2>encoder_q.layer1.1.add</h2>' "$scratch/dom"
else
  echo 'skipped: the page in a browser: no chromium here'
fi

finish
