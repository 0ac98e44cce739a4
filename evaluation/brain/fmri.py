"""From fMRI images with events to responses: masks, and a GLM with one regressor per stimulus (nilearn).

Shapes: ``N`` images, ``V`` voxels.
"""

import csv
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.brain.importers import NotReadable
from evaluation.brain.rdm import Array


@dataclass(frozen=True)
class Scan:
    """One run of one subject.

    Attributes:
        subject: Name of the subject.
        bold: 4-D image.
        events: Tab-separated: ``onset`` and ``duration`` in s, and ``stimulus`` (or ``trial_type``).
    """

    subject: str
    bold: Path
    events: Path


def bids_scans(folder: Path) -> list[Scan]:
    """Return the runs of a BIDS-like folder: ``sub-*/[ses-*/]func/*_bold.nii[.gz]`` with ``*_events.tsv`` beside them.

    Raises:
        NotReadable: If there is none, or a run has no events.
    """
    found = []
    for bold in sorted(folder.rglob("sub-*/**/*_bold.nii*")):
        stem = bold.name.split("_bold.nii")[0]
        events = bold.with_name(f"{stem}_events.tsv")
        if not events.exists():  # derivatives carry `space-…_desc-…`, events do not
            plain = "_".join(p for p in stem.split("_") if not p.startswith(("space-", "desc-", "res-")))
            events = bold.with_name(f"{plain}_events.tsv")
        if not events.exists():
            raise NotReadable(f"{bold}: no {stem}_events.tsv beside it")
        found.append(Scan(bold.name.split("_")[0].removeprefix("sub-"), bold, events))
    if not found:
        raise NotReadable(f"{folder}: no sub-*/func/*_bold.nii.gz")
    return found


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a run: ``onset``, ``duration`` (s), ``trial_type`` (the stimulus).

    Raises:
        NotReadable: If a column is missing or a number is none.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NotReadable(f"{path}: cannot be read ({error})") from error
    name = next((n for n in ("stimulus", "stim_file", "trial_type") if rows and n in rows[0]), None)
    if name is None or "onset" not in rows[0] or "duration" not in rows[0]:
        raise NotReadable(f"{path}: needs columns onset, duration and stimulus (or stim_file, trial_type)")
    found = []
    for line, r in enumerate(rows, 2):
        if None in (r["onset"], r["duration"], r[name]):
            raise NotReadable(f"{path}, line {line}: fewer values than columns")
        if r[name] in ("", "n/a"):
            continue
        try:
            found.append(
                {"onset": float(r["onset"]), "duration": float(r["duration"]), "trial_type": Path(r[name]).stem}
            )
        except ValueError as error:
            raise NotReadable(f"{path}, line {line}: {error}") from error
    return found


def glm_responses(
    scans: Sequence[Scan],
    masks: Mapping[str, Path],
    stimuli: Sequence[str],
    *,
    repetition_time: float | None = None,
    smoothing: float | None = None,
    high_pass: float = 0.01,
) -> dict[str, tuple[Array, ...]]:
    """Return one response per stimulus and voxel from BOLD series: a GLM with one regressor per stimulus.

    nilearn's ``FirstLevelModel`` (Glover's HRF, AR(1) noise, cosine drift), all runs of a subject together; the
    effect maps are read in each ROI with ``NiftiMasker``. Voxels that do not vary are left out.

    Args:
        scans: Runs of all subjects.
        masks: ROI → 3-D mask in the space of the images; ``{subject}`` in a path stands for the subject's name.
        stimuli: Names in the order wanted; each must occur in at least one run of every subject.
        repetition_time: s; read from the image by default.
        smoothing: Full width at half maximum in mm.
        high_pass: Hz.

    Raises:
        NotReadable: If an image or a stimulus is missing.
    """
    import pandas as pd
    from nilearn.glm.first_level import FirstLevelModel
    from nilearn.maskers import NiftiMasker

    found: dict[str, list[Array]] = {roi: [] for roi in masks}
    for subject in sorted({s.subject for s in scans}):
        own = [s for s in scans if s.subject == subject]
        events = [pd.DataFrame(read_events(s.events)) for s in own]
        shown = set().union(*(set(e["trial_type"]) for e in events))
        if lacking := [n for n in stimuli if n not in shown]:
            raise NotReadable(
                f"subject {subject}: no event of {lacking[0]!r} ({len(lacking)} of {len(stimuli)} missing)"
            )
        images = [_image(s.bold, 4) for s in own]
        tr = repetition_time or float(images[0].header.get_zooms()[3])
        if not tr > 0:
            raise NotReadable(f"{own[0].bold}: no repetition time in its header; give --tr")
        places = {roi: Path(str(p).replace("{subject}", subject)) for roi, p in masks.items()}
        for roi, place in places.items():
            if not place.exists():
                raise NotReadable(f"mask of {roi}: {place} is not there")
        brain = _union(places)
        model = FirstLevelModel(
            t_r=tr, hrf_model="glover", noise_model="ar1", high_pass=high_pass, drift_model="cosine", mask_img=brain,
            smoothing_fwhm=smoothing, signal_scaling=False, standardize=False, minimize_memory=True,
        )  # fmt: skip
        with warnings.catch_warnings():  # it says that a mask was given, which is what was meant
            warnings.filterwarnings("ignore", message=".*a mask was given at masker creation")
            try:
                model.fit(images, events=events)
            except (OSError, EOFError, zlib.error) as error:  # a file that ends early shows when its data are read
                which = ", ".join(str(s.bold) for s in own)
                raise NotReadable(f"{which}: cannot be read ({' '.join(str(error).split())[:120]})") from error
        maps = [model.compute_contrast(_contrast(model, n), output_type="effect_size") for n in stimuli]
        for roi, place in places.items():
            masker = NiftiMasker(mask_img=str(place), standardize=None).fit()
            values = np.concatenate([np.atleast_2d(masker.transform(m)) for m in maps])
            moving = np.isfinite(values).all(0) & (values.std(0) > 0)
            if not moving.any():
                raise NotReadable(f"subject {subject}, {roi}: no voxel varies over stimuli")
            found[roi].append(np.asarray(values[:, moving], dtype=np.float64))
    return {roi: tuple(v) for roi, v in found.items()}


def _image(path: Path, axes: int) -> Any:
    """Return an image with so many axes.

    Raises:
        NotReadable: If it is none.
    """
    from nilearn.image import load_img

    try:
        image = load_img(str(path))
    except Exception as error:  # nibabel, gzip and nilearn raise their own
        raise NotReadable(f"{path}: cannot be read as NIfTI ({' '.join(str(error).split())[:120]})") from error
    if image.ndim != axes:
        raise NotReadable(f"{path}: {image.ndim} axes {image.shape}; expected {axes}")
    return image


def _union(masks: Mapping[str, Path]) -> Any:
    """Return where any mask is above 0.

    Raises:
        NotReadable: If they do not lie in one space, or one is empty.
    """
    from nilearn.image import new_img_like

    whole, first = None, None
    for roi, path in masks.items():
        image = _image(path, 3)
        first = image if first is None else first
        if image.shape != first.shape or not np.allclose(image.affine, first.affine, atol=1e-3):
            raise NotReadable(
                f"mask of {roi}: {path} has the shape {image.shape} or an affine other than the first mask's "
                f"({first.shape}); resample all masks to one space"
            )
        try:
            inside = np.asarray(image.get_fdata()) > 0
        except (OSError, EOFError, zlib.error) as error:
            raise NotReadable(f"{path}: cannot be read ({' '.join(str(error).split())[:120]})") from error
        if not inside.any():
            raise NotReadable(f"mask of {roi}: {path} is empty")
        whole = inside if whole is None else whole | inside
    return new_img_like(first, np.asarray(whole).astype(np.int8))


def _contrast(model: Any, stimulus: str) -> list[NDArray[np.float64]]:
    """Return the stimulus' contrast per run, zero in runs that do not show it, averaged over those that do."""
    vectors = [np.array([float(c == stimulus) for c in d.columns]) for d in model.design_matrices_]
    num = sum(v.any() for v in vectors)
    return [v / num for v in vectors]
