"""The losses whose learning signals are compared with the brain. A signal means nothing until its loss is named.

    pseudo_label     −log p(ŷ), ŷ: the network's own answer; no label needed
    entropy          H(p) of the network's answer
    label            cross-entropy of the image set's own categories, read from the output through fixed random weights
    shuffled_label   the same with the categories shuffled over images: a control
    instance         tell each image from all others: its output against that to its mirror image (fixed bank)
    reconstruction   squared error of an image-shaped output to the stimulus itself

Every loss is a sum over images, so that no image's signal depends on which others are shown: the bank of `instance`
is computed beforehand and held fixed.

Label losses make signals that look like the categories whatever the network has learned (an untrained network's
do): they are shown beside the category RDM and with it partialled out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Observer
from evaluation.brain.data import BrainData
from rules.base import CrossEntropy, MeanSquaredError, Objective

TEMPERATURE = 0.1  # of the softmax over images in `instance`
SEED = 92  # of the random read-out and of the shuffling: the same for every run


def log_softmax(z: Tensor) -> Tensor:
    """Return log p ``(B, C)``, exact also where one class is certain, where 1 − p would be rounding.

    With m the likeliest class, ``log p_m = −log(1 + Σ_{j≠m} exp(z_j − z_m))``; the others follow from it.
    """
    top = z.argmax(1, keepdim=True)
    best = z.gather(1, top)
    rest = z.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True) - best
    log_best = -torch.logaddexp(rest, torch.zeros_like(rest))
    return (z - best + log_best).scatter(1, top, log_best)


def residual(z: Tensor, target: Tensor) -> Tensor:
    """Return ``p − onehot(target)``; at the target as ``−Σ_{j≠y} p_j``: ``p_y − 1`` is rounding where p_y is 1."""
    p = log_softmax(z).exp().scatter(1, target[:, None], 0.0)
    return p.scatter(1, target[:, None], -p.sum(1, keepdim=True))


class ExactCrossEntropy(CrossEntropy):
    """Cross-entropy over classes whose gradient keeps its digits where the network is certain of its answer."""

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return ``−log p(target)`` of each image."""
        return -log_softmax(output).gather(1, target[:, None])[:, 0]

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Return ``softmax(output) − onehot(target)``."""
        return residual(output, target)


class Entropy(Objective):
    """Entropy of the answer in nats, ``H = −Σ p log p``; the target is not used."""

    name = "entropy"

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return H of each image."""
        del target
        log_p = log_softmax(output)
        return -(log_p.exp() * log_p).sum(1)

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Return ``∂H/∂z = −p (log p + H)``."""
        log_p = log_softmax(output)
        return -log_p.exp() * (log_p + self.losses(output, target)[:, None])


class CategoryCrossEntropy(Objective):
    """Cross-entropy over categories that the network was not trained on, ``−log softmax(Rᵀ z)_y``.

    Args:
        readout: R, ``(output units, categories)``, fixed.
    """

    name = "category_cross_entropy"

    def __init__(self, readout: Tensor) -> None:
        self.readout = readout

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return −log p(target) of each image."""
        return ExactCrossEntropy().losses(output.flatten(1) @ self.readout.to(output), target)

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Return ``R (p − y)``."""
        readout = self.readout.to(output)
        return (residual(output.flatten(1) @ readout, target) @ readout.T).view_as(output)


class InstanceDiscrimination(Objective):
    """``−log softmax_j(cos(z_i, b_j) / τ)_i`` against a fixed bank; the target is the image's index in it.

    Args:
        bank: ``(N, output units)``, centred and of unit length.
    """

    name = "instance_discrimination"

    def __init__(self, bank: Tensor) -> None:
        self.bank = bank

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return −log p(own image) of each image."""
        return ExactCrossEntropy().losses(unit(output) @ self.bank.to(output).T / TEMPERATURE, target)

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the derivative through centring and normalisation."""
        bank, z = self.bank.to(output), output.flatten(1)
        centred = z - z.mean(1, keepdim=True)
        length = centred.norm(dim=1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)
        direction = centred / length
        pull = residual(direction @ bank.T / TEMPERATURE, target) @ bank / TEMPERATURE
        across = (pull - direction * (pull * direction).sum(1, keepdim=True)) / length
        return (across - across.mean(1, keepdim=True)).view_as(output)


def unit(output: Tensor) -> Tensor:
    """Return outputs flattened, centred over units, of unit length."""
    z = output.flatten(1)
    z = z - z.mean(1, keepdim=True)
    return z / z.norm(dim=1, keepdim=True).clamp(min=torch.finfo(z.dtype).tiny)


@dataclass(frozen=True)
class Probe:
    """A loss ready to be used on a data set's images.

    Attributes:
        name: Of the loss.
        objective: The loss.
        target: One target per image.
    """

    name: str
    objective: Objective
    target: Tensor


def outputs(observer: Observer, stimuli: Tensor) -> Tensor:
    """Return the activity of the last stage, ``(N, ...)``.

    Raises:
        ValueError: If the observer has no stages.
    """
    activity = observer.activations(stimuli)
    if not activity:
        raise ValueError("it has no stages")
    return list(activity.values())[-1]


def probe(name: str, observer: Observer, data: BrainData, *, shuffle: int = 0) -> Probe:
    """Return a loss for a network and a data set; ``shuffle`` says which shuffle of the categories where it is one.

    Raises:
        ValueError: Why it does not exist for them, or that it is unknown.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; choose from {', '.join(LOSSES)}")
    if name == "shuffled_label":
        return Probe(name, *_shuffled_label(observer, data, shuffle))
    return Probe(name, *LOSSES[name](observer, data))


def _pseudo_label(observer: Observer, data: BrainData) -> tuple[Objective, Tensor]:
    if not observer.classes:
        raise ValueError("its output is an image, not an answer")
    return ExactCrossEntropy(), observer.predict(data.stimuli).argmax(1)


def _entropy(observer: Observer, data: BrainData) -> tuple[Objective, Tensor]:
    if not observer.classes:
        raise ValueError("its output is an image, not an answer")
    return Entropy(), torch.zeros(len(data), dtype=torch.long)


def _label(observer: Observer, data: BrainData, shuffle: int | None = None) -> tuple[Objective, Tensor]:
    if not data.labels:
        raise ValueError("the image set has no categories")
    labels = next(iter(data.labels.values()))
    if shuffle is not None:
        labels = np.random.default_rng(SEED + shuffle).permutation(labels)
    categories, target = np.unique(labels, return_inverse=True)
    units = outputs(observer, data.stimuli[:1])[0].numel()
    if units < 2:
        raise ValueError("its output has a single unit")
    generator = torch.Generator().manual_seed(SEED)
    readout = torch.randn(units, len(categories), generator=generator, dtype=torch.float64) / units**0.5
    return CategoryCrossEntropy(readout), torch.from_numpy(target.astype(np.int64))


def _shuffled_label(observer: Observer, data: BrainData, shuffle: int = 0) -> tuple[Objective, Tensor]:
    return _label(observer, data, shuffle)


def _instance(observer: Observer, data: BrainData) -> tuple[Objective, Tensor]:
    bank = unit(outputs(observer, data.stimuli.flip(3)))
    if bank.shape[1] < 3 or not bool(torch.isfinite(bank).all()) or bool((bank.norm(dim=1) == 0).any()):
        raise ValueError("its outputs have no direction to tell images apart by")
    return InstanceDiscrimination(bank), torch.arange(len(data))


def _reconstruction(observer: Observer, data: BrainData) -> tuple[Objective, Tensor]:
    if observer.classes:
        raise ValueError("its output is an answer, not an image")
    output = outputs(observer, data.stimuli[:1])
    if output.dim() != 4:
        raise ValueError(f"its output has the shape {tuple(output.shape[1:])}, not that of an image")
    from dataclasses import replace

    fit = getattr(observer, "preprocess", None)
    if fit is None:
        raise ValueError("its encoding of images is not known")
    channels = output.shape[1]
    plain = replace(fit, shape=tuple(output.shape[1:]), mean=(0.0,) * channels, std=(1.0,) * channels, frames=1)
    return MeanSquaredError(), fit.target(plain.stimulus(data.stimuli))


LOSSES: dict[str, Callable[[Observer, BrainData], tuple[Objective, Tensor]]] = {
    "pseudo_label": _pseudo_label,
    "entropy": _entropy,
    "label": _label,
    "shuffled_label": _shuffled_label,
    "instance": _instance,
    "reconstruction": _reconstruction,
}
