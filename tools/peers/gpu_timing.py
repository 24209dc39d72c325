"""How long work takes on a GPU, measured as moco bench does (src/cli/bench_report.cpp)."""

import statistics
import time

import torch

RUNS_IN_A_ROW = 0.002  # seconds, beside which a launch is nothing


def seconds_of(work, runs, device):
    start = time.perf_counter()
    for _ in range(runs):
        work()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / runs


def milliseconds(work, rounds, device):
    """Median and least of one run, over at least so many rounds and 50 ms."""
    for _ in range(3):  # cuDNN tries its algorithms in the first
        first = seconds_of(work, 1, device)
    runs = max(1, min(1000, int(RUNS_IN_A_ROW / first))) if device == "cuda" else 1
    times = []
    while len(times) < rounds or sum(times) * runs < 0.05:
        times.append(seconds_of(work, runs, device))
    return statistics.median(times) * 1e3, min(times) * 1e3
