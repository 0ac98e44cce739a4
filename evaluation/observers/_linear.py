"""What null observers share: hand-made features of an image, and a logistic regression on the task's training set."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rules.base import Objective
from training.data.base import Preprocess, Task

MOST = 8192  # training images used


@dataclass(frozen=True)
class LinearReadout:
    """Names a stimulus from fixed features by a linear read-out; it has no stages and no learning signal.

    Attributes:
        name: What it is called on the board.
        features_of: From network input to features ``(B, F)``.
        classifier: The fitted read-out.
        classes: Names of the task's classes.
        in_shape: ``(C, H, W)`` of the input.
        preprocess: From stimuli to the input.
    """

    name: str
    features_of: Callable[[Tensor], Tensor]
    classifier: Any
    classes: tuple[str, ...]
    in_shape: tuple[int, int, int]
    preprocess: Preprocess

    def features(self, stimuli: Tensor) -> Tensor:
        """Return the features of stimuli in linear luminance, ``(B, F)``."""
        return self.features_of(self.preprocess.stimulus(stimuli))

    def predict(self, stimuli: Tensor) -> Tensor:
        """Return class probabilities."""
        features = self.features(stimuli)
        p = torch.zeros(len(features), len(self.classes), dtype=torch.float64)
        p[:, self.classifier.classes_] = torch.from_numpy(self.classifier.predict_proba(features.double().numpy()))
        return p

    def activations(self, stimuli: Tensor) -> dict[str, Tensor]:
        """Return nothing: there are no stages."""
        del stimuli
        return {}

    def signals(self, stimuli: Tensor, target: Tensor, objective: Objective | None = None) -> dict[str, Tensor]:
        """Return nothing: nothing is learned from stimuli."""
        del stimuli, target, objective
        return {}


def fit(
    name: str, features_of: Callable[[Tensor], Tensor], task: Task, *, penalty: float, scale: bool = True
) -> LinearReadout:
    """Return the observer, fitted to the task's training set.

    Args:
        name: What it is called.
        features_of: From network input to features.
        task: Its task.
        penalty: Inverse strength of the ridge penalty, as scikit-learn counts it.
        scale: Whether every feature is standardised first.

    Raises:
        ValueError: If the task has no classes to name.
    """
    if not task.classes:
        raise ValueError(f"{name} names images, and this task has no classes")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    preprocess = task.preprocess()
    chosen = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(0))[:MOST]
    features = features_of(preprocess(task.train.images[chosen])).double().numpy()
    scaler = StandardScaler(with_mean=scale, with_std=scale)
    classifier = make_pipeline(scaler, LogisticRegression(C=penalty, max_iter=200))
    classifier.fit(features, task.train.targets[chosen].numpy())
    return LinearReadout(name, features_of, classifier, task.classes, task.in_shape, preprocess)
