#!/bin/sh
# Pretrains a small network on the built-in shapes without their labels, and shows what it learnt.
#
#   tools/demo.sh build/moco
set -eu
moco=$(realpath "$1")
cd "$(dirname "$0")/.."
out=runs/demo
rm -rf "$out"
echo "Momentum Contrast on the built-in shapes: no label is used until the evaluation."
"$moco" pretrain --recipe recipes/demo.toml --out "$out"
echo
echo "Do neighbours in the features have the same shape? (10 classes, 10 % by chance)"
"$moco" eval knn --checkpoint "$out/checkpoint.safetensors" --data shapes
echo "The run is in $out; '$moco inspect $out/checkpoint.safetensors' shows the weights."
