"""Null observer: logistic regression on the blurred image. What blur alone explains, no learning rule can claim."""

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.observers._linear import LinearReadout, fit
from training.data.base import Task

SIGMA = 1 / 16  # of the Gaussian, as a share of the image's side
SIDE = 16


def build(task: Task) -> LinearReadout:
    """Return the observer, fitted to the task's training set."""
    return fit("blurred_pixels", features, task, penalty=0.01, scale=False)


def features(x: Tensor) -> Tensor:
    """Return the image behind a Gaussian, averaged to 16×16, ``(B, F)``."""
    x = blur(x, SIGMA * x.shape[-1])
    return (F.adaptive_avg_pool2d(x, SIDE) if min(x.shape[-2:]) > SIDE else x).flatten(1)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Return images ``(B, C, H, W)`` convolved with a Gaussian of ``sigma`` pixels; the border is replicated."""
    reach = max(1, round(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(x, kernel, groups=x.shape[1]), kernel.transpose(2, 3), groups=x.shape[1])
