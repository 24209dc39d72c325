#!/usr/bin/env python3
"""A MoCo training step here and in PyTorch: images per second, side by side on this machine.

  bench_peers.py [--moco build/moco] [--threads N] [--rounds 10] [--steps 3] [--arch resnet20]
                 [--compile] [--peers-only]

One step, fp32: queries forward and backward, keys forward, InfoNCE against the queue, SGD with
momentum and weight decay, moving average of the key encoder, enqueue; random images, no
augmentation, no shuffling. That both sides compute the same is shown by the step tests
(tests/fixtures), not here.

Blocks of --steps steps, each after one step to warm up, alternate between all contenders for
--rounds rounds, on the same processors. PyTorch runs in NCHW and channels last, with --compile also
compiled, and with split batch norm written in two ways; the fastest of them is the peer. A second
table has plain batch norm, so that a slow split batch norm in the peer flatters nobody.

Needs PyTorch 2 and numpy (see torch_moco.py) and an optimised build of moco.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from torch_moco import ResNet, SplitBatchNorm2d

# arch: batch, queue
NETS = {"resnet18": (64, 4096), "resnet20": (128, 1024)}
SPLITS = 8
MOMENTUM, TEMPERATURE, LR, SGD_MOMENTUM, WEIGHT_DECAY, DIM = 0.99, 0.1, 0.06, 0.9, 5e-4, 128


class FoldedSplitBatchNorm2d(nn.BatchNorm2d):
    """Split batch norm as one batch norm of S*C channels: group g is rows n with n mod S = g.

    In NCHW the folding is a view and costs nothing; the groups differ from SplitBatchNorm2d's, the
    work does not.
    """

    def __init__(self, channels, splits):
        super().__init__(channels)
        self.splits = splits

    def forward(self, x):
        n, c, h, w = x.shape
        s = self.splits
        mean, var = self.running_mean.repeat(s), self.running_var.repeat(s)
        y = F.batch_norm(x.reshape(n // s, s * c, h, w), mean, var, self.weight.repeat(s),
                         self.bias.repeat(s), True, self.momentum, self.eps)
        self.running_mean.copy_(mean.view(s, c).mean(0))
        self.running_var.copy_(var.view(s, c).mean(0))
        return y.view(n, c, h, w)


class TorchStep:
    """A training step in PyTorch; block(steps) is the seconds of each step."""

    def __init__(self, name, arch, batch, queue_size, norm, layout, compiled=False):
        self.name = "PyTorch " + name
        make = lambda: ResNet(arch, dim=DIM, norm=norm).to(memory_format=layout)
        self.encoder_q, self.encoder_k = make(), make()
        self.encoder_k.load_state_dict(self.encoder_q.state_dict())
        self.theta_q = list(self.encoder_q.parameters())
        self.theta_k = list(self.encoder_k.parameters())
        self.forward_q, self.forward_k = self.encoder_q, self.encoder_k
        if compiled:
            self.forward_q, self.forward_k = map(torch.compile, (self.encoder_q, self.encoder_k))
        self.sgd = torch.optim.SGD(self.theta_q, LR, SGD_MOMENTUM, weight_decay=WEIGHT_DECAY,
                                   foreach=True)
        self.im_q, self.im_k = (torch.randn(batch, 3, 32, 32).to(memory_format=layout)
                                for _ in range(2))
        self.queue = F.normalize(torch.randn(DIM, queue_size), dim=0)
        self.ptr = 0
        self.labels = torch.zeros(batch, dtype=torch.long)

    def step(self):
        with torch.no_grad():
            torch._foreach_lerp_(self.theta_k, self.theta_q, 1 - MOMENTUM)
            k = F.normalize(self.forward_k(self.im_k))
        q = F.normalize(self.forward_q(self.im_q))
        l_pos = (q * k).sum(1, keepdim=True)
        logits = torch.cat([l_pos, q @ self.queue], 1) / TEMPERATURE
        loss = F.cross_entropy(logits, self.labels)
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        self.queue[:, self.ptr:self.ptr + len(k)] = k.T
        self.ptr = (self.ptr + len(k)) % self.queue.shape[1]

    def block(self, steps):
        seconds = []
        for _ in range(steps + 1):
            start = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - start)
        return seconds[1:]


class MocoStep:
    """`moco bench` in a process of its own; it leaves its own warm-up step out."""

    name = "mocograd"
    machine = ""  # what moco says about it

    def __init__(self, moco, arch, batch, queue_size, splits, threads):
        self.command = [moco, "bench", "--arch", arch, "--batch", str(batch), "--queue",
                        str(queue_size), "--bn-splits", str(splits), "--threads", str(threads),
                        "--json"]

    def block(self, steps):
        command = [*self.command, "--steps", str(steps)]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        try:
            result = json.loads(run.stdout.splitlines()[-1])
            seconds = result["step_seconds"]
            self.machine = (f"{result['instruction_set']}, measured peak "
                            f"{result['peak_gflops']:.0f} GFLOP/s, "
                            f"a step is {result['step_gflop']:.1f} GFLOP")
        except (IndexError, KeyError, ValueError):
            seconds = []
        if run.returncode != 0 or len(seconds) != steps:
            sys.exit(f"error: no result of {steps} steps in the last line of: {' '.join(command)}")
        return seconds


def contenders(options, arch, splits):
    batch, queue_size = NETS[arch]
    layouts = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
    torch_step = partial(TorchStep, arch=arch, batch=batch, queue_size=queue_size)
    for name, layout in layouts.items():
        norms = {"": nn.BatchNorm2d}
        if splits > 1:
            norms = {", BN by chunks": partial(SplitBatchNorm2d, splits=splits)}
            if name == "NCHW":
                norms[", BN folded"] = partial(FoldedSplitBatchNorm2d, splits=splits)
        for norm_name, norm in norms.items():
            yield torch_step(name + norm_name, norm=norm, layout=layout)
            if options.compile:
                yield torch_step(name + norm_name + ", compiled", norm=norm, layout=layout,
                                 compiled=True)
    if not options.peers_only:
        yield MocoStep(options.moco, arch, batch, queue_size, splits, options.threads)


def measure(options, arch, splits):
    """{contender: (images/s at the median step, at the shortest step)}"""
    seconds = {}
    everybody = list(contenders(options, arch, splits))
    for turn in range(options.rounds):
        for i in range(len(everybody)):  # another contender begins each round
            contender = everybody[(turn + i) % len(everybody)]
            seconds.setdefault(contender.name, []).extend(contender.block(options.steps))
        print(f"{arch}, {splits} BN groups: round {turn + 1} of {options.rounds}", file=sys.stderr)
    if not options.peers_only:
        print(f"\nmocograd: {everybody[-1].machine}")
    batch = NETS[arch][0]
    return {name: (batch / statistics.median(times), batch / min(times))
            for name, times in sorted(seconds.items())}


def print_table(arch, splits, rates):
    batch, queue_size = NETS[arch]
    norm = f"split batch norm, {splits} groups" if splits > 1 else "plain batch norm"
    print(f"\n**{arch}, batch {batch}, queue {queue_size}, {norm}**\n")
    print("| contender | images/s, median step | images/s, shortest step |")
    print("| --- | ---: | ---: |")
    for name, (median, best) in rates.items():
        print(f"| {name} | {median:.1f} | {best:.1f} |")
    peers = [rate for name, rate in rates.items() if name != MocoStep.name]
    if MocoStep.name in rates:
        ratios = [ours / max(theirs) for ours, theirs in zip(rates[MocoStep.name], zip(*peers))]
        print(f"| mocograd / best PyTorch | {ratios[0]:.2f} × | {ratios[1]:.2f} × |")


def processor():
    with open("/proc/cpuinfo") as info:
        return next((line.split(":")[1].strip() for line in info if line.startswith("model name")),
                    platform.machine())


def main():
    cpus = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moco", default="build/moco")
    parser.add_argument("--threads", type=int, default=len(cpus))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=3, help="steps of a block")
    parser.add_argument("--arch", choices=NETS, action="append", help="default: both")
    parser.add_argument("--compile", action="store_true", help="PyTorch compiled, too")
    parser.add_argument("--peers-only", action="store_true", help="PyTorch alone")
    options = parser.parse_args()
    if not options.peers_only and not os.access(options.moco, os.X_OK):
        parser.error(f"{options.moco} is not there: run make, or say --moco or --peers-only")

    os.sched_setaffinity(0, cpus[:options.threads])  # inherited by moco
    if options.compile:  # all contenders share ResNet.forward, which is compiled for each of them
        torch._dynamo.config.recompile_limit = 64
    torch.set_num_threads(options.threads)
    print(f"{datetime.date.today()}, {processor()}, {options.threads} threads, {platform.system()} "
          f"{platform.release()}\nPyTorch {torch.__version__}, "
          f"{torch.backends.cpu.get_cpu_capability()}, oneDNN "
          f"{'on' if torch.backends.mkldnn.is_available() else 'off'}, Python "
          f"{platform.python_version()}\n"
          f"{options.rounds} interleaved rounds of {options.steps} steps")
    for arch in options.arch or NETS:
        for splits in (SPLITS, 1):
            print_table(arch, splits, measure(options, arch, splits))
    return 0


if __name__ == "__main__":
    sys.exit(main())
