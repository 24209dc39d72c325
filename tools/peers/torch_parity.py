"""Before anything is timed: do all contenders compute the same step?

The reference is torch_moco.moco_steps in float64 from random weights, views and queue.
"""

import pathlib

import torch
from safetensors.torch import load_file, save_file

from make_fixtures import Case, random_init, random_views
from peers import torch_step
from torch_moco import ARCHS, moco_steps, parse_flags

BATCH, QUEUE = 32, 4096


def flags_of(arch, splits):
    return (f"--arch {arch} --stem cifar --width {ARCHS[arch][2]} "
            f"--dim {torch_step.DIM} --head linear --queue {QUEUE} "
            f"--momentum {torch_step.MOMENTUM} --temperature {torch_step.TEMPERATURE} "
            f"--lr {torch_step.LR} --weight-decay {torch_step.WEIGHT_DECAY} "
            f"--sgd-momentum {torch_step.SGD_MOMENTUM} --bn-splits {splits}").split()


def make(arch, splits, folder):
    """Writes init, views and what is expected into the folder; the flags of moco step."""
    words = flags_of(arch, splits)
    flags = parse_flags(words)
    generator = torch.Generator().manual_seed(splits)
    init = random_init(flags, generator)
    case = Case(1, BATCH, (32, 32), False, torch.float64, "")
    views = random_views(case, False, generator)
    expect = moco_steps(flags, init, views)
    for name, tensors in (("init", init), ("views", views), ("expect", expect)):
        save_file(tensors, pathlib.Path(folder) / f"{name}.safetensors")
    return words


def read(folder, name):
    return load_file(pathlib.Path(folder) / f"{name}.safetensors")


def deviation(a, b):
    """max |a - b| / max |b|"""
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


def of_moco(folder):
    """How far its dump is from what is expected: logits, and the worst gradient in relative L2."""
    dump, expect = read(folder, "dump"), read(folder, "expect")
    gradients = [name for name in expect if name.startswith("step.0.grad.")]
    worst = max(((dump[name].double() - expect[name]).norm() / expect[name].norm()).item()
                for name in gradients)
    return {"logits": deviation(dump["step.0.logits"], expect["step.0.logits"]), "gradients": worst}


def of_torch(folder, arch, splits, **variant):
    """The same of a timed step."""
    init, views, expect = (read(folder, name) for name in ("init", "views", "expect"))
    step = torch_step.TorchStep(arch, BATCH, QUEUE, splits, **variant)
    step.load(init)
    order = torch.arange(BATCH)
    if variant.get("norm") == "folded":  # its groups are n mod S
        order = order.view(splits, -1).T.flatten()
    step.set_views(views["im_q.0"][order], views["im_k.0"][order])
    _, logits = step.step()
    worst = max(((theta.grad.double() - expect[f"step.0.grad.{name}"]).norm()
                 / expect[f"step.0.grad.{name}"].norm()).item()
                for name, theta in step.encoder_q.named_parameters())
    return {"logits": deviation(logits, expect["step.0.logits"][order]), "gradients": worst}
