"""Processes that compute: moco, and the workers in which PyTorch and the BLAS libraries live.

A worker is a process of its own, so that an instruction set can be forced on it by its environment,
and its memory and its start can be measured. It reads a JSON request a line and answers likewise.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

TOOLS = pathlib.Path(__file__).resolve().parent.parent
# What keeps each side from instructions beyond AVX2.
AVX2 = {"MOCO_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


class Worker:
    """python3 -m peers.MODULE; close() gives its peak memory in MB."""

    def __init__(self, module, threads, environment=None):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = {**os.environ, "PYTHONPATH": str(TOOLS),
                       **dict.fromkeys(names, str(threads)), **(environment or {})}
        self.started = time.perf_counter()
        self.process = subprocess.Popen([sys.executable, "-m", f"peers.{module}"], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env=environment)

    def ask(self, do, **arguments):
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            sys.exit(f"error: the worker ended within {do} {arguments}")

    def close(self):
        self.process.stdin.close()
        _, _, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = 0
        return usage.ru_maxrss / 1024


def serve(functions):
    """The worker's side: answers requests by the functions of their names until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    for line in sys.stdin:
        request = json.loads(line)
        answer = functions[request.pop("do")](**request)
        print(json.dumps(answer), file=answers, flush=True)


def median_and_best(rounds, work):
    """Milliseconds of work(), after one to warm up: at least so many rounds, and for 50 ms."""
    work()
    times = []
    while len(times) < rounds or sum(times) < 0.05:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3, min(times) * 1e3


class Moco:
    """build/moco with a number of threads, and an environment."""

    def __init__(self, program, threads, environment=None):
        self.program = program
        self.threads = ["--threads", str(threads), "--device", "cpu"]
        self.environment = {**os.environ, **(environment or {})}

    def start(self, *words):
        return subprocess.Popen([self.program, *map(str, words), *self.threads], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=self.environment)

    def run(self, *words):
        """Its standard output, and its peak memory in MB."""
        process = self.start(*words)
        output = process.stdout.read()
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"error: exit code {process.returncode}: moco {' '.join(map(str, words))}\n{errors}")
        return output, usage.ru_maxrss / 1024

    def bench(self, *words):
        """The document of moco bench."""
        return json.loads(self.run("bench", "--json", *words)[0])
