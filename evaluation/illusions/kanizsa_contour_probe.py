"""Kanizsa contour probe: does a read-out of *real* contours at a place report one there for the illusory figure?

In every stage a linear probe learns whether one side of an outlined square is whole or open in its middle, from
otherwise equal images. It is then shown figures whose side has nothing there: AUC of IN against each control, 0.5 = no
difference; the smallest over controls counts. Places are fixed, so that the probe needs no invariance; the figure
is darker than its background, as a linear probe cannot read a contour of either sign.
A stage in which the probe does not know real contours (held-out AUC below ``COMPETENT``) cannot be asked. Over the
iterations of inference, or spike time, where the rule has them: each moment's probe is its own.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Observer, Score, not_available
from evaluation.figures import figure
from evaluation.illusions._drawn import DrawnFromScores
from evaluation.illusions.kanizsa_stimuli import CONTROLS, LINE, NOISE, SUPERSAMPLE, Layouts, layouts, render
from evaluation.illusions.time_course import time_course
from evaluation.statistics import Array, interval, ranks
from training.data.drawing import Canvas, box, outline, polygon

SHOWN = ("IN", *CONTROLS)
COMPETENT = 0.9
MOMENTS = 6  # of inference at which the probe is asked, the first and the last among them
RATIOS = (0.4, 0.5, 0.6)  # support ratios at which a gap is neither tiny nor most of the side


class KanizsaContourProbe(DrawnFromScores):
    """AUC of a probe for real contours on illusory ones, by stage, smallest over six controls.

    Args:
        train: Real images the probe is trained on.
        test: Figures per condition, and real images held out.
        seed: Of the images.
    """

    name = "kanizsa_contour_probe"
    version = 2  # over inference
    pillar = "illusion"
    headline = "auc"
    reference = "Kanizsa 1955; linear probe of real contours"
    on_request = True

    def __init__(self, *, train: int = 400, test: int = 120, seed: int = 3) -> None:
        self.train, self.test, self.seed = train, test, seed

    def plot(self, path: Path, name: str, scores: list[Score]) -> Path | None:
        """Draw the AUC on real contours and on illusory ones by stage."""
        return plot(path, name, scores)

    def scores(self, observer: Observer) -> list[Score]:
        """Return the AUC by stage and control, that on real contours, and the best stage's smallest."""
        size = observer.in_shape[1]
        shown = placed(size, self.test, self.seed)
        figures = {c: _moments(observer, render(shown, c, size)) for c in SHOWN}
        sets = [contours(placed(size, n, self.seed + k), size) for k, n in ((1, self.train), (2, self.test))]
        (taught, y), (held_out, truth) = ((_moments(observer, x), whole.numpy()) for x, whole in sets)
        stages = list(next(iter(taught.values())))
        if not stages:
            return [not_available("auc", "it has no stages")]
        scores: list[Score] = []
        judged: list[Score] = []
        resampled: list[Array] = []
        for stage in stages:
            for moment in taught:
                probe = linear_probe(taught[moment][stage], y)
                known = auc(*(probe(held_out[moment][stage][truth == k]) for k in (1, 0)))
                said = {c: probe(v[moment][stage]) for c, v in figures.items()}
                if moment and known >= COMPETENT:
                    least_now = min(auc(said["IN"], said[c]) for c in CONTROLS)
                    scores.append(Score("auc_over_time", least_now, higher_is_better=None, stage=stage, target=moment))
            scores.append(Score("auc_real", known, higher_is_better=None, stage=stage, n_stimuli=self.test))
            if known < COMPETENT:
                scores.append(not_available("auc_in", f"knows real contours by {known:.2f} only", stage=stage))
                continue
            against = {c: auc(said["IN"], said[c]) for c in CONTROLS}
            scores += [
                Score("auc_vs", a, higher_is_better=None, stage=stage, target=c, n_stimuli=2 * self.test)
                for c, a in against.items()
            ]
            least = min(against, key=lambda c: against[c])
            resampled.append(resampled_aucs(said["IN"], [said[c] for c in CONTROLS]).min(1))
            low, high = interval(resampled[-1])
            where: dict[str, Any] = {"stage": stage, "target": least, "ci_low": low, "ci_high": high}
            judged.append(Score("auc_in", against[least], higher_is_better=None, **where))
        if not judged:
            return [*scores, not_available("auc", "no stage's probe knows real contours")]
        best = max(judged, key=lambda s: s.raw or 0.0)
        low, high = interval(np.max(resampled, axis=0))  # the stage is chosen anew in every resample
        told = f"{best.stage} against {best.target}, the best of {len(judged)} stages"
        whole = Score(
            "auc", best.raw, higher_is_better=None, ci_low=low, ci_high=high, n_stimuli=2 * self.test, reason=told
        )
        return [*scores, *judged, whole]


def placed(size: int, num: int, seed: int) -> Layouts:
    """Return squares of one size and place, darker than their backgrounds, at medium support ratios.

    Args:
        size: Side of the image.
        num: Number of layouts.
        seed: Of luminances and of what ROT does.
    """
    pool = layouts(size, math.ceil(num / len(RATIOS)), seed)
    fits = (pool.corners == 4) & (pool.matching == 0)
    fits &= torch.stack([(pool.support_ratio - r).abs() < 1e-3 for r in RATIOS]).any(0)
    chosen = pool.select(fits.nonzero()[:num, 0])
    return dataclasses.replace(
        chosen,
        centre=torch.zeros_like(chosen.centre),
        angle=torch.full_like(chosen.angle, math.pi / 4),  # the first side stands at the bottom, level
        contrast=-chosen.contrast.abs(),
    )


def contours(layout: Layouts, size: int) -> tuple[Tensor, Tensor]:
    """Return outlined squares, every second one open where the first side's gap would be, and whether each is whole."""
    canvas = Canvas(size, SUPERSAMPLE)
    line = max(1.0, LINE * size)
    x, y = canvas.frame(layout.centre, layout.angle)
    square = outline(polygon(x, y, layout.corners, layout.radius), line)
    normal, middle = layout.gap(0)
    length = layout.side - 2 * layout.disc_radius
    opening = box(*canvas.frame(middle, normal + math.pi / 2), length, torch.full_like(length, 4 * line))
    whole = torch.arange(len(layout)) % 2 == 0
    figure = torch.where(whole[:, None, None], square, torch.maximum(square, -opening))
    painted = canvas.coverage(figure) * layout.contrast[:, None, None]
    noise = NOISE * torch.randn(painted.shape, generator=torch.Generator().manual_seed(layout.seed + 7))
    return (layout.background[:, None, None] + painted + noise).clamp_(0, 1)[:, None], whole.long()


def auc(positive: Array, negative: Array) -> float:
    """Return the probability that a positive value is above a negative one, ties counting half (Mann–Whitney)."""
    ordered = ranks(np.concatenate([positive, negative]))
    num = len(positive)
    return float((ordered[:num].sum() - num * (num + 1) / 2) / (num * len(negative)))


def resampled_aucs(positive: Array, negatives: Sequence[Array], resamples: int = 500) -> Array:
    """Return AUCs of a condition against others, of figures resampled in matched sets, ``(resamples, others)``.

    Args:
        positive: ``(n,)`` values, one per figure.
        negatives: For every other condition the values of the same figures.
        resamples: Number of resamples.
    """
    num = len(positive)
    times = np.random.default_rng(0).multinomial(num, np.full(num, 1 / num), size=resamples).astype(float)
    found = []
    for negative in negatives:
        above = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
        found.append(((times @ above) * times).sum(1) / num**2)
    return np.stack(found, 1)


def plot(path: Path, name: str, scores: list[Score]) -> Path | None:
    """Write, by stage, the AUC of its probe on real contours and on illusory ones; nothing without stages."""
    stages = list(dict.fromkeys(s.stage for s in scores if s.stage))
    if not stages:
        return None
    styles = {
        "auc_real": ("ks", 5, "real contours, held out"), "auc_vs": ("o", 3, "IN against each control"),
        "auc_in": ("C3o", 6, "IN against the strongest control"),
    }  # fmt: skip
    with figure(path, 5.6, 3.8) as axes:
        for metric, (style, size, told) in styles.items():
            found = [(stages.index(s.stage), s.raw) for s in scores if s.metric == metric and s.raw is not None]
            colour = {"color": "0.6"} if metric == "auc_vs" else {}
            axes.plot([x for x, _ in found], [y for _, y in found], style, ms=size, label=told, **colour)
        for s in (s for s in scores if s.metric == "auc_in" and s.ci_low is not None):
            axes.plot([stages.index(s.stage)] * 2, [s.ci_low, s.ci_high], color="C3", lw=1.5)
        axes.axhline(0.5, color="0.85", lw=0.8)
        axes.axhline(COMPETENT, color="0.6", lw=0.8, ls=":", label="least on real contours to be asked")
        axes.set_xticks(range(len(stages)), stages, fontsize=8)
        axes.set(ylabel="AUC", ylim=(0, 1.03), xlim=(-0.4, len(stages) - 0.6), title=f"Kanizsa contour probe: {name}")
        axes.set_xlabel("0.5: no contour seen where none is; no human number is known", fontsize=7)
        axes.legend(frameon=False, fontsize=7, loc="lower left")
    return path


def sheet(size: int = 64) -> tuple[Tensor, list[str], list[str]]:
    """Return what the probe learns from, and what it is then shown."""
    shared = placed(size, 6, 3)
    learned, _ = contours(shared, size)
    ratios = [f"ratio {r:.1f}" for r in shared.support_ratio.tolist()]
    return torch.stack([learned, *(render(shared, c, size) for c in SHOWN)]), ["whole / open", *SHOWN], ratios


def _moments(observer: Observer, stimuli: Tensor) -> dict[str, dict[str, Array]]:
    """Return, for up to ``MOMENTS`` moments by name, the activity of every stage; one moment has no name."""
    course = time_course(observer, stimuli)
    last = len(course.moments) - 1
    at = dict.fromkeys(round(t) for t in np.linspace(0, last, min(MOMENTS, last + 1)))
    return {
        f"{course.unit}={t}" if course.unit else "": {n: np.asarray(a.numpy()) for n, a in course.moments[t].items()}
        for t in at
    }


def linear_probe(taught: Array, labels: Array) -> Callable[[Array], Array]:
    """Return a read-out of activity ``(B, units)``: its value is above 0 where it says 1; as many 1 as 0 are taught."""
    from sklearn.linear_model import RidgeClassifier

    taught = taught.astype(np.float64)
    mean, scale = taught.mean(0), taught.std(0)
    scale = np.where(scale > 1e-6 * max(float(scale.max()), 1e-12), scale, 1.0)
    weight = np.ravel(RidgeClassifier(alpha=10.0 * taught.shape[1] ** 0.5).fit((taught - mean) / scale, labels).coef_)
    return lambda activity: np.asarray(((activity - mean) / scale) @ weight)
