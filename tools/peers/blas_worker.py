"""The worker in which OpenBLAS and BLIS live (ctypes), if they are installed: see processes.py."""

import ctypes
import os
import pathlib

import numpy as np

from peers.processes import median_and_best, serve

# Debian: libopenblas0-pthread, libblis4-pthread
LIBRARIES = {"OpenBLAS": "libopenblas.so.0", "BLIS": "libblis.so.4"}
# OpenBLAS 0.3.21 takes processors with AVX-512 that it does not know for one with SSE3.
if " avx512f " in pathlib.Path("/proc/cpuinfo").read_text():
    os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")
ROW_MAJOR, NO_TRANSPOSE = 101, 111


def load(name):
    try:
        return ctypes.CDLL(LIBRARIES[name])
    except OSError:
        return None


def versions():
    """{name: version, or null where it is not installed}"""
    result = {}
    for name in LIBRARIES:
        library = load(name)
        if library is None:
            result[name] = None
            continue
        function = library.openblas_get_config if name == "OpenBLAS" else library.bli_info_get_version_str
        function.restype = ctypes.c_char_p
        result[name] = function().decode()
    return result


def product(name, rounds, M, N, K):
    """[median, best] in milliseconds; the result is compared with numpy's in float64 first."""
    library = load(name)
    generator = np.random.default_rng(0)
    a = generator.standard_normal((M, K), np.float32)
    b = generator.standard_normal((K, N), np.float32)
    c = np.empty((M, N), np.float32)
    one, zero = ctypes.c_float(1), ctypes.c_float(0)
    place = lambda x: x.ctypes.data_as(ctypes.c_void_p)
    multiply = lambda: library.cblas_sgemm(ROW_MAJOR, NO_TRANSPOSE, NO_TRANSPOSE, M, N, K, one,
                                           place(a), K, place(b), N, zero, place(c), N)
    multiply()
    exact = a.astype(np.float64) @ b.astype(np.float64)
    error = np.abs(c - exact).max() / np.abs(exact).max()
    assert error < 1e-4, f"{name}: error {error}"
    return median_and_best(rounds, multiply)


serve({"versions": versions, "product": product})
