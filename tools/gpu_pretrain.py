#!/usr/bin/env python3
"""The authors' CIFAR-10 recipe in PyTorch on a GPU, for tools/gpu-check.sh train.

  gpu_pretrain.py --data DIR [--epochs 200] [--precision tf32] [--knn-every 20] [--seconds 200] [--beside RATE]

Prints a line when it knows how many epochs it trains, and one at the end. DIR holds CIFAR-10's binary files; all
of it and the augmentation live on the GPU (peers/gpu_views.py). ResNet-18, batch 512, 8 groups of batch norm
folded into the channels, as the authors write them; network and views compiled on a GPU; SGD with cosine over the
epochs, shuffled keys; kNN as moco eval knn does it. Ends after so many seconds, whatever epoch it is in. --beside:
trains fewer epochs where it, and whoever trains as many after it at RATE images per second, would not end within
the seconds.
"""

import argparse
import math
import pathlib
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

from peers.gpu_views import normalized, views
from peers.torch_step import LR, TorchStep

NEIGHBOURS, KNN_TEMPERATURE = 200, 0.1
WARM_STEPS = 20


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


class Training:
    """tiny: a try on a machine without a GPU; three steps, few images."""

    def __init__(self, options, tiny):
        device, arch, self.batch = ("cpu", "resnet20", 32) if tiny else ("cuda", "resnet18", 512)
        self.options, self.tiny, self.start = options, tiny, time.monotonic()
        self.train, self.test = (load(options.data, pattern, device)
                                 for pattern in ("data_batch_*.bin", "test_batch.bin"))
        if tiny:
            self.train, self.test = [x[:2000] for x in self.train], [x[:100] for x in self.test]
        self.step = TorchStep(arch, self.batch, 4096, 8, "NCHW", "folded", options.precision == "bf16",
                              compiled=not tiny, device=device)
        self.view = views(compiled=not tiny)

    def seconds_left(self):
        return self.options.seconds - (time.monotonic() - self.start)

    def train_on(self, index):
        """One step on these images; its loss, which may not be computed yet."""
        images = self.train[0][index]
        self.step.set_views(self.view(images), self.view(images))
        return self.step.step(torch.randperm(self.batch, device=images.device))[0]

    def rate(self):
        """Images per second once it is compiled. Everything but the random state is then as it was."""
        encoders = {"encoder_q": self.step.encoder_q, "encoder_k": self.step.encoder_k}
        before = {f"{name}.{key}": value.clone() for name, encoder in encoders.items()
                  for key, value in encoder.state_dict().items()}
        before["queue"] = self.step.queue.clone()
        index, steps = torch.arange(self.batch, device=self.train[0].device), 1 if self.tiny else WARM_STEPS
        self.train_on(index).item()
        begin = time.monotonic()
        for _ in range(steps):
            loss = self.train_on(index)
        loss.item()  # waits for the GPU
        rate = steps * self.batch / (time.monotonic() - begin)
        self.step.load(before)
        self.step.ptr = 0
        self.step.sgd.state.clear()
        return rate

    def epochs_that_fit(self, rate):
        if not self.options.beside:
            return self.options.epochs
        begin = time.monotonic()
        self.knn()
        seconds = 2 * (time.monotonic() - begin) / self.options.knn_every  # of both, an epoch
        seconds += len(self.train[0]) * (1 / rate + 1 / self.options.beside)
        return min(self.options.epochs, max(1, int(0.95 * self.seconds_left() / seconds)))

    def knn(self):
        return knn(self.step.encoder_q, self.train, self.test)

    def run(self, epochs):
        """What it came to, in words."""
        steps, seconds, accuracies, stopped = 0, 0, [], False
        for epoch in range(1, epochs + 1):
            self.step.sgd.param_groups[0]["lr"] = LR * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
            begin = time.monotonic()
            for index in torch.randperm(len(self.train[0]), device=self.train[0].device).split(self.batch):
                stopped = self.seconds_left() < 0 or (self.tiny and steps == 3)
                if len(index) < self.batch or stopped:
                    break
                loss = self.train_on(index)
                steps += 1
            if steps == 0:
                return "no time for a step"
            last_loss = loss.item()  # waits for the GPU
            seconds += time.monotonic() - begin
            if stopped or epoch % self.options.knn_every == 0 or epoch == epochs:
                accuracies.append(f"{steps / (len(self.train[0]) // self.batch):.3g}: {self.knn():.2f}")
            if stopped:
                break
        return (f"loss {last_loss:.3f}, {steps * self.batch / seconds:.1f} images/s on average; kNN top-1 in % "
                f"by epoch: {', '.join(accuracies)}" + ("; stopped by the clock" if stopped else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="tf32")
    parser.add_argument("--knn-every", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--beside", type=float, default=0, metavar="RATE")
    parser.add_argument("--device", choices=("cuda", "cuda-emulated"), default="cuda")
    options = parser.parse_args()
    tiny = options.device != "cuda"
    if not tiny and not torch.cuda.is_available():
        print("PyTorch: not available here: it finds no GPU.")
        return 0
    torch.backends.cuda.matmul.allow_tf32 = options.precision != "fp32"
    torch.backends.cudnn.allow_tf32 = options.precision != "fp32"
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    training = Training(options, tiny)
    epochs = training.epochs_that_fit(training.rate())
    print(f"PyTorch trains {epochs} epochs", flush=True)
    print(f"PyTorch {torch.__version__}{'' if tiny else ', compiled'}, augmenting on the device: {training.run(epochs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
