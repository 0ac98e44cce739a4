"""From the field's files to brain data: RDMs, response matrices, fMRI images with events, MNE epochs.

Shapes: ``N`` images, ``S`` subjects, ``V`` voxels or channels, ``P`` pairs of images.
"""

import csv
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.brain.rdm import Array, num_images, rdm


class NotReadable(ValueError):
    """A file that is not what the importer needs; the message says why."""


def array(path: Path, key: str = "") -> NDArray[Any]:
    """Return the one array of a ``.npy``, ``.npz`` or ``.mat`` file, or the one called ``key``.

    Raises:
        NotReadable: If there is none, or more than one and no key.
    """
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                found = {n: archive[n] for n in archive.files}
        elif path.suffix == ".mat":
            found = _mat(path)
        else:
            raise NotReadable(f"{path}: expected .npy, .npz or .mat")
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        if isinstance(error, NotReadable):
            raise
        raise NotReadable(f"{path}: cannot be read ({' '.join(str(error).split())[:120]})") from error
    if key:
        if key not in found:
            raise NotReadable(f"{path}: no array {key!r}; it has {', '.join(sorted(found))}")
        return found[key]
    if len(found) != 1:
        raise NotReadable(f"{path}: holds {', '.join(sorted(found)) or 'no array'}; say which with FILE:KEY")
    return next(iter(found.values()))


def _mat(path: Path) -> dict[str, NDArray[Any]]:
    """Return the numeric arrays of a MATLAB file, of version 5 or 7.3 (HDF5, whose axes are reversed)."""
    import h5py
    from scipy.io import loadmat

    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            return {
                n: np.asarray(v).T for n, v in file.items() if isinstance(v, h5py.Dataset) and v.dtype.kind in "fiu"
            }
    return {n: v for n, v in loadmat(path).items() if isinstance(v, np.ndarray) and v.dtype.kind in "fiu"}


def rdm_vectors(values: NDArray[Any], where: str = "RDMs") -> Array:
    """Return ``(S, P)`` from RDMs given as ``(N, N)``, ``(S, N, N)``, ``(P,)`` or ``(S, P)``.

    Raises:
        NotReadable: If it is none of these, or square RDMs are not symmetric with an equal diagonal.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim >= 2 and x.shape[-1] == x.shape[-2]:
        x = x.reshape(-1, *x.shape[-2:])
        scale = max(1e-300, float(np.abs(x[np.isfinite(x)]).max(initial=0)))
        if not np.allclose(x, np.swapaxes(x, 1, 2), atol=1e-6 * scale, equal_nan=True):
            raise NotReadable(f"{where}: square but not symmetric: no RDM")
        i, j = np.triu_indices(x.shape[-1], 1)
        return x[:, i, j]
    x = np.atleast_2d(x.squeeze())
    try:
        num_images(x.shape[-1])
    except ValueError as error:
        raise NotReadable(f"{where}: {values.shape}: {error}") from error
    return x


def responses(values: NDArray[Any], where: str = "responses") -> tuple[Array, ...]:
    """Return per subject ``(N, V)`` from ``(N, V)`` or ``(S, N, V)``.

    Raises:
        NotReadable: If it has another number of axes.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim == 2:
        return (x,)
    if x.ndim == 3:
        return tuple(x)
    raise NotReadable(f"{where}: expected (images, channels) or (subjects, images, channels), got {x.shape}")


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
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    name = next((n for n in ("stimulus", "stim_file", "trial_type") if rows and n in rows[0]), None)
    if name is None or "onset" not in rows[0] or "duration" not in rows[0]:
        raise NotReadable(f"{path}: needs columns onset, duration and stimulus (or stim_file, trial_type)")
    try:
        return [
            {"onset": float(r["onset"]), "duration": float(r["duration"]), "trial_type": Path(r[name]).stem}
            for r in rows
            if r[name] not in ("", "n/a")
        ]
    except ValueError as error:
        raise NotReadable(f"{path}: {error}") from error


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
    from nilearn.image import load_img
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
        images = [load_img(str(s.bold)) for s in own]
        tr = repetition_time or float(images[0].header.get_zooms()[3])
        if not tr > 0:
            raise NotReadable(f"{own[0].bold}: no repetition time in its header; give --tr")
        places = {roi: Path(str(p).replace("{subject}", subject)) for roi, p in masks.items()}
        for roi, place in places.items():
            if not place.exists():
                raise NotReadable(f"mask of {roi}: {place} is not there")
        brain = _union([load_img(str(p)) for p in places.values()])
        model = FirstLevelModel(
            t_r=tr, hrf_model="glover", noise_model="ar1", high_pass=high_pass, drift_model="cosine", mask_img=brain,
            smoothing_fwhm=smoothing, signal_scaling=False, standardize=False, minimize_memory=True,
        )  # fmt: skip
        with warnings.catch_warnings():  # it says that a mask was given, which is what was meant
            warnings.filterwarnings("ignore", message=".*a mask was given at masker creation")
            model.fit(images, events=events)
        maps = [model.compute_contrast(_contrast(model, n), output_type="effect_size") for n in stimuli]
        for roi, place in places.items():
            masker = NiftiMasker(mask_img=str(place), standardize=None).fit()
            values = np.concatenate([np.atleast_2d(masker.transform(m)) for m in maps])
            moving = np.isfinite(values).all(0) & (values.std(0) > 0)
            if not moving.any():
                raise NotReadable(f"subject {subject}, {roi}: no voxel varies over stimuli")
            found[roi].append(np.asarray(values[:, moving], dtype=np.float64))
    return {roi: tuple(v) for roi, v in found.items()}


def _union(images: Sequence[Any]) -> Any:
    from nilearn.image import new_img_like

    data = np.any([np.asarray(i.get_fdata()) > 0 for i in images], axis=0)
    return new_img_like(images[0], data.astype(np.int8))


def _contrast(model: Any, stimulus: str) -> list[NDArray[np.float64]]:
    """Return the stimulus' contrast per run, zero in runs that do not show it, averaged over those that do."""
    vectors = [np.array([float(c == stimulus) for c in d.columns]) for d in model.design_matrices_]
    num = sum(v.any() for v in vectors)
    return [v / num for v in vectors]


def event_names(path: Path) -> dict[int, str]:
    """Return event code → stimulus from a CSV with columns ``event`` and ``stimulus``.

    Raises:
        NotReadable: If it is not there or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {int(r["event"]): r["stimulus"] for r in csv.DictReader(file)}
    except (OSError, KeyError, ValueError) as error:
        raise NotReadable(f"{path}: needs columns event (a whole number) and stimulus ({error})") from error


def epochs_movie(
    paths: Sequence[Path], events: Mapping[int, str], stimuli: Sequence[str], *, bin_ms: float = 0.0
) -> tuple[Array, Array]:
    """Return RDMs over time ``(S, T, P)`` and times in ms from MNE epochs, one file per subject (rsatoolbox.io).

    Epochs of one stimulus are averaged; the distance is 1 − correlation over channels.

    Args:
        paths: ``*-epo.fif`` files.
        events: Event code → stimulus name.
        stimuli: Names in the order wanted.
        bin_ms: Width of the bins in which time is averaged; none by default.

    Raises:
        NotReadable: If MNE is not installed, a stimulus is missing, or subjects differ in their times.
    """
    from rsatoolbox.io.mne import read_epochs

    movies, times = [], None
    for path in paths:
        try:
            dataset = read_epochs(str(path))
        except ImportError as error:
            raise NotReadable(
                "reading epochs needs MNE: pip install 'plasticbench[meg]', or pip install mne"
            ) from error
        except Exception as error:  # MNE raises its own
            raise NotReadable(f"{path}: cannot be read as MNE epochs ({' '.join(str(error).split())[:120]})") from error
        code = np.asarray(dataset.obs_descriptors["event"])
        named = np.array([events.get(int(c), str(int(c))) for c in code])
        if lacking := [n for n in stimuli if n not in named]:
            raise NotReadable(f"{path}: no epoch of {lacking[0]!r} ({len(lacking)} of {len(stimuli)} missing)")
        values = np.stack([np.asarray(dataset.measurements)[named == n].mean(0) for n in stimuli])
        now = 1000 * np.asarray(dataset.time_descriptors["time"], dtype=np.float64)
        if bin_ms > 0:
            bins = np.floor(now / bin_ms + 1e-9).astype(int)
            values = np.stack([values[..., bins == b].mean(-1) for b in np.unique(bins)], -1)
            now = np.array([now[bins == b].mean() for b in np.unique(bins)])
        if times is not None and not np.allclose(times, now):
            raise NotReadable(f"{path}: its times differ from those of the subjects before")
        times = now
        movies.append(rdm(np.moveaxis(values, 2, 0)))
    if times is None:
        raise NotReadable("no epochs file was given")
    return np.stack(movies), times
