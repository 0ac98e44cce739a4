"""From the field's files to brain data: RDMs, response matrices, MNE epochs. fMRI images are in ``fmri.py``.

Shapes: ``N`` images, ``S`` subjects, ``V`` voxels or channels, ``P`` pairs of images.
"""

import csv
from collections.abc import Mapping, Sequence
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


def event_names(path: Path) -> dict[int, str]:
    """Return event code → stimulus from a CSV with columns ``event`` and ``stimulus``.

    Raises:
        NotReadable: If it is not there or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        if short := [k for k, r in enumerate(rows, 2) if None in r.values()]:
            raise ValueError(f"line {short[0]} is too short")
        return {int(r["event"]): r["stimulus"] for r in rows}
    except (OSError, KeyError, ValueError, csv.Error) as error:
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
