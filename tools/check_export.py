#!/usr/bin/env python3
"""Does torchvision compute from an exported encoder what mocograd computes?

  check_export.py MOCO CHECKPOINT SPEC
      MOCO: the program; SPEC: cifar10:DIR, whose images need no resizing for the checkpoint
  check_export.py --random MOCO SPEC
      the same for networks with random weights: resnet18, resnet34, resnet50, both stems and heads

Runs `moco export` and `moco embed`, builds the torchvision model (conv1, maxpool and fc changed as
the stem and the head ask), loads the file with strict=True, feeds it the same images, and compares
the backbone's features and the head's normalised output: max |a - b| / max |b|. Exits 1 where that
exceeds the bound.

Needs Python 3.9, PyTorch 2 and torchvision (CPU), numpy and safetensors.
"""

import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file
from torch import nn

BOUND = 2e-5  # of the largest feature; single precision, up to 50 layers
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGE_BYTES = 3 * 32 * 32
BATCH = 64


def metadata_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + length])["__metadata__"]


def torchvision_model(config):
    if not hasattr(torchvision.models, config["arch"]) or int(config["width"]) not in (0, 64):
        sys.exit(f"error: torchvision has no {config['arch']} of width {config['width']}")
    dim = int(config["dim"])
    model = getattr(torchvision.models, config["arch"])(num_classes=dim)
    if config["stem"] == "cifar":
        model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
    if config["head"] == "mlp":
        width = model.fc.in_features
        model.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
    return model


def test_images(spec):
    """Pixels in [0, 1], N x 3 x 32 x 32, and labels of SPEC's test file."""
    data = np.fromfile(pathlib.Path(spec.partition(":")[2]) / "test_batch.bin", np.uint8)
    records = data.reshape(-1, 1 + IMAGE_BYTES)
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255)
    return images, records[:, 0].astype(np.int64)


def torchvision_features(model, images, size):
    """Features before fc, and the normalised output, of images resized to size x size."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    head, model.fc = model.fc, nn.Identity()
    model.eval(), head.eval()
    backbone = []
    with torch.no_grad():
        for batch in images.split(BATCH):
            if size != batch.shape[-1]:
                batch = F.interpolate(batch, (size, size), mode="bilinear", antialias=True)
            backbone.append(model((batch - mean) / std))
        backbone = torch.cat(backbone)
        return {"backbone": backbone, "head": F.normalize(head(backbone))}


def largest_difference(got, want):
    difference = np.abs(got - want).max() / np.abs(want).max()
    return difference if got.shape == want.shape else np.inf


def check(moco, checkpoint, spec, folder):
    exported = folder / "exported.safetensors"
    subprocess.run([moco, "export", "--checkpoint", checkpoint, "--out", exported], check=True,
                   stdout=subprocess.DEVNULL)
    metadata = metadata_of(exported)
    config = {key[len("config."):]: value for key, value in metadata.items() if "." in key}
    model = torchvision_model(config)
    model.load_state_dict(load_file(exported), strict=True)
    images, labels = test_images(spec)
    expected = torchvision_features(model, images, int(config["image-size"]))
    good = True
    for features, want in expected.items():
        out = folder / features
        subprocess.run([moco, "embed", "--checkpoint", checkpoint, "--data", spec, "--out", out,
                        "--split", "test", "--features", features], check=True,
                       stdout=subprocess.DEVNULL)
        got = np.load(out / "features.npy")
        difference = largest_difference(got, want.numpy())
        fine = difference <= BOUND and (np.load(out / "labels.npy") == labels).all()
        good = good and bool(fine)
        print(f"{config['arch']}, stem {config['stem']}, head {config['head']}: {features} "
              f"{list(got.shape)}, largest relative difference {difference:.1e}"
              f"{'' if fine else '  WRONG'}", flush=True)
    return good


def random_checkpoint(moco, spec, arch, stem, head, folder):
    """A run of one step, which gives the batch norms statistics of their own."""
    out = folder / "run"
    subprocess.run([moco, "pretrain", "--data", spec, "--out", out, "--arch", arch, "--stem", stem,
                    "--head", head, "--batch", "8", "--bn-splits", "1", "--queue", "8", "--lr", "0.01",
                    "--epochs", "1", "--max-steps", "1", "--knn-every", "0"], check=True,
                   stdout=subprocess.DEVNULL)
    return out / "checkpoint.safetensors"


def main(words):
    if len(words) != 3:
        sys.exit(__doc__)
    cases = [("resnet18", "cifar", "linear"), ("resnet18", "imagenet", "mlp"),
             ("resnet34", "imagenet", "linear"), ("resnet50", "imagenet", "mlp"),
             ("resnet50", "cifar", "linear")]
    if words[0] != "--random":
        moco, checkpoint, spec = words
        with tempfile.TemporaryDirectory() as folder:
            return check(moco, checkpoint, spec, pathlib.Path(folder))
    good = True
    for case in cases:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            checkpoint = random_checkpoint(words[1], words[2], *case, folder)
            good = check(words[1], checkpoint, words[2], folder) and good
    return good


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
