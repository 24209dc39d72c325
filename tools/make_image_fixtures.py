#!/usr/bin/env python3
"""JPEG and PNG files of many kinds, and what Pillow makes of them: what image_file_test compares.

  make_image_fixtures.py DIR
      writes NAME.jpg or NAME.png and NAME.expect.png, the picture as Pillow's RGB

Needs Pillow 11 or newer and numpy, for instance
  python3 -m venv venv && venv/bin/pip install pillow numpy
  venv/bin/python tools/make_image_fixtures.py tests/fixtures/images
"""

import pathlib
import sys

import numpy as np
from PIL import Image


def picture(height, width):
    """A smooth picture with an edge in it, RGB."""
    y, x = np.mgrid[0:height, 0:width]
    red = 255 * x / width
    green = 127 + 100 * np.sin(y / 5)
    blue = np.where((x - width / 2) ** 2 + (y - height / 2) ** 2 < (height / 3) ** 2, 220, 40)
    return Image.fromarray(np.stack([red, green, blue], -1).clip(0, 255).astype(np.uint8))


def cases():
    """Name with suffix, picture, and how it is to be saved."""
    rgb = picture(21, 37)
    cmyk = Image.merge("CMYK", [*rgb.split(), rgb.convert("L")])
    jpeg = {
        "baseline-444": (rgb, {"subsampling": 0}),
        "baseline-422": (rgb, {"subsampling": 1}),
        "baseline-420": (rgb, {"subsampling": 2}),
        "gray": (rgb.convert("L"), {}),
        "progressive-420": (rgb, {"progressive": True, "subsampling": 2}),
        "progressive-gray": (rgb.convert("L"), {"progressive": True}),
        "optimized": (rgb, {"optimize": True}),
        "restarts": (rgb, {"subsampling": 2, "restart_marker_blocks": 2}),
        "progressive-restarts": (rgb, {"progressive": True, "restart_marker_blocks": 3}),
        "rgb": (rgb, {"keep_rgb": True}),
        "cmyk": (cmyk, {}),
        "one-pixel": (picture(1, 1), {}),
    }
    for name, (image, options) in jpeg.items():
        yield name + ".jpg", image, {"quality": 92, **options}
    oriented = Image.Exif()
    oriented[0x0112] = 6  # turned by 90 degrees
    yield "exif-orientation.jpg", rgb, {"quality": 92, "exif": oriented}
    alpha = rgb.copy()
    alpha.putalpha(rgb.convert("L"))
    yield "rgb.png", rgb, {}
    yield "rgba.png", alpha, {}
    yield "gray.png", rgb.convert("L"), {}
    yield "gray-alpha.png", alpha.convert("LA"), {}
    yield "palette.png", rgb.quantize(11), {}
    yield "palette-transparent.png", rgb.quantize(11), {"transparency": 3}
    yield "bilevel.png", rgb.convert("1"), {}


def main(words):
    if len(words) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = pathlib.Path(words[0])
    for name, image, options in cases():
        image.save(folder / name, **options)
        # Pillow is to undo nothing but the compression, so the file is opened anew.
        Image.open(folder / name).convert("RGB").save(folder / f"{name}.expect.png", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
