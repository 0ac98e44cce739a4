"""Encoding against himalaya called directly, and against variance that is known."""

import numpy as np
import pytest

from evaluation.brain.encoding import ALPHAS, FOLDS, INNER_FOLDS, cka, encode, folds, kernels, unique
from evaluation.brain.simulation import VentralStream, simulate


@pytest.fixture(scope="module")
def drawn():
    """Features, and responses of which a known share is explained by them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 12))
    signal = x @ rng.normal(size=(12, 40))
    signal /= signal.std(0)
    return x, signal, rng.normal(size=signal.shape)


def test_predictions_are_himalaya_s_called_directly(drawn):
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.scoring import correlation_score, r2_score

    set_backend("numpy")
    x, signal, noise = drawn
    y = signal + noise
    r, explained = encode(x, y)
    expected_r, expected_r2 = [], []
    order = np.random.default_rng(0).permutation(300)
    for held in np.array_split(order, FOLDS):
        held = np.sort(held)
        train = np.setdiff1d(order, held)
        z = (x - x[train].mean(0)) / x[train].std(0) / np.sqrt(12)
        model = KernelRidgeCV(alphas=ALPHAS, kernel="linear", cv=INNER_FOLDS, warn=False).fit(
            z[train], y[train] - y[train].mean(0)
        )
        predicted, true = model.predict(z[held]), y[held] - y[train].mean(0)
        expected_r.append(correlation_score(true, predicted))
        expected_r2.append(r2_score(true, predicted))
    assert np.abs(r - np.mean(expected_r, 0)).max() < 1e-8
    assert np.abs(explained - np.mean(expected_r2, 0)).max() < 1e-8


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_known_variance_is_recovered(drawn, share):
    x, signal, noise = drawn
    _, explained = encode(x, np.sqrt(share) * signal + np.sqrt(1 - share) * noise)
    assert explained.mean() == pytest.approx(share, abs=0.06)


@pytest.mark.slow
def test_the_simulated_stream_is_encoded_up_to_its_noise():
    made = simulate(images=320, subjects=2, voxels=40)
    stages = {a: x.flatten(1).numpy() for a, x in VentralStream().activations(made.stimuli).items()}
    ceiling = {a: v.mean() for a, v in made.explainable().items()}
    found = {
        a: {s: encode(x, np.concatenate(made.betas[a], 1))[1].mean() for s, x in stages.items()} for a in ("V1", "IT")
    }
    for area, by_stage in found.items():
        assert max(by_stage, key=by_stage.get) == area
        assert 0.6 * ceiling[area] < by_stage[area] < ceiling[area] + 0.02
    assert found["IT"]["V1"] < 0.5 * found["IT"]["IT"]


def test_nothing_is_encoded_from_noise(drawn):
    _, _, noise = drawn
    r, explained = encode(np.random.default_rng(1).normal(size=(300, 12)), noise)
    assert abs(r.mean()) < 0.03 and explained.mean() < 0.01


def test_kernels_are_standardised_on_training_images_only(drawn):
    x, _, _ = drawn
    train, test = next(folds(300))
    moved = x.copy()
    moved[test] *= 100
    assert np.array_equal(kernels(x, train, test)[0], kernels(moved, train, test)[0])
    assert sorted([*train, *test]) == list(range(300)) and not set(train) & set(test)
    silent = np.concatenate([x, np.zeros((300, 1))], 1)
    silent[test[0], -1] = 1e3  # a unit that is silent in training
    assert np.isfinite(kernels(silent, train, test)[1]).all()


@pytest.mark.slow
def test_variance_of_signals_beyond_activations_is_what_was_put_there(drawn):
    rng = np.random.default_rng(2)
    base, labels = rng.normal(size=(200, 8)), np.eye(3)[rng.integers(0, 3, 200)]
    extra, noise = rng.normal(size=(200, 6)), rng.normal(size=(200, 30))
    part = {n: v @ rng.normal(size=(v.shape[1], 30)) for n, v in (("base", base), ("labels", labels), ("extra", extra))}
    part = {n: v / v.std(0) for n, v in part.items()}
    y = (
        np.sqrt(0.3) * part["base"]
        + np.sqrt(0.2) * part["labels"]
        + np.sqrt(0.3) * part["extra"]
        + np.sqrt(0.2) * noise
    )
    gain, whole = unique([base, labels], extra, y)
    assert gain.mean() == pytest.approx(0.3, abs=0.07) and whole.mean() == pytest.approx(0.8, abs=0.07)
    nothing, _ = unique([base, labels], base @ rng.normal(size=(8, 6)), y)  # a signal that repeats the activations
    assert abs(nothing.mean()) < 0.03


def test_banded_predictions_are_himalaya_s(drawn):
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import MultipleKernelRidgeCV
    from himalaya.scoring import r2_score

    set_backend("numpy")
    x, signal, noise = drawn
    y = (signal + noise)[:, :5]
    spaces = [x[:, :6], x[:, 6:]]
    _, whole = unique(spaces[:1], spaces[1], y, iterations=5)
    expected = []
    for train, test in folds(300):
        ks = [kernels(s, train, test) for s in spaces]
        model = MultipleKernelRidgeCV(
            kernels="precomputed", solver="random_search", cv=INNER_FOLDS, random_state=0,
            solver_params={"n_iter": 5, "alphas": ALPHAS, "progress_bar": False, "n_targets_batch": 512},
        )  # fmt: skip
        mean = y[train].mean(0)
        model.fit(np.stack([k[0] for k in ks]), y[train] - mean)
        expected.append(r2_score(y[test] - mean, model.predict(np.stack([k[1] for k in ks]))))
    assert np.abs(whole - np.mean(expected, 0)).max() < 1e-8


def test_cka_in_closed_form():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 8))
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    assert cka(x, 3 * x @ rotation + 2) == pytest.approx(1)
    y = rng.normal(size=(50, 5))
    a, b = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(b.T @ a) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)
    assert cka(x, y) == pytest.approx(expected)
    assert np.isnan(cka(np.ones((50, 2)), y))


def test_the_process_s_own_himalaya_backend_is_left_alone(drawn):
    from himalaya.backend import get_backend, set_backend

    set_backend("torch")
    try:
        encode(drawn[0][:40], drawn[1][:40, :3])
        assert get_backend().name == "torch"
    finally:
        set_backend("numpy")
