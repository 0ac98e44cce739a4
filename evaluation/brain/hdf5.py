"""The rsatoolbox HDF5 files of a folder of brain data: RDMs, responses and time courses, matched by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.brain.data import Broken
from evaluation.brain.rdm import Array, rdm, square

People = dict[str, tuple[str, ...]]  # target → names of its subjects, in order


def _position(described: Mapping[str, Any], names: Sequence[str], path: Path) -> NDArray[np.int64]:
    """Return where each stimulus is in a file."""
    if "stimulus" not in described:
        raise Broken([f"{path.name}: no descriptor `stimulus`; it has {', '.join(sorted(described))}"])
    own = [_text(v) for v in described["stimulus"]]
    if len(set(own)) != len(own):
        raise Broken([f"{path.name}: a stimulus occurs twice"])
    if missing := [n for n in names if n not in own]:
        raise Broken([f"{path.name}: has no stimulus {missing[0]!r} ({len(missing)} of {len(names)} missing)"])
    where = {n: i for i, n in enumerate(own)}
    return np.array([where[n] for n in names])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _descriptor(described: Mapping[str, Any], name: str, path: Path) -> list[str]:
    if name not in described:
        raise Broken([f"{path.name}: no descriptor {name!r}; it has {', '.join(sorted(described))}"])
    return [_text(v) for v in described[name]]


def _load(path: Path, loader: Any) -> Any:
    try:
        return loader(str(path), file_type="hdf5")
    except Exception as error:  # h5py and rsatoolbox raise OSError, KeyError, ValueError, TypeError alike
        raise Broken([f"{path.name}: not an rsatoolbox HDF5 file ({' '.join(str(error).split())[:120]})"]) from error


def read_rdms(folder: Path, names: Sequence[str]) -> tuple[dict[str, Array], Array | None, Array | None, People]:
    """Return every target's RDMs, the movie and its times (ms), and the targets' subjects.

    Raises:
        Broken: If a file is none, or two entries are of the same subject.
    """
    found: dict[str, dict[str, Array]] = {}
    movie: dict[str, dict[float, Array]] = {}
    paths = sorted([*folder.glob("rdms*.h5"), *folder.glob("movie*.h5")])
    if paths:
        from rsatoolbox.rdm.rdms import load_rdm
    for path in paths:
        rdms = _load(path, load_rdm)
        index = _position(rdms.pattern_descriptors, names, path)
        i, j = np.triu_indices(len(names), 1)
        vectors = square(np.asarray(rdms.dissimilarities, dtype=np.float64))[:, index[i], index[j]]
        people = _descriptor(rdms.rdm_descriptors, "subject", path)
        if path.name.startswith("movie"):
            for s, t, v in zip(people, _times(rdms.rdm_descriptors, path), vectors, strict=True):
                if t in movie.setdefault(s, {}):
                    raise Broken([f"{path.name}: two RDMs of subject {s} at {t:g} ms; average them"])
                movie[s][t] = v
        else:
            for s, roi, v in zip(people, _descriptor(rdms.rdm_descriptors, "roi", path), vectors, strict=True):
                if s in found.setdefault(roi, {}):
                    raise Broken([f"{path.name}: two RDMs of {roi}, subject {s}; average them"])
                found[roi][s] = v
    own = {roi: np.stack([v[s] for s in sorted(v)]) for roi, v in found.items()}
    return own, *_stack_movie(movie), {roi: tuple(sorted(v)) for roi, v in found.items()}


def _times(described: Mapping[str, Any], path: Path) -> list[float]:
    """Return a file's times in ms."""
    try:
        return [1000 * float(t) for t in _descriptor(described, "time", path)]
    except ValueError as error:
        raise Broken([f"{path.name}: time must be a number of seconds ({error})"]) from error


def _stack_movie(movie: Mapping[str, Mapping[float, Array]]) -> tuple[Array | None, Array | None]:
    if not movie:
        return None, None
    times = sorted(next(iter(movie.values())))
    if any(sorted(m) != times for m in movie.values()):
        raise Broken(["movie: subjects differ in their times"])
    return np.stack([np.stack([movie[s][t] for t in times]) for s in sorted(movie)]), np.array(times)


def _averaged(described: Mapping[str, Any], values: Array, names: Sequence[str], path: Path) -> Array:
    """Return responses in the order of the stimuli, averaged over repetitions."""
    own = np.array(_descriptor(described, "stimulus", path))
    if missing := [n for n in names if n not in own]:
        raise Broken([f"{path.name}: has no stimulus {missing[0]!r} ({len(missing)} of {len(names)} missing)"])
    return np.stack([values[own == n].mean(0) for n in names])


def read_datasets(
    folder: Path, names: Sequence[str]
) -> tuple[dict[str, tuple[Array, ...]], tuple[Array, Array] | None, People]:
    """Return every ROI's responses per subject, RDMs and times of a time course, and the ROIs' subjects.

    Raises:
        Broken: If a file is none or not of its kind, or two files are of the same subject.
    """
    responses: dict[str, dict[str, Array]] = {}
    movies: dict[str, Array] = {}
    times = None
    paths = sorted([*folder.glob("responses*.h5"), *folder.glob("timecourse*.h5")])
    if paths:
        from rsatoolbox.data.dataset import load_dataset
    for path in paths:
        dataset = _load(path, load_dataset)
        timed = path.name.startswith("timecourse")
        measured = np.asarray(getattr(dataset, "measurements", np.empty(0)), dtype=np.float64)
        if measured.ndim != (3 if timed else 2) or (timed and not hasattr(dataset, "time_descriptors")):
            kind = "a TemporalDataset (images, channels, times)" if timed else "a Dataset (images, channels)"
            raise Broken([f"{path.name}: expected {kind}, got {type(dataset).__name__} {measured.shape}"])
        values = _averaged(dataset.obs_descriptors, measured, names, path)
        if "subject" not in dataset.descriptors:
            raise Broken([f"{path.name}: no descriptor 'subject': whose data are these?"])
        subject = _text(dataset.descriptors["subject"])
        if timed:
            now = np.array(_times(dataset.time_descriptors, path))
            if times is not None and not np.array_equal(times, now):
                raise Broken([f"{path.name}: its times differ from those of the subjects before"])
            if subject in movies:
                raise Broken([f"{path.name}: a second time course of subject {subject}; join them in one file"])
            times = now
            movies[subject] = rdm(np.moveaxis(values, 2, 0))
        else:
            regions = np.array(_descriptor(dataset.channel_descriptors, "roi", path))
            for roi in dict.fromkeys(regions.tolist()):
                if subject in responses.setdefault(roi, {}):
                    raise Broken([f"{path.name}: a second file of subject {subject} with {roi}; join them in one"])
                responses[roi][subject] = values[:, regions == roi]
    course = (np.stack([movies[s] for s in sorted(movies)]), times) if movies and times is not None else None
    people = {roi: tuple(sorted(v)) for roi, v in responses.items()}
    return {roi: tuple(v[s] for s in people[roi]) for roi, v in responses.items()}, course, people
