"""From answers to Kanizsa stimuli to numbers: the index, its dose–response, the signatures of human observers.

    index_vs(c) = mean over layouts i of p_IN(i) − p_c(i)        index = min over the six controls c of index_vs(c)

Shapes: arrays of answers are ``(n,)`` over layouts, of contrasts ``(n, controls)``.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.base import Observer, Score, not_available
from evaluation.illusions.kanizsa_stimuli import (
    CONDITIONS,
    CONTROLS,
    CORNERS,
    SETS,
    SUPPORT_RATIOS,
    Layouts,
    layouts,
    render,
)
from evaluation.statistics import (
    Array,
    interval,
    matched_set_test,
    partial_spearman,
    resampled_means,
    spearman,
)

EPSILON = 1e-4  # probabilities are kept this far from 0 and 1 before taking log-odds
MARGIN = 0.05  # probability: contrasts within it count as none

# What a human observer's contrasts look like, written down before any network was asked. Name: contrast as
# {condition: weight}, what is expected of it, and by whom.
SIGNATURES: dict[str, tuple[dict[str, float], str, str]] = {
    "mixed_polarity": (
        {"MIX": 1, "IN": -1}, "not below 0",
        "mixed polarity is at least as strong as equal polarity (Matthews & Welch 1997; authors' names from memory)",
    ),
    "outline_inducers": (
        {"OUTL": 1, "ROT": -0.5, "OUT": -0.5}, "0", "outlines are ineffective inducers (Albert & Hoffman 2000)",
    ),
    "misalignment": (
        {"SHEAR": 1, "ROT": -0.5, "OUT": -0.5}, "0", "shear destroys the figure (Kellman & Shipley)",
    ),
    "distractor_lines": (
        {"IN": 1, "IN_LINES": -1, "OUT": -1, "OUT_LINES": 1}, "above 0",
        "lines across the gaps harm the illusory figure more than one without (Keane et al. 2012)",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """What an observer said to every layout in every condition.

    Attributes:
        p: Condition to the probability of the polygon.
        answer: Condition to the class it answered.
        truth: The polygon's class.
        layout: What was shown.
    """

    p: dict[str, Array]
    answer: dict[str, Array]
    truth: Array
    layout: Layouts

    @property
    def finite(self) -> bool:
        """Whether every probability is a number."""
        return all(bool(np.isfinite(v).all()) for v in self.p.values())

    @property
    def cell(self) -> NDArray[np.int64]:
        """Stratum of every layout: its set, corners and support ratio."""
        shape = self.layout
        keys = torch.stack([shape.matching.float(), shape.corners.float(), shape.support_ratio], 1)
        return np.unique(keys.numpy(), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)

    @property
    def ratio(self) -> Array:
        """Support ratio of every layout."""
        return self.layout.support_ratio.double().numpy()

    def where(self, ratio: float) -> Array:
        """Return which layouts have a support ratio, boolean."""
        return np.asarray(np.abs(self.ratio - ratio) < 1e-4)

    def contrasts(self, values: dict[str, Array] | None = None) -> Array:
        """Return IN minus every control, ``(n, controls)``, of probabilities or of other values."""
        values = self.p if values is None else values
        return np.stack([values["IN"] - values[c] for c in CONTROLS], 1)


@functools.lru_cache(maxsize=2)
def stimuli(size: int, per_cell: int, seed: int) -> tuple[Layouts, dict[str, Tensor]]:
    """Return layouts and the images of every condition; the last ones are kept, since all runs of a study see them."""
    shared = layouts(size, per_cell, seed)
    return shared, {condition: render(shared, condition, size) for condition in CONDITIONS}


def ask(observer: Observer, layout: Layouts, images: Mapping[str, Tensor]) -> Answers:
    """Show the images of every condition of the layouts."""
    truth = torch.tensor([observer.classes.index(CORNERS[n]) for n in layout.corners.tolist()])
    p, answer = {}, {}
    for condition, shown in images.items():
        output = observer.predict(shown).double()
        p[condition] = output.gather(1, truth[:, None])[:, 0].numpy()
        answer[condition] = output.argmax(1).numpy()
    return Answers(p, answer, truth.numpy(), layout)


def index_of(contrast: Array) -> float:
    """Return the index of contrasts ``(n, controls)``: the mean contrast with the strongest control."""
    return float(contrast.mean(0).min())


def index_scores(found: Answers) -> list[Score]:
    """Return the index with its interval, error and p, and its normalised, log-odds and hard-label versions."""
    contrast, num, cell = found.contrasts(), len(found.truth), found.cell
    resampled = resampled_means(contrast, cell)
    scores = []
    for k, control in enumerate(CONTROLS):
        low, high = interval(resampled[:, k])
        scores.append(_contrast("index_vs", float(contrast[:, k].mean()), control, num, low, high))
    strongest = CONTROLS[int(contrast.mean(0).argmin())]
    low, high = interval(resampled.min(1))
    shared: dict[str, Any] = {"higher_is_better": None, "n_stimuli": num, "target": strongest}
    room = found.p["REAL"] - found.p[strongest]
    least, _ = interval(resampled_means(room[:, None], cell)[:, 0])
    sets = np.stack([found.p[c] for c in ("IN", *CONTROLS)], 1)
    hard = {c: (a == found.truth).astype(float) for c, a in found.answer.items()}
    for k, name in enumerate(SETS):
        own = found.layout.matching.numpy() == k
        scores.append(_contrast("index_in", index_of(contrast[own]), name, int(own.sum())))
    return [
        *scores,
        Score("index", index_of(contrast), ci_low=low, ci_high=high, **shared),
        Score("index_error", float(resampled.min(1).std(ddof=1)), **shared | {"target": ""}),
        Score("index_p", matched_set_test(sets), **shared | {"target": ""}),
        # A ratio to next to nothing would be as large as one likes.
        Score("index_normalised", index_of(contrast) / float(room.mean()), **shared)
        if least > MARGIN
        else not_available("index_normalised", f"real polygons are hardly more probable than {strongest}"),
        _contrast("index_log_odds", index_of(found.contrasts({c: log_odds(v) for c, v in found.p.items()})), "", num),
        _contrast("index_hard", index_of(found.contrasts(hard)), "", num),
    ]


def dose_scores(found: Answers) -> list[Score]:
    """Return the index at every support ratio and its rank correlation with the ratio, raw and partial on FRAG.

    The physical share of the contour is the support ratio itself, so that a network that sees nothing but the
    corners has a dose–response too. What is left given its answers to the bare corners (FRAG) is taken layout by
    layout, from the contrast with the strongest control; human clarity rises with the ratio.
    """
    contrast, num = found.contrasts(), len(found.truth)
    dose = [index_of(contrast[found.where(r)]) for r in SUPPORT_RATIOS]
    scores = [
        _contrast("index_at", d, f"support_ratio={r}", num // len(dose))
        for r, d in zip(SUPPORT_RATIOS, dose, strict=True)
    ]
    own = contrast[:, int(contrast.mean(0).argmin())]
    for name, rho, why in (
        ("dose_response", spearman(SUPPORT_RATIOS, dose), "the index is the same at every support ratio"),
        (
            "dose_response_partial", partial_spearman(found.ratio, own, found.p["FRAG"]),
            "nothing varies with the support ratio beside the answers to bare corners",
        ),
    ):  # fmt: skip
        scores.append(_contrast(name, rho, "", num) if math.isfinite(rho) else not_available(name, why))
    return scores


def signature_scores(found: Answers, fooled: bool) -> list[Score]:
    """Return the contrasts that human observers have, and how many of them the network shares.

    Args:
        found: The answers.
        fooled: Whether the index's interval lies above 0; without an illusion it has no signatures.
    """
    scores, agreeing = [], 0
    values = np.stack([np.sum([w * found.p[c] for c, w in s[0].items()], axis=0) for s in SIGNATURES.values()], 1)
    resampled = resampled_means(values, found.cell)
    for k, (name, (_, expected, source)) in enumerate(SIGNATURES.items()):
        low, high = interval(resampled[:, k])
        verdict = {
            "not below 0": low >= -MARGIN,
            "0": low >= -MARGIN and high <= MARGIN,
            "above 0": low > 0,
        }[expected]
        agreeing += verdict
        told = f"expected {expected}: {source}"
        mean = float(values[:, k].mean())
        scores.append(_contrast("signature", mean, name, len(found.truth), low, high, told))
    if not fooled:
        return [*scores, not_available("signatures", "it is not fooled: there is no illusion to have signatures")]
    return [*scores, Score("signatures", agreeing / len(SIGNATURES), n_stimuli=len(found.truth))]


def log_odds(p: Array) -> Array:
    """Return log p / (1 − p), with p kept off 0 and 1."""
    p = np.clip(p, EPSILON, 1 - EPSILON)
    return np.log(p / (1 - p))


def _contrast(
    metric: str,
    value: float,
    target: str,
    num: int,
    low: float | None = None,
    high: float | None = None,
    reason: str = "",
) -> Score:
    return Score(
        metric, value, higher_is_better=None, target=target, n_stimuli=num, ci_low=low, ci_high=high, reason=reason
    )
