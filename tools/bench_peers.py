#!/usr/bin/env python3
"""mocograd and its peers side by side on this machine: the tables of docs/PERFORMANCE.md
and docs/KERNELS.md.

  bench_peers.py [--moco build/moco] [--threads N] [--rounds 10] [--steps 3] [--quick]
                 [--part NAME]... [--arch resnet20]... [--compile] [--write docs]

Parts
  steps    the whole MoCo step (queries forward and backward, keys forward, InfoNCE, SGD, moving
           average, enqueue) in float32 and bf16: PyTorch in NCHW and channels last, with --compile
           also compiled; with split and with plain batch norm
  large    the same with large batches, float32 and split batch norm alone
  avx2     the same as steps with AVX2 forced on both sides, float32 and plain batch norm alone
  layers   each convolution, each pass alone: PyTorch's oneDNN in its better memory format
  ladder   moco bench --ladder with each instruction set: the table of docs/KERNELS.md
  gemm     matrix products: OpenBLAS and BLIS where they are installed, and PyTorch's MKL
  epoch    a whole epoch with augmentation: torchvision in a DataLoader on the same cores
  memory   peak memory of the ResNet-18 step at batch 256
  start    from the start of the process to the end of its first training step

Before anything is timed, each contender's step is compared with torch_moco.py's in float64, from
the same weights, views and queue. Contenders take turns, another one begins each round; the median
and the minimum over the rounds are printed. Everything runs on the same --threads processors.

Needs PyTorch 2, torchvision, numpy and safetensors, and an optimised build of moco.
"""

import argparse
import json
import math
import os
import pathlib
import sys
import tempfile
import time

import numpy as np

from peers import tables
from peers.processes import AVX2, Moco, Worker

# arch: batch, queue
NETS = {"resnet18": (64, 4096), "resnet20": (128, 1024)}
LARGE = {"resnet18": (256, 4096), "resnet20": (512, 4096)}
SPLITS = 8
PARTS = ("steps", "large", "avx2", "layers", "ladder", "gemm", "epoch", "memory", "start")
LAYOUTS = ("NCHW", "channels last")
# Our own contenders, by their flags.
OURS = {"mocograd": [], "mocograd, direct convolution": ["--conv", "direct"],
        "mocograd, bf16": ["--precision", "bf16"]}
# Of float32 against float64, and of bf16: largest deviation of the logits, gradients in relative L2.
TOLERANCE = {False: (1e-3, 0.1), True: (0.05, 0.8)}


def progress(text):
    print(text, file=sys.stderr, flush=True)


def in_turns(rounds, contenders, what):
    """{name: [its result in each round]}; contenders: {name: function}."""
    results = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        for i in range(len(names)):
            name = names[(turn + i) % len(names)]
            results[name].append(contenders[name]())
        progress(f"{what}: round {turn + 1} of {rounds}")
    return results


class Bench:
    def __init__(self, options):
        self.options = options
        self.moco = Moco(options.moco, options.threads)
        self.torch = Worker("torch_worker", options.threads)
        self.blas = Worker("blas_worker", options.threads)
        self.scratch = tempfile.TemporaryDirectory()
        self.torch_versions = self.torch.ask("versions")
        self.blas_versions = self.blas.ask("versions")
        for name, version in self.blas_versions.items():
            if version is None:
                print(f"{name} is not installed: it is left out")
        document = self.moco.bench("--part", "loss", "--steps", 1)
        self.provenance = tables.provenance(options, document["limits"], document["kernels"],
                                            self.torch_versions, self.blas_versions)

    def emit(self, name, text, document="PERFORMANCE.md"):
        print(f"\n{text}\n", flush=True)
        if self.options.write:
            path = pathlib.Path(self.options.write) / document
            tables.replace(path, name, f"{self.provenance}\n\n{text}")

    # ---- the step ----------------------------------------------------------------------------------

    def variants(self, splits, bf16=True):
        """{name: arguments of TorchStep}"""
        result = {}
        for layout in LAYOUTS:
            norms = ["chunks"] + (["folded"] if splits > 1 and layout == "NCHW" else [])
            for norm in norms:
                name = f"PyTorch {layout}" + (f", BN {norm}" if splits > 1 else "")
                variant = {"layout": layout, "norm": norm}
                result[name] = variant
                if bf16:
                    result[name + ", bf16 autocast"] = {**variant, "bf16": True}
                if self.options.compile:
                    result[name + ", compiled"] = {**variant, "compiled": True}
        return result

    def compare_outputs(self, arch, splits):
        """Ends the program where a contender computes something else."""
        folder = self.scratch.name
        words = self.torch.ask("parity_make", arch=arch, splits=splits, folder=folder)
        files = [f"--{name}={folder}/{name}.safetensors" for name in ("init", "views", "dump")]
        found = {}
        for name, flags in OURS.items():
            self.moco.run("step", *files, "--dtype", "f32", *flags, *words)
            found[name] = (self.torch.ask("parity_moco", folder=folder), "bf16" in flags)
        for name, variant in self.variants(splits).items():
            found[name] = (self.torch.ask("parity_torch", folder=folder, arch=arch, splits=splits,
                                          **variant), variant.get("bf16", False))
        for name, (deviation, bf16) in found.items():
            line = (f"{arch}, {splits} BN groups, {name}: logits within {deviation['logits']:.1e}, "
                    f"gradients within {deviation['gradients']:.1e} of float64")
            progress(line)
            logits, gradients = TOLERANCE[bf16]
            if not (deviation["logits"] <= logits and deviation["gradients"] <= gradients):
                sys.exit(f"error: not the same step: {line}")

    def step_table(self, arch, size, splits, moco, worker, bf16, what):
        batch, queue = size
        steps = self.options.steps
        contenders = {
            name: (lambda variant: lambda: worker.ask("seconds", steps=steps, arch=arch, batch=batch,
                                                      queue=queue, splits=splits, **variant)
                   )(variant) for name, variant in self.variants(splits, bf16).items()}

        def ours(flags):
            def measure():
                result = moco.bench("--arch", arch, "--batch", batch, "--queue", queue,
                                    "--bn-splits", splits, "--steps", steps, *flags)["results"][0]
                return [result["median_ms"] / 1e3, result["best_ms"] / 1e3]
            return measure

        for name, flags in OURS.items():
            if bf16 or "bf16" not in flags:
                contenders[name] = ours(flags)
        results = in_turns(self.options.rounds, contenders, f"{what}, {arch}, {splits} BN groups")
        worker.ask("forget")
        rates = {name: (batch / tables.median([tables.median(block) for block in blocks]),
                        batch / min(min(block) for block in blocks))
                 for name, blocks in results.items()}
        rows = [[name, f"{median:.1f}", f"{best:.1f}"] for name, (median, best) in rates.items()]

        def ratio(name, others, text):
            best = [max(column) for column in zip(*(rates[other] for other in others))]
            rows.append([text, *(f"{a / b:.2f} ×" for a, b in zip(rates[name], best))])

        peers = [name for name in rates if name not in OURS]
        ratio("mocograd", [name for name in peers if "bf16" not in name], "mocograd / best peer")
        if bf16:
            ratio("mocograd, bf16", [name for name in peers if "bf16" in name],
                  "mocograd, bf16 / best peer in bf16")
            ratio("mocograd, bf16", ["mocograd, direct convolution"],
                  "mocograd, bf16 / direct convolution")
        norm = f"split batch norm, {splits} groups" if splits > 1 else "plain batch norm"
        return (f"**{arch}, batch {batch}, queue {queue}, {norm}**, images per second\n\n" +
                tables.table(["", "median step", "shortest step"], rows))

    def steps(self):
        texts = []
        for arch in self.options.arch:
            for splits in (SPLITS, 1):
                self.compare_outputs(arch, splits)
                texts.append(self.step_table(arch, NETS[arch], splits, self.moco, self.torch, True,
                                             "steps"))
        self.emit("steps", "\n\n".join(texts))

    def large(self):
        texts = []
        for arch in self.options.arch:
            self.compare_outputs(arch, SPLITS)
            texts.append(self.step_table(arch, LARGE[arch], SPLITS, self.moco, self.torch, False,
                                         "large"))
        self.emit("large", "\n\n".join(texts))

    def avx2(self):
        moco = Moco(self.options.moco, self.options.threads, AVX2)
        worker = Worker("torch_worker", self.options.threads, AVX2)
        texts = []
        for arch in self.options.arch:
            self.compare_outputs(arch, 1)
            texts.append(self.step_table(arch, NETS[arch], 1, moco, worker, False, "AVX2"))
        worker.close()
        self.emit("avx2", "\n\n".join(texts))

    # ---- kernels -----------------------------------------------------------------------------------

    def layers(self):
        """Whole passes over all layers take turns."""
        rounds, steps = self.options.rounds, self.options.steps
        ours, theirs = {}, {}
        for turn in range(rounds):
            results = self.moco.bench("--part", "layers", "--steps", steps)["results"]
            for r in results:
                key = (r["what"], r["pass"])
                ours.setdefault(key, []).append((r["median_ms"], r["best_ms"], r))
            for what in dict.fromkeys(r["what"] for r in results):
                r = next(r for r in results if r["what"] == what)
                answer = self.torch.ask("layer", rounds=steps, **{
                    name: int(r[name]) for name in ("N", "size", "C", "OC", "kernel", "stride")})
                for layout, passes in answer.items():
                    for name, timing in passes.items():
                        theirs.setdefault((what, name), {}).setdefault(layout, []).append(timing)
            progress(f"layers: round {turn + 1} of {rounds}")
        rows, ratios = [], []
        for key, timings in ours.items():
            median, best = tables.median([t[0] for t in timings]), min(t[1] for t in timings)
            layout, peer = min(theirs[key].items(), key=lambda item: tables.median(
                [t[0] for t in item[1]]))
            peer_median, peer_best = tables.median([t[0] for t in peer]), min(t[1] for t in peer)
            result = timings[0][2]
            ratios.append(peer_median / median)
            algorithm = "Winograd" if result.get("winograd") else "direct"
            rows.append([f"{key[0]}, {key[1]}", algorithm, f"{median:.2f} ({best:.2f})",
                         f"{tables.median([t[2]['per_cent_of_limit'] for t in timings]):.0f} %",
                         f"{peer_median:.2f} ({peer_best:.2f})", layout, f"{ratios[-1]:.2f} ×"])
        mean = math.prod(ratios) ** (1 / len(ratios))
        self.emit("layers", f"Geometric mean of the ratios: {mean:.2f} ×. Milliseconds, median (least):\n\n" + tables.table(
            ["layer, pass", "ours by", "mocograd", "of the limit", "oneDNN", "in", "ratio"], rows))

    def ladder(self):
        """With the best instruction set, and with AVX2."""
        rows = []
        for environment in ({}, AVX2):
            moco = Moco(self.options.moco, self.options.threads, environment)
            document = moco.bench("--ladder", "--steps", self.options.steps)
            rows += [[r["what"], f"{r['pass']}, {document['kernels']}", f"{r['median_ms']:.2f}", f"{r['gflops']:.1f}",
                      f"{r['per_cent_of_limit']:.1f} %"] for r in document["results"]]
        self.emit("ladder", tables.table(["rung", "problem", "ms", "GFLOP/s", "of the limit"], rows),
                  "KERNELS.md")

    def gemm(self):
        peers = {name: (lambda name: lambda shape: self.blas.ask("product", name=name, rounds=5,
                                                                 **shape))(name)
                 for name, version in self.blas_versions.items() if version}
        peers["PyTorch (MKL)"] = lambda shape: self.torch.ask("product", rounds=5, **shape)
        results, ours = {}, {}
        for turn in range(self.options.rounds):
            for r in self.moco.bench("--part", "gemm", "--steps", 5)["results"]:
                ours.setdefault(r["what"], []).append(r)
            for what, measured in ours.items():
                shape = {name: int(measured[0][name]) for name in ("M", "N", "K")}
                for name, multiply in peers.items():
                    results.setdefault((what, name), []).append(multiply(shape))
            progress(f"gemm: round {turn + 1} of {self.options.rounds}")
        rows = []
        for what, measured in ours.items():
            gflop = measured[0]["gflop"]
            rate = lambda timings: f"{1e3 * gflop / tables.median(timings):.0f}"
            rows.append([f"{what}: {measured[0]['M']:.0f} × {measured[0]['N']:.0f} × "
                         f"{measured[0]['K']:.0f}", rate([r["median_ms"] for r in measured])] +
                        [rate([t[0] for t in results[what, name]]) for name in peers])
        self.emit("gemm", "GFLOP/s at the median time, M × N × K:\n\n" + tables.table(
            ["product", "mocograd", *peers], rows))

    # ---- runs --------------------------------------------------------------------------------------

    def images(self, count):
        """A folder with so many random images in CIFAR-10's binary format."""
        folder = pathlib.Path(self.scratch.name) / f"images-{count}"
        if not folder.exists():
            folder.mkdir()
            generator = np.random.default_rng(0)
            for name, records in (("data_batch_1.bin", count), ("test_batch.bin", 10)):
                data = generator.integers(0, 256, (records, 3073), np.uint8)
                data[:, 0] = np.arange(records) % 10
                data.tofile(folder / name)
        return folder

    def pretrain(self, folder, arch, *words):
        """moco pretrain into a new folder: the process, and its metrics."""
        batch, queue = NETS[arch]
        out = tempfile.mkdtemp(dir=self.scratch.name)
        process = self.moco.start(
            "pretrain", "--data", f"cifar10:{folder}", "--out", f"{out}/run", "--arch", arch,
            "--batch", batch, "--queue", queue, "--bn-splits", SPLITS, "--augment", "demo",
            "--knn-every", 0, "--save-every", 0, *words)
        return process, pathlib.Path(out) / "run" / "metrics.jsonl"

    def epoch(self):
        self.emit("epoch", "\n\n".join(self.epoch_table(arch) for arch in self.options.arch))

    def epoch_table(self, arch):
        batch, queue = NETS[arch]
        count = batch * (4 if self.options.quick else 10)
        folder = self.images(count)

        def ours():
            process, metrics = self.pretrain(folder, arch, "--epochs", 2)
            _, errors = process.communicate()
            if process.returncode != 0:
                sys.exit(f"error: moco pretrain: {errors}")
            events = [json.loads(line) for line in metrics.read_text().splitlines()]
            return next(e["seconds"] for e in events if e["event"] == "epoch" and e["epoch"] == 2)

        def theirs(layout, workers):
            return lambda: self.torch.ask("epoch", folder=str(folder), arch=arch, batch=batch,
                                          queue=queue, splits=SPLITS, layout=layout,
                                          workers=workers)[0]

        contenders = {f"PyTorch {layout}, {workers} workers": theirs(layout, workers)
                      for layout in LAYOUTS for workers in (0, self.options.threads)}
        for contender in contenders.values():
            contender()  # starts the workers, warms up
        contenders["mocograd"] = ours
        results = in_turns(self.options.rounds, contenders, f"epoch, {arch}")
        self.torch.ask("forget")
        rows = [[name, f"{count / tables.median(seconds):.0f}", f"{count / min(seconds):.0f}"]
                for name, seconds in results.items()]
        return (f"**{arch}, batch {batch}, split batch norm, two augmented views**, images per second, "
                f"epochs of {count} images\n\n" +
                tables.table(["", "median epoch", "shortest epoch"], rows))

    def memory(self):
        batch, queue = 32 if self.options.quick else 256, 4096
        step = {"arch": "resnet18", "batch": batch, "queue": queue, "splits": SPLITS}
        rows = []
        for name, flags in OURS.items():
            _, ours = self.moco.run("bench", "--arch", "resnet18", "--batch", batch, "--queue", queue,
                                    "--bn-splits", SPLITS, "--steps", 1, *flags)
            rows.append([name, f"{ours:.0f}"])
        for name, variant in self.variants(SPLITS).items():
            worker = Worker("torch_worker", self.options.threads)
            worker.ask("seconds", steps=1, **step, **variant)
            rows.append([name, f"{worker.close():.0f}"])
            progress(f"memory: {name}")
        self.emit("memory", "Largest resident set of a process that makes two ResNet-18 steps of "
                  f"batch {batch}, MiB:\n\n" + tables.table(["", "MiB"], rows))

    def start(self):
        arch = "resnet20"
        batch, queue = NETS[arch]
        folder = self.images(4 * batch)

        def ours():
            begin = time.perf_counter()
            process, metrics = self.pretrain(folder, arch, "--max-steps", 1)
            while process.poll() is None and not (metrics.exists() and '"step"' in metrics.read_text()):
                time.sleep(0.001)
            seconds = time.perf_counter() - begin
            process.communicate()
            return seconds

        def theirs():
            worker = Worker("torch_worker", self.options.threads)
            worker.ask("first_step", arch=arch, batch=batch, queue=queue, splits=SPLITS,
                       layout="channels last")
            seconds = time.perf_counter() - worker.started
            worker.close()
            return seconds

        results = in_turns(self.options.rounds, {"mocograd": ours, "PyTorch": theirs}, "start")
        rows = [[name, f"{tables.median(seconds):.2f}", f"{min(seconds):.2f}"]
                for name, seconds in results.items()]
        self.emit("start", "Seconds; mocograd reads and augments its images, PyTorch takes random "
                  "numbers:\n\n" + tables.table(["", "median", "least"], rows))


def main():
    cpus = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moco", default="build/moco")
    parser.add_argument("--threads", type=int, default=len(cpus))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=3, help="steps of a block")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 step of an eighth of the batch, nothing written: does it work?")
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--arch", choices=NETS, action="append", help="default: both")
    parser.add_argument("--compile", action="store_true", help="PyTorch compiled, too")
    parser.add_argument("--write", help="the folder of the documents whose tables are replaced")
    options = parser.parse_args()
    if not os.access(options.moco, os.X_OK):
        parser.error(f"{options.moco} is not there: run make, or say --moco")
    if options.quick:
        options.rounds, options.steps, options.write = 2, 1, None
        for sizes in (NETS, LARGE):
            sizes.update({arch: (batch // 8, queue) for arch, (batch, queue) in sizes.items()})
    options.arch = options.arch or list(NETS)

    os.sched_setaffinity(0, cpus[:options.threads])  # inherited by all processes
    bench = Bench(options)
    print(bench.provenance)
    for part in options.part or PARTS:
        getattr(bench, part)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
