"""Files of public data sets: found in the data folder, or downloaded where that is allowed; always with sha256."""

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from evaluation.brain.data import DataMissing
from training.data.base import Source

Got = TypeVar("Got")


@dataclass(frozen=True)
class RemoteFile:
    """One file: where it is published and what it must contain."""

    url: str
    sha256: str


def files(name: str, wanted: Mapping[str, RemoteFile], source: Source) -> dict[str, Path]:
    """Return file name → path under ``<data>/<name>/``.

    Raises:
        DataMissing: If a file is not there, is not the published one, or cannot be downloaded.
    """
    folder = source.root / name
    missing = [n for n in wanted if not (folder / n).exists()]
    if missing and not source.download:
        raise DataMissing(
            f"data not there: {missing[0]} is not in {folder}; put it there, set PLASTICBENCH_DATA, or add --download"
        )
    for file in missing:
        remote = wanted[file]
        once(folder / file, functools.partial(_retrieve, remote, folder, file))
    for file, remote in wanted.items():
        if hashlib.sha256((folder / file).read_bytes()).hexdigest() != remote.sha256:
            raise DataMissing(f"{folder / file}: is not the published file (sha256 differs); delete it and get it anew")
    return {n: folder / n for n in wanted}


def once(place: Path, get: Callable[[], Got]) -> Got:
    """Download something and return it, but not again in this process where it failed.

    Every run, and every scan of runs, asks for it.

    Args:
        place: What is downloaded.
        get: Downloads it; whatever it raises is a failure.

    Raises:
        DataMissing: That it could not be downloaded, now or before, and why.
    """
    if place not in _failed:
        try:
            return get()
        except Exception as error:  # requests, pooch, nilearn and the system raise their own
            _failed[place] = " ".join(str(error).split())[:200]
    raise DataMissing(f"data not there: {place} could not be downloaded: {_failed[place]}")


_failed: dict[Path, str] = {}


def _retrieve(remote: RemoteFile, folder: Path, file: str) -> None:
    import pooch

    pooch.retrieve(remote.url, known_hash=f"sha256:{remote.sha256}", fname=file, path=folder)
