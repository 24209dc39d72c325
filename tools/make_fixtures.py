#!/usr/bin/env python3
"""Training steps of MoCo in PyTorch, float64: the reference that `moco step` is tested against.

  make_fixtures.py DIR
      writes CASE.init.safetensors, CASE.views.safetensors, CASE.expect.safetensors and CASE.flags
  make_fixtures.py --check PREFIX [FLAG...]
      recomputes PREFIX.expect.safetensors from its init and views and compares; the flags are those
      of `moco step`, read from PREFIX.flags when none are given

Needs Python 3.9, PyTorch 2 (CPU) and numpy, for instance
  python3 -m venv venv && venv/bin/pip install torch numpy
  venv/bin/python tools/make_fixtures.py tests/fixtures

Names, shapes and layouts are torchvision's (NCHW activations, OIHW weights).
"""

import argparse
import functools
import json
import pathlib
import shlex
import struct
import sys
import typing

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# ---- the network, with torchvision's names -------------------------------------------------------


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of S contiguous chunks of the batch, each on its own; S = 1 is plain batch norm.

    Group g is rows [g*N/S, (g+1)*N/S). The running buffers become the mean of the groups' updated
    buffers; num_batches_tracked rises by 1 per forward.
    """

    def __init__(self, channels, splits):
        super().__init__(channels)
        self.splits = splits

    def forward(self, x):
        if not self.training or self.splits == 1:
            return super().forward(x)
        outputs, means, variances = [], [], []
        for group in x.chunk(self.splits):
            mean, var = self.running_mean.clone(), self.running_var.clone()
            outputs.append(F.batch_norm(group, mean, var, self.weight, self.bias, True,
                                        self.momentum, self.eps))
            means.append(mean)
            variances.append(var)
        self.running_mean.copy_(torch.stack(means).mean(0))
        self.running_var.copy_(torch.stack(variances).mean(0))
        self.num_batches_tracked += 1
        return torch.cat(outputs)


def conv(in_channels, channels, kernel, stride=1):
    return nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)


def shortcut(in_channels, channels, stride, norm):
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return nn.Sequential(conv(in_channels, channels, 1, stride), norm(channels))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_channels, planes, stride, norm):
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, planes, 3, stride), norm(planes)
        self.conv2, self.bn2 = conv(planes, planes, 3), norm(planes)
        self.downsample = shortcut(in_channels, planes, stride, norm)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, in_channels, planes, stride, norm):
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, planes, 1), norm(planes)
        self.conv2, self.bn2 = conv(planes, planes, 3, stride), norm(planes)
        self.conv3, self.bn3 = conv(planes, 4 * planes, 1), norm(4 * planes)
        self.downsample = shortcut(in_channels, 4 * planes, stride, norm)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


# arch: block, blocks per stage, planes of stage 1
ARCHS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 64),
    "resnet20": (BasicBlock, (3, 3, 3), 16),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 64),
}


class ResNet(nn.Module):
    """Stem, stages, global average, head. norm(channels) makes a batch norm."""

    def __init__(self, arch, stem="cifar", width=None, dim=128, head="linear", norm=nn.BatchNorm2d):
        super().__init__()
        block, blocks, default_width = ARCHS[arch]
        width = width or default_width
        self.conv1 = conv(3, width, 7, 2) if stem == "imagenet" else conv(3, width, 3)
        self.bn1 = norm(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        channels, self.stages = width, []
        for stage, count in enumerate(blocks):
            layers = []
            for i in range(count):
                planes, stride = width << stage, 2 if stage > 0 and i == 0 else 1
                layers.append(block(channels, planes, stride, norm))
                channels = planes * block.expansion
            self.stages.append(f"layer{stage + 1}")
            setattr(self, self.stages[-1], nn.Sequential(*layers))
        self.fc = nn.Linear(channels, dim)
        if head == "mlp":
            self.fc = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), self.fc)

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.fc(x.mean((2, 3)))


# ---- MoCo training steps -------------------------------------------------------------------------


def parse_flags(words):
    """The flags of `moco step` that change its results; None of them has a default here."""
    parser = argparse.ArgumentParser(prog="moco step", allow_abbrev=False)
    parser.add_argument("--arch", choices=ARCHS, required=True)
    parser.add_argument("--stem", choices=("cifar", "imagenet"), required=True)
    parser.add_argument("--head", choices=("linear", "mlp"), required=True)
    for name in ("width", "dim", "queue", "bn-splits"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("momentum", "temperature", "lr", "weight-decay", "sgd-momentum"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--symmetric", action="store_true")
    return parser.parse_args(words)


def make_encoder(flags):
    norm = functools.partial(SplitBatchNorm2d, splits=flags.bn_splits)
    return ResNet(flags.arch, flags.stem, flags.width, flags.dim, flags.head, norm).double()


def unobserved(name, tensor):
    """observe(name, tensor) sees the operations outside of the encoders; this one looks away."""
    return tensor


def contrast(encoder_q, encoder_k, queue, im_q, im_k, order, temperature, observe=unobserved):
    """One direction: loss, logits [N, 1+K], q [N, dim], k [N, dim].

    Row i of the key encoder's batch is row order[i] of im_k; None: as it is."""
    with torch.no_grad():
        seen = im_k if order is None else observe("gather_rows", im_k[order])
        k = observe("l2_normalize", F.normalize(encoder_k(seen), eps=1e-12))
        if order is not None:
            k = observe("gather_rows", k[order.argsort()])
    q = observe("l2_normalize", F.normalize(encoder_q(im_q), eps=1e-12))
    l_pos = observe("row_dot", (q * k).sum(1, keepdim=True))
    l_neg = observe("matmul_transposed", q @ queue)
    logits = observe("scale", observe("concat_columns", torch.cat([l_pos, l_neg], 1)) / temperature)
    loss = F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))
    return observe("cross_entropy", loss), logits, q, k


def moco_steps(flags, init, views, observe=unobserved, watch=lambda step, encoders: None):
    """What `moco step` dumps: loss, logits, q, k, gradients of each step; the final state.

    watch(step, encoders) is called before each step."""
    encoders = {name: make_encoder(flags) for name in ("encoder_q", "encoder_k")}
    for name, encoder in encoders.items():
        encoder.load_state_dict({key[len(name) + 1:]: value for key, value in init.items()
                                 if key.startswith(name + ".")})
    encoder_q, encoder_k = encoders.values()
    queue, ptr = init["queue"].double().clone(), int(init["queue_ptr"])
    sgd = torch.optim.SGD(encoder_q.parameters(), flags.lr, flags.sgd_momentum,
                          weight_decay=flags.weight_decay)
    dump = {}
    for step in range(sum(name.startswith("im_q.") for name in views)):
        watch(step, encoders)
        with torch.no_grad():  # theta_k <- m theta_k + (1 - m) theta_q
            for theta_k, theta_q in zip(encoder_k.parameters(), encoder_q.parameters()):
                theta_k.copy_(flags.momentum * theta_k + (1 - flags.momentum) * theta_q)
        im_q, im_k = views[f"im_q.{step}"], views[f"im_k.{step}"]
        directions = [(im_q, im_k, f"shuffle.{step}")]
        if flags.symmetric:
            directions.append((im_k, im_q, f"shuffle_sym.{step}"))
        results = [contrast(encoder_q, encoder_k, queue.clone(), to_query, to_key,
                            views.get(order), flags.temperature, observe)
                   for to_query, to_key, order in directions]
        loss = results[0][0]
        if flags.symmetric:
            loss = observe("add", loss + results[1][0])
        keys = torch.cat([result[3] for result in results])
        _, logits, q, k = results[0]
        sgd.zero_grad()
        loss.backward()
        dump.update({f"step.{step}.loss": loss.reshape(1), f"step.{step}.logits": logits,
                     f"step.{step}.q": q, f"step.{step}.k": k})
        dump.update({f"step.{step}.grad.{name}": parameter.grad.clone()
                     for name, parameter in encoder_q.named_parameters()})
        sgd.step()
        queue[:, (ptr + torch.arange(len(keys))) % flags.queue] = keys.T
        ptr = (ptr + len(keys)) % flags.queue
    dump.update(state_of(encoders, queue, ptr))
    return {name: tensor.detach() for name, tensor in dump.items()}


def state_of(encoders, queue, ptr):
    state = {f"{name}.{key}": value for name, encoder in encoders.items()
             for key, value in encoder.state_dict().items()}
    return {**state, "queue": queue, "queue_ptr": torch.tensor([ptr])}


# ---- safetensors ---------------------------------------------------------------------------------

DTYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "I64": np.dtype("<i8"),
          "U8": np.dtype("u1")}


def write_safetensors(path, tensors):
    header, blobs, offset = {}, [], 0
    for name, tensor in tensors.items():
        array = tensor.contiguous().numpy()
        dtype = next(key for key, value in DTYPES.items() if value == array.dtype)
        blobs.append(array.astype(DTYPES[dtype]).tobytes())
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [offset, offset + len(blobs[-1])]}
        offset += len(blobs[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = (start + offset for offset in entry["data_offsets"])
            array = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
            tensors[name] = torch.from_numpy(array.copy())
    return tensors


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
        write_safetensors(out / f"{name}.{part}.safetensors", tensors)
    (out / f"{name}.flags").write_text(case.flags + "\n")
    size_kib = sum((out / f"{name}.{part}.safetensors").stat().st_size for part in parts) / 1024
    print(f"{name:14} {len(expect):4} tensors {size_kib:6.0f} KiB, "
          f"rounding moves it by {noise:.1e} ({where})")


def check(prefix, words):
    words = words or shlex.split(pathlib.Path(f"{prefix}.flags").read_text())
    init, views, expect = (read_safetensors(f"{prefix}.{part}.safetensors")
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
    print(f"PyTorch {torch.__version__}, numpy {np.__version__}, Python {sys.version.split()[0]}")
    for number, name in enumerate(CASES, 1):
        make_case(out, name, number)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
