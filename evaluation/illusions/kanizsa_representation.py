"""Kanizsa figures inside a network: is an illusory polygon represented like the real one, stage by stage?

    similarity(l) = mean over polygons N of cos(REAL_N, IN_N) − max over controls c of cos(REAL_N, c_N)

X_N is the mean activity for polygon N in condition X, less the condition's mean over polygons. decoding(l): a linear
read-out trained on REAL activity names N from IN and from controls; accuracy for IN minus the highest for a control.
Hand-made features have both numbers too (pixels, oriented gradients, polar spectrum): ``over_low_level`` is what a
stage has beyond the best of them. Over the iterations of inference, or spike time, where the rule has them.
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
from evaluation.statistics import Array

SHOWN = ("REAL", "IN", *CONTROLS)
LOW_LEVEL: dict[str, Callable[[Tensor], Tensor]] = {
    "pixels": pixels.features, "hog": hog.features, "polar_spectrum": polar_spectrum.features,
}  # fmt: skip
COMPETENT = 0.5  # held-out accuracy on REAL below which a read-out decodes nothing; chance is 0.25


class KanizsaRepresentation(DrawnFromScores):
    """Similarity of illusory to real polygons and decoding across them, by stage, against low-level features.

    Args:
        per_cell: Layouts for every set, number of corners and support ratio.
        seed: Of the layouts; the read-out is trained on those of the next seed.
    """

    name = "kanizsa_representation"
    version = 2  # nothing is compared with hand-made features that cannot be asked
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
        scores: list[Score] = []
        low: dict[str, list[float]] = {"similarity": [], "decoding": []}
        for name, features in LOW_LEVEL.items():
            found = {c: features(x).double().numpy() for c, x in images.items()}
            for metric, value in {
                "similarity": similarity(found, corners),
                "decoding": decoding(features(real).double().numpy(), taught, found, corners),
            }.items():
                scores.append(_score(f"control_{metric}", value, "", name))
                low[metric] += [value] if value is not None else []
        courses = {c: time_course(observer, x) for c, x in images.items()}
        course = time_course(observer, real)
        if not course.moments[0]:
            return [*scores, not_available("similarity_over_low_level", "it has no stages")]
        best: dict[str, list[float]] = {"similarity": [], "decoding": []}
        for stage in course.moments[0]:
            scores += self._over_time(stage, courses, corners)
            last = {c: _at(courses[c], stage, -1) for c in SHOWN}
            values = {
                "similarity": similarity(last, corners),
                "decoding": decoding(_at(course, stage, -1), taught, last, corners),
            }
            for metric, value in values.items():
                scores.append(_score(metric, value, stage))
                best[metric] += [value] if value is not None else []
        for metric, of_stages in best.items():
            name = f"{metric}_over_low_level"
            if of_stages and low[metric]:
                more = max(of_stages) - max(low[metric])
                scores.append(Score(name, more, higher_is_better=None, n_stimuli=len(layout)))
                continue
            who = "hand-made feature" if of_stages else "stage"
            scores.append(not_available(name, f"no {who} tells real polygons apart"))
        return scores

    def _over_time(self, stage: str, courses: Mapping[str, TimeCourse], corners: Array) -> list[Score]:
        unit = courses["IN"].unit
        moments = len(courses["IN"].moments) if unit else 0
        return [
            _score("similarity_over_time", similarity({c: _at(courses[c], stage, t) for c in SHOWN}, corners), stage,
                   f"{unit}={t}")
            for t in range(moments)
        ]  # fmt: skip


def similarity(features: Mapping[str, Array], corners: Array) -> float | None:
    """Return cos(REAL, IN) − max over controls of cos(REAL, control), a mean over polygons; nothing if undefined.

    Args:
        features: Condition → ``(layouts, units)``.
        corners: ``(layouts,)``.
    """
    centred = {}
    for c, values in features.items():
        means = np.stack([values[corners == n].mean(0) for n in CORNERS])
        means = means - means.mean(0)
        length = np.linalg.norm(means, axis=1, keepdims=True)
        if not np.isfinite(length).all() or (length <= 1e-12).any():
            return None
        centred[c] = means / length
    cosine = {c: (centred["REAL"] * centred[c]).sum(1) for c in ("IN", *CONTROLS)}
    return float((cosine["IN"] - np.max([cosine[c] for c in CONTROLS], axis=0)).mean())


def decoding(taught: Array, classes: Array, features: Mapping[str, Array], corners: Array) -> float | None:
    """Return accuracy on IN minus the highest on a control, of a read-out of REAL; nothing if it fails on REAL.

    Args:
        taught: Activity for real polygons it is trained on, ``(images, units)``.
        classes: Their corners.
        features: Condition → activity ``(layouts, units)``.
        corners: ``(layouts,)``.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not np.isfinite(taught).all() or not all(np.isfinite(v).all() for v in features.values()):
        return None
    readout = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200)).fit(taught, classes)
    accuracy = {c: float((readout.predict(v) == corners).mean()) for c, v in features.items()}
    return accuracy["IN"] - max(accuracy[c] for c in CONTROLS) if accuracy["REAL"] >= COMPETENT else None


def plot(path: Path, name: str, scores: list[Score]) -> Path | None:
    """Write similarity and decoding, each by stage, with hand-made features as levels; nothing without stages."""
    stages = list(dict.fromkeys(s.stage for s in scores if s.stage))
    if not stages:
        return None
    course = [s for s in scores if s.metric == "similarity_over_time" and s.raw is not None]
    with panels(path, 12.4 if course else 8.4, 3.6, 3 if course else 2) as row:
        for axes, metric in zip(row, ("similarity", "decoding"), strict=False):
            own = {s.stage: s.raw for s in scores if s.metric == metric and s.raw is not None}
            axes.plot([stages.index(s) for s in own], list(own.values()), "-o", color="C3", ms=4, label=name)
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


def _score(metric: str, value: float | None, stage: str, target: str = "") -> Score:
    if value is None:
        return not_available(metric, "real polygons cannot be told apart there", stage=stage, target=target)
    return Score(metric, value, higher_is_better=None, stage=stage, target=target)
