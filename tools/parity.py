#!/usr/bin/env python3
"""Training steps of whole networks here and in PyTorch, number by number.

  parity.py [--moco build/moco]

For ResNet-18 and ResNet-50 of full width, from random weights on random images:

- two steps in float64: every result of an operation, every gradient that arrives there, the gradients
  of the parameters and the final state;
- the same for single operations: PyTorch computes each of them from our inputs and from our arriving
  gradients, so that nothing adds up;
- ten losses in float32: ours against PyTorch's, and PyTorch's in NCHW against its own in channels last.

Deviations are max|a - b| / max|b| of a tensor, the largest with its name. Exits with 1 where one is over
its bound: 1e-9 for steps, 1e-12 for single operations, for losses three times PyTorch's own.
Needs what dump_operations.py needs, and 8 GB of memory.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

from dump_operations import Recorder
from make_fixtures import Case, random_init, random_views
from torch_moco import moco_steps, parse_flags

FLAGS = ("--dim 128 --head linear --queue 256 --momentum 0.99 --temperature 0.1 --lr 0.03 "
         "--weight-decay 0.0005 --sgd-momentum 0.9 ")
NETS = {
    "resnet18": ((32, 32), FLAGS + "--arch resnet18 --stem cifar --width 64 --bn-splits 2"),
    "resnet50": ((64, 64), FLAGS + "--arch resnet50 --stem imagenet --width 64 --bn-splits 1"),
}
BATCH = 8
STEP_BOUND, OPERATION_BOUND, LOSS_FACTOR = 1e-9, 1e-12, 3
LOSS_STEPS, LOSS_SEEDS = 10, (1, 2, 3)


def deviation(a, b):
    if torch.equal(a, b):
        return 0.0
    return ((a - b).abs().max() / b.abs().max()).nan_to_num(nan=torch.inf).item()


class Replacer(Recorder):
    """Compares each result and each arriving gradient with ours, and goes on from ours."""

    def __init__(self, ours):
        super().__init__()
        self.ours, self.deviations = ours, {}

    def keep(self, name, tensor):
        self.deviations[name] = deviation(self.ours[name], tensor)
        if ".forward." in name:
            tensor.data.copy_(self.ours[name])
        return self.ours[name].clone()


def draw(net, steps, seed, dtype):
    size, words = NETS[net]
    flags = parse_flags(words.split())
    generator = torch.Generator().manual_seed(seed)
    init = random_init(flags, generator)
    views = random_views(Case(steps, BATCH, size, True, dtype, words), False, generator)
    to = lambda tensors: {name: tensor.to(dtype) if tensor.is_floating_point() else tensor
                          for name, tensor in tensors.items()}
    return flags, to(init), to(views)


def our_steps(moco, net, init, views, *more):
    with tempfile.TemporaryDirectory() as folder:
        path = lambda name: str(pathlib.Path(folder) / name)
        save_file(init, path("init"))
        save_file(views, path("views"))
        subprocess.run([moco, "step", "--init", path("init"), "--views", path("views"), "--dump",
                        path("dump"), *NETS[net][1].split(), *more], check=True,
                       stdout=subprocess.DEVNULL)
        return load_file(path("dump"))


def report(what, deviations, bound):
    """The largest of {name: deviation}; whether it is within its bound."""
    name = max(deviations, key=deviations.get)
    fine = deviations[name] <= bound
    print(f"  {what}: {len(deviations)} tensors, at most {deviations[name]:.1e} ({name})"
          f"{'' if fine else ' FAILED'}", flush=True)
    return fine


def check_float64(moco, net):
    flags, init, views = draw(net, 2, 0, torch.float64)
    ours = our_steps(moco, net, init, views, "--dtype", "f64", "--operations")
    with Recorder() as recorder:
        state = moco_steps(flags, init, views, recorder.observe, recorder.begin_step)
    theirs = {**recorder.dump, **state}
    if missing := theirs.keys() - ours.keys():
        sys.exit(f"error: not in our dump: {sorted(missing)[:5]}")
    fine = report("steps", {name: deviation(ours[name], theirs[name]) for name in theirs}, STEP_BOUND)
    with Replacer(ours) as replacer:
        state = moco_steps(flags, init, views, replacer.observe, replacer.begin_step)
    single = {**replacer.deviations, **{name: deviation(ours[name], state[name]) for name in state}}
    return report("single operations", single, OPERATION_BOUND) and fine


def check_losses(moco, net):
    fine = True
    for seed in LOSS_SEEDS:
        flags, init, views = draw(net, LOSS_STEPS, seed, torch.float32)
        losses = lambda dump: torch.stack([dump[f"step.{s}.loss"] for s in range(LOSS_STEPS)]).double()
        theirs, last = (losses(moco_steps(flags, init, views, dtype=torch.float32,
                                          memory_format=layout))
                        for layout in (torch.contiguous_format, torch.channels_last))
        ours = losses(our_steps(moco, net, init, views, "--dtype", "f32"))
        own, other = (theirs - last).abs().max(), (ours - theirs).abs().max()
        good = bool(other <= LOSS_FACTOR * own)
        fine &= good
        print(f"  ten float32 losses, seed {seed}: {theirs[0].item():.4f} … {theirs[-1].item():.4f}; "
              f"ours differ by {other:.1e}, PyTorch's layouts by {own:.1e}{'' if good else ' FAILED'}",
              flush=True)
    return fine


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moco", default="build/moco")
    options = parser.parse_args()
    print(f"PyTorch {torch.__version__}")
    fine = True
    for net in NETS:
        print(f"{net}, batch {BATCH}: moco step {NETS[net][1]}")
        fine &= check_float64(options.moco, net)
        fine &= check_losses(options.moco, net)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
