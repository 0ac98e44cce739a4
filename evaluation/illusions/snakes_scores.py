"""Scores of Rotating Snakes: speeds per condition, controls, false positives, gates, the index and its steadiness."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from evaluation.base import Observer, Score, TrainedObserver, not_available
from evaluation.illusions.extrapolation import Motion, View
from evaluation.illusions.snakes_conditions import real
from evaluation.illusions.snakes_stimuli import fitting
from evaluation.prediction import errors
from evaluation.statistics import Array

EQUIVALENT = 0.01  # deg per frame within which a control shows no motion
FALSE_POSITIVE = 0.02  # deg per frame: what the read-out itself may mistake for motion
LEAST_SIGN, LEAST_CORRELATION = 0.95, 0.9
CONTROLS = ("C1", "C2", "C3", "C4")
NULL = ("static_null", "index_left", "static_explained")
SUMMARY = ("index", "reversal", "consistency", "drift_linearity", "drift_persistence")


def unable(observer: Observer) -> str:
    """Return why an observer cannot be asked; nothing if it can."""
    if observer.classes:
        return "it names images and predicts no frames"
    if not hasattr(observer, "frames"):
        return "it filters images and predicts no frames"
    if fitting(max(observer.in_shape[1:])) is None:
        return f"frames of {max(observer.in_shape[1:])} pixels cannot show the rings; train with task.size=64 or more"
    return ""


def gates(observer: Observer, seen: View) -> tuple[list[Score], str]:
    """Return how well real motion is predicted, and why the observer may not be judged, or nothing."""
    shown, speeds = real(seen)
    predicted = observer.predict(shown[:, :-1].flatten(1, 2))
    if not predicted.isfinite().all():
        return [], "its predictions are not finite"
    error, still = frame_errors(observer, shown, predicted)
    found = seen.turn(shown[:, -2], predicted) @ seen.radius / seen.radius.sum()
    sign = float((found.sign() == speeds.sign()).double().mean())
    defined = bool(found.isfinite().all() and found.std() > 0)
    r = float(np.corrcoef(found.numpy(), speeds.numpy())[0, 1]) if defined else math.nan
    slope = float((found * speeds).sum() / speeds.square().sum())
    num: dict[str, Any] = {"n_stimuli": len(speeds)}
    scores = [
        Score("real_sign_accuracy", sign, ceiling_low=0.5, ceiling_high=1.0, **num),
        Score("real_correlation", r, ceiling_high=1.0, **num),
        Score("real_gain", slope, higher_is_better=None, ceiling_high=1.0, **num),
        Score("error_to_copy", error / still, higher_is_better=False),
    ]
    if error >= still:
        return scores, f"predicts frames no better than the last frame does (error {error / still:.2f} of its error)"
    if not (sign >= LEAST_SIGN and r >= LEAST_CORRELATION):
        return scores, f"does not see real rotation: sign right in {sign:.0%}, r = {r:.2f}"
    return scores, ""


def frame_errors(observer: Observer, shown: Tensor, predicted: Tensor) -> tuple[float, float]:
    """Return the mean squared error of the predictions and that of the last frame in their place.

    On the task's held-out clips where the observer has them, else on the clips that turn.
    """
    if isinstance(observer, TrainedObserver):
        own, copied = errors(observer)
        return own.mean().item(), copied.mean().item()
    target, last = shown[:, -1], shown[:, -2]
    return (predicted - target).square().mean().item(), (last - target).square().mean().item()


def equivalent(values: Array, bound: float = EQUIVALENT) -> bool:
    """Return whether the mean lies within ± bound by two one-sided t tests at .05 (the 90 % interval does)."""
    from scipy import stats

    half = stats.t.ppf(0.95, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return bool(abs(values.mean()) + half < bound)


def interval(values: Array) -> tuple[float | None, float | None]:
    """Return the 95 % t interval of a mean."""
    from scipy import stats

    if len(values) < 2:
        return None, None
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def speeds_of(code: str, found: Motion) -> list[Score]:
    """Return the speed and the bias of one condition."""
    speeds = found.by_image.numpy()
    speeds = speeds[np.isfinite(speeds)]
    if not len(speeds):
        return [not_available("speed", "no pattern is left to turn", target=code)]
    low, high = interval(speeds)
    here: dict[str, Any] = {"target": code, "higher_is_better": None, "n_stimuli": len(speeds)}
    bias = float(found.bias.nanmean())
    kept = float(found.contrast[:, -1].mean())
    return [
        Score("speed", float(speeds.mean()), ci_low=low, ci_high=high, **here),
        Score("bias", bias, **here),
        Score("contrast_kept", kept, **here),
        Score("steps_read", float(found.by_step.isfinite().sum(1).double().mean()), **here),
    ]


def equivalence(measured: Mapping[str, Motion]) -> list[Score]:
    """Return whether each control shows no motion: 1 where it is equivalent to none, else 0."""
    scores = []
    for code in CONTROLS:
        speeds = measured[code].by_image.numpy()
        if not np.isfinite(speeds).all():
            scores.append(not_available("no_motion", "the pattern is lost in some of the images", target=code))
            continue
        text = f"within ± {EQUIVALENT} deg/frame by two one-sided tests"
        scores.append(Score("no_motion", float(equivalent(speeds)), target=code, n_stimuli=len(speeds), reason=text))
    return scores


def false_positives(measured: Mapping[str, Motion]) -> list[Score]:
    """Return the share of images without an illusion that turn, and that turn as much as the snake."""
    snake = abs(float(measured["S1"].by_image.nanmean()))
    scores = []
    for code, what in (("C5", "textures"), ("C6", "photographs")):
        if code in measured and measured[code].by_image.isfinite().any():
            speeds = measured[code].by_image
            speeds = speeds[speeds.isfinite()].abs()
            for metric, threshold in (("false_positive_rate", FALSE_POSITIVE), ("turn_as_much", snake)):
                share = float((speeds >= threshold).double().mean())
                scores.append(Score(metric, share, higher_is_better=False, target=what, n_stimuli=len(speeds)))
    return scores


def summary(measured: Mapping[str, Motion]) -> list[Score]:
    """Return the index, that of reversed colours, and how consistent and steady the motion is."""
    found = measured["S1"]
    speeds = found.by_image[found.by_image.isfinite()].numpy()
    low, high = interval(speeds)
    reversal = ((measured["S3_base"].by_image - measured["S3"].by_image) / 2).nanmean()
    rings, steps = found.speed.nanmean((0, 1)), found.by_step.nanmean(0).numpy()
    here: dict[str, Any] = {"higher_is_better": None, "n_stimuli": len(speeds)}
    linearity, persistence = drift(steps)
    return [
        *(Score("ring_speed", float(v), target=f"ring={n + 1}", **here) for n, v in enumerate(rings)),
        *(Score("step_speed", float(v), target=f"step={n + 1}", **here) for n, v in enumerate(steps)),
        Score("index", float(speeds.mean()), ci_low=low, ci_high=high, **here),
        Score("reversal", float(reversal), **here),
        Score("consistency", float((rings > 0).double().mean()), ceiling_low=0.5, ceiling_high=1.0, **here),
        Score("drift_linearity", linearity, ceiling_high=1.0, **here),
        Score("drift_persistence", persistence, **here),
    ]


def beyond_null(found: Motion, null: Motion, explained: float) -> list[Score]:
    """Return the speed of the static map that imitates the observer best, and what is left of the index without it.

    Args:
        found: The observer's.
        null: The map's, in the same images.
        explained: Share of what the observer changes in an image that the map explains.
    """
    # A map whose pattern fades turns nothing from then on.
    theirs = null.by_image.nan_to_num(0).numpy()
    left = (found.by_image.numpy() - theirs)[np.isfinite(found.by_image.numpy())]
    low, high = interval(left)
    here: dict[str, Any] = {"higher_is_better": None, "n_stimuli": len(left)}
    return [
        Score("static_null", float(theirs.mean()), **here),
        Score("index_left", float(left.mean()), ci_low=low, ci_high=high, **here),
        Score("static_explained", explained, higher_is_better=None, ceiling_high=1.0),
    ]


def drift(steps: Array) -> tuple[float, float]:
    """Return how linear a drift is over the steps (R² of the angle) and how much of its speed the second half keeps."""
    steps = steps[np.isfinite(steps)]
    if len(steps) < 2:
        return math.nan, math.nan
    angle, step = np.concatenate([[0.0], steps.cumsum()]), np.arange(len(steps) + 1.0)
    spread = ((angle - angle.mean()) ** 2).sum()
    linearity = float(np.corrcoef(step, angle)[0, 1] ** 2) if spread > 0 else math.nan
    half = len(steps) // 2
    first = steps[:half].mean()
    return linearity, float(steps[-half:].mean() / first) if first else math.nan
