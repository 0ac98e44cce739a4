"""Images and tables of stimuli as tensors, names and labels."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from evaluation.brain.data import Broken, DataMissing, linear_luminance

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")


def photographs(paths: Sequence[Path], side: int = 224) -> NDArray[np.uint8]:
    """Return sRGB images ``(N, side, side, 3)``, cropped to their central square.

    Raises:
        DataMissing: If a file is not there.
    """
    found = []
    for path in paths:
        if not path.exists():
            raise DataMissing(f"data not there: stimulus {path} is missing")
        with Image.open(path) as image:
            found.append(np.asarray(ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BICUBIC)))
    return np.stack(found)


def folder_of(root: Path, name: str, how: str) -> Path:
    """Return the folder of a data set.

    Raises:
        DataMissing: If it is not there; ``how`` says how to get it.
    """
    folder = root / name
    if not folder.is_dir():
        raise DataMissing(f"data not there: no folder {folder}; {how}")
    return folder


def stimuli_of(place: Path, table: Path | None) -> tuple[Tensor, tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """Return images, their names and labels from a folder of images or an array, and a table if there is one.

    Raises:
        Broken: If they cannot be read or do not fit together.
    """
    if place.is_dir():
        files = sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES)
        names, labels = read_table(table) if table else (tuple(f.stem for f in files), {})
        return from_files(files, names), names, labels
    images = from_array(place)
    names, labels = read_table(table) if table else (tuple(f"{i:04d}" for i in range(len(images))), {})
    if len(names) != len(images):
        raise Broken([f"{table}: {len(names)} lines for {len(images)} images"])
    return images, names, labels


def read_table(path: Path) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """Return names and labels from a CSV with a column ``stimulus``; every other column is a label.

    Raises:
        Broken: If it cannot be read, or a line has not one value per column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets begin a CSV with a byte-order mark
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Broken([f"{path}: cannot be read ({error})"]) from error
    if not rows or "stimulus" not in rows[0]:
        raise Broken([f"{path.name}: needs a column `stimulus` and one line per image"])
    for line, r in enumerate(rows, 2):
        if None in r or None in r.values():
            raise Broken([f"{path}, line {line}: {'more' if None in r else 'fewer'} values than columns"])
    labels = {
        column: np.unique([r[column] for r in rows], return_inverse=True)[1].astype(np.int64)
        for column in rows[0]
        if column != "stimulus"
    }
    return tuple(r["stimulus"] for r in rows), labels


def from_array(path: Path) -> Tensor:
    """Return sRGB images ``(N, H, W)`` or ``(N, H, W, 3)`` of a ``.npy`` file in linear luminance."""
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Broken([f"{path.name}: cannot be read ({error})"]) from error
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise Broken([f"{path.name}: expected (N, H, W) or (N, H, W, 3), got {images.shape}"])
    return linear_luminance(images)


def from_files(files: Sequence[Path], names: Sequence[str]) -> Tensor:
    """Return the images of some names, with or without suffix, in linear luminance."""
    by_name = {f.stem: f for f in files} | {f.name: f for f in files}
    if missing := [n for n in names if n not in by_name]:
        raise Broken([f"stimuli/: no image for {missing[0]!r} ({len(missing)} of {len(names)} missing)"])
    pixels = []
    for name in names:
        try:
            with Image.open(by_name[name]) as image:
                pixels.append(np.asarray(image.convert("RGB")))
        except OSError as error:
            raise Broken([f"stimuli/{by_name[name].name}: cannot be decoded ({error})"]) from error
    sizes = {p.shape for p in pixels}
    if len(sizes) != 1:
        raise Broken([f"stimuli/: images of different sizes ({', '.join(map(str, sorted(sizes)[:3]))})"])
    return linear_luminance(np.stack(pixels))
