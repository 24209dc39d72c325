#!/usr/bin/env python3
"""Training steps of MoCo in PyTorch, float64: the reference that `moco step` is tested against.

  make_fixtures.py DIR
      writes CASE.init.safetensors, CASE.views.safetensors, CASE.expect.safetensors and CASE.flags
  make_fixtures.py --check PREFIX [FLAG...]
      recomputes PREFIX.expect.safetensors from its init and views and compares; the flags are those
      of `moco step`, read from PREFIX.flags when none are given

Needs Python 3.9, PyTorch 2 (CPU) and safetensors, for instance
  python3 -m venv venv && venv/bin/pip install torch safetensors
  venv/bin/python tools/make_fixtures.py tests/fixtures

Names, shapes and layouts are torchvision's (NCHW activations, OIHW weights).
"""

import pathlib
import shlex
import sys
import typing

import torch
from safetensors.torch import load_file, save_file

from torch_moco import ARCHS, Bottleneck, make_encoder, moco_steps, parse_flags, state_of

# ---- the cases -----------------------------------------------------------------------------------

class Case(typing.NamedTuple):
    steps: int
    batch: int
    size: tuple  # H, W
    shuffled: bool
    init: torch.dtype  # of the weights in the file; all arithmetic is in float64
    flags: str


# Everything is as small as its subject allows. Width 1 would be smaller still, but the one weight
# of a 1x1 convolution of one channel has no gradient under batch norm, only rounding.
TINY = "--arch resnet20 --stem cifar --width 2 --dim 6 "
CASES = {
    "mlp-head": Case(2, 8, (8, 8), False, torch.float64, TINY +
                     "--head mlp --queue 24 --momentum 0.9 --temperature 0.2 --lr 0.03 "
                     "--weight-decay 0.0001 --sgd-momentum 0.9 --bn-splits 1"),
    "bn-splits": Case(2, 8, (8, 8), False, torch.float64, TINY +
                      "--head linear --queue 24 --momentum 0.9 --temperature 0.1 --lr 0.06 "
                      "--weight-decay 0.0005 --sgd-momentum 0.9 --bn-splits 4"),
    "shuffle": Case(2, 8, (8, 8), True, torch.float64, TINY +
                    "--head linear --queue 24 --momentum 0.99 --temperature 0.1 --lr 0.06 "
                    "--weight-decay 0.0005 --sgd-momentum 0.9 --bn-splits 4"),
    # 16 keys a step into a queue of 24
    "symmetric": Case(2, 8, (8, 8), True, torch.float64, TINY +
                      "--head linear --queue 24 --momentum 0.9 --temperature 0.15 --lr 0.05 "
                      "--weight-decay 0.001 --sgd-momentum 0.8 --bn-splits 2 --symmetric"),
    # queue_ptr 0, 8, 4, 0: step 1 wraps, step 2 sees it
    "queue-wrap": Case(3, 8, (8, 8), False, torch.float64, TINY +
                       "--head linear --queue 12 --momentum 0.5 --temperature 0.1 --lr 0.06 "
                       "--weight-decay 0.0005 --sgd-momentum 0 --bn-splits 1"),
    "bottleneck": Case(1, 8, (10, 12), False, torch.float32,
                       "--arch resnet50 --stem cifar --width 2 --dim 6 --head linear --queue 24 "
                       "--momentum 0.9 --temperature 0.1 --lr 0.06 --weight-decay 0.0005 "
                       "--sgd-momentum 0.9 --bn-splits 1"),
    # 22x18, 11x9 after the stem's convolution, 6x5 after its pool: odd, and not square
    "imagenet-stem": Case(1, 6, (22, 18), False, torch.float32,
                          "--arch resnet18 --stem imagenet --width 2 --dim 6 --head linear "
                          "--queue 24 --momentum 0.9 --temperature 0.1 --lr 0.06 "
                          "--weight-decay 0.0005 --sgd-momentum 0.9 --bn-splits 1"),
}


def random_init(flags, generator):
    """Two unlike encoders in mid-training (no parameter at its usual first value), a queue of unit
    columns. The scale that ends a residual branch is small: a narrow deep network whose branches
    weigh as much as its shortcuts amplifies rounding beyond any use as a reference."""
    branch_end = "bn3.weight" if ARCHS[flags.arch][0] is Bottleneck else "bn2.weight"
    normal = lambda tensor, mean, std: tensor.normal_(mean, std, generator=generator)
    encoders = {}
    for trained, name in enumerate(("encoder_q", "encoder_k"), 3):
        encoder = encoders[name] = make_encoder(flags)
        for key, tensor in encoder.state_dict().items():  # shares memory with the encoder
            if key.endswith("num_batches_tracked"):
                tensor.fill_(trained)
            elif key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dim() > 1:
                normal(tensor, 0.0, (2.0 / tensor[0].numel()) ** 0.5)
            else:
                mean = 0.3 if key.endswith(branch_end) else 1.0 if "weight" in key else 0.0
                normal(tensor, mean, 0.2 if mean != 0.3 else 0.1)
    queue = normal(torch.empty(flags.dim, flags.queue, dtype=torch.float64), 0.0, 1.0)
    return state_of(encoders, queue / queue.norm(dim=0), 0)


def random_views(case, symmetric, generator):
    views = {}
    for step in range(case.steps):
        for name in ("im_q", "im_k"):
            views[f"{name}.{step}"] = torch.randn(case.batch, 3, *case.size, dtype=torch.float64,
                                                  generator=generator)
        orders = ("shuffle", "shuffle_sym") if symmetric else ("shuffle",)
        for name in orders if case.shuffled else ():
            views[f"{name}.{step}"] = torch.randperm(case.batch, generator=generator)
    return views


def largest_deviation(got, want):
    """(max over tensors of max|a - b| / max|b|, its name); integers have to be equal."""
    if got.keys() != want.keys():
        sys.exit(f"error: the names differ: {sorted(got.keys() ^ want.keys())[:5]}")
    worst = (0.0, "")
    for name, b in want.items():
        a = got[name]
        if a.shape != b.shape or not (b.is_floating_point() or torch.equal(a, b)):
            sys.exit(f"error: {name}: got {a}, want {b}")
        if not torch.equal(a, b):
            deviation = (a - b).abs().max() / b.abs().max()
            worst = max(worst, (deviation.nan_to_num(nan=torch.inf).item(), name))
    return worst


def make_case(out, name, number):
    """Writes one case. A case is refused when rounding alone moves it by more than a hundredth of
    the tolerance of 1e-9 (the images are multiplied by 1 + 1e-15 noise to see), or when a gradient
    is zero throughout, which would prove nothing."""
    case = CASES[name]
    flags = parse_flags(case.flags.split())
    generator = torch.Generator().manual_seed(number)
    init = {key: tensor.to(case.init) if tensor.is_floating_point() else tensor
            for key, tensor in random_init(flags, generator).items()}
    views = random_views(case, flags.symmetric, generator)
    expect = moco_steps(flags, init, views)
    noisy = {key: view * (1 + 1e-15 * torch.randn(view.shape, generator=generator).double())
             if key.startswith("im_") else view for key, view in views.items()}
    noise, where = largest_deviation(moco_steps(flags, init, noisy), expect)
    dead = [key for key, tensor in expect.items() if ".grad." in key and not tensor.any()]
    if dead or not noise <= 1e-11:
        sys.exit(f"error: {name}: rounding moves {where} by {noise:.1e}; dead: {dead[:3]}")
    parts = {"init": init, "views": views, "expect": expect}
    for part, tensors in parts.items():
        save_file(tensors, out / f"{name}.{part}.safetensors")
    (out / f"{name}.flags").write_text(case.flags + "\n")
    size_kib = sum((out / f"{name}.{part}.safetensors").stat().st_size for part in parts) / 1024
    print(f"{name:14} {len(expect):4} tensors {size_kib:6.0f} KiB, "
          f"rounding moves it by {noise:.1e} ({where})")


def check(prefix, words):
    words = words or shlex.split(pathlib.Path(f"{prefix}.flags").read_text())
    init, views, expect = (load_file(f"{prefix}.{part}.safetensors")
                           for part in ("init", "views", "expect"))
    deviation, name = largest_deviation(moco_steps(parse_flags(words), init, views), expect)
    print(f"{prefix}: {len(expect)} tensors, largest deviation {deviation:.1e} {name}")
    return 0 if deviation <= 1e-9 else 1


def main(words):
    torch.set_num_threads(1)
    if len(words) >= 2 and words[0] == "--check":
        return check(words[1], words[2:])
    if len(words) != 1 or words[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    out = pathlib.Path(words[0])
    out.mkdir(parents=True, exist_ok=True)
    print(f"PyTorch {torch.__version__}, Python {sys.version.split()[0]}")
    for number, name in enumerate(CASES, 1):
        make_case(out, name, number)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
