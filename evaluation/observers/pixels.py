"""Null observer: logistic regression on pixels (16×16), trained on the task's own training set."""

import torch.nn.functional as F
from torch import Tensor

from evaluation.observers._linear import LinearReadout, fit
from training.data.base import Task

SIDE = 16


def build(task: Task) -> LinearReadout:
    """Return the observer, fitted to the task's training set."""
    return fit("pixels", features, task, penalty=0.01, scale=False)


def features(x: Tensor) -> Tensor:
    """Return the pixels, averaged to 16×16 where there are more, ``(B, F)``."""
    if min(x.shape[-2:]) > SIDE:
        x = F.adaptive_avg_pool2d(x, SIDE)
    return x.flatten(1)
