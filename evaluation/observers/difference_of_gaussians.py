"""Null observer: centre minus surround, as a retinal cell: simultaneous contrast, and the reverse of White's effect.

    response = G(σ_c) ∗ image − k · G(σ_s) ∗ image

With k < 1 a uniform field is not silent, so that the response says something about the target. A round surround holds
more of White's flanks than of the bar, and pushes the target away from them: the reverse of what we see.
"""

from torch import Tensor

from evaluation.illusions.surface import gaussian
from evaluation.observers._filter import Filtered, filtered
from training.data.base import Task

CENTRE, SURROUND = 1 / 64, 1 / 8  # σ_c, σ_s as shares of the image's side
WEIGHT = 0.3  # k


def build(task: Task) -> Filtered:
    """Return the observer; of the task only its image size and encoding matter."""
    return filtered("difference_of_gaussians", task, {"difference_of_gaussians": _respond})


def _respond(x: Tensor) -> Tensor:
    side = x.shape[-1]
    return gaussian(x, CENTRE * side) - WEIGHT * gaussian(x, SURROUND * side)
