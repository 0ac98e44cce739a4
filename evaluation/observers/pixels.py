"""Null observer: logistic regression on pixels (16×16), trained on the task's own training set."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rules.base import Objective
from training.data.base import Task

SIDE = 16
MOST = 8192  # training images used


@dataclass(frozen=True)
class Pixels:
    """Names a stimulus from a linear read-out of its pixels; it has no stages and no learning signal."""

    classifier: Any
    classes: tuple[str, ...]
    in_shape: tuple[int, int, int]
    preprocess: Any
    name: str = "pixels"

    def predict(self, stimuli: Tensor) -> Tensor:
        """Return class probabilities."""
        features = _features(self.preprocess.stimulus(stimuli))
        p = torch.zeros(len(features), len(self.classes), dtype=torch.float64)
        p[:, self.classifier.classes_] = torch.from_numpy(self.classifier.predict_proba(features))
        return p

    def activations(self, stimuli: Tensor) -> dict[str, Tensor]:
        """Return nothing: there are no stages."""
        del stimuli
        return {}

    def signals(self, stimuli: Tensor, target: Tensor, objective: Objective | None = None) -> dict[str, Tensor]:
        """Return nothing: nothing is learned from stimuli."""
        del stimuli, target, objective
        return {}


def build(task: Task) -> Pixels:
    """Return the observer, fitted to the task's training set."""
    from sklearn.linear_model import LogisticRegression

    preprocess = task.preprocess()
    chosen = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))[:MOST]
    features = _features(preprocess(task.train.images[chosen]))
    classifier = LogisticRegression(C=0.01, max_iter=200).fit(features, task.train.targets[chosen].numpy())
    return Pixels(classifier, task.classes, task.in_shape, preprocess)


def _features(x: Tensor) -> np.ndarray:
    if min(x.shape[-2:]) > SIDE:
        x = F.adaptive_avg_pool2d(x, SIDE)
    return x.flatten(1).double().numpy()
