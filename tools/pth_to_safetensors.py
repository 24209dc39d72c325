#!/usr/bin/env python3
"""A PyTorch checkpoint of a ResNet as the safetensors file that `moco pretrain --init` reads.

  pth_to_safetensors.py FILE.pth OUT.safetensors

The file holds a state dict, or a dictionary with one under 'state_dict' or 'model'. Of a MoCo
checkpoint of the paper's authors (names module.encoder_q.*) the query encoder is taken; otherwise
'module.' of DataParallel is dropped and all else kept. The names are then torchvision's.

Needs Python 3.9, PyTorch 2 (CPU) and safetensors. Nothing but tensors is unpickled (weights_only).
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file

ENCODER_PREFIXES = ("module.encoder_q.", "encoder_q.")
OTHER_PREFIXES = ("module.",)


def state_dict_of(contents):
    for key in ("state_dict", "model"):
        if isinstance(contents, dict) and isinstance(contents.get(key), dict):
            return contents[key]
    return contents


def encoder_of(state):
    """The tensors of one encoder, with torchvision's names."""
    for prefix in ENCODER_PREFIXES + OTHER_PREFIXES:
        chosen = {name[len(prefix):]: value for name, value in state.items()
                  if name.startswith(prefix)}
        if chosen:
            return chosen
    return state


def main(words):
    if len(words) != 2:
        sys.exit(__doc__)
    source, target = map(pathlib.Path, words)
    try:
        contents = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: the file's, the archive's, the pickle's
        sys.exit(f"error: {source}: {(str(error) or type(error).__name__).splitlines()[0]}")
    state = state_dict_of(contents)
    if not isinstance(state, dict):
        sys.exit(f"error: {source}: holds no state dict")
    encoder = encoder_of(state)
    wrong = [name for name, value in encoder.items() if not isinstance(value, torch.Tensor)]
    if wrong or "conv1.weight" not in encoder:
        sys.exit(f"error: {source}: no ResNet with torchvision's names: "
                 + (f"{wrong[0]} is no tensor" if wrong else "conv1.weight is missing"))
    save_file({name: (value.float() if value.is_floating_point() else value.long()).contiguous().clone()
               for name, value in encoder.items()}, target)
    print(f"{target}: {len(encoder)} tensors")


if __name__ == "__main__":
    main(sys.argv[1:])
