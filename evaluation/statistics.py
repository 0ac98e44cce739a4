"""Small statistics that the field agrees on: interquartile mean, bootstraps, exact permutation and equivalence tests.

Seeds are the unit of inference between rules, images within a run. scipy is the oracle in the tests.
(Agarwal et al. 2021, arXiv 2108.13264, for the interquartile mean and its stratified bootstrap.)
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESAMPLES = 2000


def iqm(values: Array, axis: int = -1) -> Array:
    """Return the interquartile mean: the mean without the lowest and highest quarter (rounded down)."""
    values = np.sort(np.asarray(values, dtype=np.float64), axis=axis)
    num = values.shape[axis]
    cut = int(0.25 * num)
    return np.take(values, np.arange(cut, num - cut), axis=axis).mean(axis=axis)


def iqm_interval(values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float] | None:
    """Return the bootstrap 95 % interval of the interquartile mean over seeds; ``None`` for fewer than two."""
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        return None
    rng = np.random.default_rng(seed)
    means = iqm(sample[rng.integers(0, len(sample), (resamples, len(sample)))])
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def stratified_bootstrap(
    statistic: Callable[[Array], Array],
    values: Array,
    strata: NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % interval of a statistic of column means, resampling rows within strata.

    Args:
        statistic: From column means ``(R, columns)`` to a statistic ``(R,)``.
        values: ``(rows, columns)``; one row is one unit of resampling.
        strata: ``(rows,)`` stratum of each row; every stratum keeps its size.
        resamples: Number of resamples.
        seed: Of the resampling.
    """
    return interval(statistic(resampled_means(values, strata, resamples=resamples, seed=seed)))


def resampled_means(values: Array, strata: NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Return column means of rows resampled within strata, ``(R, columns)``; arguments as ``stratified_bootstrap``."""
    rng = np.random.default_rng(seed)
    total = np.zeros((resamples, values.shape[1]))
    for stratum in np.unique(strata):
        rows = values[strata == stratum]
        # How often each row is drawn; the sum over drawn rows is then one matrix product.
        counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
        total += counts @ rows
    return total / len(values)


def interval(resampled: Array) -> tuple[float, float]:
    """Return the central 95 % of resampled values ``(R,)``."""
    low, high = np.quantile(resampled, (0.025, 0.975))
    return float(low), float(high)


def hierarchical_bootstrap(
    groups: Sequence[Array],
    statistic: Callable[[Array], Array] = lambda m: m[:, 0],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % interval of a statistic's mean over seeds: seeds are resampled, then images within each.

    Args:
        groups: One array ``(images, columns)`` per seed.
        statistic: From column means ``(R, columns)`` to a statistic ``(R,)``, of one seed.
        resamples: Number of resamples.
        seed: Of the resampling.

    Raises:
        ValueError: If there are fewer than two seeds.
    """
    if len(groups) < 2:
        raise ValueError(f"needs at least two seeds, got {len(groups)}")
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=resamples)  # (R, seeds)
    total = np.zeros(resamples)
    for k, rows in enumerate(groups):
        chosen = np.repeat(np.arange(resamples), times[:, k])  # every draw of a seed draws images of its own
        counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=len(chosen))
        total += np.bincount(chosen, statistic(counts @ rows / len(rows)), resamples)
    low, high = np.quantile(total / len(groups), (0.025, 0.975))
    return float(low), float(high)


def matched_set_test(sets: Array, *, permutations: int = 10_000, seed: int = 0) -> float:
    """Return the one-sided p that the first condition beats every other one, permuting labels within matched sets.

    The statistic is the smallest mean difference between the first condition and another one. If conditions are
    exchangeable within a set, every cyclic shift of a set's labels is equally likely. All kⁿ shifts are counted where
    they are no more than ``permutations``; else that many random ones, the observed one among them.

    Args:
        sets: ``(n, k)``: n matched sets of k conditions.
        permutations: Number of shifts.
        seed: Of random ones.
    """
    num, width = sets.shape
    shifts: NDArray[np.uint8]
    if width**num <= permutations:
        shifts = np.array(list(itertools.product(range(width), repeat=num)), dtype=np.uint8)
    else:
        shifts = np.random.default_rng(seed).integers(0, width, (permutations, num), dtype=np.uint8)
        shifts[0] = 0
    means = np.zeros((len(shifts), width))
    for s in range(width):
        means += (shifts == s).astype(np.float64) @ np.roll(sets, -s, axis=1) / num
    smallest: Array = (means[:, :1] - means[:, 1:]).min(1)
    observed = (sets[:, :1].mean(0) - sets[:, 1:].mean(0)).min()
    return float((smallest >= observed - 1e-12 * (1 + abs(observed))).mean())


def equivalence_test(differences: Sequence[float], margin: float) -> float | None:
    """Return the p of two one-sided t tests (TOST) that the mean lies outside ±margin; ``None`` for fewer than two.

    A small p says that the mean is within the margin: no difference that matters (Schuirmann 1987).

    Raises:
        ValueError: If the margin is not positive.
    """
    if margin <= 0:
        raise ValueError(f"the margin must be positive, got {margin}")
    sample = np.asarray(differences, dtype=np.float64)
    if len(sample) < 2:
        return None
    from scipy.special import stdtr

    mean, error = float(sample.mean()), float(sample.std(ddof=1)) / math.sqrt(len(sample))
    if error == 0:
        return 0.0 if abs(mean) < margin else 1.0
    return float(max(stdtr(len(sample) - 1, -(mean + margin) / error), stdtr(len(sample) - 1, (mean - margin) / error)))


def sign_flip_test(differences: Sequence[float]) -> float | None:
    """Return the exact two-sided p of paired differences with mean 0; ``None`` for fewer than two.

    All 2ⁿ assignments of signs are counted; for more than 20 pairs, 2²⁰ random ones.
    """
    sample = np.asarray(differences, dtype=np.float64)
    num = len(sample)
    if num < 2:
        return None
    if num <= 20:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=num)))
    else:
        signs = np.random.default_rng(0).choice((1.0, -1.0), (2**20, num))
    sums = np.abs(signs @ sample)
    rounding = 1e-12 * np.abs(sample).sum()  # sums that differ by less are equal
    return float((sums >= np.abs(sample.sum()) - rounding).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p values in the order given (Holm 1979)."""
    order = np.argsort(p_values)
    adjusted, running = np.empty(len(p_values)), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted.tolist()


def smallest_p(pairs: int, comparisons: int) -> float:
    """Return the smallest p that sign-flip tests with Holm's correction can give, whatever the data.

    Of 2ⁿ assignments of signs two are as extreme as n differences of one sign; Holm multiplies the smallest of m p
    values by m, and gives none of the others a smaller one.

    Args:
        pairs: n, paired differences per test.
        comparisons: m, tests.
    """
    return min(1.0, comparisons * 2.0 / 2.0**pairs)


def ranks(values: Sequence[float] | Array) -> Array:
    """Return average ranks, starting at 1."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last: Array = np.cumsum(counts)[inverse].astype(np.float64)
    return last - (counts[inverse] - 1) / 2


def spearman(x: Sequence[float] | Array, y: Sequence[float] | Array) -> float:
    """Return Spearman's rank correlation; nan if either is constant."""
    a, b = ranks(x), ranks(y)
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def partial_spearman(x: Sequence[float] | Array, y: Sequence[float] | Array, given: Sequence[float] | Array) -> float:
    """Return the rank correlation of x and y given a third variable; nan if it leaves either of them no variance."""
    xy, xz, yz = spearman(x, y), spearman(x, given), spearman(y, given)
    if math.isnan(xz) or math.isnan(yz):  # a constant explains nothing
        return xy if len(np.unique(given)) == 1 else float("nan")
    left = (1 - xz**2) * (1 - yz**2)
    return (xy - xz * yz) / math.sqrt(left) if left > 1e-12 else float("nan")
