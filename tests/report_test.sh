#!/bin/sh
# moco report, from a run's directory to the page in a browser.
set -u
cd "$(dirname "$0")/.." || exit 1
. tests/program.sh

run=$scratch/run
# shellcheck disable=SC2086  # words are flags
"$moco" pretrain $tiny --epochs 4 --out "$run" >/dev/null || exit 1

check 'no directory' call 2 'DIR is required' report
check 'one that is not there' call 1 "$scratch/none holds no run" report "$scratch/none"
check 'one that holds no run' call 1 "holds no run: there is no $data/metrics.jsonl" report "$data"
check 'a page' "$moco" report "$run"
check 'in the run' test -s "$run/report.html"
check 'another file, of a directory with a slash' "$moco" report "$run/" --out "$scratch/page.html"
check 'is the same' cmp "$run/report.html" "$scratch/page.html"
check 'and has the name of the directory' grep -q '"name":"run"' "$scratch/page.html"
check 'a place that cannot be written' call 1 "$scratch/none/page.html" report "$run" --out "$scratch/none/page.html"
check 'a file of the run itself' call 2 'is a file of the run itself' report "$run" --out "$run/../run/metrics.jsonl"
check 'a run that has a report can be gone on with' "$moco" pretrain --resume --out "$run" --max-steps 20

cp -r "$run" "$scratch/damaged"
printf 'no event\n' >>"$scratch/damaged/metrics.jsonl"
check 'a damaged line' call 1 "$scratch/damaged/metrics.jsonl: line 28: " report "$scratch/damaged"
cp "$run/metrics.jsonl" "$scratch/damaged"
printf x >>"$scratch/damaged/checkpoint.safetensors"
check 'a damaged checkpoint' call 1 "$scratch/damaged/checkpoint.safetensors" report "$scratch/damaged"

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
if [ -n "$browser" ]; then
  timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$scratch/browser" \
    --virtual-time-budget=3000 --dump-dom "file://$scratch/page.html" >"$scratch/dom" 2>/dev/null </dev/null
  count() { grep -o "$1" "$scratch/dom" | wc -l; }
  check 'the browser draws five charts' test "$(count '<section class="chart"')" -eq 5
  check 'three evaluations of kNN' test "$(count '<circle')" -eq 3
  check 'a filter for each channel of the stem' test "$(count 'shape-rendering="crispEdges"')" -eq 1
  check 'and the state' grep -q 'Finished: the checkpoint is of step 20, 4 of 4 epochs done' "$scratch/dom"

  # Of several steps a point, the last of fewer; all of one learning rate.
  cp -r "$run" "$scratch/long"
  seq 1201 | sed 's/.*/{"event":"step","step":&,"epoch":1,"loss":5,"top1":1,"lr":0.1,"images_per_s":100,"data_wait_s":0}/' \
    >"$scratch/long/metrics.jsonl"
  check 'a long epoch' "$moco" report "$scratch/long"
  timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$scratch/browser" --enable-logging=stderr \
    --virtual-time-budget=3000 --dump-dom "file://$scratch/long/report.html" >"$scratch/dom" 2>"$scratch/console" </dev/null
  check 'four charts without kNN' test "$(count '<section class="chart"')" -eq 4
  check 'nothing goes wrong in its script' test "$(grep -c Uncaught "$scratch/console")" -eq 0
else
  echo 'skipped: the page in a browser: no chromium here'
fi

finish
