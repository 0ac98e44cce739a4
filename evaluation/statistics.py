"""Small statistics that the field agrees on: interquartile mean, stratified bootstrap, exact sign-flip test.

Seeds are the unit of inference between rules, images within a run. scipy is the oracle in the tests.
(Agarwal et al. 2021, arXiv 2108.13264, for the interquartile mean and its stratified bootstrap.)
"""

import itertools
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
    rng = np.random.default_rng(seed)
    total = np.zeros((resamples, values.shape[1]))
    for stratum in np.unique(strata):
        rows = values[strata == stratum]
        # How often each row is drawn; the sum over drawn rows is then one matrix product.
        counts = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
        total += counts @ rows
    low, high = np.quantile(statistic(total / len(values)), (0.025, 0.975))
    return float(low), float(high)


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


def ranks(values: Sequence[float]) -> Array:
    """Return average ranks, starting at 1."""
    sample = np.asarray(values, dtype=np.float64)
    less = (sample[:, None] > sample).sum(1)
    return less + ((sample[:, None] == sample).sum(1) + 1) / 2


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's rank correlation; nan if either is constant."""
    a, b = ranks(x), ranks(y)
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
