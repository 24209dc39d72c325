#!/usr/bin/env python3
"""The authors' CIFAR-10 recipe in PyTorch on a GPU, for tools/gpu-check.sh train: one line at the end.

  gpu_pretrain.py --data DIR [--epochs 200] [--precision tf32] [--seconds 200] [--device cuda]

DIR holds CIFAR-10's binary files; all of it and the augmentation live on the GPU (peers/gpu_views.py).
ResNet-18, batch 512, 8 groups of batch norm folded into the channels, as the authors write them, compiled
on a GPU; SGD with cosine over the epochs, shuffled keys; kNN as moco eval knn does it. Ends after so many
seconds, whatever epoch it is in.
"""

import argparse
import math
import pathlib
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

from peers.gpu_views import normalized, view
from peers.torch_step import LR, TorchStep

NEIGHBOURS, KNN_TEMPERATURE = 200, 0.1


def load(folder, pattern, device):
    """Images u8 [N, 3, 32, 32] and labels."""
    records = torch.from_numpy(np.concatenate(
        [np.fromfile(path, np.uint8).reshape(-1, 3073)
         for path in sorted(pathlib.Path(folder).glob(pattern))])).to(device)
    return records[:, 1:].reshape(-1, 3, 32, 32).contiguous(), records[:, 0].long()


@torch.no_grad()
def features(encoder, images):
    """Of unit length: the encoder's output."""
    encoder.eval()
    parts = [F.normalize(encoder(normalized(part.float() / 255)).float()) for part in images.split(512)]
    encoder.train()
    return torch.cat(parts)


def knn(encoder, train, test):
    """Weighted k-nearest-neighbour accuracy in per cent."""
    memory, labels = features(encoder, train[0]), train[1]
    right, k = 0, min(NEIGHBOURS, len(labels))
    for part, wanted in zip(features(encoder, test[0]).split(512), test[1].split(512)):
        similarity, index = (part @ memory.T).topk(k)
        votes = torch.zeros(len(part), 10, device=part.device)
        votes.scatter_add_(1, labels[index], (similarity / KNN_TEMPERATURE).exp())
        right += (votes.argmax(1) == wanted).sum().item()
    return 100 * right / len(test[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="tf32")
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--device", choices=("cuda", "cuda-emulated"), default="cuda")
    options = parser.parse_args()
    tiny = options.device != "cuda"
    if not tiny and not torch.cuda.is_available():
        print("PyTorch: not available here: it finds no GPU.")
        return 0
    device, arch, batch = ("cpu", "resnet20", 32) if tiny else ("cuda", "resnet18", 512)
    torch.backends.cuda.matmul.allow_tf32 = options.precision != "fp32"
    torch.backends.cudnn.allow_tf32 = options.precision != "fp32"
    torch.backends.cudnn.benchmark = True
    train, test = (load(options.data, pattern, device) for pattern in ("data_batch_*.bin", "test_batch.bin"))
    torch.manual_seed(0)
    step = TorchStep(arch, batch, 4096, 8, "NCHW", "folded", options.precision == "bf16",
                     compiled=not tiny, device=device)
    start, steps, loss, limit = time.monotonic(), 0, torch.zeros(()), 3 if tiny else 1 << 60
    begin = start
    over = lambda: time.monotonic() - start > options.seconds or steps >= limit
    for epoch in range(1, options.epochs + 1):
        step.sgd.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * epoch / options.epochs))
        for index in torch.randperm(len(train[0]), device=device).split(batch):
            if len(index) < batch or over():
                break
            images = train[0][index]
            step.set_views(view(images), view(images))
            loss, _ = step.step(torch.randperm(batch, device=device))
            steps += 1
            if steps == 1:
                loss.item()
                begin = time.monotonic()  # what is compiled is compiled
        if over():
            break
    loss = loss.item()  # waits for the GPU
    rate = (steps - 1) * batch / (time.monotonic() - begin)
    stopped = over()
    accuracy = knn(step.encoder_q, [x[:2000] for x in train] if tiny else train,
                   [x[:100] for x in test] if tiny else test)
    print(f"PyTorch {torch.__version__}{'' if tiny else ', compiled'}, augmenting on the device: epoch "
          f"{steps * batch / len(train[0]):.1f}, loss {loss:.3f}, {rate:.1f} images/s on average; "
          f"kNN top-1 {accuracy:.2f} %" + ("; stopped by the clock" if stopped else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
