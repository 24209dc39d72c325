#!/bin/sh
# Pretrains a small network on the built-in shapes without their labels, and shows what it learnt.
#
#   tools/demo.sh build/moco
set -eu
moco=$1
out=runs/demo
rm -rf "$out"
echo "Momentum Contrast on the built-in shapes: no label is used until the evaluation."
"$moco" pretrain --data shapes --out "$out" --arch resnet20 --width 8 --batch 128 --queue 1024 \
  --bn-splits 4 --lr 0.06 --epochs 10 --knn-every 2
echo
echo "Do neighbours in the features have the same shape? (10 classes, 10 % by chance)"
"$moco" eval knn --checkpoint "$out/checkpoint.safetensors" --data shapes
echo "The run is in $out; '$moco inspect $out/checkpoint.safetensors' shows the weights."
