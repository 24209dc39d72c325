#!/usr/bin/env python3
"""Augmentation by torchvision: the reference for the kernel `augment` and for the crops that are drawn.

  make_augmentation_fixtures.py DIR
      writes to DIR/views.safetensors, for each group of cases, GROUP.images (U8 [M, 3, H, W]),
      GROUP.recipes (F64 [n, 23], one recipe a row, the columns as in RECIPE below) and GROUP.views
      (F32 [n, 3, S, S], computed in float64);
      and to DIR/crops.safetensors, for images of H×W and a smallest area of A per cent, how often
      100,000 calls of RandomResizedCrop.get_params gave which box: HxW.A.sizes (I64 [H+1, W+1], by
      height and width) and HxW.A.places (I64 [H, W], by top and left)

Needs Python 3.9, PyTorch 2 (CPU), torchvision, numpy and safetensors, for instance
  python3 -m venv venv && venv/bin/pip install torch torchvision numpy safetensors
  venv/bin/python tools/make_augmentation_fixtures.py tests/fixtures/augmentation
Written with PyTorch 2.15.0, torchvision 0.29.2 and numpy 2.4.6.

The transforms are those of torchvision.transforms.functional on tensors with values in [0, 1].
adjust_hue works in float32 whatever it is given, so its two halves, _rgb2hsv and _hsv2rgb, are
called instead. gaussian_blur is given the kernel 2·radius + 1, radius = min(ceil(3 sigma), S - 1).
"""

import itertools
import math
import pathlib
import sys

import numpy as np
import torch
import torchvision
import torchvision.transforms._functional_tensor as hsv
import torchvision.transforms.functional as F
from torchvision.transforms import RandomResizedCrop

from safetensors.torch import save_file

# name: value where a case gives none
RECIPE = {"image": 0, "top": 0, "left": 0, "height": 0, "width": 0,
          "order0": 4, "order1": 4, "order2": 4, "order3": 4,
          "brightness": 1, "contrast": 1, "saturation": 1, "hue": 0, "blur": 0,
          "gray_first": 0, "gray_last": 0, "flip": 0,
          "mean0": 0, "mean1": 0, "mean2": 0, "std0": 1, "std1": 1, "std2": 1}
BRIGHTNESS, CONTRAST, SATURATION, HUE, NONE = range(5)
CIFAR10 = dict(zip(("mean0", "mean1", "mean2", "std0", "std1", "std2"),
                   (0.4914, 0.4822, 0.4465, 0.2023, 0.1994, 0.2010)))


def recipe(box, order=(), **values):
    """One row; box is (top, left, height, width). Numbers are those that a float can hold."""
    order = tuple(order) + (NONE,) * (4 - len(order))
    row = {**RECIPE, **dict(zip(("top", "left", "height", "width"), box)),
           **{f"order{i}": part for i, part in enumerate(order)}, **values}
    assert row.keys() == RECIPE.keys(), row
    return {key: float(np.float32(value)) for key, value in row.items()}


def adjust_hue(x, turns):
    h, s, v = hsv._rgb2hsv(x)
    return hsv._hsv2rgb(torch.stack(((h + turns) % 1, s, v)))


def apply(images, row, size):
    """The view as tensor/view_recipe.h orders its steps."""
    x = images[int(row["image"])].double() / 255
    top, left, height, width = (int(row[key]) for key in ("top", "left", "height", "width"))
    x = F.resized_crop(x, top, left, height, width, [size, size], antialias=True)
    if row["gray_first"]:
        x = F.rgb_to_grayscale(x, 3)
    parts = {BRIGHTNESS: lambda x: F.adjust_brightness(x, row["brightness"]),
             CONTRAST: lambda x: F.adjust_contrast(x, row["contrast"]),
             SATURATION: lambda x: F.adjust_saturation(x, row["saturation"]),
             HUE: lambda x: adjust_hue(x, row["hue"]),
             NONE: lambda x: x}
    for i in range(4):
        x = parts[int(row[f"order{i}"])](x)
    if row["gray_last"]:
        x = F.rgb_to_grayscale(x, 3)
    if row["blur"]:
        kernel = 2 * min(math.ceil(3 * row["blur"]), size - 1) + 1
        x = F.gaussian_blur(x, [kernel, kernel], [row["blur"], row["blur"]])
    if row["flip"]:
        x = F.hflip(x)
    return F.normalize(x, *([row[f"{key}{c}"] for c in range(3)] for key in ("mean", "std")))


def make_images(count, height, width, generator):
    """Waves and noise, and a patch of pure colours, ties and greys, where clamps and hues have edges."""
    y, x = np.mgrid[0:height, 0:width] / 16
    images = np.empty((count, 3, height, width))
    for plane in images.reshape(-1, height, width):
        a, b, phase = generator.uniform(-3, 3, 3)
        plane[:] = 127.5 * (1 + np.sin(a * x + b * y + phase)) + generator.normal(0, 20, plane.shape)
    images = np.clip(images.round(), 0, 255).astype(np.uint8)
    corners = np.array(list(itertools.product((0, 128, 255), repeat=3)), np.uint8)  # 27 colours
    for image in images:
        patch = image[:, :6, :10]
        colors = np.resize(corners[generator.permutation(27)], (patch[0].size, 3))
        patch[:] = colors.T.reshape(3, *patch.shape[1:])
    return torch.from_numpy(images)


# ---- the cases -----------------------------------------------------------------------------------


def tall_cases():
    """40×28 to 11×11: every part alone, every order of the jitter."""
    whole, box, corner = (0, 0, 40, 28), (3, 2, 22, 19), (0, 0, 11, 11)  # pure colours lie in the corner
    boxes = [whole, box, corner, (5, 7, 6, 5), (39, 27, 1, 1), (0, 0, 1, 28), (0, 27, 40, 1),
             (17, 0, 23, 28), (4, 9, 12, 10)]
    yield from (recipe(b) for b in boxes)
    yield from (recipe(b, flip=1) for b in (whole, box))
    for name, part in (("brightness", BRIGHTNESS), ("contrast", CONTRAST), ("saturation", SATURATION)):
        yield from (recipe(corner, [part], **{name: f}) for f in (0.6, 0.83, 1, 1.4))
    yield from (recipe(corner, [HUE], hue=turns)
                for turns in (-0.5, -0.4, -0.1, -1e-9, 0, 0.05, 1 / 6, 0.25, 1 / 3, 0.4, 0.5))
    yield from (recipe(whole, **{key: 1}) for key in ("gray_first", "gray_last"))
    yield from (recipe(whole, blur=sigma) for sigma in (0.1, 0.34, 0.7, 1, 1.5, 2, 5))
    yield recipe(whole, **CIFAR10)
    for i, order in enumerate(itertools.permutations(range(4))):
        yield recipe(corner if i % 2 else box, order, image=1, brightness=0.75 + 0.02 * i,
                     contrast=1.38 - 0.03 * i, saturation=0.65 + 0.03 * i, hue=0.4 - 0.035 * i)
    yield recipe(box, (CONTRAST, HUE, SATURATION, BRIGHTNESS), gray_first=1, brightness=1.2,
                 contrast=0.7, saturation=1.3, hue=0.3)


def square_cases():
    """32×32 to 32×32: whole pipelines of the recipes demo, v1 and v2."""
    jitter = dict(brightness=1.25, contrast=0.8, saturation=1.35, hue=-0.08)
    yield recipe((4, 7, 25, 22), (CONTRAST, BRIGHTNESS, HUE, SATURATION), flip=1, **jitter, **CIFAR10)
    yield recipe((10, 0, 9, 11), (HUE, SATURATION, CONTRAST, BRIGHTNESS), image=1, gray_last=1,
                 **jitter, **CIFAR10)
    yield recipe((0, 3, 32, 29), (SATURATION, HUE, BRIGHTNESS, CONTRAST), image=1, flip=1, blur=1.3,
                 **jitter, **CIFAR10)


def large_cases():
    """96×96 to 17×17: shrinking by much, and by little."""
    boxes = [(0, 0, 96, 96), (1, 2, 95, 71), (30, 40, 34, 45), (60, 60, 17, 17), (8, 80, 13, 16)]
    yield from (recipe(b) for b in boxes)
    yield recipe((5, 11, 80, 77), (BRIGHTNESS, CONTRAST, SATURATION, HUE), brightness=0.9,
                 contrast=1.3, saturation=0.7, hue=0.1, blur=0.8, flip=1, **CIFAR10)


def tiny_cases():
    """5×3 to 2×2: a blur and filters wider than the picture."""
    yield recipe((0, 0, 5, 3))
    yield recipe((1, 1, 4, 1), flip=1)
    yield recipe((0, 0, 5, 3), (CONTRAST, HUE), contrast=1.4, hue=0.2, blur=2)


# group: images, (height, width), size of the views, cases
GROUPS = {
    "tall": (2, (40, 28), 11, tall_cases),
    "square": (2, (32, 32), 32, square_cases),
    "large": (1, (96, 96), 17, large_cases),
    "tiny": (1, (5, 3), 2, tiny_cases),
}


def count_crops(height, width, smallest_area):
    image, draws = torch.empty(3, height, width), 100_000
    sizes = torch.zeros(height + 1, width + 1, dtype=torch.int64)
    places = torch.zeros(height, width, dtype=torch.int64)
    for _ in range(draws):
        top, left, h, w = RandomResizedCrop.get_params(image, (smallest_area, 1.0), (3 / 4, 4 / 3))
        sizes[h, w] += 1
        places[top, left] += 1
    return sizes, places


# The last four are too long for most boxes, or for all.
CROPS = [(32, 32, 8), (32, 32, 20), (40, 28, 8), (5, 4, 20), (48, 16, 8), (10, 60, 20), (2, 50, 8),
         (50, 2, 8)]


def main(words):
    if len(words) != 1 or words[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    torch.manual_seed(1)
    print(f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}, "
          f"numpy {np.__version__}, Python {sys.version.split()[0]}")
    directory = pathlib.Path(words[0])
    generator = np.random.Generator(np.random.PCG64(1))
    tensors = {}
    for name, (count, shape, size, cases) in GROUPS.items():
        images, rows = make_images(count, *shape, generator), list(cases())
        tensors[f"{name}.images"] = images
        tensors[f"{name}.recipes"] = torch.tensor([list(row.values()) for row in rows]).double()
        tensors[f"{name}.views"] = torch.stack([apply(images, row, size) for row in rows]).float()
        print(f"{name:8} {len(rows):3} views of {size}x{size} from {count} images of {shape}")
    save_file(tensors, directory / "views.safetensors")
    tensors = {}
    for height, width, per_cent in CROPS:
        name = f"{height}x{width}.{per_cent}"
        tensors[f"{name}.sizes"], tensors[f"{name}.places"] = count_crops(height, width, per_cent / 100)
    save_file(tensors, directory / "crops.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
