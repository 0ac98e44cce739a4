"""RDMs, similarities, ceilings and bootstrap against rsatoolbox, called directly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rsatoolbox.data import Dataset
from rsatoolbox.inference import boot_noise_ceiling
from rsatoolbox.model import ModelFixed
from rsatoolbox.rdm import RDMs, calc_rdm
from rsatoolbox.rdm import compare as rsa_compare
from rsatoolbox.util.inference_util import extract_variances
from scipy.stats import rankdata, t

from evaluation.brain.inference import Row, align, dual_variance, noise_ceiling
from evaluation.brain.rdm import Stack, category_rdm, compare, num_images, partial, rdm, square

METHODS = ("spearman", "rho-a", "corr")


@pytest.fixture
def vectors():
    """5 model and 7 subject RDMs of 12 images, with ties."""
    rng = np.random.default_rng(0)
    shared = rng.random(66)
    models = shared + rng.random((5, 66))
    models[3] = np.round(models[3], 1)
    models[4] = category_rdm(np.arange(12) % 3)
    return models, shared + rng.random((7, 66))


@pytest.mark.parametrize("distance", ["correlation", "euclidean"])
def test_rdms_are_rsatoolbox_s(distance):
    x = np.random.default_rng(1).normal(3, 2, (9, 40))
    expected = calc_rdm(Dataset(x), method=distance).get_vectors()[0]
    assert np.abs(rdm(x, distance) - expected).max() < 1e-12
    stacked = rdm(np.stack([x, x[::-1]]), distance)
    assert np.abs(square(stacked[1]) - square(stacked[0])[::-1, ::-1]).max() < 1e-12


def test_a_constant_pattern_has_no_correlation_distance():
    x = np.random.default_rng(1).normal(size=(4, 10))
    x[2] = 0.1
    assert np.isnan(square(rdm(x))[2, [0, 1, 3]]).all() and np.isfinite(square(rdm(x))[0, [1, 3]]).all()


def test_a_vector_that_is_no_rdm_is_refused():
    with pytest.raises(ValueError, match="no RDM"):
        num_images(5)


@pytest.mark.parametrize("method", METHODS)
def test_similarities_are_rsatoolbox_s(vectors, method):
    models, data = vectors
    assert np.abs(compare(models, data, method) - rsa_compare(RDMs(models), RDMs(data), method)).max() < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_noise_ceilings_are_rsatoolbox_s(vectors, method):
    assert np.allclose(noise_ceiling(vectors[1], method), boot_noise_ceiling(RDMs(vectors[1]), method), atol=1e-12)


def test_one_subject_has_no_ceiling(vectors):
    assert noise_ceiling(vectors[1][:1]) is None


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_a_resample_of_images_is_rsatoolbox_s_own(method, seed):
    """Resampled RDMs built by rsatoolbox, duplicates and dropped pairs included, are the oracle."""
    rng = np.random.default_rng(seed)
    models, data = rng.random((3, 45)), rng.random((4, 45))
    models[1] = np.round(models[1], 1)
    drawn = rng.integers(0, 10, 10)
    if len(set(drawn.tolist())) < 4:
        return
    sampled = [RDMs(v).subsample_pattern("index", drawn) for v in (models, data)]
    stack = Stack(np.concatenate([models, data]), method)
    ours = stack.similarity(*stack.products(np.bincount(drawn, minlength=10), 3))[:, 3:]
    assert np.abs(ours - rsa_compare(*sampled, method)).max() < 1e-10


@pytest.mark.parametrize("method", ["spearman", "corr"])
def test_partial_correlation_is_that_of_residuals(vectors, method):
    models, data = vectors
    stack = Stack(np.concatenate([models, data]), method)
    products, power, _ = stack.products(num_first=5)
    ours = partial(products, power, np.array([0, 1]), np.array([2, 4]), np.arange(5, 12))

    def residual(v):
        rank = rankdata if method == "spearman" else np.asarray
        design = np.column_stack([np.ones(66), *(rank(models[k]) for k in (2, 4))])
        return rank(v) - design @ np.linalg.lstsq(design, rank(v), rcond=None)[0]

    for a, m in enumerate((0, 1)):
        for s in range(7):
            assert ours[a, s] == pytest.approx(np.corrcoef(residual(models[m]), residual(data[s]))[0, 1], abs=1e-12)


def test_nothing_is_left_of_a_model_given_itself(vectors):
    models, data = vectors
    stack = Stack(np.concatenate([models, data]), "spearman")
    products, power, _ = stack.products(num_first=5)
    zero, one = np.array([0]), np.array([1])
    assert np.isnan(partial(products, power, zero, zero, np.array([6]))).all()  # not 0: there is nothing to correlate
    assert np.isnan(partial(products, power, one, zero, zero)).all()


def test_a_value_that_is_not_there_is_refused_and_not_ranked(vectors):
    models, data = vectors
    spoilt = data.copy()
    spoilt[1, 5] = np.nan
    with pytest.raises(ValueError, match="1 of 12 RDMs hold values that are not finite"):
        compare(models, spoilt)
    flat = np.random.default_rng(0).normal(size=(12, 6))
    flat[4] = 0.3
    assert np.isnan(rdm(flat)).sum() == 11  # every pair with the image that has no pattern
    with pytest.raises(ValueError, match="not finite"):
        noise_ceiling(np.stack([rdm(flat), data[0]]))


def test_a_partialled_row_resamples_to_the_partial_of_the_resample(vectors):
    models, data = vectors
    named = {f"m{i}": m for i, m in enumerate(models)}
    found = align(named, {"it": data}, [Row("m0"), Row("m0", ("m4",))], resamples=50, seed=3)
    rng = np.random.default_rng(3)
    counts = rng.multinomial(12, np.full(12, 1 / 12), size=50)[7]
    drawn = np.repeat(np.arange(12), counts)
    parts = [RDMs(v).subsample_pattern("index", drawn).get_vectors() for v in (models[[0, 4]], data)]
    keep = ~np.isnan(parts[0][0])
    ranks = [np.apply_along_axis(rankdata, 1, p[:, keep]) for p in parts]
    (m, c), d = ranks[0], ranks[1]
    corr = np.corrcoef(np.vstack([m, c, d]))
    expected = (corr[0, 2:] - corr[0, 1] * corr[1, 2:]) / np.sqrt((1 - corr[0, 1] ** 2) * (1 - corr[1, 2:] ** 2))
    assert found.resampled[2, 7, 1, 0] == pytest.approx(expected.mean(), abs=1e-10)
    assert found.resampled[2, 7, 0, 0] == pytest.approx(corr[0, 2:].mean(), abs=1e-10)


def test_the_same_people_are_drawn_together(vectors):
    """Two targets with the same data of the same people, listed in another order: no resample tells them apart."""
    models, data = vectors
    named = {f"m{i}": m for i, m in enumerate(models)}
    order = [3, 0, 6, 1, 5, 2, 4]
    targets = {"a": data, "b": data[order], "c": data}
    names = [f"s{k}" for k in range(7)]
    people = {"a": names, "b": [names[k] for k in order]}  # of c nothing is known
    found = align(named, targets, [Row(n) for n in named], resamples=60, people=people).resampled
    assert np.abs(found[..., 0] - found[..., 1]).max() < 1e-12
    assert np.abs(found[1, ..., 0] - found[1, ..., 2]).max() > 0.01  # subjects alone: drawn anew
    assert np.abs(found[2, ..., 0] - found[2, ..., 2]).max() < 1e-12  # images alone: always the same
    alone = align(named, {"a": data}, [Row(n) for n in named], resamples=60).resampled
    assert np.array_equal(alone[..., 0], found[..., 0])


def test_a_difference_between_regions_of_the_same_people_is_that_of_paired_draws():
    """Subjects' own level is common to both regions: its variance cancels in the difference, as theory says.

    Similarity of model and subject s is about a + e_s in both regions, so that Var(difference) over subjects is that
    of what differs; independent draws would add Var(e_s) / S twice.
    """
    rng = np.random.default_rng(0)
    model = rng.normal(size=66)
    level = np.linspace(0.2, 3, 8)[:, None]
    regions = {r: level * model + rng.normal(size=(8, 66)) for r in ("EVC", "IT")}
    names = {r: [str(k) for k in range(8)] for r in regions}
    rows = [Row("m")]
    found = align({"m": model}, regions, rows, method="corr", resamples=3000, people=names)
    own = np.array([[np.corrcoef(model, v)[0, 1] for v in regions[r]] for r in regions])
    drawn = found.resampled[1, :, 0]
    assert (drawn[:, 1] - drawn[:, 0]).var() == pytest.approx((own[1] - own[0]).var() / 8, rel=0.15)
    apart = align({"m": model}, regions, rows, method="corr", resamples=3000).resampled[1, :, 0]
    assert (apart[:, 1] - apart[:, 0]).var() == pytest.approx(own.var(1).sum() / 8, rel=0.15)
    assert own.var(1).sum() > 5 * (own[1] - own[0]).var()


def test_the_variance_of_the_dual_bootstrap_is_rsatoolbox_s():
    rng = np.random.default_rng(0)
    evaluations = rng.normal(size=(3, 400, 4)) * np.array([1.4, 1.0, 0.8])[:, None, None]
    covariances = np.stack([np.cov(e.T, ddof=1) for e in evaluations])
    expected, _, _ = extract_variances(covariances, False, n_rdm=9, n_pattern=30)
    assert np.allclose(dual_variance(evaluations.var(1, ddof=1), 9, 30), expected, atol=1e-12)


@pytest.mark.slow
def test_intervals_agree_with_rsatoolbox_s_dual_bootstrap(vectors):
    """Other resamples, so they agree within sampling error: half widths over 300 resamples, within 20 %."""
    from rsatoolbox.inference import eval_dual_bootstrap

    models, data = vectors
    result = eval_dual_bootstrap([ModelFixed(f"m{i}", RDMs(m[None])) for i, m in enumerate(models)], RDMs(data),
                                 method="corr", N=300)  # fmt: skip
    named = {f"m{i}": m for i, m in enumerate(models)}
    ours = align(named, {"it": data}, [Row(n) for n in named], method="corr", resamples=2000)
    widths = np.sqrt(result.model_var) * t.ppf(0.975, 6)
    assert np.allclose((ours.high - ours.low)[:, 0] / 2, widths, rtol=0.2)


def test_the_order_of_images_and_subjects_does_not_matter(vectors):
    models, data = vectors
    order = np.random.default_rng(0).permutation(12)

    def shuffled(v):
        matrix = square(v)[:, order][:, :, order]
        return matrix[:, *np.triu_indices(12, 1)]

    assert np.abs(compare(models, data) - compare(shuffled(models), shuffled(data))).max() < 1e-12
    assert np.allclose(noise_ceiling(data), noise_ceiling(data[::-1]))


def populations(draw, num):
    """Scores and half widths of ``num`` draws of subjects and images, ``draw(rng) -> (data, model)``."""
    rng, scores, widths = np.random.default_rng(0), [], []
    for _ in range(num):
        data, model = draw(rng)
        found = align({"m": rdm(model)}, {"it": rdm(data)}, [Row("m")], method="corr", resamples=100)
        scores.append(found.score[0, 0])
        widths.append(found.high[0, 0] - found.score[0, 0])
    return np.array(scores), np.array(widths)


@pytest.mark.slow
def test_the_interval_covers_the_truth():
    """Subjects who share a geometry more or less: 95 % of intervals hold the population's mean, and none is idle.

    The half width is t times the standard error: it is compared with t times the spread of the scores themselves.
    """

    def draw(rng):
        z = rng.normal(size=(14, 6)) @ rng.normal(size=(6, 20))
        return rng.uniform(0.2, 2, size=(6, 1, 1)) * z + 2 * rng.normal(size=(6, 14, 20)), z

    scores, widths = populations(draw, 150)
    held = (np.abs(scores - scores.mean()) <= widths).mean()
    assert 0.87 <= held <= 0.99
    assert 0.8 < np.median(widths) / (t.ppf(0.975, 5) * scores.std()) < 1.2


@pytest.mark.slow
def test_the_interval_of_noise_is_safe_rather_than_narrow():
    """Nothing in common: the variance is that of pairs alone, and the bounds (as rsatoolbox's) widen the interval.

    Images alone resampled count every pair's noise twice, and the variance is bounded from below by N/(N-1) times
    theirs: at most sqrt(2 · 14/13) = 1.47 times what is needed, and the noise of the estimate.
    """
    scores, widths = populations(lambda rng: (rng.normal(size=(6, 14, 20)), rng.normal(size=(14, 20))), 200)
    assert (np.abs(scores) <= widths).sum() >= 190  # the truth is 0
    assert 1.0 < np.median(widths) / (t.ppf(0.975, 5) * scores.std()) < 1.65
