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

import numpy as np
from numpy.typing import NDArray

from evaluation.brain.rdm import Array
from evaluation.statistics import spearman

FEWEST = 3  # ROIs or stages below which a correlation over them says nothing
EXACT = 7  # stages up to which all permutations are counted
PERMUTATIONS = 5000


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


def best_stage(scores: Array) -> Array:
    """Return the index of the best stage for each column of ``(L, R)``."""
    return scores.argmax(0).astype(np.float64)


def centre_of_mass(scores: Array) -> Array:
    """Return the mean stage index, weighted by ``max(S, 0)``, for each column; nan where no stage is above 0."""
    weight = np.maximum(scores, 0)
    total = weight.sum(0)
    return np.where(total > 0, (np.arange(len(scores)) @ weight) / np.where(total > 0, total, 1), np.nan)


def spatial(scores: Array, position: Sequence[float], *, soft: bool = False) -> float:
    """Return the correlation of each ROI's stage with its position in the hierarchy.

    Args:
        scores: ``(L, R)``.
        position: Rank of each ROI, or its distance from the lowest.
        soft: Take the centre of mass instead of the best stage.
    """
    if scores.shape[1] < FEWEST or len(scores) < 2 or not np.isfinite(scores).all():
        return math.nan
    place = centre_of_mass(scores) if soft else best_stage(scores)
    return spearman(place.tolist(), list(position)) if np.isfinite(place).all() else math.nan


def latency_score(latencies: Array) -> float:
    """Return the correlation of stage index with latency ``(L,)``; stages without a latency are left out."""
    known = np.isfinite(latencies)
    if known.sum() < FEWEST:
        return math.nan
    return spearman(np.arange(len(latencies))[known].tolist(), latencies[known].tolist())


def with_null(score: Callable[[NDArray[np.int64]], float], num_stages: int, seed: int = 0) -> Hierarchical:
    """Return a score with the null of permuted stages, exact for few stages.

    Args:
        score: From an order of the stages to the score; it is called with the true order first.
        num_stages: L.
        seed: Of the permutations, where not all are counted.
    """
    value = score(np.arange(num_stages))
    if not math.isfinite(value):
        return Hierarchical(value, math.nan, np.array([]))
    if num_stages <= EXACT:
        orders = [np.array(o) for o in itertools.permutations(range(num_stages))]
    else:
        rng = np.random.default_rng(seed)
        orders = [np.arange(num_stages), *(rng.permutation(num_stages) for _ in range(PERMUTATIONS))]
    null = np.array([score(o) for o in orders])
    null = null[np.isfinite(null)]
    return Hierarchical(value, float((np.abs(null) >= abs(value) - 1e-12).mean()), null)


def ordered_slope(scores: Array, ceilings: Sequence[float]) -> float:
    """Return the slope, per whole network, of ``S[:, high] / ceiling − S[:, low] / ceiling`` for two ROIs.

    Args:
        scores: ``(..., L, 2)``, lower ROI first.
        ceilings: Upper noise ceiling of each ROI.
    """
    return float(slopes(scores[None], ceilings)[0])


def slopes(scores: Array, ceilings: Sequence[float]) -> Array:
    """Return the slopes of many resamples ``(..., L, 2)`` at once; see ``ordered_slope``."""
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


def onset_latency(curves: Array, times: Array, *, permutations: int = 500, alpha: float = 0.05, seed: int = 0) -> float:
    """Return the start of the first cluster of times at which subjects' curves ``(S, T)`` are above 0.

    Clusters of t values above the one-sided 5 % point, by their sum against the largest sum under random flips of
    subjects' signs (Maris & Oostenveld 2007, J. Neurosci. Methods 164:177). nan where none is significant.
    """
    from scipy.special import stdtrit

    num = len(curves)
    if num < 5:  # 2⁻⁴ > 0.05: no cluster could be significant
        return math.nan
    threshold = float(stdtrit(num - 1, 1 - alpha))

    def t_values(mean: Array, square: Array) -> Array:
        spread = np.sqrt(np.maximum(square - mean**2, 1e-30) / (num - 1))
        return mean / spread

    square = np.square(curves).mean(0)
    rng = np.random.default_rng(seed)
    signs = rng.choice((-1.0, 1.0), (permutations, num))
    largest = np.array([max((m for _, m in _clusters(t_values(f, square), threshold)), default=0.0)
                        for f in signs @ curves / num])  # fmt: skip
    for start, mass in _clusters(t_values(curves.mean(0), square), threshold):
        if times[start] > 0 and (1 + (largest >= mass).sum()) / (1 + permutations) <= alpha:
            return float(times[start])
    return math.nan


def _clusters(t: Array, threshold: float) -> list[tuple[int, float]]:
    """Return (first index, sum) of every run of values above the threshold."""
    above = np.concatenate([[False], t > threshold, [False]])
    starts, ends = np.flatnonzero(above[1:] & ~above[:-1]), np.flatnonzero(~above[1:] & above[:-1])
    return [(int(a), float(t[a:b].sum())) for a, b in zip(starts, ends, strict=True)]


def held_out_best(scores_of: Callable[[NDArray[np.int64]], Array], num: int, *, splits: int = 20, seed: int = 0) -> Array:
    """Return each column's score at the stage that other images chose: no stage is picked by what it is scored on.

    Args:
        scores_of: From images' indices to ``(L, R)``.
        num: Number of images.
        splits: Random halves; each half chooses for the other.
        seed: Of the halves.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        order = rng.permutation(num)
        halves = np.sort(order[: num // 2]), np.sort(order[num // 2 :])
        first, second = scores_of(halves[0]), scores_of(halves[1])
        for choosing, scored in ((first, second), (second, first)):
            found.append(np.take_along_axis(scored, np.nanargmax(choosing, 0)[None], 0)[0])
    return np.mean(found, 0)
