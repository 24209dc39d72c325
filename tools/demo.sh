#!/bin/sh
# Pretrains a small network on the built-in shapes without their labels, and shows what it learnt.
#
#   tools/demo.sh build/moco
set -eu
moco=$(realpath "$1")
cd "$(dirname "$0")/.."
out=runs/demo
rm -rf "$out"
echo 'Momentum Contrast on the built-in shapes: no label is used until the evaluation.'
"$moco" pretrain --recipe recipes/demo.toml --out "$out"

# The kNN accuracy that metrics.jsonl has for an epoch; of the last one without an argument.
accuracy() {
  sed -n "s/.*\"event\":\"knn\",\"epoch\":${1:-[0-9]*},\"top1\":\([0-9.]*\).*/\1/p" \
    "$out/metrics.jsonl" | tail -n 1 | cut -c1-5
}

show=
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then show=--show; fi
echo
echo 'Ten pictures that the network has not seen, and beside each the ten training pictures that it finds'
echo 'most like it; underlined green where the shape is the same.'
"$moco" eval knn --checkpoint "$out/checkpoint.safetensors" --data shapes --png "$out/neighbours.png" \
  $show
echo
echo "Neighbours have the same shape: $(accuracy 0) % before training, $(accuracy) % now (chance: 10 %)."
echo "The picture is $out/neighbours.png; '$1 inspect $out/checkpoint.safetensors' shows the weights."
