"""Brain data in memory: images, what is known about them, and what subjects' brains did when they saw them.

Shapes: ``N`` images, ``P`` pairs of them in the order of ``numpy.triu_indices(N, 1)``, ``S`` subjects, ``V``
voxels or channels, ``T`` times.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.brain.rdm import Array, rdm, square

FEWEST_CHANNELS = 3  # two give correlations of ±1 only
MODALITIES = ("fmri", "meg", "eeg", "ieeg", "electrophysiology", "behaviour", "mixed")


class DataMissing(Exception):
    """The data are not on this machine; the message says where they were looked for and how to get them."""


class Broken(ValueError):
    """A folder that cannot be read; one message per problem."""

    def __init__(self, found: Sequence[str]) -> None:
        super().__init__("; ".join(found))
        self.found = list(found)


@dataclass(frozen=True)
class Card:
    """What a brain data set says about itself (``brain.yaml``).

    Attributes:
        name: Of the set.
        modality: One of ``MODALITIES``.
        rois: Regions in the order of the hierarchy, lowest first. The hierarchy scores use no other.
        beside: Targets that have no place in that hierarchy, such as behaviour or another species.
        distances: Distance of each of ``rois`` from the lowest, in mm; empty for ranks only.
        subjects: Number of subjects (the largest, where targets differ).
        citation: What to cite.
        licence: Under which terms, as far as known.
        simulated: Whether no brain was involved. It is said wherever a score is shown.
        notes: Anything else.
    """

    name: str
    modality: str
    rois: tuple[str, ...]
    subjects: int
    citation: str
    licence: str
    beside: tuple[str, ...] = ()
    distances: tuple[float, ...] = ()
    simulated: bool = False
    notes: str = ""


@dataclass(frozen=True, eq=False)
class BrainData:
    """One data set. RDMs, responses and the movie are each optional; RDMs follow from responses.

    Attributes:
        card: What it says about itself.
        stimuli: ``(N, 1 or 3, H, W)`` in linear luminance, 0…1.
        names: Of the images.
        labels: Category label of every image, ``{name: (N,)}``; the first is the one that a label loss uses.
        rdms: Target → subjects' RDMs ``(S, P)``.
        responses: ROI → per subject ``(N, V)``.
        movie: RDMs over time, ``(S, T, P)``.
        times: ``(T,)`` in ms after stimulus onset.
        explainable: ROI → share of every voxel's variance over images that is not noise, where it is known.
        cortex: Folder with ``lh.annot`` and ``rh.annot``, the regions on fsaverage5 or fsaverage under the ROIs' names;
            without it pictures of the cortex show approximate patches.
        people: Target → names of its subjects, in order. Those of one name are one person, whatever the target;
            where nothing is said, other people for every target.
    """

    card: Card
    stimuli: Tensor
    names: tuple[str, ...]
    labels: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    rdms: Mapping[str, Array] = field(default_factory=dict)
    responses: Mapping[str, tuple[Array, ...]] = field(default_factory=dict)
    movie: Array | None = None
    times: Array | None = None
    explainable: Mapping[str, Array] = field(default_factory=dict)
    people: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cortex: Path | None = None

    def __len__(self) -> int:
        return len(self.stimuli)

    @cached_property
    def targets(self) -> dict[str, Array]:
        """Subjects' RDMs of every target, the hierarchy first; from responses where there are no RDMs."""
        found = {}
        for name in (*self.card.rois, *self.card.beside):
            if name in self.rdms:
                found[name] = self.rdms[name]
            elif name in self.responses:
                found[name] = np.stack([rdm(r) for r in self.responses[name]])
        return found

    @property
    def names_of_people(self) -> dict[str, tuple[str, ...]]:
        """Names of every target's subjects, also where none were given."""
        many = {n: len(v) for n, v in self.responses.items()} | {n: len(v) for n, v in self.rdms.items()}
        return {n: self.people.get(n, tuple(f"{n} {k:02d}" for k in range(m))) for n, m in many.items()}

    def in_order(self) -> "BrainData":
        """Return the data with images in the order of their names: what is drawn by number must not depend on files."""
        order = np.argsort(np.array(self.names), kind="stable")
        return self if (order == np.arange(len(self))).all() else _selected(self, tuple(order.tolist()))

    def select(self, index: NDArray[np.int64]) -> "BrainData":
        """Return the data of some images, in the order given."""
        i, j = np.triu_indices(len(index), 1)

        def pairs(vectors: Array) -> Array:
            return square(vectors)[..., index[i], index[j]]

        return dataclasses.replace(
            self,
            stimuli=self.stimuli[torch.from_numpy(index)],
            names=tuple(self.names[k] for k in index),
            labels={n: v[index] for n, v in self.labels.items()},
            rdms={n: pairs(v) for n, v in self.rdms.items()},
            responses={n: tuple(r[index] for r in v) for n, v in self.responses.items()},
            movie=None if self.movie is None else pairs(self.movie),
        )


@functools.lru_cache(maxsize=4)
def _selected(data: BrainData, order: tuple[int, ...]) -> BrainData:
    """Return ``data.select(order)``, once for all runs that are measured on it."""
    return data.select(np.array(order))


def same_people(targets: Mapping[str, Sized]) -> dict[str, tuple[str, ...]]:
    """Return names of subjects for targets in which the k-th entry is always the k-th person."""
    return {t: tuple(f"{k:02d}" for k in range(len(v))) for t, v in targets.items()}


def problems(data: BrainData) -> list[str]:
    """Return what is wrong with a data set, in words; nothing if it can be scored."""
    num, found = len(data), []
    card = data.card
    if card.modality not in MODALITIES:
        found.append(f"card: modality {card.modality!r} is none of {', '.join(MODALITIES)}")
    for text in ("name", "citation", "licence"):
        if not str(getattr(card, text)).strip():
            found.append(f"card: {text} is empty")
    if not card.rois and data.movie is None:
        found.append("card: rois is empty and there is no time course: nothing to align with")
    if card.distances and len(card.distances) != len(card.rois):
        found.append(f"card: {len(card.distances)} distances for {len(card.rois)} rois")
    if num < 4:
        found.append(f"{num} images: at least 4 are needed")
    if len(data.names) != num or len(set(data.names)) != len(data.names):
        found.append(f"{len(data.names)} names ({len(set(data.names))} different) for {num} images")
    x = data.stimuli
    if x.dim() != 4 or x.shape[1] not in (1, 3) or not torch.is_floating_point(x):
        found.append(f"stimuli: expected floats (N, 1 or 3, H, W), got {tuple(x.shape)} {x.dtype}")
    elif not bool(torch.isfinite(x).all()) or x.min() < 0 or x.max() > 1:
        found.append("stimuli: must be finite and in 0…1")
    for name, values in data.labels.items():
        if len(values) != num:
            found.append(f"labels {name}: {len(values)} for {num} images")
        elif len(np.unique(values)) < 2:
            found.append(f"labels {name}: all images have the same")
    pairs = num * (num - 1) // 2
    known = {*card.rois, *card.beside}
    for name in [t for t in (*card.rois, *card.beside) if t not in data.rdms and t not in data.responses]:
        found.append(f"{name}: on the card, but neither RDMs nor responses are there")
    for name, vectors in data.rdms.items():
        if name not in known:
            found.append(f"RDMs of {name}: not on the card (rois or beside)")
        if vectors.ndim != 2 or vectors.shape[1] != pairs:
            found.append(f"RDMs of {name}: {vectors.shape} instead of (subjects, {pairs}) for {num} images")
        else:
            found += _unusable(f"RDM of {name}", vectors)
    for name, parts in data.responses.items():
        if name not in known:
            found.append(f"responses of {name}: not on the card (rois or beside)")
        for k, r in enumerate(parts):
            if r.ndim != 2 or len(r) != num:
                found.append(f"responses of {name}, subject {k}: {r.shape} instead of ({num}, channels)")
            elif not np.isfinite(r).all():
                found.append(f"responses of {name}, subject {k}: not finite")
            elif name not in data.rdms:  # RDMs follow from responses
                found += _patternless(f"responses of {name}, subject {k}", r)
    for name, people in data.people.items():
        many = {len(v[name]) for v in (data.rdms, data.responses) if name in v} or {len(people)}
        if many != {len(people)} or len(set(people)) != len(people):
            found.append(f"people of {name}: {', '.join(people)} for {', '.join(map(str, sorted(many)))} subjects")
    if data.movie is not None:
        found += _movie_problems(data.movie, data.times, pairs)
    return found


def _patternless(what: str, responses: Array) -> list[str]:
    """Return why no RDM of 1 − correlation follows from responses ``(N, V)``."""
    if responses.shape[1] < FEWEST_CHANNELS:
        return [f"{what}: {responses.shape[1]} channels; correlation between patterns needs at least {FEWEST_CHANNELS}"]
    if flat := int((np.ptp(responses, 1) == 0).sum()):
        return [f"{what}: {flat} images have the same response in every channel: no pattern; leave them out"]
    return _unusable(f"RDM from {what}", rdm(responses)[None])


def _movie_problems(movie: Array, times: Array | None, pairs: int) -> list[str]:
    if times is None or movie.ndim != 3 or movie.shape[1:] != (len(times), pairs):
        count = "no" if times is None else len(times)
        return [f"time course: {movie.shape} instead of (subjects, times, {pairs}) with {count} times"]
    found = [] if (np.diff(times) > 0).all() else ["time course: times must increase"]
    if not (times > 0).any():
        found.append(f"time course: ends at {times[-1]:g} ms, before the stimulus is shown (0 ms); are times in s?")
    return found + _unusable("time course", movie.reshape(-1, pairs))


def _unusable(what: str, vectors: Array) -> list[str]:
    if not np.isfinite(vectors).all():
        return [f"{what}: holds values that are not finite"]
    if (vectors.std(-1) == 0).any():
        return [f"{what}: all pairs are equally dissimilar for at least one subject"]
    return []


def linear_luminance(images: NDArray[Any]) -> Tensor:
    """Return sRGB images ``(N, H, W, 3)`` or ``(N, H, W)``, uint8 or 0…1, as linear luminance ``(N, C, H, W)``."""
    x = torch.as_tensor(np.ascontiguousarray(images))
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    x = x[:, None] if x.dim() == 3 else x.permute(0, 3, 1, 2)
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
