"""The views of the authors' CIFAR notebook (moco's --augment demo), for a whole batch on the GPU.

RandomResizedCrop(32), horizontal flip, ColorJitter(0.4, 0.4, 0.4, 0.1) with probability 0.8, grayscale
with 0.2, normalisation: torchvision's definitions, but that crops begin between pixels, too, and the
jitter's four parts follow each other in one order.
"""

import torch
import torch.nn.functional as F

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
GRAY = (0.2989, 0.587, 0.114)


def uniform(n, low, high, device):
    return torch.empty(n, device=device).uniform_(low, high)


def boxes(n, device):
    """Half-sizes and centres in [-1, 1] of crops: the first of ten draws that fits, or all of it."""
    area = uniform(10 * n, 0.08, 1, device).view(10, n)
    ratio = uniform(10 * n, -0.28768, 0.28768, device).view(10, n).exp()  # log 3/4 to log 4/3
    width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
    fits = (width <= 1) & (height <= 1)
    first = fits.int().argmax(0, keepdim=True)
    none = ~fits.any(0)
    width, height = (side.gather(0, first)[0].masked_fill(none, 1) for side in (width, height))
    x, y = ((1 - side) * uniform(n, -1, 1, device) for side in (width, height))
    return width, height, x, y


def crop_and_flip(images):
    """images: [N, 3, S, S]"""
    n, device = len(images), images.device
    width, height, x, y = boxes(n, device)
    width = width * (uniform(n, 0, 1, device) < 0.5).float().mul(2).sub(1)  # mirrored
    zero = torch.zeros_like(x)
    theta = torch.stack([torch.stack([width, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def gray_of(images):
    weights = torch.tensor(GRAY, device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def turn_hue(images, turns):
    """HSV's hue plus `turns`, a number in [-1, 1] of turns for each image; images in [0, 1]."""
    r, g, b = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    safe = chroma.clamp_min(1e-8)
    sixths = torch.where(value == r, (g - b) / safe % 6,
                         torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4))
    sixths = sixths + 6 * turns.view(-1, 1, 1)
    channels = []
    for n in (5, 3, 1):
        k = (n + sixths) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, 1)


def jitter(images):
    """images in [0, 1]"""
    n, device = len(images), images.device
    factor = lambda: uniform(n, 0.6, 1.4, device).view(-1, 1, 1, 1)
    y = (images * factor()).clamp(0, 1)
    mean = gray_of(y).mean((1, 2, 3), keepdim=True)
    y = torch.lerp(mean, y, factor()).clamp(0, 1)
    y = torch.lerp(gray_of(y), y, factor()).clamp(0, 1)
    y = turn_hue(y, uniform(n, -0.1, 0.1, device))
    return torch.where(uniform(n, 0, 1, device).view(-1, 1, 1, 1) < 0.8, y, images)


def normalized(images):
    mean, std = (torch.tensor(x, device=images.device).view(1, 3, 1, 1) for x in (MEAN, STD))
    return (images - mean) / std


def view(images):
    """One view of each image; images: u8 [N, 3, S, S]."""
    x = jitter(crop_and_flip(images.float() / 255))
    grayed = uniform(len(x), 0, 1, x.device).view(-1, 1, 1, 1) < 0.2
    return normalized(torch.where(grayed, gray_of(x), x))
