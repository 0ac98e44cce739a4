"""Pictures of Rotating Snakes: predictions, flow, speed per ring and step, doses, and the extrapolation as a film."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from evaluation.figures import figure, sheet
from evaluation.illusions.extrapolation import Motion, View
from evaluation.illusions.snakes_map import LEVELS
from training.data.base import to_srgb

COLUMNS = (0, 1, 3, 7)  # predictions that are shown
LONGEST = 0.18  # longest arrow, in halves of the image's side
ARROWS = 16  # per ring


def predictions(folder: Path, shown: Mapping[str, tuple[Tensor, Tensor]]) -> Path:
    """Draw, per condition, the still image and what is made of it.

    Args:
        folder: Where to.
        shown: Condition → image ``(C, H, W)`` and its predictions ``(S, C, H, W)``.
    """
    import torch

    rows = [torch.cat([image[None], found[list(COLUMNS)]]) for image, found in shown.values()]
    path = folder / "rotating_snakes_predictions.png"
    columns = ["still image", *(f"prediction {n + 1}" for n in COLUMNS)]
    sheet(torch.stack(rows).clamp(0, 1), list(shown), columns, path)
    return path


def flow(folder: Path, name: str, seen: View, image: Tensor, found: Motion, *, judged: bool = True) -> Path:
    """Draw the turn of every ring as arrows over the still image; the title says how much longer than the motion.

    Args:
        folder: Where to.
        name: Of the observer.
        seen: How it sees.
        image: ``(C, H, W)``.
        found: What it sees in the snake.
        judged: Whether it passes the gates.
    """
    path = folder / "rotating_snakes_flow.png"
    along = found.speed.nanmean((0, 1)).nan_to_num(0).deg2rad().numpy() * seen.radius.numpy()
    largest = np.abs(along).max()
    scale = 10 ** math.floor(math.log10(LONGEST / largest)) if largest > 0 else 1.0
    scale *= int(LONGEST / (largest * scale)) if largest > 0 else 1
    angle = np.arange(ARROWS) * 2 * np.pi / ARROWS
    with figure(path, 4.4, 4.7) as axes:
        axes.imshow(_screen(image), extent=(-1, 1, -1, 1), cmap="gray", vmin=0, vmax=1, alpha=0.6)
        for radius, length in zip(seen.radius.numpy(), along, strict=True):
            x, y = radius * np.cos(angle), radius * np.sin(angle)
            dx, dy = -length * scale * np.sin(angle), length * scale * np.cos(angle)
            axes.quiver(x, y, dx, dy, angles="xy", scale_units="xy", scale=1, color="crimson", width=0.007)
        axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        mean = float(found.by_image.nanmean())
        text = "the pattern is lost" if math.isnan(mean) else f"{mean:+.3f} deg/frame, arrows × {scale:g}"
        axes.set_title(f"{_titled(name, judged)}: {text}", fontsize=9)
    return path


def speeds(folder: Path, name: str, found: Motion) -> Path:
    """Draw the angle that every ring has turned at every step, beyond the mirror image."""
    path = folder / "rotating_snakes_rings.png"
    angle = found.speed.nanmean(0).cumsum(0).numpy()
    step = np.arange(2, len(angle) + 2)
    with figure(path, 4.8, 3.4) as axes:
        for ring in range(angle.shape[1]):
            axes.plot(step, angle[:, ring], marker="o", ms=3, label=f"ring at {found.radius[ring]:.2f}")
        axes.axhline(0, color="0.7", lw=0.8)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(
            xlabel="prediction", ylabel="turn since the first prediction (deg)",
            title=f"Snake − mirror image, halved: {name}",
        )  # fmt: skip
        axes.title.set_fontsize(9)
        axes.legend(frameon=False, fontsize=7)
    return path


def conditions(folder: Path, name: str, measured: Mapping[str, Motion], *, judged: bool = True) -> Path:
    """Draw the speed of every image in every condition, and its mean."""
    path = folder / "rotating_snakes_conditions.png"
    with figure(path, 0.42 * len(measured) + 1.2, 3.4) as axes:
        for place, (code, found) in enumerate(measured.items()):
            values = found.by_image.numpy()
            values = values[np.isfinite(values)]
            colour = "crimson" if code.startswith("S") else "0.35"
            axes.plot(np.full(len(values), place), values, ".", ms=3, color=colour, alpha=0.5)
            if len(values):
                axes.plot([place - 0.3, place + 0.3], [values.mean()] * 2, color=colour, lw=2)
        axes.axhline(0, color="0.7", lw=0.8)
        axes.set_xticks(range(len(measured)), list(measured), rotation=90, fontsize=8)
        axes.set(ylabel="deg/frame, + as humans see", title=f"Rotating Snakes: {_titled(name, judged)}")
        axes.title.set_fontsize(9)
    return path


def dose_map(folder: Path, name: str, cells: Mapping[tuple[float, float], float]) -> Path:
    """Draw the speed over the two grey levels; above the diagonal measured, below it the mirror image."""
    path = folder / "rotating_snakes_map.png"
    grid = np.array([[cells[a, b] for a in LEVELS] for b in LEVELS])
    largest = np.nanmax(np.abs(grid)) or 1.0
    with figure(path, 4.4, 3.8) as axes:
        drawn = axes.imshow(grid, cmap="RdBu_r", vmin=-largest, vmax=largest, origin="lower")
        axes.figure.colorbar(drawn, ax=axes, label="deg/frame")
        for row, b in enumerate(LEVELS):
            for column, a in enumerate(LEVELS):
                axes.text(column, row, _cell(cells[a, b]), ha="center", va="center", fontsize=6)
        labels = [f"{level:g}" for level in LEVELS]
        axes.set_xticks(range(len(LEVELS)), labels)
        axes.set_yticks(range(len(LEVELS)), labels)
        axes.set(xlabel="g1, after black", ylabel="g2, after white", title=f"Black, g1, white, g2: {name}")
        axes.title.set_fontsize(9)
    return path


def film(folder: Path, image: Tensor, found: Tensor) -> Path:
    """Write the still image and its predictions as a film, half a second for the image and an eighth for the others.

    Args:
        folder: Where to.
        image: ``(C, H, W)``.
        found: Predictions ``(S, C, H, W)``.
    """
    path = folder / "rotating_snakes.gif"
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.fromarray((_screen(f) * 255).round().astype(np.uint8)) for f in (image, *found)]
    enlarge = max(1, 256 // frames[0].width)
    frames = [f.resize((f.width * enlarge, f.height * enlarge), Image.Resampling.NEAREST) for f in frames]
    durations: Any = [500, *(125 for _ in found)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return path


def _screen(image: Tensor) -> Any:
    """Return an image as an array for the screen, ``(H, W)`` or ``(H, W, 3)``."""
    return to_srgb(image.clamp(0, 1)).permute(1, 2, 0).squeeze(-1).numpy()


def _titled(name: str, judged: bool) -> str:
    return name if judged else f"{name} (fails the gates)"


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.2f}"
