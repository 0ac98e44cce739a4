"""Haxby 2001: faces, houses, cats and five other categories in ventral temporal cortex of 6 subjects (block design).

Haxby et al. 2001 (Science 293:2425), through nilearn's fetcher (about 1.5 GB; `--download`). Eight images, one per
category: each stands for its block, so that 28 pairs carry the RDM. One region: no hierarchy, no spatial score.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.brain.data import BrainData, Card, DataMissing, linear_luminance
from evaluation.brain.fetch import once
from evaluation.brain.images import photographs
from evaluation.brain.rdm import Array
from training.data.base import Source

CATEGORIES = ("bottle", "cat", "chair", "face", "house", "scissors", "scrambledpix", "shoe")
SUBJECTS = (1, 2, 3, 4, 5)  # the sixth has no mask of ventral temporal cortex
DELAY = 2  # scans (of 2.5 s) by which blocks are shifted for the haemodynamic response
CARD = Card(
    name="haxby2001",
    modality="fmri",
    rois=("VT",),
    subjects=len(SUBJECTS),
    citation="Haxby et al. 2001, Science 293:2425",
    licence="CC BY-SA 3.0",
    notes="One photograph stands for each block of 24.",
)


def build(source: Source) -> BrainData:
    """Return the data set.

    Raises:
        DataMissing: If it is not in the data folder and may not be downloaded, or cannot be.
    """
    folder = source.root / "haxby2001"
    if not folder.is_dir() and not source.download:
        raise DataMissing(f"data not there: no folder {folder}; add --download (about 1.5 GB)")
    from nilearn.datasets import fetch_haxby

    bunch = once(
        folder, lambda: fetch_haxby(data_dir=str(source.root), subjects=SUBJECTS, fetch_stimuli=True, verbose=0)
    )
    responses = tuple(
        block_responses(Path(f), Path(t), Path(m))
        for f, t, m in zip(bunch.func, bunch.session_target, bunch.mask_vt, strict=True)
    )
    images = photographs([_first(bunch.stimuli, c) for c in CATEGORIES], 128)
    animate = np.array([c in ("cat", "face") for c in CATEGORIES], dtype=np.int64)
    return BrainData(CARD, linear_luminance(images), CATEGORIES, {"animacy": animate}, responses={"VT": responses})


def block_responses(bold: Path, table: Path, mask: Path) -> Array:
    """Return the mean response to each category ``(8, V)``: signal standardised per run, blocks shifted by ``DELAY``.

    Args:
        bold: 4-D image of all runs.
        table: Space-separated, one line per scan: ``labels`` (category or ``rest``) and ``chunks`` (run).
        mask: 3-D.
    """
    from nilearn.maskers import NiftiMasker

    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter=" "))
    runs = np.array([int(r["chunks"]) for r in rows])
    labels = np.array([r["labels"] for r in rows])
    signal = np.asarray(NiftiMasker(mask_img=str(mask), standardize=None).fit_transform(str(bold)), dtype=np.float64)
    late = labels.copy()
    for r in np.unique(runs):
        own = np.flatnonzero(runs == r)
        x = signal[own] - signal[own].mean(0)
        spread = x.std(0)
        signal[own] = x / np.where(spread > 0, spread, 1)
        late[own] = np.concatenate([np.full(DELAY, "rest"), labels[own][:-DELAY]])
    return np.stack([signal[late == c].mean(0) for c in CATEGORIES])


def _first(stimuli: Mapping[str, Any], category: str) -> Path:
    """Return the first photograph of a category in nilearn's list of stimuli."""
    known = {"cat": "cats", "chair": "chairs", "face": "faces", "house": "houses", "shoe": "shoes", "bottle": "bottles",
             "scrambledpix": "controls"}  # fmt: skip
    group = stimuli[known.get(category, category)]
    while isinstance(group, Mapping):  # `controls` is sorted by what was scrambled
        group = group[min(group)]
    return Path(sorted(group)[0])
