"""From an image to input spikes: on/off contrast as latencies, as Poisson rates, or as a constant current.

Shapes: ``T`` time steps, ``B`` batch. Input spikes are ``(T, B, *in_shape)``.

The synapses of the first stage are those of every other rule: one weight per input channel and pixel. An ON
and an OFF cell share it with opposite sign (push–pull): a spike of the ON cell is +1, one of the OFF cell −1. With
w = s (2p − 1) this is an ON synapse of efficacy p next to an OFF synapse of efficacy 1 − p.
"""

import zlib
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Encoding = Literal["latency", "poisson", "constant"]
SILENT = 0.1  # contrast, relative to the strongest of the image, below which an ON or OFF cell stays silent
FAINT = 0.05  # contrast, in standard deviations of the training images, below which an image is not amplified
CENTRE, SURROUND, RADIUS = 1.0, 2.0, 3  # pixels; the filter of Kheradpisheh et al. 2018


def contrast(x: Tensor) -> Tensor:
    """Return the signed local contrast of images, scaled by the strongest of each image; vectors are only scaled.

    Each channel (grey, or R, G, B) is filtered by itself with a difference of Gaussians, so that a uniform field
    is silent. Positive values drive ON cells, negative ones OFF cells.

    Args:
        x: ``(B, C, H, W)`` or ``(B, N)``.
    """
    if x.dim() == 4:
        channels = x.shape[1]
        kernel = difference_of_gaussians(x).expand(channels, 1, -1, -1)
        x = F.conv2d(F.pad(x, (RADIUS,) * 4, mode="replicate"), kernel, groups=channels)
    peak = x.flatten(1).abs().amax(1).clamp(min=FAINT)
    x = x / peak.view(-1, *(1,) * (x.dim() - 1))
    return torch.where(x.abs() < SILENT, torch.zeros_like(x), x)


def difference_of_gaussians(like: Tensor) -> Tensor:
    """Return the 7×7 kernel, of zero sum, in the type of ``like``."""
    offset = torch.arange(-RADIUS, RADIUS + 1, dtype=like.dtype, device=like.device)
    square = offset[:, None] ** 2 + offset[None] ** 2
    centre, surround = (torch.exp(-square / (2 * sigma**2)) for sigma in (CENTRE, SURROUND))
    return centre / centre.sum() - surround / surround.sum()


def encode(x: Tensor, encoding: Encoding, steps: int, rate: float, seed: int, *, latched: bool) -> Tensor:
    """Return the signal of the input, ``(T, B, *in_shape)``.

    Args:
        x: Standardised images ``(B, *in_shape)``.
        encoding: ``latency``: at most one spike per cell, the stronger the contrast the earlier, equally many at
            every step; ``poisson``: independent spikes with probability ``rate · |contrast|`` per step;
            ``constant``: the contrast itself as a current.
        steps: T.
        rate: Largest probability of a Poisson spike per step.
        seed: Of the Poisson spikes; the spikes of an image depend on it and on the image alone.
        latched: Whether a latency spike stays switched on until the end, as first-spike neurons read it.
    """
    c = contrast(x)
    if encoding == "constant":
        return c.expand(steps, *c.shape)
    if encoding == "poisson":
        chance = (rate * c.abs()).clamp(max=1)
        uniform = torch.stack([_uniform(image, steps, seed) for image in x], 1)
        return torch.where(uniform < chance, c.sign(), torch.zeros_like(c))
    step = torch.arange(steps, device=x.device).view(-1, *(1,) * x.dim())
    latency = rank_latency(c, steps)
    return torch.where(latency <= step if latched else latency == step, c.sign(), torch.zeros_like(c))


def _uniform(image: Tensor, steps: int, seed: int) -> Tensor:
    """Return uniform numbers ``(T, *in_shape)`` that are the same for an image alone and in any batch."""
    own = zlib.crc32(image.detach().cpu().numpy().tobytes(), seed & 0xFFFFFFFF)
    generator = torch.Generator().manual_seed(own)
    return torch.rand(steps, *image.shape, generator=generator, dtype=image.dtype).to(image.device)


def rank_latency(c: Tensor, steps: int) -> Tensor:
    """Return the step at which each cell fires: the strongest contrasts first, equally many at every step."""
    strength = c.abs().flatten(1)
    num = (strength > 0).sum(1, keepdim=True).clamp(min=1)
    order = strength.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1], device=c.device).expand_as(order))
    latency = (rank * steps).div(num, rounding_mode="floor")
    return latency.masked_fill(strength == 0, steps).view_as(c)
