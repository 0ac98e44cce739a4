"""Null observer: logistic regression on histograms of oriented gradients (Dalal & Triggs 2005): corners, no contour.

Twelve unsigned orientations in cells of a quarter of the image, blocks of 2×2 cells, L2 norm with clipping. It answers
from the orientation of edges in places, completing nothing between them.
"""

import numpy as np
import torch
from torch import Tensor

from evaluation.observers._linear import LinearReadout, fit
from training.data.base import Task

ORIENTATIONS = 12
CELLS = 4  # along the image's side


def build(task: Task) -> LinearReadout:
    """Return the observer, fitted to the task's training set."""
    return fit("hog", features, task, penalty=0.1)


def features(x: Tensor) -> Tensor:
    """Return the block-normalised histograms of the mean channel, ``(B, F)``."""
    from skimage.feature import hog

    grey = x.mean(1).numpy()
    cell = tuple(side // CELLS for side in grey.shape[1:])
    found = [
        hog(image, ORIENTATIONS, pixels_per_cell=cell, cells_per_block=(2, 2), block_norm="L2-Hys") for image in grey
    ]
    return torch.from_numpy(np.stack(found))
