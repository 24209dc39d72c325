"""The MoCo training step in PyTorch as it is timed, in float32 or under bf16 autocast."""

import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from torch_moco import ResNet, SplitBatchNorm2d

MOMENTUM, TEMPERATURE, LR, SGD_MOMENTUM, WEIGHT_DECAY, DIM = 0.99, 0.1, 0.06, 0.9, 5e-4, 128
LAYOUTS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}


class FoldedSplitBatchNorm2d(nn.BatchNorm2d):
    """Split batch norm as one batch norm of S*C channels: group g is rows n with n mod S = g.

    In NCHW the folding is a view and costs nothing; the groups differ from SplitBatchNorm2d's, the
    work does not.
    """

    def __init__(self, channels, splits):
        super().__init__(channels)
        self.splits = splits

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        n, c, h, w = x.shape
        s = self.splits
        mean, var = self.running_mean.repeat(s), self.running_var.repeat(s)
        y = F.batch_norm(x.reshape(n // s, s * c, h, w), mean, var, self.weight.repeat(s),
                         self.bias.repeat(s), True, self.momentum, self.eps)
        self.running_mean.copy_(mean.view(s, c).mean(0))
        self.running_var.copy_(var.view(s, c).mean(0))
        return y.view(n, c, h, w)


def norm_of(name, splits):
    if splits == 1:
        return nn.BatchNorm2d
    return partial({"chunks": SplitBatchNorm2d, "folded": FoldedSplitBatchNorm2d}[name],
                   splits=splits)


class TorchStep:
    """One contender. norm: chunks or folded, where there are splits; bf16: under autocast; compiled: False,
    True or torch.compile's mode."""

    def __init__(self, arch, batch, queue, splits, layout, norm="chunks", bf16=False,
                 compiled=False, device="cpu"):
        self.layout, self.bf16, self.device = LAYOUTS[layout], bf16, torch.device(device)
        make = lambda: ResNet(arch, dim=DIM, norm=norm_of(norm, splits)).to(
            self.device, memory_format=self.layout)
        self.encoder_q, self.encoder_k = make(), make()
        for module in self.encoder_q.modules():
            if isinstance(module, nn.Conv2d):  # as torchvision's networks begin, and ours
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.encoder_k.load_state_dict(self.encoder_q.state_dict())
        self.theta_q = list(self.encoder_q.parameters())
        self.theta_k = list(self.encoder_k.parameters())
        self.forward_q, self.forward_k = self.encoder_q, self.encoder_k
        if compiled:  # all contenders share ResNet.forward, which is compiled for each of them
            torch._dynamo.config.recompile_limit = 64
            mode = None if compiled is True else compiled
            self.forward_q, self.forward_k = (torch.compile(encoder, mode=mode) for encoder in
                                              (self.encoder_q, self.encoder_k))
        self.sgd = torch.optim.SGD(self.theta_q, LR, SGD_MOMENTUM, weight_decay=WEIGHT_DECAY,
                                   foreach=True)
        self.set_views(*(torch.randn(batch, 3, 32, 32) for _ in range(2)))
        self.queue = F.normalize(torch.randn(DIM, queue, device=self.device), dim=0)
        self.ptr = 0
        self.labels = torch.zeros(batch, dtype=torch.long, device=self.device)

    def set_views(self, im_q, im_k):
        self.im_q, self.im_k = (image.to(self.device, torch.float32, memory_format=self.layout)
                                for image in (im_q, im_k))

    def load(self, init):
        """Weights and queue of a checkpoint."""
        for name, encoder in (("encoder_q", self.encoder_q), ("encoder_k", self.encoder_k)):
            encoder.load_state_dict({key[len(name) + 1:]: value for key, value in init.items()
                                     if key.startswith(name + ".")})
        self.queue = init["queue"].to(self.device, torch.float32, copy=True)

    def step(self, order=None):
        """Loss and logits. Row i of the keys' batch is row order[i] of the views, where given."""
        torch.compiler.cudagraph_mark_step_begin()  # CUDA graphs may overwrite what the last step left
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            with torch.no_grad():
                torch._foreach_lerp_(self.theta_k, self.theta_q, 1 - MOMENTUM)
                seen = self.im_k if order is None else self.im_k[order]
                k = F.normalize(self.forward_k(seen).float())
                k = k if order is None else k[order.argsort()]
            q = F.normalize(self.forward_q(self.im_q).float())
            l_pos = (q * k).sum(1, keepdim=True)
            logits = torch.cat([l_pos, q @ self.queue], 1).float() / TEMPERATURE
            loss = F.cross_entropy(logits, self.labels)
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        self.queue[:, self.ptr:self.ptr + len(k)] = k.T
        self.ptr = (self.ptr + len(k)) % self.queue.shape[1]
        return loss.detach(), logits.detach()

    def seconds(self, steps):
        """Of each step, after one to warm up."""
        times = []
        for _ in range(steps + 1):
            start = time.perf_counter()
            self.step()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return times[1:]
