"""Encoding models: how well a stage's patterns predict held-out responses, voxel by voxel (himalaya ridge).

    encode      kernel ridge per stage; r and r² on held-out images
    unique      r²(base + signal) − r²(base), banded ridge: one regularisation per feature space
    cka         linear centred kernel alignment of a stage with a ROI
    bh_score    Nonaka et al. 2021, iScience 24:103013: from which ROI is each unit decoded best?

Cross-validation is over images; features and responses are standardised on training images only.

Shapes: ``N`` images, ``U`` units, ``V`` voxels.
"""

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.brain.rdm import Array
from evaluation.statistics import spearman

ALPHAS = np.logspace(-2, 7, 10).astype(np.float64)
FOLDS, INNER_FOLDS = 5, 4
CORRECT = 0.05  # p below which a unit counts as decoded


def folds(num: int, count: int = FOLDS, seed: int = 0) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield training and held-out images of every fold, shuffled by a fixed seed."""
    order = np.random.default_rng(seed).permutation(num)
    for part in np.array_split(order, count):
        held = np.sort(part)
        yield np.setdiff1d(order, held), held


def kernels(x: Array, train: NDArray[np.int64], test: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return linear kernels train × train and test × train of features standardised on the training images.

    They are divided by the number of units, so that one grid of regularisation serves all stages. A unit's
    standard deviation counts as at least a tenth of its stage's (root mean square): a unit that is nearly silent on
    the training images must not explode on the others.
    """
    mean, std = x[train].mean(0), x[train].std(0)
    floor = 0.1 * np.sqrt(np.square(std).mean())
    z = (x - mean) / np.maximum(std, floor if floor > 0 else 1.0)
    return z[train] @ z[train].T / z.shape[1], z[test] @ z[train].T / z.shape[1]


def encode(features: Array, responses: Array, *, alphas: Array = ALPHAS, seed: int = 0) -> tuple[Array, Array]:
    """Return Pearson r and r² (share of variance explained) of held-out predictions for every voxel.

    Args:
        features: ``(N, U)``.
        responses: ``(N, V)``.
        alphas: Regularisation, chosen per voxel on the training images.
        seed: Of the folds.

    Returns:
        Two ``(V,)``: r over all held-out images, averaged over folds, and the coefficient of determination.
    """
    with _himalaya() as himalaya:
        r, explained = [], []
        for train, test in folds(len(features), seed=seed):
            k_train, k_test = kernels(features, train, test)
            mean = responses[train].mean(0)
            model = himalaya.KernelRidgeCV(alphas=alphas, kernel="precomputed", cv=INNER_FOLDS)
            predicted = model.fit(k_train, responses[train] - mean).predict(k_test)
            r.append(_correlation(predicted, responses[test] - mean))
            explained.append(_explained(predicted, responses[test] - mean))
    return np.mean(r, 0), np.mean(explained, 0)


def unique(
    base: Sequence[Array], extra: Array, responses: Array, *, iterations: int = 20, seed: int = 0
) -> tuple[Array, Array]:
    """Return the variance that features explain beyond others, and that of all together, for every voxel.

    Both models are banded: every feature space has a regularisation of its own, found by random search, so that a
    space that does not help is switched off instead of diluting the rest (Dupré la Tour et al. 2022).

    Args:
        base: Feature spaces ``(N, U)`` that come first, such as activations and labels.
        extra: The feature space in question, such as learning signals.
        responses: ``(N, V)``.
        iterations: Of the random search.
        seed: Of folds and search.
    """
    gains, whole = [], []
    for train, test in folds(len(extra), seed=seed):
        mean = responses[train].mean(0)
        explained = []
        for spaces in (list(base), [*base, extra]):
            predicted = _banded(spaces, responses[train] - mean, train, test, iterations, seed)
            explained.append(_explained(predicted, responses[test] - mean))
        gains.append(explained[1] - explained[0])
        whole.append(explained[1])
    return np.mean(gains, 0), np.mean(whole, 0)


def _banded(
    spaces: Sequence[Array],
    responses: Array,
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    iterations: int,
    seed: int,
) -> Array:
    pairs = [kernels(x, train, test) for x in spaces]
    with _himalaya() as himalaya:
        model = himalaya.MultipleKernelRidgeCV(
            kernels="precomputed",
            solver="random_search",
            solver_params={"n_iter": iterations, "alphas": ALPHAS, "progress_bar": False, "n_targets_batch": 512},
            cv=INNER_FOLDS,
            random_state=seed,
        )
        model.fit(np.stack([p[0] for p in pairs]), responses)
        return np.asarray(model.predict(np.stack([p[1] for p in pairs])))


def cka(x: Array, y: Array) -> float:
    """Return linear CKA of patterns ``(N, U)`` and ``(N, V)``: 1 if one is a rotation of the other, scaled.

    (Kornblith et al. 2019, arXiv 1905.00414.) Biased upwards for many units and few images: compare rows of one
    size only, beside their controls.
    """
    a, b = (_centred_kernel(v) for v in (x, y))
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float((a * b).sum() / norm) if norm > 0 else math.nan


def _centred_kernel(x: Array) -> Array:
    z = x - x.mean(0)
    return z @ z.T


def bh_score(
    stages: Mapping[str, Array], responses: Mapping[str, Array], *, units: int = 40, seed: int = 0
) -> tuple[float, int]:
    """Return the brain-hierarchy score and the number of units that could be decoded.

    Every unit's activity is decoded from each ROI's voxels on held-out images; its best ROI is the one with the
    largest r among those with p < .05 (t test on r, two-sided). The score is Spearman's correlation of the units'
    stages with their best ROIs.

    Args:
        stages: Stage, lowest first → patterns ``(N, U)``.
        responses: ROI, lowest first → voxels of all subjects ``(N, V)``.
        units: Units drawn per stage.
        seed: Of the drawing and of the folds.
    """
    from scipy.special import stdtr

    rng = np.random.default_rng(seed)
    chosen, level = [], []
    for index, x in enumerate(stages.values()):
        moving = np.flatnonzero(x.std(0) > 0)
        picked = rng.choice(moving, min(units, len(moving)), replace=False)
        chosen.append(x[:, picked])
        level += [index] * len(picked)
    targets = np.concatenate(chosen, 1)
    targets = (targets - targets.mean(0)) / targets.std(0)
    num = len(targets)
    r = np.stack([_decoded(v, targets, seed) for v in responses.values()])
    t = r * np.sqrt((num - 2) / np.maximum(1 - r**2, 1e-12))
    p = 2 * stdtr(num - 2, -np.abs(t))
    usable = np.where((p < CORRECT) & (r > 0), r, -np.inf)
    kept = np.isfinite(usable.max(0))
    if kept.sum() < 3:
        return math.nan, int(kept.sum())
    return spearman(np.array(level)[kept].tolist(), usable.argmax(0)[kept].astype(float).tolist()), int(kept.sum())


def _decoded(voxels: Array, targets: Array, seed: int) -> Array:
    """Return r between held-out predictions, joined over folds, and targets ``(units,)``."""
    predicted = np.empty_like(targets)
    with _himalaya() as himalaya:
        for train, test in folds(len(voxels), seed=seed):
            k_train, k_test = kernels(voxels, train, test)
            mean = targets[train].mean(0)
            model = himalaya.KernelRidgeCV(alphas=ALPHAS, kernel="precomputed", cv=INNER_FOLDS)
            predicted[test] = model.fit(k_train, targets[train] - mean).predict(k_test) + mean
    return _correlation(predicted, targets)


def _correlation(a: Array, b: Array) -> Array:
    """Return Pearson r of every column; 0 where a prediction is constant."""
    a, b = a - a.mean(0), b - b.mean(0)
    norm = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.where(norm > 1e-12, (a * b).sum(0) / np.where(norm > 1e-12, norm, 1), 0.0)


def _explained(predicted: Array, true: Array) -> Array:
    """Return 1 − residual / total sum of squares around the held-out mean, as himalaya's and sklearn's r2_score."""
    total = np.square(true - true.mean(0)).sum(0)
    return 1 - np.square(true - predicted).sum(0) / np.where(total > 0, total, np.nan)


@contextlib.contextmanager
def _himalaya() -> Iterator[Any]:
    """Give himalaya's kernel models on numpy, whatever backend the process had, without its notices on small data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import himalaya.backend
        import himalaya.kernel_ridge

        before = himalaya.backend.get_backend().name
        himalaya.backend.set_backend("numpy")
        try:
            yield himalaya.kernel_ridge
        finally:
            himalaya.backend.set_backend(before)
