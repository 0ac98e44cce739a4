"""Psychometric function: how often an observer says *fat* as the figure turns from thin to fat, and its threshold.

    P(fat | α) = λ/2 + (1 − λ) / (1 + exp(−k (α/θ − b)))        k = logit((¾ − λ/2) / (1 − λ)),  λ = 0.02

so that θ, the threshold, is the rotation from the point of equality at which three quarters of the answers are right.
b is the bias in thresholds. Both are fitted by maximum likelihood on a grid: no optimiser that may not
converge, and all resamples at once. θ ends at the largest rotation shown: beyond, it was not reached.
"""

import math
from functools import lru_cache

import numpy as np

from evaluation.statistics import Array

LAPSE = 0.02
SMALLEST = 0.5  # degrees: thresholds below half the smallest rotation shown are not told apart
STEPS = 24  # of the grid per octave of threshold
BIASES = np.linspace(-4, 4, 33)  # in thresholds


def probability(degrees: Array, threshold: Array | float, bias: Array | float) -> Array:
    """Return P(fat) at signed rotations, for thresholds and biases of shapes that broadcast with them."""
    share = (0.75 - LAPSE / 2) / (1 - LAPSE)
    k = math.log(share / (1 - share))
    return LAPSE / 2 + (1 - LAPSE) / (1 + np.exp(np.clip(-k * (degrees / threshold - bias), -60, 60)))


def fit(degrees: Array, said_fat: Array, asked: Array) -> tuple[Array, Array]:
    """Return thresholds and biases of most likelihood, each ``(R,)``.

    Args:
        degrees: ``(C,)`` signed rotations.
        said_fat: ``(R, C)`` answers *fat* at each of them, of R experiments.
        asked: ``(C,)`` questions.
    """
    thresholds, biases, yes, no = _grid(tuple(degrees.tolist()))
    best = [
        np.argmax(part @ yes + (asked - part) @ no, axis=1)
        for part in np.array_split(said_fat, len(said_fat) // 256 + 1)
    ]
    chosen = np.concatenate(best)
    return thresholds[chosen], biases[chosen]


def resampled(fat: Array, resamples: int, seed: int) -> Array:
    """Return the number of answers *fat* to figures resampled within every rotation, ``(resamples, C)``.

    A seed draws the same figures whatever was answered, so that conditions which share their figures stay paired.

    Args:
        fat: ``(C, figures)``, 1 where the answer was *fat*.
        resamples: Number of resamples.
        seed: Of the draws.
    """
    rotations, num = fat.shape
    times = np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), size=(resamples, rotations))
    return np.asarray((times * fat).sum(2))


@lru_cache(maxsize=2)
def _grid(degrees: tuple[float, ...]) -> tuple[Array, Array, Array, Array]:
    largest = max(abs(d) for d in degrees)
    num = 1 + round(STEPS * math.log2(largest / SMALLEST))
    pairs = np.array([(t, b) for t in np.geomspace(SMALLEST, largest, num) for b in BIASES])
    p = probability(np.array(degrees)[:, None], pairs[:, 0], pairs[:, 1])
    return pairs[:, 0], pairs[:, 1], np.log(p), np.log1p(-p)
