"""Pictures: one style, written straight to a file."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from training.data.base import to_srgb


@contextlib.contextmanager
def figure(path: Path, width: float, height: float) -> Iterator[Any]:
    """Yield axes of a figure of ``width × height`` inches and write it to ``path`` at the end."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    axes = drawing.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    yield axes
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=130)


@contextlib.contextmanager
def panels(path: Path, width: float, height: float, columns: int) -> Iterator[Sequence[Any]]:
    """Yield the axes of a figure with ``columns`` panels side by side and write it to ``path`` at the end."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    row = drawing.subplots(1, columns, squeeze=False)[0]
    for axes in row:
        axes.spines[["top", "right"]].set_visible(False)
    yield row
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=130)


def sheet(images: Tensor, rows: Sequence[str], columns: Sequence[str], path: Path, *, linear: bool = True) -> None:
    """Write a labelled grid of images.

    Args:
        images: ``(rows, columns, 1 or 3, H, W)`` in 0…1.
        rows: Label of every row.
        columns: Label of every column.
        path: File to write.
        linear: Whether the images are linear in luminance; they are then encoded for the screen.
    """
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(1.15 * len(columns) + 0.9, 1.15 * len(rows) + 0.4), layout="constrained")
    grid = drawing.subplots(len(rows), len(columns), squeeze=False)
    pixels = (to_srgb(images) if linear else images).permute(0, 1, 3, 4, 2)
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            axes = grid[r, c]
            axes.imshow(pixels[r, c].squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if r == 0:
                axes.set_title(column, fontsize=9)
            if c == 0:
                axes.set_ylabel(row, fontsize=9, rotation=0, ha="right", va="center")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=130)
