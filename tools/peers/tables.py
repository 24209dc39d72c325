"""Tables in Markdown, what they were measured on, and their places in a document."""

import datetime
import os
import pathlib
import platform
import re
import statistics
import sys

import numpy  # its version is recorded


def median(values):
    return statistics.median(values)


def table(header, rows):
    """The first column is text, the others numbers that are formatted already."""
    lines = ["| " + " | ".join(header) + " |",
             "| --- |" + " ---: |" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def processor():
    with open("/proc/cpuinfo") as info:
        return next((line.split(":")[1].strip() for line in info if line.startswith("model name")),
                    platform.machine())


def provenance(options, limits, kernels, torch_versions, blas_versions):
    """The lines under a table's heading: when, on what, against what, by which command."""
    blas = ", ".join(f"{name} ({version})" for name, version in blas_versions.items() if version)
    bf16 = f", bf16 dot products {limits['bf16_gflops']:.0f}" if limits["bf16_gflops"] else ""
    return (f"{datetime.date.today()}, {processor()}, {options.threads} of {os.cpu_count()} cores, "
            f"{platform.system()} {platform.release()}; mocograd with {kernels}; measured limits: "
            f"fp32 {limits['fp32_gflops']:.0f} GFLOP/s{bf16}, "
            f"memory {limits['memory_gb_per_s']:.1f} GB/s. PyTorch {torch_versions['PyTorch']} "
            f"({torch_versions['capability']}), {torch_versions['oneDNN']}, torchvision "
            f"{torch_versions['torchvision']}, numpy {numpy.__version__}, Python "
            f"{platform.python_version()}; {blas or 'no other BLAS library'}.\n\n"
            f"`python3 tools/bench_peers.py {' '.join(sys.argv[1:])}`: "
            f"{options.rounds} interleaved rounds.")


def replace(path, name, text):
    """Writes text between <!-- bench-peers NAME --> and <!-- end -->."""
    path = pathlib.Path(path)
    pattern = re.compile(rf"(<!-- bench-peers {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    document, count = pattern.subn(lambda match: match[1] + text + "\n" + match[2],
                                   path.read_text())
    if count != 1:
        sys.exit(f"error: {path} has {count} places for the table '{name}', not one")
    path.write_text(document)
