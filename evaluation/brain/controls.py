"""What needs no network: RDMs of pixels, luminance, Gabor energy, silhouettes and categories.

A score means something only above these. They are shown next to every score, and partialled out of it.
"""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.brain.data import BrainData
from evaluation.brain.rdm import Array, category_rdm, difference_rdm, rdm
from training.data.base import LUMINANCE

SIDE = 64  # pixels at which the controls see the images
LOW_LEVEL = ("pixels", "gabor", "silhouette")  # held constant together
ORIENTATIONS = 8
WAVELENGTHS = (4.0, 8.0, 16.0)  # pixels of a SIDE × SIDE image
UNIFORM = 0.02  # standard deviation of the border below which the background is uniform
DIFFERENT = 0.02  # distance from the background, in linear luminance of any channel, of what is an object


@functools.lru_cache(maxsize=4)
def control_rdms(data: BrainData) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the RDMs of every control, ``{name: (P,)}``, and why some do not exist, ``{name: reason}``."""
    images = resized(data.stimuli)
    grey = luminance(images)
    found = {
        "pixels": rdm(images.flatten(1).numpy()),
        "luminance": difference_rdm(grey.mean((1, 2)).numpy()),
        "gabor": rdm(gabor_energy(grey).flatten(1).numpy()),
    }
    missing = {}
    masks = silhouettes(images)
    if masks is None:
        missing["silhouette"] = "the images have no uniform background"
    else:
        found["silhouette"] = rdm(masks.flatten(1).double().numpy())
    for name, labels in data.labels.items():
        found[f"label_{name}"] = category_rdm(labels)
    if not data.labels:
        missing["label"] = "the image set has no categories"
    for name in list(found):
        if not np.isfinite(found[name]).all() or found[name].std() == 0:
            missing[name] = "it does not tell these images apart"
            del found[name]
    return found, missing


def control_features(data: BrainData) -> dict[str, Array]:
    """Return what an encoding model gets in place of a stage: features ``(N, U)`` of every control that exists."""
    images = resized(data.stimuli)
    grey = luminance(images)
    found = {
        "pixels": images.flatten(1).numpy(),
        "luminance": grey.mean((1, 2))[:, None].numpy(),
        "gabor": gabor_energy(grey).flatten(1).numpy(),
    }
    masks = silhouettes(images)
    if masks is not None:
        found["silhouette"] = masks.flatten(1).double().numpy()
    for name, labels in data.labels.items():
        found[f"label_{name}"] = (labels[:, None] == np.unique(labels)).astype(np.float64)
    return {n: x for n, x in found.items() if np.ptp(x, 0).any()}


def resized(stimuli: Tensor, side: int = SIDE) -> Tensor:
    """Return stimuli at the side at which controls see them, in float64."""
    x = stimuli.double()
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True, align_corners=False)


def luminance(images: Tensor) -> Tensor:
    """Return the luminance of images ``(N, 1 or 3, H, W)`` as ``(N, H, W)``."""
    if images.shape[1] == 1:
        return images[:, 0]
    return (images * images.new_tensor(LUMINANCE)[:, None, None]).sum(1)


def silhouettes(images: Tensor) -> Tensor | None:
    """Return where each image differs from its background, ``(N, H, W)`` of 0 and 1; ``None`` without a uniform one.

    The background is the median of the image's border, which must be uniform in nine images of ten.
    """
    border = torch.cat([images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]], 2)
    background = border.median(2).values
    off = (border - background[:, :, None]).abs().amax(1)
    if float((off.median(1).values < UNIFORM).double().mean()) < 0.9:
        return None
    return ((images - background[:, :, None, None]).abs().amax(1) > DIFFERENT).to(images.dtype)


def gabor_bank(wavelength: float, orientations: int = ORIENTATIONS) -> tuple[Tensor, Tensor]:
    """Return even and odd Gabor filters ``(orientations, size, size)`` of one wavelength, without a mean.

    The envelope's standard deviation is 0.5 wavelengths: about 1.5 octaves, as simple cells of V1.
    """
    reach = math.ceil(1.5 * wavelength)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = torch.arange(orientations, dtype=torch.float64)[:, None, None] * math.pi / orientations
    along = x * angle.cos() + y * angle.sin()
    envelope = torch.exp(-(x**2 + y**2) / (2 * (0.5 * wavelength) ** 2))
    phase = 2 * math.pi * along / wavelength
    even = envelope * phase.cos()
    even = even - envelope * (even.sum((1, 2)) / envelope.sum())[:, None, None]
    odd = envelope * phase.sin()
    norm = even.square().sum((1, 2), keepdim=True).sqrt()
    return even / norm, odd / odd.square().sum((1, 2), keepdim=True).sqrt()


def gabor_energy(grey: Tensor, grid: int = 16, wavelengths: tuple[float, ...] = WAVELENGTHS) -> Tensor:
    """Return complex-cell responses ``(N, wavelengths · orientations, grid, grid)`` to luminance ``(N, H, W)``.

    The root of the summed squares of an even and an odd filter, averaged over the cells of a grid; the image
    is continued by its border.
    """
    maps = [F.adaptive_avg_pool2d(_energy(grey, wavelength), grid) for wavelength in wavelengths]
    return torch.cat(maps, 1)


def _energy(grey: Tensor, wavelength: float) -> Tensor:
    """Return ``(N, orientations, H, W)``. A complex Gabor is separable, so that a filter is two matrix products."""
    reach = math.ceil(1.5 * wavelength)
    axis = torch.arange(-reach, reach + 1, dtype=torch.float64)
    envelope = torch.exp(-(axis**2) / (2 * (0.5 * wavelength) ** 2))
    blur = torch.complex(envelope, torch.zeros_like(envelope))
    smooth = _along(grey, blur, blur).real
    share = torch.outer(envelope, envelope)
    energies = []
    for k in range(ORIENTATIONS):
        angle = k * math.pi / ORIENTATIONS
        wave = [2 * math.pi * axis * f(angle) / wavelength for f in (math.cos, math.sin)]
        filters = [torch.complex(envelope * w.cos(), envelope * w.sin()) for w in wave]
        response = _along(grey, *filters)
        raw = torch.outer(filters[1], filters[0])
        mean = raw.real.sum() / share.sum()
        norms = (raw.real - mean * share).norm(), raw.imag.norm()
        energies.append(((response.real - mean * smooth) / norms[0]).square() + (response.imag / norms[1]).square())
    return torch.stack(energies, 1).sqrt()


def _along(grey: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Correlate images with a complex filter along each axis, continued by their border."""
    image = torch.complex(grey, torch.zeros_like(grey))
    return _band(down, grey.shape[1]) @ image @ _band(across, grey.shape[2]).T


def _band(filter_: Tensor, size: int) -> Tensor:
    """Return the matrix ``(size, size)`` that correlates a line of pixels with a filter."""
    reach = len(filter_) // 2
    matrix = torch.zeros(size, size, dtype=filter_.dtype)
    for k, weight in enumerate(filter_):
        column = (torch.arange(size) + k - reach).clamp(0, size - 1)
        matrix.index_put_((torch.arange(size), column), weight, accumulate=True)
    return matrix
