"""Hierarchy scores against scipy, closed forms, and the simulated stream whose hierarchy is known."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from evaluation.brain import hierarchy
from evaluation.brain.controls import WAVELENGTHS, gabor_bank, gabor_energy, silhouettes
from evaluation.brain.encoding import bh_score
from evaluation.brain.hierarchy import (
    centre_of_mass,
    latency_score,
    onset_latency,
    peak_latency,
    peak_of_effect,
    rank_correlation,
    slopes,
    spatial,
    with_null,
)  # fmt: skip
from evaluation.brain.hierarchy_reports import after_activation
from evaluation.brain.rdm import compare, rdm
from evaluation.brain.simulation import AREAS, ONSETS, PEAKS, VentralStream, course, hrf, simulate

ORDER = [0.0, 1.0, 2.0, 3.0]


@pytest.fixture(scope="module")
def made():
    return simulate()


@pytest.fixture(scope="module")
def matrix(made):
    """Stage × area of the generating model."""
    stages = np.stack([rdm(x.flatten(1).numpy()) for x in VentralStream().activations(made.stimuli).values()])
    return np.stack([compare(stages, np.stack([rdm(b) for b in made.betas[a]])).mean(1) for a in AREAS], 1), stages


def test_rank_correlation_is_scipy_s():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (50, 6)).astype(float)
    y = np.array([0.0, 1, 2, 2, 3, 4])
    for row, ours in zip(x, rank_correlation(x, y), strict=True):
        if np.ptp(row) == 0:
            assert np.isnan(ours)
        else:
            assert ours == pytest.approx(spearmanr(row, y).statistic, abs=1e-12)


def test_the_stream_s_own_spatial_score_is_one_and_minus_one_reversed(matrix):
    s, _ = matrix
    assert spatial(s[None], ORDER)[0] >= 0.95 and spatial(s[None], ORDER[::-1])[0] <= -0.95
    assert spatial(s[None], ORDER, soft=True)[0] >= 0.95
    assert spatial(s[None, ::-1], ORDER)[0] <= -0.95  # stages reversed
    assert spatial(s[None], [0, 10, 22, 60])[0] >= 0.95  # distances in place of ranks
    found = with_null(lambda v: spatial(v, ORDER), s)
    assert found.value >= 0.95 and found.p_value == pytest.approx(2 / 24)  # itself and its mirror, of 4! orders


def test_a_shuffled_network_is_within_its_null(made, matrix):
    """Images shuffled: the score is about 0 on average, and its p values are those of chance."""
    _, stages = matrix
    activity = VentralStream().activations(made.stimuli)
    data = {a: np.stack([rdm(b) for b in made.betas[a]]) for a in AREAS}
    rng = np.random.default_rng(0)
    values, p_values = [], []
    for _ in range(60):
        order = [rng.permutation(64) for _ in AREAS]
        shuffled = np.stack([rdm(x.flatten(1).numpy()[o]) for x, o in zip(activity.values(), order, strict=True)])
        s = np.stack([compare(shuffled, data[a]).mean(1) for a in AREAS], 1)
        found = with_null(lambda v: spatial(v, ORDER), s)
        if np.isfinite(found.value):
            values.append(found.value)
            p_values.append(found.p_value)
    assert len(values) > 40 and abs(np.mean(values)) < 3 * 0.7 / np.sqrt(len(values))
    assert np.mean(np.array(p_values) <= 0.1) < 0.25
    assert np.abs(stages).max() > 0


def test_the_stream_s_temporal_score_is_one(made, matrix):
    _, stages = matrix
    num, many, _ = made.movie.shape
    curves = compare(stages, made.movie.reshape(num * many, -1)).reshape(4, num, many)
    peaks = np.array([peak_latency(c, made.times) for c in curves.mean(1)])
    assert latency_score(peaks) >= 0.95 and latency_score(peaks[::-1]) <= -0.95
    for area, peak in zip(AREAS, peaks, strict=True):
        assert peak == pytest.approx(PEAKS[area], abs=30)
    onsets = np.array([onset_latency(c, made.times) for c in curves])
    assert (onsets >= ONSETS["V1"]).all() and (onsets <= PEAKS["IT"]).all()


def test_latencies_of_movies_that_are_switched_on_at_known_times():
    """Two model RDMs appear at 80 and 160 ms in noise: the code must return these times, and their order."""
    rng = np.random.default_rng(0)
    models = rng.random((2, 190))
    centred = models - models.mean(1, keepdims=True)
    slope = centred[0] @ centred[1] / (centred[0] @ centred[0])
    models[1] -= (slope + 0.1) * centred[0]  # so that the second is not matched, on the whole, when the first is on
    times = np.arange(-100.0, 401.0, 10.0)
    movie = rng.random((10, len(times), 190))
    movie += (
        1.5 * (np.abs(times - 80) < 21)[:, None] * models[0] + 1.5 * (np.abs(times - 160) < 21)[:, None] * models[1]
    )
    curves = compare(models, movie.reshape(-1, 190)).reshape(2, 10, -1)
    assert [onset_latency(c, times) for c in curves] == [60, 140]
    for expected, curve in zip((80, 160), curves.mean(1), strict=True):
        assert abs(peak_latency(curve, times) - expected) <= 20


def test_onsets_of_noise_are_rare():
    rng = np.random.default_rng(0)
    times = np.arange(-50.0, 300.0, 10.0)
    found = [onset_latency(rng.normal(size=(8, len(times))), times) for _ in range(100)]
    assert np.isfinite(found).mean() <= 0.11
    assert np.isnan(onset_latency(rng.normal(size=(3, len(times))) + 5, times))  # too few subjects for any p


def test_noise_has_no_peak():
    """A maximum there always is; a latency only where subjects agree that the curve is above 0 after the stimulus."""
    rng = np.random.default_rng(0)
    times = np.arange(-50.0, 300.0, 10.0)
    assert np.mean([np.isfinite(peak_of_effect(rng.normal(size=(8, 35)), times)) for _ in range(100)]) <= 0.11
    bump = 3 * np.exp(-(((times - 120) / 20) ** 2))
    assert peak_of_effect(rng.normal(size=(8, 35)) + bump, times) == pytest.approx(120, abs=15)
    before = 5.0 * (times < -10)
    assert np.isnan(peak_of_effect(0.1 * rng.normal(size=(8, 35)) + before, times))  # before the stimulus
    assert np.isnan(peak_of_effect(-np.abs(rng.normal(size=(8, 35))) - 1, times))  # the top of a negative curve
    assert np.isfinite(peak_of_effect(rng.normal(size=(3, 35)), times))  # too few to test: the report says so


def test_signals_and_activations_are_paired_by_stage():
    """Each lacks another stage, so that both have two: what they share is `b` alone."""
    signal, activation = {"a": 200.0, "b": 150.0}, {"b": 120.0, "c": 100.0}
    assert after_activation("signal_label", signal, activation, 9).raw == 30
    assert after_activation("signal_label", {"a": 1.0, "b": np.nan}, activation, 9).gate == "n/a"
    assert after_activation("signal_label", {"b": 150.0, "c": 90.0}, activation, 9).raw == 10


def test_peaks_between_samples():
    times = np.arange(0.0, 200.0, 10.0)
    assert peak_latency(-((times - 83.0) ** 2), times) == pytest.approx(83)
    assert peak_latency(np.where(times < 50, -1.0, times), times) == 190
    assert np.isnan(peak_latency(np.full(20, np.nan), times))


def test_p_values_of_random_matrices_are_those_of_chance():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(300):
        found = with_null(latency_score, rng.random(6))
        p.append(found.p_value)
    for alpha in (0.05, 0.1, 0.2, 0.5):  # p values are coarse: never too small, at most one step too large
        assert alpha - 0.12 < np.mean(np.array(p) <= alpha) < alpha + 3 * np.sqrt(alpha / 300)


def test_many_stages_are_sampled():
    found = with_null(latency_score, np.arange(9.0))
    assert found.value == pytest.approx(1) and len(found.null) == hierarchy.PERMUTATIONS + 1 and found.p_value < 0.001


def test_scores_that_are_not_defined_are_not_numbers():
    rng = np.random.default_rng(0)
    assert np.isnan(spatial(rng.random((1, 4, 2)), [0, 1]))  # two ROIs
    flat = np.tile(np.array([[0.1], [0.9], [0.2]]), (1, 4))
    assert np.isnan(spatial(flat[None], ORDER))  # one stage is best for all
    assert np.isnan(spatial(np.full((1, 3, 4), np.nan), ORDER))
    assert np.isnan(latency_score(np.array([[np.nan, 1.0, 2.0]])))
    assert latency_score(np.array([[np.nan, 1.0, 2.0, 3.0]])) == pytest.approx(1)


def test_centre_of_mass_and_slope_in_closed_form():
    s = np.array([[1.0, 0.0], [1.0, 0.0], [-5.0, 2.0]])
    assert centre_of_mass(s).tolist() == [0.5, 2.0]
    assert np.isnan(centre_of_mass(-np.ones((3, 1)))).all()
    scores = np.array([[0.4, 0.1], [0.3, 0.2], [0.2, 0.3]])  # EVC falls by .1 a stage, IT rises by .1
    assert slopes(scores[None], [1.0, 1.0])[0] == pytest.approx(0.4)
    assert slopes(scores[None], [0.5, 0.25])[0] == pytest.approx(0.2 / 0.25 + 0.2 / 0.5)


def test_bh_score_of_the_stream(made):
    stages = {a: x.flatten(1).numpy() for a, x in VentralStream().activations(made.stimuli).items()}
    voxels = {a: np.concatenate(made.betas[a], 1) for a in AREAS}
    value, units = bh_score(stages, voxels)
    assert value > 0.7 and units > 60
    reversed_, _ = bh_score(dict(reversed(stages.items())), voxels)
    assert reversed_ < -0.7
    rng = np.random.default_rng(0)
    _, none = bh_score({a: rng.normal(size=(64, 30)) for a in AREAS}, voxels)
    assert none < 30  # of 120; chance


def test_the_simulation_is_what_it_says(made):
    assert hrf(np.array([5.0]))[0] == pytest.approx(1) and hrf(np.array([0.0]))[0] == 0 and hrf(np.array([16.0]))[0] < 0
    times = np.arange(0.0, 400.0)
    for area in AREAS:
        k = course(area, times)
        assert (
            times[k.argmax()] == PEAKS[area] and k.max() == pytest.approx(1) and (k[times <= ONSETS[area]] == 0).all()
        )
    for share in made.explainable().values():
        assert 0.5 < share.mean() < 0.85
    quiet = simulate(images=16, subjects=2, voxels=5, noise=0.0)
    for area in AREAS:  # the GLM gives the responses back where there is no noise
        for estimated, true in zip(quiet.betas[area], quiet.truth[area], strict=True):
            assert np.allclose(estimated, true, atol=1e-8)
    again = simulate(images=16, subjects=2, voxels=5, noise=0.0)
    assert np.array_equal(again.movie, quiet.movie, equal_nan=True)


def test_an_area_s_activity_does_not_depend_on_other_images(made):
    alone = VentralStream().activations(made.stimuli[3:4])
    for area, together in VentralStream().activations(made.stimuli).items():
        assert torch.allclose(together[3:4], alone[area], atol=1e-10)


def test_gabor_energy_is_that_of_the_filters_written_out():
    images = torch.rand(2, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = gabor_energy(images, 40)
    for k, wavelength in enumerate(WAVELENGTHS):
        even, odd = gabor_bank(wavelength)
        reach = even.shape[-1] // 2
        padded = torch.nn.functional.pad(images[:, None], (reach,) * 4, mode="replicate")
        parts = [torch.nn.functional.conv2d(padded, f[:, None]) for f in (even, odd)]
        expected = (parts[0] ** 2 + parts[1] ** 2).sqrt()
        assert torch.allclose(ours[:, 8 * k : 8 * (k + 1)], expected, atol=1e-10)
        assert even.sum((1, 2)).abs().max() < 1e-9 and odd.sum((1, 2)).abs().max() < 1e-9  # blind to luminance


def test_a_grating_excites_its_own_orientation_most():
    x = torch.arange(64, dtype=torch.float64)
    vertical = (0.5 + 0.5 * torch.cos(2 * torch.pi * x / 8)).expand(1, 64, 64)
    energy = gabor_energy(vertical)[0].mean((1, 2)).view(len(WAVELENGTHS), -1)
    assert energy.argmax() == 8 * 1 + 0  # wavelength 8, modulated along x


def test_photographs_without_a_uniform_ground_have_no_silhouette(made):
    assert silhouettes(torch.rand(5, 1, 32, 32)) is None
    images = torch.full((3, 1, 32, 32), 0.2)
    images[:, :, 10:20, 5:9] = 0.7
    assert silhouettes(images).sum() == 3 * 40
