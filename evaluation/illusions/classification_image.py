"""Classification image: which noise sways an answer of fat or thin, in the gap and at places like it without a contour.

z of a strip is the correlation of decision values with the noise under a template there, within fat and within
thin figures, times √n. (Gold et al. 2000, Curr. Biol. 10:663; for networks Baker et al. 2018.)

A unit whose receptive field holds a mouth and a piece of the gap is swayed by noise there without completing anything.
So of a network's stage those pixels count that none of its units sees together with an inducer (``apart``); strips
are what is left of them.

Shapes: ``B`` figures, 8 half gaps: from each of 4 discs along 2 sides.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from evaluation.illusions.fat_thin_stimuli import Figures, fixed, noise, painted
from evaluation.statistics import Array

NOISE = 0.1  # standard deviation, in luminance
ROTATION = 6.0  # degrees, of the figures shown
TEMPLATE = 12.0  # degrees, of the real figures whose difference is the template
CLEAR = 1.5  # pixels from a disc from which on a pixel belongs to the gap
WIDTH = 3.0  # pixels from the straight side within which it does
CHUNK = 500
TEMPLATES = ("surface", "edge")
Decide = Callable[[Tensor], Mapping[str, Array]]  # from stimuli to each stage's decision values


@dataclass(frozen=True)
class Image:
    """A classification image.

    Attributes:
        gap: Template → z of the half gaps ``(8,)``.
        mirror: Template → z of their mirror images beyond the discs.
        map: Correlation of the decision with every pixel's noise.
        accuracy: In this noise.
        num: Figures shown.
        apart: Pixels that count, ``(size, size)``; ``None`` for all.
    """

    gap: Mapping[str, Array]
    mirror: Mapping[str, Array]
    map: Array
    accuracy: float
    num: int
    apart: Array | None = None

    def difference(self, template: str) -> Array:
        """Return z of the gap minus z of its mirror image, ``(8,)``."""
        return self.gap[template] - self.mirror[template]


def taught(size: int, num: int, largest: float, seed: int) -> Figures:
    """Return figures in noise, of rotations from 1° to the largest, for a read-out to learn from."""
    turns = 1 + (largest - 1) * torch.rand(num, generator=torch.Generator().manual_seed(seed))
    return fixed(size, turns * (1 - 2 * (torch.arange(num) % 2)), NOISE, seed)


def shown_in_noise(size: int, num: int, seed: int) -> Iterator[Figures]:
    """Yield figures in noise, a part at a time, every second one fat."""
    for k, part in enumerate(torch.arange(num).split(CHUNK)):
        yield fixed(size, ROTATION * (1 - 2.0 * (part % 2)), NOISE, 1000 * (seed + 1) + k)


def measured(
    decide: Decide, size: int, num: int, seed: int, apart: Mapping[str, Array] | None = None
) -> dict[str, Image]:
    """Return every stage's classification image.

    Args:
        decide: From stimuli to decision values, by stage.
        size: Side of the images.
        num: Figures shown, half of them fat.
        seed: Of the noise.
        apart: Stage → pixels that count, ``(size, size)`` boolean; all of a stage that is not named.
    """
    apart = apart or {}
    said: dict[str, list[Array]] = {}
    strips: dict[str, Array] = {}
    projected: dict[str, list[Array]] = {}
    fields: dict[str, Array] = {}
    fat = np.empty(0, dtype=bool)
    drawn = painted(fixed(size, torch.tensor([-ROTATION, ROTATION]), 0.0, 0), "IN", size)  # all that is ever shown
    for shown in shown_in_noise(size, num, seed):
        grain = noise(shown, size)
        stimuli = (shown.background[:, None, None] + drawn[shown.fat] + grain).clamp_(0, 1)[:, None]
        field = grain.flatten(1).double().numpy()
        own = shown.fat.numpy().astype(bool)
        fat = np.concatenate([fat, own])
        for stage, values in decide(stimuli).items():
            if stage not in strips:
                chosen = templates(size, apart.get(stage)).values()
                strips[stage] = np.concatenate([weights.reshape(16, -1) for weights in chosen])
            said.setdefault(stage, []).append(values)
            projected.setdefault(stage, []).append(field @ strips[stage].T)
            # Within classes: the noise of a class, weighted by the answers, less the mean answer times the noise.
            total = fields.setdefault(stage, np.zeros((2, 2, size * size)))
            for c in (0, 1):
                total[c] += np.stack([values[own == c] @ field[own == c], field[own == c].sum(0)])
    return {
        stage: replace(
            _image(np.concatenate(v), np.concatenate(projected[stage]), fat, fields[stage]), apart=apart.get(stage)
        )
        for stage, v in said.items()
    }


def templates(size: int, apart: Array | None = None) -> dict[str, Array]:
    """Return, for every template, the weights of 8 half gaps and of their mirror images, ``(2, 8, size²)``.

    A template is the real thin figure minus the real fat one, darker than its background, positive where a surface
    or a line is in the fat one only.

    Args:
        size: Side of the images.
        apart: Pixels that count, ``(size, size)`` boolean, where their mirrored places count too; all by default.
    """
    found = {}
    pair = fixed(size, torch.tensor([TEMPLATE, -TEMPLATE]), 0.0, 0)
    for name, outlined in zip(TEMPLATES, (False, True), strict=True):
        drawn = painted(replace(pair, outlined=torch.full((2,), outlined)), "REAL", size)
        change = (drawn[1] - drawn[0]).double().numpy()
        halves, mirrors = [], []
        for mask, corner in half_gaps(size):
            # A figure's corners lie between pixels (even size) or on one (odd), so that mirrored pixels are pixels.
            rows, columns = np.nonzero(mask)
            own, beyond = np.zeros((size, size)), np.zeros((size, size))
            other = (2 * corner[1] - 1 - rows).astype(int), (2 * corner[0] - 1 - columns).astype(int)
            if apart is not None:
                counts = apart[rows, columns] & apart[other]
                rows, columns, other = rows[counts], columns[counts], (other[0][counts], other[1][counts])
            own[rows, columns] = change[rows, columns]
            beyond[other] = change[rows, columns]
            halves.append(own.ravel())
            mirrors.append(beyond.ravel())
        found[name] = np.stack([halves, mirrors])
    return found


def pixels_asked(size: int) -> Array:
    """Return the pixels of all half gaps and of their mirror images, ``(size, size)`` boolean."""
    return np.asarray(np.abs(np.stack(list(templates(size).values()))).sum((0, 1, 2)).reshape(size, size) > 0)


def pixels_drawn(size: int) -> Array:
    """Return the pixels that hold a piece of an inducer in some figure that is shown, ``(size, size)`` boolean."""
    drawn = painted(fixed(size, torch.tensor([-ROTATION, ROTATION]), 0.0, 0), "IN", size)
    return np.asarray((drawn != 0).any(0).numpy())


def half_gaps(size: int) -> list[tuple[Array, Array]]:
    """Return the pixels of each half gap ``(size, size)`` and its disc's centre, (x, y) from the upper left."""
    figure = fixed(size, torch.ones(1), 0.0, 0)
    half, radius = float(figure.side) / 2, float(figure.disc_radius)
    axis = np.arange(size) + 0.5 - size / 2
    x, y = axis[None, :], axis[:, None]
    found = []
    for right, down in ((1, 1), (-1, 1), (-1, -1), (1, -1)):
        cx, cy = right * half, down * half
        for across, along, sign in ((y - cy, x, right), (x - cx, y, down)):
            away = half - sign * along  # from the disc's centre towards the middle of the side
            mask = (np.abs(across) < WIDTH) & (np.hypot(away, across) > radius + CLEAR) & (away <= half)
            found.append((mask, np.array([cx + size / 2, cy + size / 2])))
    return found


def _image(values: Array, projected: Array, fat: Array, fields: Array) -> Image:
    num = len(values)
    own, strips = values.copy(), projected.copy()
    for c in (False, True):
        own[fat == c] -= own[fat == c].mean()
        strips[fat == c] -= strips[fat == c].mean(0)
    length = np.sqrt((own**2).sum())
    spread = length * np.sqrt((strips**2).sum(0))
    z = np.divide(own @ strips, spread, out=np.zeros(strips.shape[1]), where=spread > 0) * np.sqrt(num)
    z = z.reshape(len(TEMPLATES), 2, 8)
    means = [values[fat == c].mean() for c in (False, True)]
    swayed = sum(fields[c, 0] - means[c] * fields[c, 1] for c in (0, 1))
    side = int(len(swayed) ** 0.5)
    shown = (swayed / max(length * NOISE * np.sqrt(num), 1e-12)).reshape(side, side)
    return Image(
        {n: z[k, 0] for k, n in enumerate(TEMPLATES)},
        {n: z[k, 1] for k, n in enumerate(TEMPLATES)},
        shown,
        float(((values > 0) == fat).mean()),
        num,
    )
