"""Kanizsa figures inside a network: is an illusory polygon represented like the real one, stage by stage?

    similarity(l) = mean over polygons N of cos(REAL_N, IN_N) − max over controls c of cos(REAL_N, c_N)

X_N is the mean activity for polygon N in condition X, less the condition's mean over polygons. decoding(l): a linear
read-out trained on REAL activity names N from IN and from controls; accuracy for IN minus the highest for a control.
Hand-made features have both numbers too (pixels, oriented gradients, polar spectrum): ``over_low_level`` is what a
stage has beyond the best of them. Over the iterations of inference, or spike time, where the rule has them. Intervals:
layouts resampled within their polygon, the strongest control, the best stage and the best feature chosen anew.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Observer, Score, not_available
from evaluation.figures import panels
from evaluation.illusions._drawn import DrawnFromScores
from evaluation.illusions.kanizsa_stimuli import CONTROLS, CORNERS, Layouts, layouts, render
from evaluation.illusions.time_course import TimeCourse, time_course
from evaluation.observers import hog, pixels, polar_spectrum
from evaluation.statistics import Array, interval

SHOWN = ("REAL", "IN", *CONTROLS)
LOW_LEVEL: dict[str, Callable[[Tensor], Tensor]] = {
    "pixels": pixels.features, "hog": hog.features, "polar_spectrum": polar_spectrum.features,
}  # fmt: skip
COMPETENT = 0.5  # held-out accuracy on REAL below which a read-out decodes nothing; chance is 0.25
RESAMPLES = 500


class KanizsaRepresentation(DrawnFromScores):
    """Similarity of illusory to real polygons and decoding across them, by stage, against low-level features.

    Args:
        per_cell: Layouts for every set, number of corners and support ratio.
        seed: Of the layouts; the read-out is trained on those of the next seed.
    """

    name = "kanizsa_representation"
    version = 4  # outlines of small discs are thinner
    pillar = "illusion"
    headline = "similarity_over_low_level"
    reference = "Kim et al. 2021, Comput. Brain Behav. 4:251"
    on_request = True

    def __init__(self, *, per_cell: int = 4, seed: int = 2) -> None:
        self.per_cell, self.seed = per_cell, seed

    def plot(self, path: Path, name: str, scores: list[Score]) -> Path | None:
        """Draw similarity and decoding by stage beside those of hand-made features."""
        return plot(path, name, scores)

    def scores(self, observer: Observer) -> list[Score]:
        """Return similarity and decoding of every stage and of low-level features; the best stage is the headline."""
        size = observer.in_shape[1]
        layout, training = (layouts(size, self.per_cell, self.seed + k) for k in (0, 1))
        images = {c: render(layout, c, size) for c in SHOWN}
        real = render(training, "REAL", size)
        corners, taught = layout.corners.numpy(), training.corners.numpy()
        drawn = draws(corners)
        scores: list[Score] = []
        low: dict[str, list[Array]] = {"similarity": [], "decoding": []}
        for name, features in LOW_LEVEL.items():
            found = {c: features(x).double().numpy() for c, x in images.items()}
            for metric, value in {
                "similarity": similarity(found, corners, drawn),
                "decoding": decoding(features(real).double().numpy(), taught, found, corners, drawn),
            }.items():
                scores.append(_score(f"control_{metric}", value, "", name))
                low[metric] += [value] if value is not None else []
        courses = {c: time_course(observer, x) for c, x in images.items()}
        course = time_course(observer, real)
        if not course.moments[0]:
            return [*scores, not_available("similarity_over_low_level", "it has no stages")]
        best: dict[str, list[Array]] = {"similarity": [], "decoding": []}
        for stage in course.moments[0]:
            scores += self._over_time(stage, courses, corners)
            last = {c: _at(courses[c], stage, -1) for c in SHOWN}
            values = {
                "similarity": similarity(last, corners, drawn),
                "decoding": decoding(_at(course, stage, -1), taught, last, corners, drawn),
            }
            for metric, value in values.items():
                scores.append(_score(metric, value, stage))
                best[metric] += [value] if value is not None else []
        for metric, of_stages in best.items():
            name = f"{metric}_over_low_level"
            if of_stages and low[metric]:
                scores.append(_score(name, np.max(of_stages, 0) - np.max(low[metric], 0), "", num=len(layout)))
                continue
            who = "hand-made feature" if of_stages else "stage"
            scores.append(not_available(name, f"no {who} tells real polygons apart"))
        return scores

    def _over_time(self, stage: str, courses: Mapping[str, TimeCourse], corners: Array) -> list[Score]:
        unit = courses["IN"].unit
        moments = len(courses["IN"].moments) if unit else 0
        whole = np.ones((1, len(corners)))
        return [
            _score("similarity_over_time", similarity({c: _at(courses[c], stage, t) for c in SHOWN}, corners, whole),
                   stage, f"{unit}={t}")
            for t in range(moments)
        ]  # fmt: skip


def draws(corners: Array, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Return how often each layout is drawn: once each in the first row, then with replacement within its polygon.

    Args:
        corners: ``(layouts,)``.
        resamples: R.
        seed: Of the draws.

    Returns:
        ``(1 + R, layouts)``.
    """
    rng = np.random.default_rng(seed)
    drawn = np.ones((1 + resamples, len(corners)))
    for n in np.unique(corners):
        num = int((corners == n).sum())
        drawn[1:, corners == n] = rng.multinomial(num, np.full(num, 1 / num), size=resamples)
    return drawn


def similarity(features: Mapping[str, Array], corners: Array, drawn: Array) -> Array | None:
    """Return cos(REAL, IN) − max over controls of cos(REAL, control), a mean over polygons; nothing if undefined.

    Args:
        features: Condition → ``(layouts, units)``.
        corners: ``(layouts,)``.
        drawn: How often each layout counts, ``(R, layouts)``.

    Returns:
        ``(R,)``.
    """
    share = np.stack([drawn * (corners == n) for n in CORNERS], axis=1)
    share = share / share.sum(2, keepdims=True)
    share = (share - share.mean(1, keepdims=True)).reshape(-1, len(corners))  # a polygon's mean less that of all
    centred = {c: values - values.mean(0) for c, values in features.items()}

    def inner(a: str, b: str) -> Array:
        # Through the products of layouts, of which there are far fewer than units.
        return np.asarray(((share @ (centred[a] @ centred[b].T)) * share).sum(1))

    power = {c: inner(c, c) for c in features}
    if not all(np.isfinite(p).all() and (p > 1e-24).all() for p in power.values()):
        return None
    cosine = {c: inner("REAL", c) / np.sqrt(power["REAL"] * power[c]) for c in ("IN", *CONTROLS)}
    difference = cosine["IN"] - np.max([cosine[c] for c in CONTROLS], axis=0)
    return np.asarray(difference.reshape(len(drawn), -1).mean(1))


def decoding(
    taught: Array, classes: Array, features: Mapping[str, Array], corners: Array, drawn: Array
) -> Array | None:
    """Return accuracy on IN minus the highest on a control, of a read-out of REAL; nothing if it fails on REAL.

    Args:
        taught: Activity for real polygons it is trained on, ``(images, units)``.
        classes: Their corners.
        features: Condition → activity ``(layouts, units)``.
        corners: ``(layouts,)``.
        drawn: How often each layout counts, ``(R, layouts)``; the first row tells whether the read-out fails.

    Returns:
        ``(R,)``.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not np.isfinite(taught).all() or not all(np.isfinite(v).all() for v in features.values()):
        return None
    readout = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200)).fit(taught, classes)
    named = {c: drawn @ (readout.predict(v) == corners) / drawn.sum(1) for c, v in features.items()}
    if named["REAL"][0] < COMPETENT:
        return None
    return np.asarray(named["IN"] - np.max([named[c] for c in CONTROLS], axis=0))


def plot(path: Path, name: str, scores: list[Score]) -> Path | None:
    """Write similarity and decoding, each by stage, with hand-made features as levels; nothing without stages."""
    stages = list(dict.fromkeys(s.stage for s in scores if s.stage))
    if not stages:
        return None
    course = [s for s in scores if s.metric == "similarity_over_time" and s.raw is not None]
    with panels(path, 12.4 if course else 8.4, 3.6, 3 if course else 2) as row:
        for axes, metric in zip(row, ("similarity", "decoding"), strict=False):
            own = [s for s in scores if s.metric == metric and s.raw is not None]
            at = [stages.index(s.stage) for s in own]
            axes.plot(at, [s.raw for s in own], "-o", color="C3", ms=4, label=name)
            axes.vlines(at, [s.ci_low for s in own], [s.ci_high for s in own], color="C3", lw=1)
            for low in (s for s in scores if s.metric == f"control_{metric}" and s.raw is not None):
                axes.axhline(
                    low.raw,
                    color="0.5",
                    lw=1,
                    ls=("--", ":", "-.")[list(LOW_LEVEL).index(low.target)],
                    label=low.target,
                )
            for low in (s for s in scores if s.metric == f"control_{metric}" and s.raw is None):
                axes.plot([], [], " ", label=f"{low.target}: n/a")
            axes.axhline(0, color="0.85", lw=0.8)
            axes.set_xticks(range(len(stages)), stages, fontsize=8)
            axes.set(xlim=(-0.4, len(stages) - 0.6), title=f"{metric}: IN − strongest control")
            axes.title.set_fontsize(9)
            axes.legend(fontsize=7, framealpha=0.8, edgecolor="none")
        if course:
            _over_time(row[2], stages, course)
        row[0].set_ylabel("difference of cosines to REAL")
        row[1].set_ylabel("difference of accuracies")
        row[0].set_xlabel("no point: real polygons cannot be told apart there", fontsize=7)
        row[1].set_xlabel("no human number is known", fontsize=7)
    return path


def _over_time(axes: Any, stages: Sequence[str], course: Sequence[Score]) -> None:
    """Draw similarity over the time of inference, one line per stage; targets of the scores are ``unit=moment``."""
    for stage in stages:
        own = {int(s.target.partition("=")[2]): s.raw for s in course if s.stage == stage}
        if own:
            axes.plot(list(own), list(own.values()), "-o", ms=3, label=stage)
    axes.axhline(0, color="0.85", lw=0.8)
    axes.set_title("similarity over inference", fontsize=9)
    human = "people: V1 later than V2\n(Lee & Nguyen 2001, from memory: order only)"
    axes.set_xlabel(f"{course[0].target.partition('=')[0]}; {human}", fontsize=7)
    axes.legend(fontsize=7, framealpha=0.8, edgecolor="none")


def sheet(size: int = 64) -> tuple[Tensor, list[str], list[str]]:
    """Return one image of each polygon in every condition that is compared."""
    shared: Layouts = layouts(size, 1, seed=2)
    chosen = shared.select((((shared.support_ratio - 0.6).abs() < 1e-3) & (shared.matching == 1)).nonzero()[:, 0])
    return torch.stack([render(chosen, c, size) for c in SHOWN]), list(SHOWN), list(CORNERS.values())


def _at(course: TimeCourse, stage: str, moment: int) -> Array:
    return np.asarray(course.moments[moment][stage].double().numpy())


def _score(metric: str, values: Array | None, stage: str, target: str = "", num: int = 0) -> Score:
    """Return the first value, with the interval of the others."""
    if values is None:
        return not_available(metric, "real polygons cannot be told apart there", stage=stage, target=target)
    low, high = interval(values[1:]) if len(values) > 1 else (None, None)
    where: dict[str, Any] = {"stage": stage, "target": target, "n_stimuli": num, "ci_low": low, "ci_high": high}
    return Score(metric, float(values[0]), higher_is_better=None, **where)
