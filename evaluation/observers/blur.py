"""Null observer: Gaussian blur as coarse as stages that halve the image once, twice, thrice (σ = half a cell).

Blur alone makes White's and Munker's effect (assimilation), and the reverse of simultaneous contrast. What a network
shows counts by what it exceeds this.
"""

from functools import partial

from torch import Tensor

from evaluation.illusions.surface import blurred
from evaluation.observers._filter import Filtered, filtered
from training.data.base import Task

STRIDES = (2, 4, 8)


def build(task: Task) -> Filtered:
    """Return the observer; of the task only its image size and encoding matter."""
    return filtered("blur", task, {f"blur{s}": partial(_blur, stride=s) for s in STRIDES})


def _blur(x: Tensor, stride: int) -> Tensor:
    return blurred(x, stride, [max(1, side // stride) for side in x.shape[2:]])
