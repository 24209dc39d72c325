"""What PyTorch does for each pass that moco bench times beside products, convolutions and whole steps.

contenders(r, dtype, device) gives, for a result r of moco bench, {name: work}: PyTorch's ways to the same, on
tensors of the same shape. Activations are of dtype and take turns in both memory formats; matrices and
parameters are float32, as ours are. Empty where PyTorch has no such pass by itself.
"""

import torch
import torch.nn.functional as F

from peers.gpu_views import views
from peers.torch_step import DIM, LAYOUTS, LR, MOMENTUM, SGD_MOMENTUM, TEMPERATURE, WEIGHT_DECAY
from torch_moco import ResNet

aten = torch.ops.aten


def gradients(forward, inputs):
    """The backward of y = forward() alone, for a gradient that is drawn here."""
    for x in inputs:
        x.requires_grad_()
    y = forward()
    dy = torch.randn_like(y)
    return lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)


# ---- activations ---------------------------------------------------------------------------------


def batch_norm(kind, backward, x, residual):
    C = x.shape[1]
    inputs = [x, *(torch.ones(C, device=x.device) for _ in range(2)), *([residual] if "+add" in kind else [])]

    def forward():
        y = F.batch_norm(x, None, None, *inputs[1:3], training=True)
        y = y + residual if "+add" in kind else y
        return F.relu(y) if "+relu" in kind else y

    return gradients(forward, inputs) if backward else forward


def max_pool(backward, x):
    window = [3, 3], [2, 2], [1, 1]
    y, index = aten.max_pool2d_with_indices(x, *window)
    dy = torch.randn_like(y)
    if backward:
        return lambda: aten.max_pool2d_with_indices_backward(dy, x, *window, [1, 1], False, index)
    return lambda: aten.max_pool2d_with_indices(x, *window)


def average_pool(backward, x):
    forward = lambda: x.mean((2, 3))
    return gradients(forward, [x]) if backward else forward


def over_activations(kind, backward, x, other):
    y = torch.empty_like(x)
    if kind == "add":
        return lambda: torch.add(x, other, out=y)
    if kind == "relu":
        return (lambda: aten.threshold_backward(other, x, 0)) if backward else lambda: torch.relu(x)
    if kind in ("max_pool", "avg_pool"):
        return {"max_pool": max_pool, "avg_pool": average_pool}[kind](backward, x)
    return batch_norm(kind, backward, x, other)


def in_both_layouts(r, dtype, device):
    shape = [int(r[name]) for name in ("N", "C", "size", "size")]
    return {name: over_activations(r["what"].split()[1], r["pass"] == "backward", *(
        torch.randn(shape, device=device).to(dtype, memory_format=layout) for _ in range(2)))
            for name, layout in LAYOUTS.items()}


# ---- matrices ------------------------------------------------------------------------------------


def over_rows(r, device):
    N, C = int(r["N"]), int(r["C"])
    kind, backward = r["what"].split()[1].strip(","), r["pass"] == "backward"
    x, y = (torch.randn(N, C, device=device) for _ in range(2))
    column, row = torch.randn(N, device=device), torch.randn(C, device=device)
    first, rest = torch.randn(N, 1, device=device), torch.randn(N, C - 1, device=device)
    zeros, half = torch.zeros(N, dtype=torch.long, device=device), x.to(torch.bfloat16)
    order = torch.arange(N - 1, -1, -1, device=device)

    def differentiable(forward):
        return gradients(forward, [x]) if backward else forward

    def split():
        first.copy_(y[:, :1])
        rest.copy_(y[:, 1:])

    return {"": {
        "add_bias": lambda: lambda: torch.add(x, row, out=y),
        "sum_rows": lambda: lambda: torch.sum(x, 0, out=row),
        "l2_normalize": lambda: differentiable(lambda: F.normalize(x)),
        "row_dot": lambda: lambda: torch.linalg.vecdot(x, y),
        "scale_rows": lambda: lambda: torch.mul(x, column[:, None], out=y),
        "concat_columns": lambda: lambda: torch.cat([first, rest], 1, out=y),
        "split_columns": lambda: split,
        "scale": lambda: lambda: torch.mul(x, 10.0, out=y),
        "multiply": lambda: lambda: torch.mul(x, x, out=y),
        "fill": lambda: lambda: y.fill_(1),
        "cross_entropy": lambda: differentiable(lambda: F.cross_entropy(x, zeros)),
        "rank_of_target": lambda: lambda: (x >= x.gather(1, zeros[:, None])).sum(1) - 1,
        "gather_rows": lambda: lambda: torch.index_select(x, 0, order, out=y),
        "convert": lambda: lambda: half.copy_(x),
        "top_k": lambda: lambda: torch.topk(x, int(r["what"].split()[-1])),
    }[kind]()}


def info_nce(r, device):
    N, D, K = (int(r[name]) for name in "NDK")
    x, k = torch.randn(N, D, device=device), F.normalize(torch.randn(N, D, device=device))
    queue = F.normalize(torch.randn(D, K, device=device), dim=0)
    zeros = torch.zeros(N, dtype=torch.long, device=device)

    def forward():
        q = F.normalize(x)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue], 1) / TEMPERATURE
        return F.cross_entropy(logits, zeros)

    if r["pass"] == "forward":
        return {"": forward}
    x.requires_grad_()
    return {"": lambda: torch.autograd.grad(forward(), x)}


# ---- parameters ----------------------------------------------------------------------------------


def over_parameters(r, device):
    """SGD by both of PyTorch's ways to take all parameters at once."""
    theta_q, theta_k = (list(ResNet(r["what"], dim=DIM).to(device).parameters()) for _ in range(2))
    theta_k = [theta.detach() for theta in theta_k]
    values = [theta.detach() for theta in theta_q]
    average = lambda: torch._foreach_lerp_(theta_k, values, 1 - MOMENTUM)
    for theta in theta_q:
        theta.grad = torch.full_like(theta, 1e-3)
    found = lambda: torch.stack(torch._foreach_norm([theta.grad for theta in theta_q], float("inf"))).isfinite()

    def descent(**how):
        sgd = torch.optim.SGD(theta_q, LR, SGD_MOMENTUM, weight_decay=WEIGHT_DECAY, **how)
        return lambda: (sgd.step(), average() if r["pass"] == "sgd + ema" else None)

    if r["pass"] == "ema":
        return {"foreach": average}
    if r["pass"] == "non-finite":
        return {"foreach": found}
    if r["pass"] == "running":  # part of its batch norm
        return {}
    return {"foreach": descent(foreach=True), "fused": descent(fused=True)}


def augmentation(r, device):
    if not r["what"].startswith("demo"):
        return {}
    images = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8, device=device)
    view = views(compiled=False)
    return {"": lambda: view(images)}


def contenders(r, dtype, device):
    if r["part"] == "pointwise":
        return in_both_layouts(r, dtype, device)
    return {"rows": over_rows, "loss": info_nce, "optimizer": over_parameters,
            "augmentation": augmentation}[r["part"]](r, device)
