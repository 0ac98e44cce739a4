"""A ventral stream whose hierarchy is known, because it is simulated: the positive control of brain alignment.

    V1   Gabor energy, 2 wavelengths × 8 orientations on a 16 × 16 grid, divisively normalised
    V2, V4, IT   rectified random combinations of the area below, pooled over larger and larger fields

    voxel   y = W_area a_area, W Gaussian; shown twice per image; BOLD = HRF ∗ events, drift, AR(1) noise; GLM by
            least squares returns one response per image
    sensor  s(t) = Σ_areas k_area(t) L_area a_area + noise, k_area with its own onset and peak

It says nothing about brains. It says whether a score finds what is there: the stream itself must score 1 in space
and in time, −1 with the regions reversed, and its voxels must be encoded up to their noise.

Shapes: ``N`` images, ``V`` voxels, ``S`` subjects, ``T`` times, ``C`` scans.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from evaluation.brain.controls import gabor_energy, luminance, resized
from evaluation.brain.rdm import Array, rdm
from rules.base import Objective
from training.data import shapes

AREAS = ("V1", "V2", "V4", "IT")
ONSETS = {"V1": 50.0, "V2": 70.0, "V4": 95.0, "IT": 125.0}  # ms after stimulus onset
PEAKS = {"V1": 85.0, "V2": 115.0, "V4": 150.0, "IT": 195.0}
TR, SPACING, REPEATS = 2.0, 4.0, 2  # s between scans, s between images, times that each image is shown
DRIFT_TERMS = 3
THRESHOLD = 1.0  # of V2, V4 and IT, in standard deviations of the drive to one image


@dataclass(frozen=True)
class VentralStream:
    """The generating model, as an observer: its stages are the areas.

    Attributes:
        seed: Of its weights.
    """

    seed: int = 0
    name: str = "ventral_stream"
    classes: tuple[str, ...] = ()
    in_shape: tuple[int, int, int] = (1, 64, 64)

    def activations(self, stimuli: Tensor) -> dict[str, Tensor]:
        """Return each area's activity, ``{area: (N, channels, side, side)}`` in float64."""
        generator = torch.Generator().manual_seed(self.seed)
        grey = luminance(resized(stimuli))
        x = _normalised(gabor_energy(grey, 16, (4.0, 8.0)))
        areas = {"V1": x}
        for area, channels in (("V2", 24), ("V4", 32), ("IT", 48)):
            weight = torch.randn(channels, x.shape[1], 3, 3, generator=generator, dtype=torch.float64)
            weight = weight - weight.mean((1, 2, 3), keepdim=True)
            drive = F.conv2d(x, weight, padding=1)
            # A high threshold and an expansive response: few cells of an area answer to one image.
            drive = F.relu(drive - THRESHOLD * drive.std((1, 2, 3), keepdim=True)).square()
            x = areas[area] = _normalised(F.avg_pool2d(drive, 2 if area != "IT" else 4))
        return areas

    def predict(self, stimuli: Tensor) -> Tensor:
        """Return nothing to judge: it has no answers."""
        return torch.zeros(len(stimuli), 0)

    def signals(self, stimuli: Tensor, target: Tensor, objective: Objective | None = None) -> dict[str, Tensor]:
        """Return nothing: it does not learn."""
        del stimuli, target, objective
        return {}


def _normalised(x: Tensor) -> Tensor:
    """Divide by the pooled activity of all channels at a place and its surround (Heeger 1992)."""
    pool = x.mean(1, keepdim=True)
    return x / (pool.mean((2, 3), keepdim=True) + pool + 1e-6)


@dataclass(frozen=True)
class Simulated:
    """Simulated data with the truth behind them.

    Attributes:
        stimuli: ``(N, 1, H, W)``.
        labels: ``(N,)`` which polygon.
        betas: Area → per subject estimated responses ``(N, V)``.
        truth: Area → per subject noiseless responses ``(N, V)``.
        movie: RDMs of sensor patterns over time ``(S, T, P)``.
        times: ``(T,)`` in ms.
    """

    stimuli: Tensor
    labels: NDArray[np.int64]
    betas: Mapping[str, tuple[Array, ...]]
    truth: Mapping[str, tuple[Array, ...]]
    movie: Array
    times: Array

    def explainable(self) -> dict[str, Array]:
        """Return the share of each voxel's variance over images that is not noise, ``{area: (S, V)}``."""
        found = {}
        for area, people in self.betas.items():
            share = [1 - (b - t).var(0) / b.var(0) for b, t in zip(people, self.truth[area], strict=True)]
            found[area] = np.clip(np.stack(share), 0, 1)
        return found


def simulate(
    *, images: int = 64, subjects: int = 8, voxels: int = 60, noise: float = 1.0, sensors: int = 48, seed: int = 0
) -> Simulated:
    """Return what subjects' brains would have done.

    Args:
        images: N, polygons on plain grounds with clutter.
        subjects: S.
        voxels: Per area and subject.
        noise: Standard deviation of the noise, in units of the responses' own: per scan, and per trial-averaged sample.
        sensors: Of the time-resolved recording.
        seed: Of everything.
    """
    drawn = shapes.draw(images, 64, clutter=2, noise=0.0, seed=seed)
    areas = {a: _standard(x.flatten(1).numpy()) for a, x in VentralStream().activations(drawn.images).items()}
    rng = np.random.default_rng(seed)
    times = np.arange(-100.0, 401.0, 10.0, dtype=np.float64)
    betas: dict[str, list[Array]] = {a: [] for a in AREAS}
    truth: dict[str, list[Array]] = {a: [] for a in AREAS}
    movie = []
    for _ in range(subjects):
        design = _design(images, rng)
        for area, x in areas.items():
            response = _standard(x @ rng.normal(size=(x.shape[1], voxels)))
            truth[area].append(response)
            betas[area].append(_measured(response, design, noise, rng))
        movie.append(_sensor_movie(areas, times, sensors, noise, rng))
    return Simulated(
        drawn.images,
        drawn.targets.numpy(),
        {a: tuple(v) for a, v in betas.items()},
        {a: tuple(v) for a, v in truth.items()},
        np.stack(movie),
        times,
    )


def _standard(x: Array) -> Array:
    """Return patterns less their mean over images, of unit mean variance."""
    x = x - x.mean(0)
    return np.asarray(x / np.sqrt(x.var(0).mean()))


def hrf(seconds: Array) -> Array:
    """Return the double-gamma haemodynamic response (Glover 1999), of unit maximum."""

    def gamma(t: Array, shape: int) -> Array:
        return np.asarray(t ** (shape - 1) * np.exp(-t) / math.factorial(shape - 1))

    peak = float((gamma(np.array([5.0]), 6) - gamma(np.array([5.0]), 16) / 6)[0])
    return (gamma(seconds, 6) - gamma(seconds, 16) / 6) / peak


def _design(images: int, rng: np.random.Generator) -> Array:
    """Return the design matrix ``(C, N + drift)``: one regressor per image, in a random order of presentation."""
    order = np.concatenate([rng.permutation(images) for _ in range(REPEATS)])
    onsets = SPACING * np.arange(len(order))
    scans = TR * np.arange(int((onsets[-1] + 24) / TR))
    lag = scans[:, None] - onsets
    events = np.where(lag > 0, hrf(np.maximum(lag, 0)), 0.0)
    design = np.zeros((len(scans), images + DRIFT_TERMS))
    for column, image in enumerate(order):
        design[:, image] += events[:, column]
    design[:, images:] = np.polynomial.legendre.legvander(np.linspace(-1, 1, len(scans)), DRIFT_TERMS - 1)
    return design


def _measured(response: Array, design: Array, noise: float, rng: np.random.Generator) -> Array:
    """Return the GLM's estimate of each image's response from a noisy BOLD series."""
    num, voxels = response.shape
    drift = rng.normal(size=(DRIFT_TERMS, voxels))
    shocks = noise * rng.normal(size=(len(design), voxels))
    for t in range(1, len(shocks)):  # AR(1), as in BOLD at this TR
        shocks[t] = 0.3 * shocks[t - 1] + np.sqrt(1 - 0.3**2) * shocks[t]
    bold = design @ np.concatenate([response, drift]) + shocks
    return np.asarray(np.linalg.lstsq(design, bold, rcond=None)[0][:num])


def course(area: str, times: Array) -> Array:
    """Return k(t): 0 before the area's onset, 1 at its peak, nearly gone when the next area peaks."""
    s = np.maximum((times - ONSETS[area]) / (PEAKS[area] - ONSETS[area]), 0)
    return np.asarray((s * np.exp(1 - s)) ** 6)


def _sensor_movie(
    areas: Mapping[str, Array], times: Array, sensors: int, noise: float, rng: np.random.Generator
) -> Array:
    """Return one subject's RDMs over time ``(T, P)``."""
    signal = np.zeros((len(times), len(next(iter(areas.values()))), sensors))
    for area, x in areas.items():
        topography = _standard(x @ rng.normal(size=(x.shape[1], sensors)))
        signal += course(area, times)[:, None, None] * topography
    return rdm(signal + 0.5 * noise * rng.normal(size=signal.shape))
