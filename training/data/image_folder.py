"""Any folder (or zip file) of class sub-folders of images, with or without ``train/`` and ``val/`` above them."""

import functools
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from training.data.base import Augment, Images, Source, Task
from training.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
TRAIN_NAMES, TEST_NAMES = {"train", "training"}, {"val", "valid", "validation", "test"}
MEMORY = 8 * 2**30  # bytes of decoded images that are held
Read = Callable[[], bytes]


def build(
    source: Source,
    *,
    path: str,
    size: int = 32,
    grey: bool = False,
    test: float = 0.2,
    augment: Augment = "none",
) -> Task:
    """Return the task of naming the folder an image is in.

    Images of any size and mode become ``size × size`` RGB (or grey): scaled to cover, centre-cropped.

    Args:
        source: A relative ``path`` that does not exist is looked for in its root.
        path: Folder or zip file.
        size: Side of the images in pixels.
        grey: Whether to keep luminance only.
        test: Share held out of every class, where there are no ``train/`` and ``val/`` (or ``test/``).
        augment: Random changes of training images.

    Raises:
        UserError: If there is nothing to learn from: no folder, no image, one class, a broken image.
    """
    if size < 4 or not 0 < test < 1:
        raise UserError(f"image_folder needs size >= 4 and 0 < test < 1, got size={size}, test={test}")
    location = Path(path).expanduser()
    if not location.exists() and not location.is_absolute():
        location = source.root / location
    files = _sorted_into_sets(location, list(_files(location)))
    classes = sorted({c for members in files.values() for c, _, _ in members})
    if len(classes) < 2:
        raise UserError(f"image_folder {location}: needs at least two class folders, found {classes}")
    total = sum(len(members) for members in files.values()) * size * size * (1 if grey else 3)
    if total > MEMORY:
        raise UserError(
            f"image_folder {location}: {total / 2**30:.0f} GiB of decoded images are more than the "
            f"{MEMORY // 2**30} GiB that are held in memory; choose a smaller size"
        )
    if "all" in files:
        files = _split(files["all"], test)
    # In no order, the same for every seed: whoever looks at the first few images sees every class.
    rng = np.random.default_rng(0)
    files = {name: [members[i] for i in rng.permutation(len(members))] for name, members in files.items()}
    for name in ("train", "test"):
        missing = sorted(set(classes) - {c for c, _, _ in files[name]})
        if missing:
            raise UserError(f"image_folder {location}: no {name} image of class {missing[0]!r}")
    train, held_out = (
        Images(
            torch.stack([_decode(where, read, size, grey) for _, where, read in files[name]]),
            torch.tensor([classes.index(c) for c, _, _ in files[name]]),
        )
        for name in ("train", "test")
    )
    return Task(tuple(classes), train, held_out, encoding="srgb", augment=augment)


def _files(location: Path) -> Iterator[tuple[tuple[str, ...], str, Read]]:
    """Yield (folders above the image, where it is, how to read it), in sorted order."""
    try:
        if location.is_dir():
            for file in sorted(p for p in location.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
                parts = file.relative_to(location).parts
                if not any(part.startswith((".", "__")) for part in parts):
                    yield parts[:-1], str(file), file.read_bytes
        elif location.exists():
            archive = zipfile.ZipFile(location)
            for member in sorted(archive.namelist()):
                parts = PurePosixPath(member).parts
                hidden = any(part.startswith((".", "__")) for part in parts)
                if PurePosixPath(member).suffix.lower() in SUFFIXES and not hidden:
                    yield parts[:-1], f"{location}:{member}", functools.partial(archive.read, member)
        else:
            raise UserError(f"image_folder {location}: no such folder or zip file")
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"image_folder {location}: cannot be read ({error})") from error


def _sorted_into_sets(
    location: Path, files: list[tuple[tuple[str, ...], str, Read]]
) -> dict[str, list[tuple[str, str, Read]]]:
    """Return ``{"train": …, "test": …}`` or ``{"all": …}`` of (class, where, read)."""
    if not files:
        raise UserError(f"image_folder {location}: holds no image ({', '.join(sorted(SUFFIXES))})")
    # A folder that only wraps everything (as zip files have) is passed over.
    while len({folders[0] if folders else "" for folders, _, _ in files}) == 1 and all(
        len(folders) > 1 for folders, _, _ in files
    ):
        files = [(folders[1:], where, read) for folders, where, read in files]
    top = {folders[0].lower() if folders else "" for folders, _, _ in files}
    if top & TRAIN_NAMES and top & TEST_NAMES:
        sets: dict[str, list[tuple[str, str, Read]]] = {"train": [], "test": []}
        for folders, where, read in files:
            first = folders[0].lower() if folders else ""
            name = "train" if first in TRAIN_NAMES else "test" if first in TEST_NAMES else None
            if name and len(folders) > 1:
                sets[name].append((folders[1], where, read))
        return sets
    return {"all": [(folders[0], where, read) for folders, where, read in files if folders]}


def _split(members: list[tuple[str, str, Read]], test: float) -> dict[str, list[tuple[str, str, Read]]]:
    """Hold out a share of every class, the same for every seed; at least one image on either side."""
    rng = np.random.default_rng(0)
    sets: dict[str, list[tuple[str, str, Read]]] = {"train": [], "test": []}
    for name in sorted({c for c, _, _ in members}):
        own = [m for m in members if m[0] == name]
        order = rng.permutation(len(own))
        cut = min(max(1, round(test * len(own))), len(own) - 1)
        for rank, index in enumerate(order):
            sets["test" if rank < cut else "train"].append(own[index])
    return sets


def _decode(where: str, read: Read, size: int, grey: bool) -> Tensor:
    """Return one image as uint8 ``(C, size, size)``."""
    try:
        with Image.open(io.BytesIO(read())) as file:
            file.load()
            image: Image.Image = file
            if image.mode in ("I;16", "I;16B", "I"):  # 16-bit grey: keep the high byte
                image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                opaque = Image.new("RGBA", image.size, (255, 255, 255, 255))
                image = Image.alpha_composite(opaque, image.convert("RGBA"))
            image = image.convert("L" if grey else "RGB")
            image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
            pixels = np.asarray(image)
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ValueError, …
        raise UserError(f"image {where}: cannot be decoded ({' '.join(str(error).split())})") from error
    return torch.from_numpy(pixels.copy()).view(size, size, -1).permute(2, 0, 1)
