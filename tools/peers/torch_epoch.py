"""Epochs with augmentation: torchvision's transforms in a DataLoader, its workers on the same cores."""

import pathlib
import time

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from peers.torch_step import TorchStep

# The CIFAR notebook's, which is moco's --augment demo.
TRANSFORM = transforms.Compose([
    transforms.RandomResizedCrop(32),
    transforms.RandomHorizontalFlip(),
    transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
    transforms.RandomGrayscale(p=0.2),
    transforms.ToTensor(),
    transforms.Normalize([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])])


class TwoViews(torch.utils.data.Dataset):
    """The training images of CIFAR-10's binary format."""

    def __init__(self, folder):
        records = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, 3073) for path in
                                  sorted(pathlib.Path(folder).glob("data_batch_*.bin"))])
        self.images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = Image.fromarray(self.images[i])
        return TRANSFORM(image), TRANSFORM(image)


class TorchEpochs:
    def __init__(self, folder, arch, batch, queue, splits, layout, workers, **variant):
        self.step = TorchStep(arch, batch, queue, splits, layout, **variant)
        self.loader = torch.utils.data.DataLoader(
            TwoViews(folder), batch, shuffle=True, drop_last=True, num_workers=workers,
            persistent_workers=workers > 0)

    def run(self):
        """Seconds of one epoch, and its images."""
        start, images = time.perf_counter(), 0
        for im_q, im_k in self.loader:
            self.step.set_views(im_q, im_k)
            self.step.step()
            images += len(im_q)
        return time.perf_counter() - start, images
