"""The views of the authors' CIFAR notebook (moco's --augment demo), for a whole batch on the GPU.

RandomResizedCrop(32), horizontal flip, ColorJitter(0.4, 0.4, 0.4, 0.1) with probability 0.8, grayscale
with 0.2, normalisation: torchvision's definitions, but that nothing is rounded to bytes in between, and that
the random order of the jitter's four parts is drawn for a batch.
"""

import torch
import torch.nn.functional as F

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
GRAY = (0.2989, 0.587, 0.114)


def uniform(n, low, high, device):
    return torch.empty(n, device=device).uniform_(low, high)


def boxes(n, size, device):
    """Width, height, left and top of crops, in pixels: the first of ten draws that fits, or all of it."""
    area = uniform(10 * n, 0.08, 1, device).view(10, n) * size * size
    ratio = uniform(10 * n, -0.28768, 0.28768, device).view(10, n).exp()  # log 3/4 to log 4/3
    width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (width <= size) & (height <= size)
    first = fits.int().argmax(0, keepdim=True)
    none = ~fits.any(0)
    width, height = (side.gather(0, first)[0].masked_fill(none, size) for side in (width, height))
    left, top = ((uniform(n, 0, 1, device) * (size + 1 - side)).floor() for side in (width, height))
    return width, height, left, top


def sampled(begin, length, size):
    """Where a side of the crop, [N], is read for each pixel of the view: [N, size], -1 to 1 over the image."""
    centre = torch.arange(size, device=begin.device) + 0.5
    pixel = centre * (length / size)[:, None] - 0.5
    inside = torch.minimum(pixel.clamp_min(0), length[:, None] - 1)
    return (begin[:, None] + inside + 0.5) * (2 / size) - 1


def crop_and_flip(images):
    """In [0, 1]; images: u8 [N, 3, S, S]."""
    n, size, device = len(images), images.shape[-1], images.device
    width, height, left, top = boxes(n, size, device)
    x, y = sampled(left, width, size), sampled(top, height, size)
    x = torch.where((uniform(n, 0, 1, device) < 0.5)[:, None], x.flip(1), x)
    grid = torch.stack([x[:, None, :].expand(n, size, size), y[:, :, None].expand(n, size, size)], 3)
    return F.grid_sample(images.float() / 255, grid, padding_mode="border", align_corners=False)


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


def factor(images):
    return uniform(len(images), 0.6, 1.4, images.device).view(-1, 1, 1, 1)


def brightness(images):
    return (images * factor(images)).clamp(0, 1)


def contrast(images):
    return torch.lerp(gray_of(images).mean((1, 2, 3), keepdim=True), images, factor(images)).clamp(0, 1)


def saturation(images):
    return torch.lerp(gray_of(images), images, factor(images)).clamp(0, 1)


def hue(images):
    return turn_hue(images, uniform(len(images), -0.1, 0.1, images.device))


def normalized(images):
    mean, std = (torch.tensor(x, device=images.device).view(1, 3, 1, 1) for x in (MEAN, STD))
    return (images - mean) / std


def finished(images, jittered):
    """Jittered with probability 0.8, gray with 0.2, normalised."""
    drawn = lambda p: uniform(len(images), 0, 1, images.device).view(-1, 1, 1, 1) < p
    x = torch.where(drawn(0.8), jittered, images)
    return normalized(torch.where(drawn(0.2), gray_of(x), x))


def views(compiled):
    """A function that makes one view of each image; images: u8 [N, 3, S, S]."""
    made = (lambda f: torch.compile(f, dynamic=False)) if compiled else lambda f: f
    crop, finish = made(crop_and_flip), made(finished)
    jitter = [made(part) for part in (brightness, contrast, saturation, hue)]

    def view(images):
        x = y = crop(images)
        for part in torch.randperm(len(jitter)).tolist():
            y = jitter[part](y)
        return finish(x, y)

    return view
