"""What a stage says about a surface: a linear read-out of the units at the target, in units of a physical change.

    E = [d(target | first context) − d(target | second context)] / (∂d / ∂target)

d is a ridge regression from a stage's activity to the target's value (luminance, or blue–yellow), fitted to targets on
uniform surrounds and on Mondrians. A map is read at the target: the mean over the cells that lie wholly within it. A
dense stage is read as a whole. The slope is measured in the display itself, by physically changing the target: E is the
change that would undo the illusion, so it does not depend on the unit, the gain or the compression of the read-out.

Blur alone gives assimilation (White, Munker). So each stage stands beside a Gaussian blur sampled as coarsely as the
stage, with σ half a cell (a 2×2 pooling behind a 3×3 kernel spreads by as much), read out in the same way. An effect of
assimilation counts where bars are wider than two cells, and by what it exceeds that of the blur: the *stride rule*.
The rule takes a map to be as sharp as it is sampled. A map that is blurrier than that (a wide kernel without pooling)
can pass it by blur: there, compare with the observer ``blur`` at coarser strides.

Shapes: ``B`` images, ``D`` read-out features; maps are ``(B, C, h, w)``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.base import Observer
from evaluation.illusions.lightness_stimuli import Pairs, Ramp
from evaluation.statistics import Array

DECODABLE = 0.9  # least R² of the read-out on uniform surrounds
CELLS_PER_BAR = 2.0  # a bar must be wider than this many cells
FEWEST = 0.5  # least share of targets that hold a whole cell
CHUNK = 128
NULL = "blur "  # begins the name of a stage's blur


@dataclass(frozen=True)
class Readout:
    """A stage's read-out.

    Attributes:
        stride: Image pixels per cell; the image's side for a dense stage.
        r2: Of the read-out on targets on uniform surrounds that it was not fitted to.
        predict: Features ``(B, D)`` to values ``(B,)``.
        reason: Why it cannot be judged; empty where it can.
    """

    stride: float
    r2: float
    predict: Callable[[Array], Array]
    reason: str = ""


@dataclass(frozen=True)
class Effect:
    """An illusion in one stage: per pair, difference of the read-outs and slope; ``nan`` without a whole cell."""

    difference: Array
    slope: Array

    @property
    def seen(self) -> np.ndarray:
        """Pairs whose target holds a whole cell."""
        return np.isfinite(self.difference)

    @property
    def size(self) -> float:
        """The illusion in units of the target's physical value."""
        return float(self.difference[self.seen].mean() / self.slope[self.seen].mean())


def features(observer: Observer, images: Tensor, mask: Tensor) -> tuple[dict[str, Array], dict[str, float]]:
    """Return what each stage, and its blur, holds at the targets, and each stage's stride.

    Args:
        observer: Who looks.
        images: Stimuli.
        mask: Their targets.

    Returns:
        Stage → ``(B, D)``, ``nan`` where no cell lies within the target; stage → stride. A blur's name is ``NULL`` and
        the stage's.
    """
    prepare = getattr(observer, "preprocess", None)
    parts: list[dict[str, Array]] = []
    strides: dict[str, float] = {}
    size = images.shape[-1]
    for x, m in zip(images.split(CHUNK), mask.split(CHUNK), strict=True):
        seen = prepare.stimulus(x) if prepare is not None else x
        part: dict[str, Array] = {}
        coarse: dict[Any, Array] = {}
        for stage, activity in observer.activations(x).items():
            activity = activity.detach().cpu()
            shape = activity.shape[2:]
            if activity.dim() == 4 and min(shape) > 1:
                strides[stage] = size / shape[1]
                part[stage] = at_target(activity, m)
                if shape not in coarse:
                    coarse[shape] = at_target(blurred(seen, strides[stage], shape), m)
                part[NULL + stage] = coarse[shape]
            else:
                strides[stage] = float(size)
                part[stage] = activity.double().flatten(1).numpy()
        parts.append(part)
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}, strides


def at_target(maps: Tensor, mask: Tensor) -> Array:
    """Return the mean of maps over the cells that lie wholly within the target, ``(B, C)``; ``nan`` where none does."""
    whole = F.adaptive_avg_pool2d(mask[:, None].double(), (maps.shape[2], maps.shape[3])).ge(1 - 1e-9)
    # Cells outside are set to 0 before the sum, so that equal cells inside have equal means to the last bit.
    total = maps.where(whole, 0).sum((2, 3), dtype=torch.double) / whole.sum((2, 3)).clamp(min=1)
    picked: Array = total.where(whole.sum((2, 3)) > 0, torch.nan).numpy()
    return picked


def blurred(images: Tensor, stride: float, shape: Any) -> Tensor:
    """Return images under a Gaussian of σ = stride / 2, sampled at the centres of a map of ``shape``."""
    smooth = gaussian(images, stride / 2)
    return F.interpolate(smooth, tuple(shape), mode="bilinear", align_corners=False)


def gaussian(images: Tensor, sigma: float) -> Tensor:
    """Return images blurred by a Gaussian of ``sigma`` pixels, edges repeated."""
    radius = max(1, math.ceil(3.5 * sigma))
    offset = torch.arange(-radius, radius + 1, dtype=images.dtype)
    kernel = torch.exp(-offset.square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    x = F.pad(images, (radius,) * 4, mode="replicate")
    x = F.conv2d(x, kernel, groups=images.shape[1])
    return F.conv2d(x, kernel.transpose(2, 3), groups=images.shape[1])


def fit(observer: Observer, trained_on: Ramp, tested_on: Ramp, value: Callable[[Tensor], Tensor]) -> dict[str, Readout]:
    """Return a read-out of every stage, and of its blur.

    Args:
        observer: Who looks.
        trained_on: What the read-out is fitted to.
        tested_on: Targets on uniform surrounds, for R².
        value: From a target's channels ``(B, C)`` to what is read out, ``(B,)``.
    """
    x, strides = features(observer, trained_on.images, trained_on.mask)
    held_out, _ = features(observer, tested_on.images, tested_on.mask)
    y, truth = value(trained_on.values).double().numpy(), value(tested_on.values).double().numpy()
    return {name: _ridge(x[name], y, held_out[name], truth, strides[name.removeprefix(NULL)]) for name in x}


def _ridge(x: Array, y: Array, held_out: Array, truth: Array, stride: float) -> Readout:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def unreadable(why: str) -> Readout:
        return Readout(stride, float("nan"), lambda f: np.full(len(f), np.nan), why)

    known, tested = np.isfinite(x).all(1), np.isfinite(held_out).all(1)
    if min(known.mean(), tested.mean()) < FEWEST:
        return unreadable("its cells are too coarse to lie within a target, or its activity is not finite")
    if x[known].std(0).max() < 1e-12:
        return unreadable("its units at the target are silent")
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-4, 4, 9))).fit(x[known], y[known])
    error = np.square(model.predict(held_out[tested]) - truth[tested]).mean()
    r2 = float(1 - error / truth[tested].var())
    why = "" if r2 >= DECODABLE else f"its read-out does not know the target even on uniform surrounds (R² {r2:.2f})"

    def predict(f: Array) -> Array:
        values = np.full(len(f), np.nan)
        good = np.isfinite(f).all(1)
        if good.any():
            values[good] = model.predict(f[good])
        return values

    return Readout(stride, r2, predict, why)


def effects(
    observer: Observer, readouts: dict[str, Readout], display: Callable[[float], Pairs], step: float
) -> dict[str, Effect]:
    """Return the illusion in every stage and in its blur.

    Args:
        observer: Who looks.
        readouts: From ``fit``.
        display: From a physical change of the target to the pairs; places must not depend on the change.
        step: By how much the target is changed, up and down, for the slope.
    """
    shown = [display(change) for change in (0.0, -step, step)]
    images = torch.cat([image for pairs in shown for image in (pairs.first, pairs.second)])
    found, _ = features(observer, images, torch.cat([shown[0].mask] * 6))
    out = {}
    for name, readout in readouts.items():
        d = readout.predict(found[name]).reshape(6, -1)
        slope = (d[4] + d[5] - d[2] - d[3]) / (4 * step)
        out[name] = Effect(d[0] - d[1], slope)
    return out


def unresolved(bar: float, stride: float) -> str:
    """Return why assimilation at these bars cannot be told from the stage's own coarseness; empty where it can."""
    if not bar or bar > CELLS_PER_BAR * stride:
        return ""
    return f"bars of {bar:g} px are not wider than two of its cells of {stride:g} px: blur alone would do"
