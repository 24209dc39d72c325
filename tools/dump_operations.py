#!/usr/bin/env python3
"""Every operation of MoCo training steps in PyTorch, float64, for `moco debug diff`.

  dump_operations.py INIT VIEWS OUT [FLAG...]      the flags of `moco step`
  build/moco step --init INIT --views VIEWS --dtype f64 --operations --dump OURS [FLAG...]
  build/moco debug diff OURS OUT --tolerance 1e-9

Writes what each operation computed (step.<s>.forward.<name>) and the gradient that arrived there
(step.<s>.backward.<name>) under the names of src/debug/operation_names.h, beside all that
make_fixtures.py writes. Needs PyTorch 2 (CPU) and safetensors.
"""

import sys
from collections import Counter

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.overrides import TorchFunctionMode

from torch_moco import SplitBatchNorm2d, moco_steps, parse_flags

# What the network calls outside of a module of its own.
FUNCTIONS = {F.relu: "relu", torch.Tensor.add: "add", torch.Tensor.mean: "global_avg_pool"}
# module: operation, and whether the module's own name is part of the path (relu and max-pool are no
# modules in the engine)
MODULES = {nn.Conv2d: ("conv2d", True), SplitBatchNorm2d: ("batch_norm", True),
           nn.Linear: ("linear", True), nn.ReLU: ("relu", False), nn.MaxPool2d: ("max_pool", False)}


class Recorder(TorchFunctionMode):
    """Names and keeps what is computed, and the gradients that come back."""

    def __init__(self):
        super().__init__()
        self.dump, self.counts, self.step, self.path = {}, Counter(), 0, []

    def begin_step(self, step, encoders):
        self.step, self.counts = step, Counter()
        if step == 0:
            for name, encoder in encoders.items():
                self.attach(name, encoder)

    def attach(self, path, module):
        """Records what the modules below `path` return, and where functions are called."""
        operation, own_name = MODULES.get(type(module), (None, True))
        where = path if own_name else path.rpartition(".")[0]

        def before(*_):
            self.path.append(None if operation else path)

        def after(_module, _inputs, result):
            self.path.pop()
            if operation:
                self.record(where, operation, result)

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)
        for name, child in module.named_children():
            self.attach(f"{path}.{name}", child)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        # A path of None is inside of a module that is one operation as a whole.
        if function in FUNCTIONS and self.path and self.path[-1]:
            self.record(self.path[-1], FUNCTIONS[function], result)
        return result

    def observe(self, name, tensor):
        return self.record("", name, tensor)

    def record(self, path, operation, tensor):
        name = f"{path}.{operation}" if path else operation
        self.counts[name] += 1
        if self.counts[name] > 1:
            name += f"#{self.counts[name]}"
        self.keep(f"step.{self.step}.forward.{name}", tensor.detach())
        if tensor.requires_grad:
            backward = f"step.{self.step}.backward.{name}"
            tensor.register_hook(lambda gradient: self.keep(backward, gradient))
        return tensor

    def keep(self, name, tensor):
        """What it returns takes the gradient's place; None leaves it."""
        self.dump[name] = tensor.clone(memory_format=torch.contiguous_format)


def main(words):
    if len(words) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    init, views = load_file(words[0]), load_file(words[1])
    with Recorder() as recorder:
        steps = moco_steps(parse_flags(words[3:]), init, views, recorder.observe,
                           recorder.begin_step)
    save_file({**recorder.dump, **steps}, words[2])
    print(f"{words[2]}: {len(recorder.dump)} results and gradients of operations")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
