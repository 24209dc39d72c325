#!/usr/bin/env python3
"""Writes tests/fixtures/operations.*: every operation of one small training step, as PyTorch computed it.

  make_operations_fixture.py

Begins from mlp-head.init, with its flags and the first two images of its first views. Needs what
dump_operations.py needs.
"""

import pathlib
import sys
import tempfile

import dump_operations
from make_fixtures import read_safetensors, write_safetensors

FIXTURES = pathlib.Path(__file__).parent.parent / "tests" / "fixtures"
IMAGES = 2


def main():
    flags = (FIXTURES / "mlp-head.flags").read_text().split()
    views = read_safetensors(FIXTURES / "mlp-head.views.safetensors")
    cut = FIXTURES / "operations.views.safetensors"
    write_safetensors(cut, {name: images[:IMAGES].contiguous() for name, images in views.items()
                            if name.endswith(".0")})
    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder) / "dump"
        code = dump_operations.main([FIXTURES / "mlp-head.init.safetensors", cut, whole, *flags])
        if code:
            return code
        write_safetensors(FIXTURES / "operations.expect.safetensors", {
            name: tensor for name, tensor in read_safetensors(whole).items()
            if name.startswith(("step.0.forward.", "step.0.backward."))})
    return 0


if __name__ == "__main__":
    sys.exit(main())
