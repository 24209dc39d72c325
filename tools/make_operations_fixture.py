#!/usr/bin/env python3
"""Writes tests/fixtures/operations.*: every operation of one small training step, as PyTorch computed it.

  make_operations_fixture.py

Begins from mlp-head.init, with its flags and the first two images of its first views. Needs what
dump_operations.py needs.
"""

import pathlib
import sys
import tempfile

from safetensors.torch import load_file, save_file

import dump_operations

FIXTURES = pathlib.Path(__file__).parent.parent / "tests" / "fixtures"
IMAGES = 2


def main():
    flags = (FIXTURES / "mlp-head.flags").read_text().split()
    views = load_file(FIXTURES / "mlp-head.views.safetensors")
    cut = FIXTURES / "operations.views.safetensors"
    save_file({name: images[:IMAGES].contiguous() for name, images in views.items()
               if name.endswith(".0")}, cut)
    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder) / "dump"
        code = dump_operations.main([FIXTURES / "mlp-head.init.safetensors", cut, whole, *flags])
        if code:
            return code
        operations = {name: tensor for name, tensor in load_file(whole).items()
                      if name.startswith(("step.0.forward.", "step.0.backward."))}
        save_file(operations, FIXTURES / "operations.expect.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
