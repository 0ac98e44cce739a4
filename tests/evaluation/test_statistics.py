"""Statistics against scipy, enumeration by hand, and their nominal coverage."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evaluation.accuracy import wilson
from evaluation.statistics import holm, iqm, iqm_interval, sign_flip_test, spearman, stratified_bootstrap

numbers = st.floats(-1e3, 1e3)


@given(hnp.arrays(float, st.integers(1, 30), elements=numbers))
def test_interquartile_mean_is_scipys_trimmed_mean(values):
    assert iqm(values) == pytest.approx(scipy.stats.trim_mean(values, 0.25), abs=1e-9)


@given(hnp.arrays(float, st.integers(2, 12), elements=numbers))
def test_interval_holds_the_sample_and_needs_two_seeds(values):
    low, high = iqm_interval(values)
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    assert iqm_interval(values[:1]) is None


def test_interval_covers_as_it_says():
    """Bootstrap intervals of small samples are somewhat narrow: 10 seeds cover the mean in about 9 of 10 cases."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        low, high = iqm_interval(rng.normal(size=10), resamples=400)
        hits += low <= 0 <= high
    assert 0.84 < hits / 300 < 0.98


@given(hnp.arrays(float, st.integers(2, 9), elements=numbers))
def test_sign_flip_is_the_full_enumeration_and_scipys_permutation_test(differences):
    """In exact fractions; sums that differ by less than rounding are ties."""
    exact = [Fraction(float(d)) for d in differences]
    sums = [
        abs(sum(s * d for s, d in zip(signs, exact, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(exact))
    ]
    tie = Fraction(1, 10**12) * sum(map(abs, exact))
    expected = np.mean([s >= abs(sum(exact)) - tie for s in sums])
    assert sign_flip_test(differences) == pytest.approx(expected, abs=1e-12)


def test_sign_flip_agrees_with_scipy():
    differences = np.random.default_rng(1).normal(0.4, 1, 8)
    theirs = scipy.stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert sign_flip_test(differences) == pytest.approx(theirs.pvalue, abs=1e-9)
    assert sign_flip_test([1.0] * 5) == 2 / 32  # five seeds cannot reach 0.05
    assert sign_flip_test([1.0]) is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.7, 0.9]) == [1.0, 1.0]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=20))
def test_spearman_is_scipys_with_ties(pairs):
    x, y = zip(*pairs, strict=True)
    ours = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-9)


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_is_scipys(hits, more):
    num = hits + more
    theirs = scipy.stats.binomtest(hits, num).proportion_ci(method="wilson")
    assert wilson(hits / num, num) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_stratified_bootstrap_keeps_strata_and_equals_resampling_by_hand():
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1, 2], [10, 20, 30])
    values = rng.normal(size=(60, 2)) + 5 * strata[:, None]
    low, high = stratified_bootstrap(lambda m: m.min(1), values, strata, resamples=4000)
    by_hand = []
    for _ in range(4000):
        rows = np.concatenate([rng.choice(np.flatnonzero(strata == s), (strata == s).sum()) for s in range(3)])
        by_hand.append(values[rows].mean(0).min())
    expected = np.quantile(by_hand, (0.025, 0.975))
    assert (low, high) == pytest.approx(tuple(expected), abs=0.03)
    # Differences between strata add nothing to the interval.
    assert high - low < 0.8
    constant = stratified_bootstrap(lambda m: m[:, 0], strata[:, None].astype(float), strata)
    assert constant[0] == pytest.approx(constant[1]) == pytest.approx(strata.mean())
