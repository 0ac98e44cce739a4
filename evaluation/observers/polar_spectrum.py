"""Null observer: the layout detector. Logistic regression on where the ink is around its centre, blind to any contour.

    energy(p) = |x(p) − median x|        features: |Fourier coefficients 1 … 8 over angle| of the energy on rings around
                                         its centre of mass, relative to the ring's own mean

It names a Kanizsa figure from the number and places of its discs, and the controls just as well: the known trap of
accuracy on illusory figures.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.observers._linear import LinearReadout, fit
from training.data.base import Task

ANGLES = 64
HARMONICS = 8
RINGS = 12


def build(task: Task) -> LinearReadout:
    """Return the observer, fitted to the task's training set."""
    return fit("polar_spectrum", features, task, penalty=1.0)


def features(x: Tensor) -> Tensor:
    """Return the angular spectra of the energy on rings, ``(B, RINGS × HARMONICS)``."""
    x = x.mean(1)
    energy = (x - x.flatten(1).median(1).values[:, None, None]).abs() + 1e-6
    height, width = x.shape[1:]
    rows = torch.linspace(-1, 1, 2 * height + 1, dtype=x.dtype)[1::2]  # centres of pixels, in grid_sample's units
    columns = torch.linspace(-1, 1, 2 * width + 1, dtype=x.dtype)[1::2]
    mass = energy.sum((1, 2))
    cy = (energy * rows[:, None]).sum((1, 2)) / mass
    cx = (energy * columns).sum((1, 2)) / mass
    turns = torch.arange(ANGLES, dtype=x.dtype) * 2 * math.pi / ANGLES
    rings = []
    for radius in torch.linspace(0.12, 0.82, RINGS, dtype=x.dtype):
        grid = torch.stack([cx[:, None] + radius * turns.cos(), cy[:, None] + radius * turns.sin()], -1)
        ring = F.grid_sample(energy[:, None], grid[:, None], align_corners=False)[:, 0, 0]
        spectrum = torch.fft.rfft(ring).abs()[:, 1 : HARMONICS + 1]
        rings.append(spectrum / (ANGLES * ring.mean(1, keepdim=True) + 1e-3))
    return torch.cat(rings, 1)
