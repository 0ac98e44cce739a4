"""Does a network follow the brain's hierarchy, in space and in time, and which way do its learning signals run?

    spatial    corr(best stage of ROI r, rank of r)                best stage: argmax_l S[l, r]
    centre     the same with the centre of mass of max(S[:, r], 0) over stages
    temporal   corr(index of stage l, peak or onset latency of S[l, :])
    slope      over stages of S[l, IT] / ceiling_IT − S[l, EVC] / ceiling_EVC, where there are two ROIs only
    BH         corr(index of a unit's stage, ROI from which the unit is decoded best)      (see encoding.py)

All correlations are Spearman's; a distance from V1 can take the place of the rank (Raugel et al. 2025), which is
degenerate for early areas, since V2 and V3 wrap around V1. A signal that runs *against* the hierarchy, as an error
that travels from the readout downwards does in time, has a negative temporal score.

Shapes: ``L`` stages in order, ``R`` ROIs, lowest first, ``T`` times.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.brain.rdm import Array

FEWEST = 3  # ROIs or stages below which a correlation over them says nothing
EXACT = 7  # stages up to which all permutations are counted
PERMUTATIONS = 5000
FEWEST_SUBJECTS = 5  # below which no cluster could be significant: 2⁻⁴ > 0.05


@dataclass(frozen=True)
class Hierarchical:
    """A hierarchy score with its permutation null.

    Attributes:
        value: The score, nan where it is not defined.
        p_value: Two-sided share of permutations of the stages' labels that give at least as large a score.
        null: Scores of the permutations.
    """

    value: float
    p_value: float
    null: Array


def rank_correlation(x: Array, y: Array) -> Array:
    """Return Spearman's correlation along the last axis of ``x`` and ``y``, over the others; nan where constant."""
    x, y = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))

    def centred_ranks(v: Array) -> Array:
        less = (v[..., :, None] > v[..., None, :]).sum(-1)
        rank = less + 0.5 * (v[..., :, None] == v[..., None, :]).sum(-1)
        return rank - rank.mean(-1, keepdims=True)

    a, b = centred_ranks(x), centred_ranks(y)
    power = (a * a).sum(-1) * (b * b).sum(-1)
    return np.where(power > 0, (a * b).sum(-1) / np.sqrt(np.where(power > 0, power, 1)), np.nan)


def centre_of_mass(scores: Array) -> Array:
    """Return the mean stage index, weighted by ``max(S, 0)``, for each ROI; nan where none is above 0."""
    weight = np.maximum(scores, 0)
    total = weight.sum(-2)
    moment = (np.arange(scores.shape[-2])[:, None] * weight).sum(-2)
    return np.where(total > 0, moment / np.where(total > 0, total, 1), np.nan)


def spatial(scores: Array, position: Sequence[float], *, soft: bool = False) -> Array:
    """Return the correlation of each ROI's stage with its position in the hierarchy, for each of ``(..., L, R)``.

    nan where it is not defined: fewer than three ROIs, one stage best for all, or a score that is not there.

    Args:
        scores: Stage × ROI.
        position: Rank of each ROI, or its distance from the lowest.
        soft: Take the centre of mass instead of the best stage.
    """
    if scores.shape[-1] < FEWEST or scores.shape[-2] < 2:
        return np.full(scores.shape[:-2], np.nan)
    usable: Any = np.isfinite(scores).all((-1, -2))
    filled = np.where(usable[..., None, None], scores, 0.0)
    place = centre_of_mass(filled) if soft else filled.argmax(-2).astype(np.float64)
    usable &= np.isfinite(place).all(-1)
    found = rank_correlation(np.where(usable[..., None], place, 0.0), np.asarray(position))
    return np.where(usable, found, np.nan)


def latency_score(latencies: Array) -> Array:
    """Return the correlation of stage index with latency ``(..., L)``; stages without a latency are left out."""
    index = np.arange(latencies.shape[-1], dtype=np.float64)
    if np.isfinite(latencies).all():
        short = latencies.shape[-1] < FEWEST
        return np.full(latencies.shape[:-1], np.nan) if short else rank_correlation(latencies, index)
    flat = latencies.reshape(-1, latencies.shape[-1])
    found = np.full(len(flat), np.nan)
    for k, row in enumerate(flat):
        known = np.isfinite(row)
        if known.sum() >= FEWEST:
            found[k] = rank_correlation(row[known], index[known])
    return found.reshape(latencies.shape[:-1])


def with_null(score: Callable[[Array], Array], values: Array, seed: int = 0) -> Hierarchical:
    """Return a score with the null of permuted stages, exact for few stages.

    Args:
        score: From values ``(..., L, …)``, the first axis free, to scores.
        values: Stages first, ``(L, …)``.
        seed: Of the permutations, where not all are counted.
    """
    num = len(values)
    value = float(score(values[None])[0])
    if not math.isfinite(value):
        return Hierarchical(value, math.nan, np.array([]))
    if num <= EXACT:
        orders = np.array(list(itertools.permutations(range(num))))
    else:
        rng = np.random.default_rng(seed)
        orders = np.stack([np.arange(num), *(rng.permutation(num) for _ in range(PERMUTATIONS))])
    null = score(values[orders])
    null = null[np.isfinite(null)]
    return Hierarchical(value, float((np.abs(null) >= abs(value) - 1e-12).mean()), null)


def slopes(scores: Array, ceilings: Sequence[float]) -> Array:
    """Return the slope, per whole network, of ``S[:, high] / ceiling − S[:, low] / ceiling`` for two ROIs.

    Args:
        scores: ``(..., L, 2)``, lower ROI first.
        ceilings: Upper noise ceiling of each ROI.
    """
    x = np.linspace(0, 1, scores.shape[-2])
    x = x - x.mean()
    difference = scores[..., 1] / ceilings[1] - scores[..., 0] / ceilings[0]
    return np.asarray(difference @ x / (x @ x))


def peak_latency(curve: Array, times: Array) -> float:
    """Return the time of the maximum after 0 of a curve ``(T,)``, refined by a parabola through its neighbours."""
    after = np.flatnonzero(times > 0)
    if not len(after) or not np.isfinite(curve[after]).all():
        return math.nan
    top = int(after[curve[after].argmax()])
    if 0 < top < len(curve) - 1 and top > after[0]:
        a, b, c = curve[top - 1 : top + 2]
        bend = a - 2 * b + c
        if bend < 0:
            shift = 0.5 * (a - c) / bend
            step = times[top + 1] - times[top] if shift > 0 else times[top] - times[top - 1]
            return float(times[top] + shift * step)
    return float(times[top])


def onset_latency(curves: Array, times: Array) -> float:
    """Return the start of the first cluster after 0 where curves ``(S, T)`` are above 0; nan without one."""
    starts = [times[a] for a, _ in effects(curves) if times[a] > 0]
    return float(starts[0]) if starts else math.nan


def peak_of_effect(curves: Array, times: Array) -> float:
    """Return the peak of the mean of subjects' curves ``(S, T)``; nan where none of them is an effect after 0.

    With fewer than ``FEWEST_SUBJECTS`` nothing could be significant, and the peak is returned untested.
    """
    if len(curves) >= FEWEST_SUBJECTS and not any(times[b - 1] > 0 for _, b in effects(curves)):
        return math.nan
    return peak_latency(curves.mean(0), times)


def effects(curves: Array, *, permutations: int = 500, alpha: float = 0.05, seed: int = 0) -> list[tuple[int, int]]:
    """Return the clusters of times at which subjects' curves ``(S, T)`` are above 0, begin and end.

    Clusters of t values above the one-sided 5 % point, by their sum against the largest sum under random flips of
    subjects' signs (Maris & Oostenveld 2007, J. Neurosci. Methods 164:177).
    """
    from scipy.special import stdtrit

    num = len(curves)
    if num < FEWEST_SUBJECTS:
        return []
    threshold = float(stdtrit(num - 1, 1 - alpha))

    def t_values(mean: Array, square: Array) -> Array:
        spread = np.sqrt(np.maximum(square - mean**2, 1e-30) / (num - 1))
        return mean / spread

    square = np.square(curves).mean(0)
    rng = np.random.default_rng(seed)
    flipped = t_values(rng.choice((-1.0, 1.0), (permutations, num)) @ curves / num, square)
    running: Array = np.zeros(permutations)
    largest: Array = np.zeros(permutations)
    for t in flipped.T:
        running = np.where(t > threshold, running + t, 0.0)
        largest = np.maximum(largest, running)
    true = t_values(curves.mean(0), square)
    above = np.concatenate([[False], true > threshold, [False]])
    starts, ends = np.flatnonzero(above[1:] & ~above[:-1]), np.flatnonzero(~above[1:] & above[:-1])
    return [
        (int(a), int(b))
        for a, b in zip(starts, ends, strict=True)
        if (1 + (largest >= true[a:b].sum()).sum()) / (1 + permutations) <= alpha
    ]
