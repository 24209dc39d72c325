"""The networks' convolutions in PyTorch, that is oneDNN, each pass alone; and its matrix product."""

import torch

from peers.processes import median_and_best
from peers.torch_step import LAYOUTS


def layer(rounds, N, size, C, OC, kernel, stride):
    """{layout: {pass: [median, best]}} in milliseconds."""
    result = {}
    padding = kernel // 2
    for name, layout in LAYOUTS.items():
        x = torch.randn(N, C, size, size).contiguous(memory_format=layout)
        w = torch.randn(OC, C, kernel, kernel).contiguous(memory_format=layout)
        with torch.no_grad():
            forward = lambda: torch.conv2d(x, w, None, stride, padding)
            dy = torch.randn_like(forward())
            backward = lambda *wanted: torch.ops.aten.convolution_backward(
                dy, x, w, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1,
                [*wanted, False])
            result[name] = {"forward": median_and_best(rounds, forward),
                            "data": median_and_best(rounds, lambda: backward(True, False)),
                            "weight": median_and_best(rounds, lambda: backward(False, True))}
    return result


def product(rounds, M, N, K):
    a, b, c = torch.randn(M, K), torch.randn(K, N), torch.empty(M, N)
    return median_and_best(rounds, lambda: torch.mm(a, b, out=c))
