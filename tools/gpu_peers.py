#!/usr/bin/env python3
"""mocograd and PyTorch side by side on a GPU, for tools/gpu-check.sh bench: tables in Markdown.

  gpu_peers.py [--moco build/moco] [--device cuda] [--seconds 400] [--precisions 'bf16 tf32 fp32']

In each precision that moco has: matrix products against cuBLAS, convolutions pass by pass and batch norm
against cuDNN, everything else against the GPU's measured limits, and the whole step against PyTorch's in
both memory formats, eager and compiled. With --device cuda-emulated PyTorch takes the CPU, on tiny
problems: to see that it works. What there was no time for is named.

Needs PyTorch 2 with CUDA.
"""

import argparse
import gc
import json
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

from peers.gpu_timing import milliseconds
from peers.tables import table
from peers.torch_step import LAYOUTS, TorchStep

# arch, batch, queue
STEPS = (("resnet18", 512, 4096), ("resnet18", 64, 4096), ("resnet20", 512, 4096))
TINY_STEPS = (("resnet20", 16, 64),)
TINY = ("--width", 1, "--image-size", 8)  # of the emulator's step
SPLITS = 8


class Refused(Exception):
    """moco has no such kernel; its own line says so."""


class Peers:
    def __init__(self, options):
        self.options = options
        self.tiny = options.device != "cuda"
        self.device = "cpu" if self.tiny else "cuda"
        self.deadline = time.monotonic() + options.seconds
        self.rounds = 1 if self.tiny else 10
        torch.backends.cudnn.benchmark = True

    def left(self):
        return self.deadline - time.monotonic()

    def enough(self, seconds, what):
        """Whether so much time is left; says so where not."""
        if self.left() >= seconds:
            return True
        print(f"\nLeft out, for lack of time: {what}.", flush=True)
        return False

    def moco(self, *words, environment=None):
        """The document of moco bench."""
        command = [self.options.moco, "bench", "--json", "--device", self.options.device, "--steps",
                   str(self.rounds), *map(str, words)]
        if environment:
            command = ["env", *environment, *command]
        process = subprocess.run(command, capture_output=True, text=True)
        if process.returncode == 2:
            raise Refused(process.stderr.strip().splitlines()[-1])
        if process.returncode != 0:
            sys.exit(f"error: exit code {process.returncode}: {' '.join(command)}\n{process.stderr}")
        return json.loads(process.stdout)

    def tried(self, what, work):
        """What work() returns; None where it fails, which is said. Its memory is free again."""
        try:
            return work()
        except Refused:
            raise
        except Exception as error:  # of a contender's, whatever it is: the others go on
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            print(f"\nLeft out: {what}: {reason}", flush=True)
            return None
        finally:
            gc.collect()
            if self.device == "cuda":
                torch.cuda.empty_cache()

    def timed(self, work):
        return milliseconds(work, self.rounds, self.device)

    def set_precision(self, precision):
        torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
        torch.backends.cudnn.allow_tf32 = precision != "fp32"

    # ---- tables ----------------------------------------------------------------------------------

    def gemm(self, precision):
        """Ours by the engine's kernel, and by cuBLAS as the engine calls it."""
        by = {"engine": self.moco("--part", "gemm", "--precision", precision,
                                  environment=["MOCO_CUBLAS=0"]),
              "library": self.moco("--part", "gemm", "--precision", precision)}
        same = by["engine"]["kernels"] == by["library"]["kernels"]
        rows = []
        for own, library in zip(by["engine"]["results"], by["library"]["results"]):
            M, N, K = (int(own[side]) for side in "MNK")
            a, b = (torch.randn(shape, device=self.device) for shape in ((M, K), (K, N)))
            c = torch.empty(M, N, device=self.device)
            median, _ = self.timed(lambda: torch.mm(a, b, out=c))
            rows.append([f"{own['what']}: {M} × {N} × {K}", f"{own['median_ms']:.4f}", of_limit(own),
                         "as the kernel" if same else f"{library['median_ms']:.4f}", f"{median:.4f}",
                         f"{median / own['median_ms']:.2f} ×"])
        return (f"**Matrix products**, milliseconds at the median; moco by its own kernel and with {by['library']['kernels']}:\n\n" +
                table(["product", "own kernel", "of the limit", "moco's cuBLAS", "PyTorch (cuBLAS)",
                       "own kernel against PyTorch"], rows))

    def layers(self, precision):
        rows, peers = [], {}
        for r in self.moco("--part", "layers", "--precision", precision)["results"]:
            if r["what"] not in peers:
                peers[r["what"]] = self.convolution(precision, *(
                    int(r[name]) for name in ("N", "size", "C", "OC", "kernel", "stride")))
            layout, median = min(((layout, passes[r["pass"]]) for layout, passes in
                                  peers[r["what"]].items()), key=lambda item: item[1])
            rows.append([f"{r['what']}, {r['pass']}", f"{r['median_ms']:.4f}", of_limit(r),
                         f"{median:.4f}", layout, f"{median / r['median_ms']:.2f} ×"])
        return "**Convolutions**, milliseconds at the median, cuDNN in its better memory format:\n\n" + table(
            ["layer, pass", "mocograd", "of the limit", "cuDNN", "in", "ratio"], rows)

    def convolution(self, precision, N, size, C, OC, kernel, stride):
        """{layout: {pass: milliseconds}}"""
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        result, padding = {}, kernel // 2
        for name, layout in LAYOUTS.items():
            x, w = (torch.randn(shape, device=self.device).to(dtype, memory_format=layout)
                    for shape in ((N, C, size, size), (OC, C, kernel, kernel)))
            forward = lambda: torch.conv2d(x, w, None, stride, padding)
            dy = torch.randn_like(forward())
            backward = lambda *wanted: torch.ops.aten.convolution_backward(
                dy, x, w, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1,
                [*wanted, False])
            result[name] = {"forward": self.timed(forward)[0],
                            "data": self.timed(lambda: backward(True, False))[0],
                            "weight": self.timed(lambda: backward(False, True))[0]}
        return result

    def batch_norm(self, precision):
        """Ours in 8 groups; cuDNN's in one, which moves the same numbers."""
        rows = []
        for r in self.moco("--part", "pointwise", "--precision", precision)["results"]:
            if " bn" not in r["what"] or "bn+add" in r["what"]:
                rows.append([r["what"], r["pass"], f"{r['median_ms']:.4f}", of_limit(r), "", "", ""])
                continue
            size, channels = r["what"].split()[0].split("x")[0], int(r["what"].split()[0].split("x")[2])
            N, relu = SPLITS if self.tiny else 512, "+relu" in r["what"]
            best = min((self.norm(precision, N, int(size), channels, layout, relu)[r["pass"]], layout)
                       for layout in LAYOUTS)
            rows.append([r["what"], r["pass"], f"{r['median_ms']:.4f}", of_limit(r), f"{best[0]:.4f}",
                         best[1], f"{best[0] / r['median_ms']:.2f} ×"])
        return ("**Batch norm and other passes**, milliseconds at the median; batch norm and ReLU are one "
                "kernel in mocograd and two in PyTorch:\n\n" + table(["pass", "", "mocograd", "of the limit", "PyTorch (cuDNN)", "in",
                                        "ratio"], rows))

    def norm(self, precision, N, size, C, layout, relu):
        x = torch.randn(N, C, size, size, device=self.device).to(
            torch.bfloat16 if precision == "bf16" else torch.float32, memory_format=LAYOUTS[layout])
        x.requires_grad_()
        parameters = [torch.ones(C, device=self.device, requires_grad=True) for _ in range(2)]

        def forward():
            y = F.batch_norm(x, None, None, *parameters, training=True)
            return F.relu(y) if relu else y

        y, dy = forward(), torch.randn_like(x)
        backward = lambda: torch.autograd.grad(y, [x, *parameters], dy, retain_graph=True)
        with torch.no_grad():
            result = {"forward": self.timed(forward)[0]}
        return {**result, "backward": self.timed(backward)[0]}

    def rest(self, precision):
        rows = [[r["part"], r["what"], r["pass"], f"{r['median_ms']:.4f}", of_limit(r)]
                for part in ("loss", "optimizer", "augmentation")
                for r in self.moco("--part", part, "--precision", precision)["results"]]
        return "**The rest**, milliseconds at the median:\n\n" + table(["part", "what", "", "mocograd", "of the limit"],
                                                        rows)

    def steps(self, precision, settings):
        for arch, batch, queue in settings:
            for splits in (SPLITS, 1):
                if self.enough(10, f"{precision}: step of {arch}, batch {batch}, {splits} BN groups"):
                    print("\n" + self.step(precision, arch, batch, queue, splits), flush=True)

    def step(self, precision, arch, batch, queue, splits):
        contenders = {}
        for layout in LAYOUTS:
            for compiled in (False, True):
                # Folding the groups into the channels is a view in NCHW, and copies in the other.
                norm = "folded" if layout == "NCHW" else "chunks"
                # Eight norms for each one would be compiled for minutes; with plain ones channels last is
                # the faster.
                if compiled and (self.tiny or (norm == "folded") != (splits > 1)):
                    continue
                name = f"PyTorch {layout}" + (", compiled" if compiled else "")
                contenders[name] = (60 if compiled else 10, dict(layout=layout, compiled=compiled, norm=norm))
        result = self.moco("--arch", arch, "--batch", batch, "--queue", queue, "--bn-splits", splits,
                           "--precision", precision, *(TINY if self.tiny else ()))["results"][0]
        rates = {"mocograd": batch / result["median_ms"] * 1e3}
        for name, (seconds, variant) in contenders.items():
            what = f"{arch}, batch {batch}, {splits} BN groups, {precision}: {name}"
            if self.enough(seconds, what):
                rate = self.tried(what, lambda: self.step_rate(
                    arch, batch, queue, splits, bf16=precision == "bf16", device=self.device, **variant))
                if rate is not None:
                    rates[name] = rate
        peers = [rate for name, rate in rates.items() if name != "mocograd"]
        ratio = f"{rates['mocograd'] / max(peers):.2f} ×" if peers else ""
        norm = f"split batch norm, {splits} groups" if splits > 1 else "plain batch norm"
        rows = [[name, f"{rate:.1f}"] for name, rate in rates.items()]
        return (f"**{arch}, batch {batch}, queue {queue}, {norm}**, images per second at the median step "
                f"(mocograd: {of_limit(result) or 'limit not measured'}):\n\n" +
                table(["", "images/s"], rows + [["mocograd / best peer", ratio]]))

    def step_rate(self, arch, batch, *settings, **variant):
        """PyTorch's, images per second."""
        step = TorchStep(arch, batch, *settings, **variant)
        step.seconds(1)
        times = sorted(step.seconds(2 if self.tiny else 20))
        return batch / times[len(times) // 2]

    # ---- all of it -------------------------------------------------------------------------------

    def run(self):
        limits = self.moco("--part", "loss")
        where = torch.cuda.get_device_name() if self.device == "cuda" else "the CPU"
        print(f"PyTorch {torch.__version__} on {where}, cuDNN {torch.backends.cudnn.version()}; "
              f"mocograd with {limits['kernels']}; measured limits, GFLOP/s and GB/s: " +
              ", ".join(f"{name} {value:.0f}" for name, value in limits["limits"].items()) + ".")
        steps = TINY_STEPS if self.tiny else STEPS
        for precision in self.options.precisions.split():
            self.set_precision(precision)
            print(f"\n### {precision}")
            try:
                self.steps(precision, steps[:1])
                for name in ("gemm", "layers", "batch_norm", "rest"):
                    if name == "gemm" and precision == "bf16":
                        continue  # mocograd's stays in fp32
                    if self.enough(20, f"{precision}: {name}"):
                        text = self.tried(f"{precision}: {name}", lambda: getattr(self, name)(precision))
                        if text is not None:
                            print("\n" + text, flush=True)
                self.steps(precision, steps[1:])
            except Refused as refused:
                print(f"\nNot in this build: {refused}", flush=True)


def of_limit(result):
    if "per_cent_of_limit" not in result:
        return ""
    return f"{result['per_cent_of_limit']:.0f} % of {result['limit']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moco", default="build/moco")
    parser.add_argument("--device", choices=("cuda", "cuda-emulated"), default="cuda")
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--precisions", default="bf16 tf32 fp32")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("PyTorch: not available here: it finds no GPU.")
        return 0
    Peers(options).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
