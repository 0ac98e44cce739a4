"""What is compared with the brain: each stage's activations and learning signals, in batches, in true evaluation mode.

Networks are observed in float64, so that numbers do not depend on the batch size; that the signals of confident
networks do not vanish is the losses' doing (losses.py). Memory stays bounded: what does not fit is compared block by
block.

Shapes: ``N`` images, ``U`` units of a stage, ``K`` components.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluation.base import Observer, TrainedObserver, evaluating
from evaluation.brain.losses import Probe
from evaluation.brain.rdm import Array, Distance, centre, from_gram, gram, settled
from models.base import Stage

Pooling = Literal["none", "global", "pyramid"]
Reduction = Literal["none", "pca", "projection"]
Module = TypeVar("Module", bound=nn.Module)
Index = NDArray[np.int64]
Source = Callable[[Index], Mapping[str, Tensor]]  # from images' indices to each stage's patterns
BLOCK = 128  # images observed at once
MEMORY = 1 << 29  # bytes of patterns that are held at once
FIT_IMAGES = 256  # images of the network's own task that components are fitted on


@dataclass(frozen=True)
class Spec:
    """How patterns are taken from a stage.

    Attributes:
        pooling: Over space: ``none``, ``global`` (mean), ``pyramid`` (mean of the whole and of 2 × 2 quadrants).
        reduction: ``none``; ``pca`` fitted on images of the network's own task, never on those that are scored;
            ``projection``, Gaussian and random, the same for every run.
        components: K of the reduction; stages with no more units are left as they are.
        distance: Of the RDMs.
    """

    pooling: Pooling = "none"
    reduction: Reduction = "none"
    components: int = 512
    distance: Distance = "correlation"

    def __post_init__(self) -> None:
        choices = {
            "pooling": ("none", "global", "pyramid"),
            "reduction": ("none", "pca", "projection"),
            "distance": ("correlation", "euclidean"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; choose from {', '.join(known)}")
        if self.components < 1:
            raise ValueError(f"components must be at least 1, got {self.components}")


def pooled(x: Tensor, how: Pooling) -> Tensor:
    """Return patterns ``(B, U)`` of a stage's activity ``(B, ...)``; only maps are pooled."""
    if x.dim() == 4 and how != "none":
        parts = [F.adaptive_avg_pool2d(x, 1).flatten(1)]
        if how == "pyramid":
            parts.append(F.adaptive_avg_pool2d(x, 2).flatten(1))
        return torch.cat(parts, 1)
    return x.flatten(1)


def precise(observer: Observer) -> Observer:
    """Return a copy of an observer whose network computes in float64."""
    if not isinstance(observer, TrainedObserver):
        return observer
    return dataclasses.replace(
        observer,
        net=_double(observer.net),
        rule=_double(observer.rule),
        initial=_double(observer.initial),
        initial_rule=_double(observer.initial_rule),
    )


def _double(module: Module) -> Module:
    module = copy.deepcopy(module)
    if any(p.device.type == "mps" for p in module.parameters()):  # which has no float64
        module = module.cpu()
    return module.double()


def untrained(observer: TrainedObserver) -> TrainedObserver:
    """Return the observer of the same network before training, under the same rule."""
    return dataclasses.replace(observer, net=observer.initial, rule=observer.initial_rule)


def at_resolution(observer: TrainedObserver, side: int) -> TrainedObserver:
    """Return the observer of a network that is shown images of ``side × side`` pixels.

    Where a linear stage reads a map, the map is averaged to the size that it had in training.

    Raises:
        ValueError: If the first stage is linear: it cannot see another size; or what comes before a linear stage
            has no pooling of its own.
    """
    channels, height, _ = observer.in_shape
    if side == height:
        return observer
    net = copy.deepcopy(observer.net)
    weight = next(net.parameters())
    with evaluating(net):
        sizes = {n: a.shape for n, a in net.trace(weight.new_zeros(1, *observer.in_shape)).items()}
    before = None
    for name, stage in net.stages.items():
        if isinstance(getattr(stage, "synapse", None), nn.Linear):
            if before is None:
                raise ValueError("its first stage is linear and sees one size only")
            if len(sizes[before]) == 4:
                below = net.stages[before]
                if not isinstance(below, Stage):
                    raise ValueError(
                        f"{before} is a {type(below).__name__}, whose map cannot be averaged to another size"
                    )
                below.pool = nn.Sequential(below.pool, nn.AdaptiveAvgPool2d(tuple(sizes[before][2:])))
        before = name
    shape = (channels, side, side)
    net.in_shape = shape
    return dataclasses.replace(observer, net=net, preprocess=dataclasses.replace(observer.preprocess, shape=shape))


def activations_of(observer: Observer, stimuli: Tensor) -> Source:
    """Return the source of a network's activations."""
    return lambda index: observer.activations(stimuli[torch.from_numpy(index)])


def signals_of(observer: Observer, stimuli: Tensor, probe: Probe) -> Source:
    """Return the source of a network's learning signals under a loss."""

    def source(index: Index) -> Mapping[str, Tensor]:
        where = torch.from_numpy(index)
        return observer.signals(stimuli[where], probe.target[where], probe.objective)

    return source


@dataclass(frozen=True)
class Reducer:
    """A linear reduction per stage, fitted beforehand or drawn.

    Attributes:
        spec: How patterns are taken.
        fitted: Stage → mean ``(U,)`` and axes ``(U, K)`` of ``pca``.
    """

    spec: Spec
    fitted: Mapping[str, tuple[Tensor, Tensor]] = dataclasses.field(default_factory=dict)

    def __call__(self, stage: str, x: Tensor) -> Array:
        """Return a stage's patterns ``(B, U or K)``."""
        x = pooled(x, self.spec.pooling).detach().cpu().double()
        if self.spec.reduction == "none" or x.shape[1] <= self.spec.components:
            return x.numpy()
        if self.spec.reduction == "projection":
            return _project(x, self.spec.components).numpy()
        mean, axes = self.fitted[stage]
        return ((x - mean) @ axes).numpy()


def fit_pca(spec: Spec, patterns: Mapping[str, Tensor]) -> Reducer:
    """Return the reducer with principal components of patterns that will not be scored, ``{stage: (M, ...)}``."""
    fitted = {}
    for stage, x in patterns.items():
        flat = pooled(x, spec.pooling).detach().cpu().double()
        mean = flat.mean(0)
        _, _, axes = torch.linalg.svd(flat - mean, full_matrices=False)
        fitted[stage] = mean, axes[: spec.components].T
    return Reducer(spec, fitted)


def _project(x: Tensor, components: int) -> Tensor:
    """Project on Gaussian directions that depend on the number of units alone, drawn a few rows at a time."""
    result = x.new_zeros(len(x), components)
    for start in range(0, x.shape[1], 4096):
        part = x[:, start : start + 4096]
        generator = torch.Generator().manual_seed(start)
        axes = torch.randn(part.shape[1], components, generator=generator, dtype=torch.float64)
        result += part @ axes / components**0.5
    return result


def reducer_for(observer: Observer, spec: Spec, *, signals: bool) -> Reducer:
    """Return the reducer of a network; ``pca`` is fitted on held-out images of its own task.

    Raises:
        ValueError: If there is no such task.
    """
    if spec.reduction != "pca":
        return Reducer(spec)
    if not isinstance(observer, TrainedObserver):
        raise ValueError("pca needs images of the network's own task to be fitted on")
    x, target = observer.probe(FIT_IMAGES)
    if signals:
        return fit_pca(spec, observer.learn(x, target).signals)
    with evaluating(observer.net, observer.rule):
        return fit_pca(spec, observer.rule.activations(observer.net, x))


def patterns(source: Source, num: int, reducer: Reducer) -> dict[str, Array]:
    """Return every stage's patterns of ``num`` images, ``{stage: (N, U)}``."""
    parts: dict[str, list[Array]] = {}
    for start in range(0, num, BLOCK):
        for stage, x in source(np.arange(start, min(start + BLOCK, num))).items():
            parts.setdefault(stage, []).append(reducer(stage, x))
    return {stage: np.concatenate(v) for stage, v in parts.items()}


def stage_rdms(source: Source, num: int, reducer: Reducer, *, memory: int = MEMORY) -> dict[str, Array]:
    """Return every stage's RDM ``(P,)``; block by block where the patterns need more than ``memory`` bytes.

    Args:
        source: Of the patterns.
        num: Number of images.
        reducer: From a stage's activity to patterns.
        memory: Bytes of patterns that may be held at once.
    """
    first = {s: reducer(s, x) for s, x in source(np.arange(min(2, num))).items()}
    distance = reducer.spec.distance
    per_image = sum(8 * x.shape[1] for x in first.values())
    if num * per_image <= memory:
        found = patterns(source, num, reducer)
        return {s: _finish(gram(x, centred=distance == "correlation"), distance, x.shape[1]) for s, x in found.items()}
    size = max(1, min(BLOCK, memory // (2 * per_image)))
    starts = range(0, num, size)
    grams = {s: np.zeros((num, num)) for s in first}

    def block(start: int) -> dict[str, Array]:
        index = np.arange(start, min(start + size, num))
        found = {s: reducer(s, x) for s, x in source(index).items()}
        return {s: centre(x) for s, x in found.items()} if distance == "correlation" else found

    for a in starts:
        left = block(a)
        for b in starts:
            if b < a:
                continue
            right = left if a == b else block(b)
            for stage, x in left.items():
                product = x @ right[stage].T
                grams[stage][a : a + len(x), b : b + product.shape[1]] = product
                grams[stage][b : b + product.shape[1], a : a + len(x)] = product.T
    return {s: _finish(g, distance, first[s].shape[1]) for s, g in grams.items()}


def _finish(products: Array, distance: Distance, units: int) -> Array:
    vector = from_gram(products, distance)
    return settled(vector / units if distance == "euclidean" else vector)
