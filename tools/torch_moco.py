"""MoCo in PyTorch: the network and the training steps that ours are compared with.

Names, shapes and layouts are torchvision's (NCHW activations, OIHW weights). For the other scripts of
this folder; needs Python 3.9 and PyTorch 2.
"""

import argparse
import functools

import torch
import torch.nn.functional as F
from torch import nn

# ---- the network, with torchvision's names -------------------------------------------------------


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of S contiguous chunks of the batch, each on its own; S = 1 is plain batch norm.

    Group g is rows [g*N/S, (g+1)*N/S). The running buffers become the mean of the groups' updated
    buffers; num_batches_tracked rises by 1 per forward.
    """

    def __init__(self, channels, splits):
        super().__init__(channels)
        self.splits = splits

    def forward(self, x):
        if not self.training or self.splits == 1:
            return super().forward(x)
        outputs, means, variances = [], [], []
        for group in x.chunk(self.splits):
            mean, var = self.running_mean.clone(), self.running_var.clone()
            outputs.append(F.batch_norm(group, mean, var, self.weight, self.bias, True,
                                        self.momentum, self.eps))
            means.append(mean)
            variances.append(var)
        self.running_mean.copy_(torch.stack(means).mean(0))
        self.running_var.copy_(torch.stack(variances).mean(0))
        self.num_batches_tracked += 1
        return torch.cat(outputs)


def conv(in_channels, channels, kernel, stride=1):
    return nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)


def shortcut(in_channels, channels, stride, norm):
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    return nn.Sequential(conv(in_channels, channels, 1, stride), norm(channels))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_channels, planes, stride, norm):
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, planes, 3, stride), norm(planes)
        self.conv2, self.bn2 = conv(planes, planes, 3), norm(planes)
        self.downsample = shortcut(in_channels, planes, stride, norm)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, in_channels, planes, stride, norm):
        super().__init__()
        self.conv1, self.bn1 = conv(in_channels, planes, 1), norm(planes)
        self.conv2, self.bn2 = conv(planes, planes, 3, stride), norm(planes)
        self.conv3, self.bn3 = conv(planes, 4 * planes, 1), norm(4 * planes)
        self.downsample = shortcut(in_channels, 4 * planes, stride, norm)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


# arch: block, blocks per stage, planes of stage 1
ARCHS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 64),
    "resnet20": (BasicBlock, (3, 3, 3), 16),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 64),
}


class ResNet(nn.Module):
    """Stem, stages, global average, head. norm(channels) makes a batch norm."""

    def __init__(self, arch, stem="cifar", width=None, dim=128, head="linear", norm=nn.BatchNorm2d):
        super().__init__()
        block, blocks, default_width = ARCHS[arch]
        width = width or default_width
        self.conv1 = conv(3, width, 7, 2) if stem == "imagenet" else conv(3, width, 3)
        self.bn1 = norm(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        channels, self.stages = width, []
        for stage, count in enumerate(blocks):
            layers = []
            for i in range(count):
                planes, stride = width << stage, 2 if stage > 0 and i == 0 else 1
                layers.append(block(channels, planes, stride, norm))
                channels = planes * block.expansion
            self.stages.append(f"layer{stage + 1}")
            setattr(self, self.stages[-1], nn.Sequential(*layers))
        self.fc = nn.Linear(channels, dim)
        if head == "mlp":
            self.fc = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), self.fc)

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.fc(x.mean((2, 3)))


# ---- MoCo training steps -------------------------------------------------------------------------


def parse_flags(words):
    """The flags of `moco step` that change its results; None of them has a default here."""
    parser = argparse.ArgumentParser(prog="moco step", allow_abbrev=False)
    parser.add_argument("--arch", choices=ARCHS, required=True)
    parser.add_argument("--stem", choices=("cifar", "imagenet"), required=True)
    parser.add_argument("--head", choices=("linear", "mlp"), required=True)
    for name in ("width", "dim", "queue", "bn-splits"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("momentum", "temperature", "lr", "weight-decay", "sgd-momentum"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--symmetric", action="store_true")
    return parser.parse_args(words)


def make_encoder(flags, dtype=torch.float64):
    norm = functools.partial(SplitBatchNorm2d, splits=flags.bn_splits)
    return ResNet(flags.arch, flags.stem, flags.width, flags.dim, flags.head, norm).to(dtype)


def unobserved(name, tensor):
    """observe(name, tensor) sees the operations outside of the encoders; this one looks away."""
    return tensor


def contrast(encoder_q, encoder_k, queue, im_q, im_k, order, temperature, observe=unobserved):
    """One direction: loss, logits [N, 1+K], q [N, dim], k [N, dim].

    Row i of the key encoder's batch is row order[i] of im_k; None: as it is."""
    with torch.no_grad():
        seen = im_k if order is None else observe("gather_rows", im_k[order])
        k = observe("l2_normalize", F.normalize(encoder_k(seen), eps=1e-12))
        if order is not None:
            k = observe("gather_rows", k[order.argsort()])
    q = observe("l2_normalize", F.normalize(encoder_q(im_q), eps=1e-12))
    l_pos = observe("row_dot", (q * k).sum(1, keepdim=True))
    l_neg = observe("matmul_transposed", q @ queue)
    logits = observe("scale", observe("concat_columns", torch.cat([l_pos, l_neg], 1)) / temperature)
    loss = F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))
    return observe("cross_entropy", loss), logits, q, k


def moco_steps(flags, init, views, observe=unobserved, watch=lambda step, encoders: None,
               dtype=torch.float64, memory_format=torch.contiguous_format):
    """What `moco step` dumps: loss, logits, q, k, gradients of each step; the final state.

    watch(step, encoders) is called before each step."""
    encoders = {name: make_encoder(flags, dtype).to(memory_format=memory_format)
                for name in ("encoder_q", "encoder_k")}
    for name, encoder in encoders.items():
        encoder.load_state_dict({key[len(name) + 1:]: value for key, value in init.items()
                                 if key.startswith(name + ".")})
    encoder_q, encoder_k = encoders.values()
    queue, ptr = init["queue"].to(dtype).clone(), int(init["queue_ptr"])
    sgd = torch.optim.SGD(encoder_q.parameters(), flags.lr, flags.sgd_momentum,
                          weight_decay=flags.weight_decay)
    dump = {}
    for step in range(sum(name.startswith("im_q.") for name in views)):
        watch(step, encoders)
        with torch.no_grad():  # theta_k <- m theta_k + (1 - m) theta_q
            for theta_k, theta_q in zip(encoder_k.parameters(), encoder_q.parameters()):
                theta_k.copy_(flags.momentum * theta_k + (1 - flags.momentum) * theta_q)
        im_q, im_k = (views[f"{name}.{step}"].to(dtype, memory_format=memory_format)
                      for name in ("im_q", "im_k"))
        directions = [(im_q, im_k, f"shuffle.{step}")]
        if flags.symmetric:
            directions.append((im_k, im_q, f"shuffle_sym.{step}"))
        results = [contrast(encoder_q, encoder_k, queue.clone(), to_query, to_key,
                            views.get(order), flags.temperature, observe)
                   for to_query, to_key, order in directions]
        loss = results[0][0]
        if flags.symmetric:
            loss = observe("add", loss + results[1][0])
        keys = torch.cat([result[3] for result in results])
        _, logits, q, k = results[0]
        sgd.zero_grad()
        loss.backward()
        dump.update({f"step.{step}.loss": loss.reshape(1), f"step.{step}.logits": logits,
                     f"step.{step}.q": q, f"step.{step}.k": k})
        dump.update({f"step.{step}.grad.{name}": parameter.grad.clone()
                     for name, parameter in encoder_q.named_parameters()})
        sgd.step()
        queue[:, (ptr + torch.arange(len(keys))) % flags.queue] = keys.T
        ptr = (ptr + len(keys)) % flags.queue
    dump.update(state_of(encoders, queue, ptr))
    return {name: tensor.detach().contiguous() for name, tensor in dump.items()}


def state_of(encoders, queue, ptr):
    state = {f"{name}.{key}": value for name, encoder in encoders.items()
             for key, value in encoder.state_dict().items()}
    return {**state, "queue": queue, "queue_ptr": torch.tensor([ptr])}
