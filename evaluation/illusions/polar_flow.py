"""How far do rings turn between two images? Per-ring polar cross-correlation, in degrees, without 8-bit steps.

Around the image's centre every ring is read along circles; the turn is the angle φ at which two readings agree best,

    φ = argmax Σ_r r Σ_k Re(A_rk* B_rk e^{ikφ}),   A, B: Fourier series over the angle, k ≥ 1

found to a fraction of a sample by Newton's method on the Fourier series. The mean of every circle is left out, so that
neither brightness nor contrast nor a symmetric blur is a turn. Optical flow in windows averages rings together and can
get the sign of counter-rotating rings wrong.

Shapes: ``B`` pairs of images ``(B, C, H, W)``, ``R`` rings, ``K`` harmonics. Radii are shares of half the image's
height and width, so that a disc stretched to fill a frame is read along ellipses. Counter-clockwise is positive.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CIRCLES = 8  # per ring
BLUR = 0.5  # pixels along the circle: the finest details are the pixel raster's, which does not turn
MARGIN = 0.12  # share of a ring's width left out at either edge, where neighbouring rings mix
LEAST_CONTRAST = 1e-6  # variance of a ring below which a turn means nothing


def spectra(images: Tensor, rings: Sequence[tuple[float, float]]) -> Tensor:
    """Return the Fourier series over the angle of every circle, ``(B, R, C × CIRCLES, K)``, mean left out.

    Args:
        images: Images.
        rings: Inner and outer radius of every ring.
    """
    height, width = images.shape[-2:]
    num = 2 ** math.ceil(math.log2(4 * max(height, width)))
    angle = torch.arange(num, dtype=torch.float64) * 2 * math.pi / num
    share = MARGIN + (1 - 2 * MARGIN) * (torch.arange(CIRCLES, dtype=torch.float64) + 0.5) / CIRCLES
    radius = torch.cat([low + (high - low) * share for low, high in rings])[:, None]
    grid = torch.stack([radius * angle.cos(), -radius * angle.sin()], -1)
    # Bilinear: cubic convolution reads the slope of small shifts up to half too steep.
    read = F.grid_sample(
        images.double(), grid.expand(len(images), -1, -1, -1), mode="bilinear", padding_mode="border",
        align_corners=False,
    )  # fmt: skip
    series = torch.fft.rfft(read, norm="forward")[..., 1 : min(height, width) * 2]
    frequency = torch.arange(1, series.shape[-1] + 1) / (radius * min(height, width) / 2)  # radians per pixel
    series = series * radius.sqrt() * torch.exp(-0.5 * (BLUR * frequency).square())
    return series.unflatten(2, (len(rings), CIRCLES)).transpose(1, 2).flatten(2, 3)


def turn(before: Tensor, after: Tensor, limit: float) -> Tensor:
    """Return by how many degrees every ring turned, ``(B, R)``; nan where a ring has no contrast.

    Args:
        before: ``spectra`` of the first images.
        after: Of the second ones.
        limit: Largest turn that is looked for; half a period for patterns that repeat.
    """
    cross = (before.conj() * after).sum(2)
    power = _power(before), _power(after)
    harmonic = torch.arange(1, cross.shape[-1] + 1, dtype=torch.float64)
    tried, agreement = _tried(cross, limit)
    angle = tried[agreement.argmax(-1)]
    step = tried[1] - tried[0]
    for _ in range(8):
        turned = cross * torch.polar(torch.ones(1, dtype=torch.float64), harmonic * angle[..., None])
        slope = -(turned.imag * harmonic).sum(-1)
        curvature = -(turned.real * harmonic.square()).sum(-1)
        newton = torch.where(curvature < 0, -slope / curvature, slope.sign() * step / 4)
        angle = angle + newton.clamp(-step / 2, step / 2)
    flat = torch.minimum(*power) < LEAST_CONTRAST
    return torch.where(flat, torch.nan, angle.rad2deg())


def likeness(before: Tensor, after: Tensor, limit: float) -> Tensor:
    """Return the correlation of every ring with itself at the best turn, ``(B, R)``; arguments as of ``turn``."""
    power = _power(before) * _power(after)
    _, agreement = _tried((before.conj() * after).sum(2), limit)
    return agreement.amax(-1) / power.sqrt().clamp(min=LEAST_CONTRAST)


def _tried(cross: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Return turns at quarters of a degree, in radians, and the agreement at each, ``(B, R, turns)``."""
    harmonic = torch.arange(1, cross.shape[-1] + 1, dtype=torch.float64)
    tried = torch.linspace(-limit, limit, 2 * math.ceil(4 * limit) + 1, dtype=torch.float64).deg2rad()
    return tried, (cross @ torch.polar(torch.ones(1, dtype=torch.float64), harmonic[:, None] * tried)).real


def contrast(series: Tensor) -> Tensor:
    """Return the standard deviation along the circles of every ring, ``(B, R)``."""
    return (2 / series.shape[2] * _power(series)).sqrt()


def _power(series: Tensor) -> Tensor:
    """Return the sum of squares of every ring, ``(B, R)``."""
    return torch.view_as_real(series).square().sum((2, 3, 4))


def rotation(before: Tensor, after: Tensor, rings: Sequence[tuple[float, float]], limit: float = 10.0) -> Tensor:
    """Return by how many degrees every ring turned between images, ``(B, R)``."""
    return turn(spectra(before, rings), spectra(after, rings), limit)
