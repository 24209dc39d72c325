#!/usr/bin/env python3
"""mocograd and PyTorch side by side on a GPU, for tools/gpu-check.sh bench: tables in Markdown.

  gpu_peers.py [--moco build/moco] [--device cuda] [--seconds 400] [--precisions 'bf16 tf32 fp32']

The ladder's rungs against cuBLAS and cuDNN; then in each precision that moco has: matrix products against
cuBLAS, convolutions pass by pass and batch norm against cuDNN, every other pass against PyTorch's, all against
the GPU's measured limits, and the whole step against PyTorch's in both memory formats, eager and compiled. With
--device cuda-emulated PyTorch takes the CPU, on tiny problems: to see that it works. What there was no time for
is named.

Needs PyTorch 2 with CUDA.
"""

import argparse
import gc
import json
import subprocess
import sys
import time

import torch

from peers.gpu_passes import contenders
from peers.gpu_timing import milliseconds
from peers.tables import table
from peers.torch_step import LAYOUTS, TorchStep

# arch, batch, queue
STEPS = (("resnet18", 512, 4096), ("resnet18", 64, 4096), ("resnet20", 512, 4096))
TINY_STEPS = (("resnet20", 16, 64),)
TINY = ("--width", 1, "--image-size", 8)  # of the emulator's step
SPLITS = 8


# How PyTorch's step can be compiled: torch.compile's mode, what is said of it, the least seconds to try it.
# max-autotune has CUDA graphs, too, and measures its kernels first.
MODES = ((False, "", 10), ("default", ", compiled", 60), ("reduce-overhead", ", compiled, CUDA graphs", 60),
         ("max-autotune", ", compiled, max-autotune", 240))


class Refused(Exception):
    """moco has no such kernel; its own line says so."""


class Failed(Exception):
    """moco ended with an error."""


class Peers:
    def __init__(self, options):
        self.options = options
        self.tiny = options.device != "cuda"
        self.device = "cpu" if self.tiny else "cuda"
        self.deadline = time.monotonic() + options.seconds
        self.rounds = 1 if self.tiny else 10
        self.code = 0
        if self.tiny:  # which threads only wait for each other over
            torch.set_num_threads(1)
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
            raise Failed(f"exit code {process.returncode}: {' '.join(command)}: {process.stderr.strip()}")
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
            self.code = max(self.code, isinstance(error, Failed))
            return None
        finally:
            gc.collect()
            if self.device == "cuda":
                torch.cuda.empty_cache()

    def timed(self, work):
        return milliseconds(work, self.rounds, self.device)

    def set_precision(self, precision):
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"  # with bf16 mocograd's stay in fp32
        torch.backends.cudnn.allow_tf32 = precision != "fp32"

    # ---- tables ----------------------------------------------------------------------------------

    def ladder(self):
        """Each rung in per cent of cuBLAS, as moco calls it, and of PyTorch's cuBLAS or cuDNN."""
        rows, peers = [], {}
        document = self.moco("--ladder")
        for r in document["results"]:
            key = r["pass"], r["precision"]
            if key not in peers:
                peers[key] = self.product(r) if r["pass"].endswith("^3") else self.convolution(
                    r["precision"], int(r["N"]), int(r["size"]), 64, 64, 3, 1, passes=("forward",))
            median, layout = min((passes["forward"], layout) for layout, passes in peers[key].items())
            of_cublas = f"{r['per_cent_of_cublas']:.1f} %" if "per_cent_of_cublas" in r else ""
            rows.append([r["what"], r["pass"], f"{r['median_ms']:.4f}", of_limit(r), of_cublas, f"{median:.4f}",
                         layout, f"{100 * median / r['median_ms']:.1f} %"])
        return (f"mocograd with {document['kernels']}; measured limits, GFLOP/s and GB/s: " +
                ", ".join(f"{name} {value:.0f}" for name, value in document["limits"].items()) +
                ".\n\n**The ladder** (docs/KERNELS.md), milliseconds at the median; PyTorch's product is cuBLAS's, its "
                "convolution cuDNN's in its better memory format, each in the rung's precision:\n\n" +
                table(["rung", "problem", "mocograd", "of the limit", "of moco's cuBLAS", "PyTorch", "in",
                       "of PyTorch's"], rows))

    def product(self, r):
        n, dtype = int(r["N"]), torch.bfloat16 if r["precision"] == "bf16" else torch.float32
        self.set_precision(r["precision"])
        a, b, c = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(3))
        return {"": {"forward": self.timed(lambda: torch.mm(a, b, out=c))[0]}}

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
        return (f"**Matrix products**, milliseconds at the median; moco by its own kernel and with "
                f"{by['library']['kernels']}:\n\n" +
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

    def convolution(self, precision, N, size, C, OC, kernel, stride, passes=("forward", "data", "weight")):
        """{layout: {pass: milliseconds}}"""
        self.set_precision(precision)
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
            works = {"forward": forward, "data": lambda: backward(True, False),
                     "weight": lambda: backward(False, True)}
            result[name] = {what: self.timed(works[what])[0] for what in passes}
        return result

    def passes(self, precision):
        """Our batch norm is in 8 groups; cuDNN's in one, which moves the same numbers."""
        return ("**Batch norm, pooling and other passes over activations**, milliseconds at the median; batch norm, "
                "addition and ReLU are one kernel in mocograd and more in PyTorch:\n\n" +
                self.beside_pytorch(precision, "pointwise"))

    def rest(self, precision):
        """What is in float32 in every precision is measured in the first."""
        parts = ["loss"]
        if precision == self.options.precisions.split()[0]:
            parts = ["rows", "loss", "optimizer", "augmentation"]
        return ("**The rest**, in float32, milliseconds at the median; PyTorch eager, its optimizer in the better "
                "way:\n\n" + self.beside_pytorch(precision, *parts))

    def beside_pytorch(self, precision, *parts):
        dtype, rows = torch.bfloat16 if precision == "bf16" else torch.float32, []
        for r in self.moco("--part", ",".join(parts), "--precision", precision)["results"]:
            times = [(self.timed(work)[0], name) for name, work in contenders(r, dtype, self.device).items()]
            best = min(times, default=None)
            rows.append([r["part"], r["what"], r["pass"], f"{r['median_ms']:.4f}", of_limit(r), *(
                [f"{best[0]:.4f}", best[1], f"{best[0] / r['median_ms']:.2f} ×"] if best else ["–", "", ""])])
        return table(["part", "what", "", "mocograd", "of the limit", "PyTorch", "by", "ratio"], rows)

    # ---- steps -----------------------------------------------------------------------------------

    def steps(self, precision, settings):
        for arch, batch, queue in settings:
            for splits in (SPLITS, 1):
                self.step(precision, arch, batch, queue, splits, others=False)

    def step(self, precision, arch, batch, queue, splits, others):
        """Prints the table of one step, with the usual contenders or with all others."""
        what = f"{arch}, batch {batch}, {splits} BN groups, {precision}"
        if not self.enough(10, what):
            return
        result = self.moco("--arch", arch, "--batch", batch, "--queue", queue, "--bn-splits", splits,
                           "--precision", precision, *(TINY if self.tiny else ()))["results"][0]
        rates = {"mocograd": batch / result["median_ms"] * 1e3}
        for name, seconds, variant in step_contenders(splits, others):
            if self.tiny and variant["compiled"]:
                print(f"\nLeft out, on the CPU: {what}: {name}.")
            elif self.enough(seconds, f"{what}: {name}"):
                rate = self.tried(f"{what}: {name}", lambda: self.step_rate(
                    arch, batch, queue, splits, bf16=precision == "bf16", device=self.device, **variant))
                if rate is not None:
                    rates[name] = rate
        peers = [rate for name, rate in rates.items() if name != "mocograd"]
        ratio = f"{rates['mocograd'] / max(peers):.2f} ×" if peers else ""
        norm = f"split batch norm, {splits} groups" if splits > 1 else "plain batch norm"
        rows = [[name, f"{rate:.1f}"] for name, rate in rates.items()]
        print(f"\n**{arch}, batch {batch}, queue {queue}, {norm}**{', other ways' if others else ''}, images per "
              f"second at the median step (mocograd: {of_limit(result) or 'limit not measured'}):\n\n" +
              table(["", "images/s"], rows + [["mocograd / best peer", ratio]]), flush=True)

    def step_rate(self, arch, batch, *settings, **variant):
        """PyTorch's, images per second."""
        try:
            step = TorchStep(arch, batch, *settings, **variant)
            step.seconds(1)
            times = sorted(step.seconds(2 if self.tiny else 20))
            return batch / times[len(times) // 2]
        finally:
            if variant["compiled"]:
                torch.compiler.reset()  # its CUDA graphs' memory, too

    # ---- all of it -------------------------------------------------------------------------------

    def shown(self, what, seconds, work):
        """The table that work() makes, where there is time for it."""
        if self.enough(seconds, what):
            text = self.tried(what, work)
            if text is not None:
                print("\n" + text, flush=True)

    def run(self):
        where = torch.cuda.get_device_name() if self.device == "cuda" else "the CPU"
        print(f"PyTorch {torch.__version__} on {where}, cuDNN {torch.backends.cudnn.version()}.")
        self.unless_refused(lambda: self.shown("the ladder", 30, self.ladder))
        precisions, steps = self.options.precisions.split(), TINY_STEPS if self.tiny else STEPS
        for precision in precisions:
            self.in_precision(precision, lambda: self.tables(precision, steps[:1]))
        self.in_precision(precisions[0], lambda: [
            self.step(precisions[0], *steps[0], splits, others=True) for splits in (SPLITS, 1)])
        if steps[1:]:
            for precision in precisions:
                self.in_precision(precision, lambda: self.steps(precision, steps[1:]))
        return self.code

    def in_precision(self, precision, work):
        self.set_precision(precision)
        print(f"\n### {precision}")
        self.unless_refused(work)

    def unless_refused(self, work):
        try:
            work()
        except Refused as refused:
            print(f"\nNot in this build: {refused}", flush=True)

    def tables(self, precision, steps):
        self.steps(precision, steps)
        for name in ("gemm", "layers", "passes", "rest"):
            if name != "gemm" or precision != "bf16":  # mocograd's stays in fp32
                self.shown(f"{precision}: {name}", 20, lambda: getattr(self, name)(precision))


def step_contenders(splits, others):
    """(name, the least seconds to try it, arguments of TorchStep): the usual ones, or all others."""
    for layout in LAYOUTS:
        # Folding the groups into the channels is a view in NCHW, and copies in the other.
        norm = "folded" if layout == "NCHW" else "chunks"
        best = (norm == "folded") == (splits > 1)  # with plain norms channels last is the faster
        for mode, how, seconds in MODES:
            if (not mode or (best and mode != "max-autotune")) != others:
                if mode and splits > 1 and norm == "chunks":
                    seconds = 180  # eight norms for each one
                yield f"PyTorch {layout}{how}", seconds, dict(layout=layout, compiled=mode, norm=norm)


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
    return Peers(options).run()


if __name__ == "__main__":
    sys.exit(main())
