"""Clips of one's own footage: a folder of numbered frames, of videos, or of folders of them.

A folder that holds images is a sequence, its frames in the order of the numbers in their names; so is an animated GIF
or a video. Videos other than GIFs need a decoder that imageio can use (``pip install av``).

Shapes: a sequence is uint8 ``(T, C, size, size)``; clips are ``(N, T, C, size, size)``.
"""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence
from torch import Tensor

from training.errors import UserError

FRAMES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
VIDEOS = {".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg"}
TRAIN_NAMES, TEST_NAMES = {"train", "training"}, {"val", "valid", "validation", "test"}
HELD_OUT = 0.2  # share of sequences, or of the only one, that is held out
MEMORY = 4 * 2**30  # bytes of decoded frames that are held


def footage(
    root: Path, path: str, frames: int, size: int, counts: Mapping[str, int], seed: int, *, grey: bool, skip: int
) -> dict[str, Tensor]:
    """Return clips for ``train`` and ``test``, drawn at random places of sequences that the other does not hold.

    Sequences below ``train/`` and ``val/`` (or ``test/``) are split so; otherwise the last fifth of the sequences, in
    the order of their names, is held out, or the last fifth of the only one.

    Args:
        root: Where a relative path is looked for if it is not there.
        path: Folder, or a single video.
        frames: Frames per clip.
        size: Side of the frames, scaled to cover and centre-cropped.
        counts: Number of clips of ``train`` and ``test``.
        seed: Of where the training clips lie; held-out ones are spread evenly.
        grey: Whether frames have one channel.
        skip: Every so manieth frame is taken.

    Raises:
        UserError: If there is no sequence long enough, or a file cannot be decoded.
    """
    location = Path(path).expanduser()
    if not location.exists() and not location.is_absolute():
        location = root / location
    if not location.exists():
        raise UserError(f"next_frame {location}: no such folder or video")
    held = 0
    sets: dict[str, list[Tensor]] = {"train": [], "test": [], "": []}
    for name, source in _sequences(location):
        pixels = [_fitted(f, size, grey) for i, f in enumerate(_decoded(source)) if i % skip == 0]
        held += sum(p.nbytes for p in pixels)
        if held > MEMORY:
            raise UserError(f"next_frame {location}: more than {MEMORY >> 30} GiB of frames; choose a smaller size")
        if len(pixels) >= frames:
            sets[name].append(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
    if not (sets["train"] and sets["test"]):
        sets = _split([*sets["train"], *sets["test"], *sets[""]], frames)
    for name in ("train", "test"):
        if not sets[name]:
            raise UserError(
                f"next_frame {location}: no {name} sequence of {frames} frames; a sequence is a folder of numbered "
                f"images ({', '.join(sorted(FRAMES))}) or a video ({', '.join(['.gif', *sorted(VIDEOS)])})"
            )
    generator = torch.Generator().manual_seed(seed)
    return {
        "train": _windows(sets["train"], frames, counts["train"], generator),
        "test": _windows(sets["test"], frames, counts["test"], None),
    }


def _sequences(location: Path) -> Iterator[tuple[str, Any]]:
    """Yield (``train``, ``test`` or nothing, list of frame files or one video) in the order of their names."""
    if location.is_file():
        yield "", location
        return
    for folder in sorted([location, *(p for p in location.rglob("*") if p.is_dir())]):
        parts = folder.relative_to(location).parts
        top = parts[0].lower() if parts else ""
        name = "train" if top in TRAIN_NAMES else "test" if top in TEST_NAMES else ""
        files = sorted((p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")), key=_numbers)
        images = [p for p in files if p.suffix.lower() in FRAMES]
        if images:
            yield name, images
        for file in files:
            if file.suffix.lower() in VIDEOS | {".gif"}:
                yield name, file


def _numbers(path: Path) -> list[Any]:
    """Return a key by which frame2 comes before frame10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]


def _decoded(source: Any) -> Iterator[Image.Image]:
    """Yield the frames of a list of images or of one video."""
    where = source
    try:
        if isinstance(source, list):
            for where in source:
                with Image.open(where) as file:
                    yield file
        elif source.suffix.lower() == ".gif":
            with Image.open(source) as file:
                yield from ImageSequence.Iterator(file)
        elif importlib.util.find_spec("av") is None:
            raise ImportError("videos need a decoder: pip install av")
        else:
            import imageio.v3

            for frame in imageio.v3.imiter(source, plugin="pyav"):
                yield Image.fromarray(frame)
    except Exception as error:  # Pillow and imageio raise OSError, SyntaxError, ImportError, ValueError, …
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"next_frame {where}: cannot be decoded ({reason})") from error


def _fitted(frame: Image.Image, size: int, grey: bool) -> np.ndarray:
    image = ImageOps.fit(frame.convert("L" if grey else "RGB"), (size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(size, size, -1)


def _split(sequences: list[Tensor], frames: int) -> dict[str, list[Tensor]]:
    """Hold out the last fifth of the sequences, or of the only one."""
    if len(sequences) == 1:
        (only,) = sequences
        cut = round((1 - HELD_OUT) * len(only))
        parts = {"train": only[:cut], "test": only[cut:]}
        return {name: [part] if len(part) >= frames else [] for name, part in parts.items()}
    cut = len(sequences) - max(1, round(HELD_OUT * len(sequences)))
    return {"train": sequences[:cut], "test": sequences[cut:]} if sequences else {"train": [], "test": []}


def _windows(sequences: list[Tensor], frames: int, num: int, generator: torch.Generator | None) -> Tensor:
    """Return ``num`` clips, or as many as there are, at random places, or evenly spread ones."""
    places = [(s, start) for s, sequence in enumerate(sequences) for start in range(len(sequence) - frames + 1)]
    num = min(num, len(places))
    if generator is None:
        chosen = torch.linspace(0, len(places) - 1, num).round().long()
    else:
        chosen = torch.randperm(len(places), generator=generator)[:num]
    return torch.stack([sequences[s][t : t + frames] for s, t in (places[i] for i in chosen.tolist())])
