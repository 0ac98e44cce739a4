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
from evaluation.statistics import (
    equivalence_test,
    hierarchical_bootstrap,
    holm,
    iqm,
    iqm_interval,
    matched_set_test,
    partial_spearman,
    resampled_means,
    sign_flip_test,
    spearman,
    stratified_bootstrap,
)

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


def test_matched_set_test_is_the_full_enumeration():
    """Every combination of cyclic relabellings of four sets of three conditions, by loops."""
    sets = np.random.default_rng(2).normal(size=(4, 3)) + np.array([0.6, 0.0, 0.2])

    def statistic(rows):
        means = np.mean(rows, 0)
        return min(means[0] - m for m in means[1:])

    null = []
    for shifts in itertools.product(range(3), repeat=4):
        null.append(statistic([[row[(c - s) % 3] for c in range(3)] for row, s in zip(sets, shifts, strict=True)]))
    expected = np.mean([n >= statistic(sets) - 1e-12 for n in null])
    assert matched_set_test(sets) == pytest.approx(expected)
    # Random shifts estimate the same number; the observed labelling is one of them, so that p is never 0.
    assert matched_set_test(sets, permutations=80) == pytest.approx(expected, abs=0.15)
    strong = np.random.default_rng(0).normal(size=(50, 7)) + np.array([5.0, *[0.0] * 6])
    assert matched_set_test(strong, permutations=1000) == 1 / 1000


def test_matched_set_test_keeps_its_level():
    rng = np.random.default_rng(3)
    rejected = [matched_set_test(rng.normal(size=(20, 7)), permutations=200, seed=i) <= 0.05 for i in range(400)]
    assert np.mean(rejected) < 0.08


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.floats(0.01, 1))
def test_equivalence_is_the_larger_of_scipys_one_sided_t_tests(differences, margin):
    if np.std(differences) < 1e-6:
        return
    low = scipy.stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    high = scipy.stats.ttest_1samp(differences, margin, alternative="less").pvalue
    assert equivalence_test(differences, margin) == pytest.approx(max(low, high), abs=1e-9)


def test_equivalence_of_what_does_not_vary():
    assert equivalence_test([0.0, 0.0], 0.1) == 0.0 and equivalence_test([0.2, 0.2], 0.1) == 1.0
    assert equivalence_test([0.0], 0.1) is None
    with pytest.raises(ValueError, match="positive"):
        equivalence_test([0.0, 0.1], 0.0)


def test_hierarchical_bootstrap_covers_the_mean_over_seeds():
    """Seeds differ by more than their images: an interval over images alone would miss."""
    rng = np.random.default_rng(0)
    hits, naive, num = 0, 0, 120
    for _ in range(num):
        groups = [rng.normal(rng.normal(), 1.0, (40, 1)) for _ in range(10)]
        low, high = hierarchical_bootstrap(groups, resamples=200)
        hits += low <= 0 <= high
        pooled = np.concatenate(groups)
        low, high = stratified_bootstrap(lambda m: m[:, 0], pooled, np.repeat(np.arange(10), 40), resamples=200)
        naive += low <= 0 <= high
    assert 0.86 < hits / num < 0.99 and naive / num < 0.6


def test_hierarchical_bootstrap_equals_resampling_by_hand():
    rng = np.random.default_rng(1)
    groups = [rng.normal(i / 2, 1.0, (30, 2)) for i in range(4)]
    by_hand = []
    for _ in range(3000):
        seeds = rng.integers(0, 4, 4)
        by_hand.append(np.mean([groups[s][rng.integers(0, 30, 30)].mean(0).min() for s in seeds]))
    expected = np.quantile(by_hand, (0.025, 0.975))
    found = hierarchical_bootstrap(groups, lambda m: m.min(1), resamples=2000)
    assert found == pytest.approx(tuple(expected), abs=0.06)
    with pytest.raises(ValueError, match="two seeds"):
        hierarchical_bootstrap(groups[:1])


def test_resampled_means_have_the_error_of_a_stratified_mean():
    rng = np.random.default_rng(0)
    strata = np.repeat([0, 1], [40, 60])
    values = rng.normal(size=(100, 1)) + 7 * strata[:, None]
    variance = sum(len(v) * v.var() for v in (values[:40], values[40:])) / 100**2
    assert resampled_means(values, strata, resamples=6000).std() == pytest.approx(variance**0.5, rel=0.05)


@given(hnp.arrays(float, (3, 15), elements=st.floats(-5, 5), unique=True))
def test_partial_rank_correlation_is_that_of_the_residuals_of_ranks(data):
    x, y, z = (scipy.stats.rankdata(row) for row in data)
    design = np.stack([np.ones(15), z], 1)
    residual = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (x, y)]
    if min(np.std(r) for r in residual) > 1e-3:
        expected = np.corrcoef(*residual)[0, 1]
        assert partial_spearman(*data) == pytest.approx(expected, abs=1e-6)
    assert np.isnan(partial_spearman(data[0], data[1], data[1]))
    assert partial_spearman(data[0], data[1], np.ones(15)) == pytest.approx(spearman(data[0], data[1]))
