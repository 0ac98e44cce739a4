"""Fat and thin squares (Ringach & Shapley 1996): four pacmen turned by ±α make upright sides bow out, level ones in.

Neighbouring mouths turn in opposite directions. A fat square is a thin one turned by a quarter, so that neither ink nor
the number or place of inducers tells them apart. The real figure has sides bowed with the same tangents at its corners,

    h(t) = tan α / s · (s² / 4 − t²)        t along a side of length s; h outwards on upright sides, inwards on others

and its area is s² whatever α.

Shapes: ``B`` figures; images are ``(B, 1, size, size)``. Lengths are pixels, angles radians.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from evaluation.illusions.kanizsa_stimuli import CONTRAST, LINE, NOISE, SUPERSAMPLE, check_condition, inducer_shape
from training.data.drawing import Canvas, outline, stamp

CONDITIONS = {
    "REAL": "the figure itself, filled or outlined, its sides bowed with the tangents of the mouths",
    "IN": "mouths turned inwards, then by ±α: the illusory figure",
    "OUT": "mouths turned outwards, then by ±α: the same rotations and no figure",
    "DOWN": "all mouths turned downwards, then by ±α: the fragmented figure",
    "OUTL": "as IN, pacmen drawn as thin outlines: same corners, no illusion for us",
    "CLOSED": "as IN, each mouth closed by a thin arc",
    "FRAG": "the corners of the outlined figure as far as the discs reach, no discs: the same physical edge",
}
CONTROLS = ("OUT", "DOWN", "OUTL", "CLOSED")
ROTATIONS = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0)  # degrees
SUPPORT_RATIOS = (0.25, 0.5, 0.75)
SIDE = 0.54  # of a square, as a share of the image's side: the largest discs and the jitter stay in the image
CHUNK = 32  # figures drawn at once
JITTER = 0.02  # of a square's place, as a share of the image's side


@dataclass(frozen=True)
class Figures:
    """What all conditions share, one entry per figure.

    Attributes:
        rotation: α of every mouth, positive where the figure is fat.
        support_ratio: Disc diameter / side length.
        side: Of the square before it is bowed.
        centre: ``(B, 2)``.
        background: Luminance.
        contrast: Of inducers and figure, signed.
        outlined: Whether the real figure is an outline.
        noise: Standard deviation of the luminance noise.
        seed: Of the noise.
    """

    rotation: Tensor
    support_ratio: Tensor
    side: Tensor
    centre: Tensor
    background: Tensor
    contrast: Tensor
    outlined: Tensor
    noise: float
    seed: int

    def __len__(self) -> int:
        return len(self.rotation)

    def select(self, index: Tensor) -> "Figures":
        """Return some of the figures."""
        chosen: dict[str, Any] = {n: v[index] for n, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **chosen)

    @property
    def fat(self) -> Tensor:
        """1 where the figure is fat, 0 where it is thin."""
        return (self.rotation > 0).long()

    @property
    def disc_radius(self) -> Tensor:
        """Radius of the discs: support ratio × half the side length."""
        return self.support_ratio * self.side / 2


def figures(size: int, degrees: Tensor, support_ratio: Tensor | float, seed: int) -> Figures:
    """Return figures of either polarity, filled or outlined, at nearly the same place.

    Args:
        size: Side of the image.
        degrees: ``(B,)`` signed rotations; neighbouring pairs ±α share everything else.
        support_ratio: One for all, or ``(B,)``.
        seed: Of places, luminances and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    num = len(degrees)
    background = CONTRAST + (1 - 2 * CONTRAST) * torch.rand(num, generator=generator)
    most = torch.minimum(background, 1 - background)
    amount = CONTRAST + (most - CONTRAST) * torch.rand(num, generator=generator)
    sign = torch.where(torch.rand(num, generator=generator) < 0.5, 1.0, -1.0)
    return Figures(
        rotation=degrees.float() * math.pi / 180,
        support_ratio=torch.as_tensor(support_ratio, dtype=torch.float32).expand(num),
        side=torch.full((num,), SIDE * size),
        centre=JITTER * size * (2 * torch.rand(num, 2, generator=generator) - 1),
        background=background,
        contrast=sign * amount,
        outlined=torch.rand(num, generator=generator) < 0.5,
        noise=NOISE,
        seed=seed,
    )


def fixed(size: int, degrees: Tensor, noise: float, seed: int) -> Figures:
    """Return figures darker than a medium grey, in the middle, whose corners lie on the grid of pixels, at ratio 0.5.

    The image has room for a copy of every gap beyond its discs.
    """
    num = len(degrees)
    return replace(
        figures(size, degrees, 0.5, seed),
        side=torch.full((num,), 2.0 * int(0.23 * size)),
        centre=torch.zeros(num, 2),
        background=torch.full((num,), 0.5),
        contrast=torch.full((num,), -CONTRAST),
        noise=noise,
    )


def render(figure: Figures, condition: str, size: int) -> Tensor:
    """Return the images of one condition; conditions of equal figures differ in nothing but the condition.

    Args:
        figure: What is shared.
        condition: One of ``CONDITIONS``, or ``BLANK`` for background and noise alone.
        size: Side of the image in pixels, the one that the figures were made for.

    Raises:
        ValueError: If the condition is unknown.
    """
    check_condition(condition, CONDITIONS)
    image = figure.background[:, None, None] + painted(figure, condition, size)
    return (image + noise(figure, size)).clamp_(0, 1)[:, None]


def noise(figure: Figures, size: int) -> Tensor:
    """Return the luminance noise, ``(B, size, size)``, the same in every condition."""
    generator = torch.Generator().manual_seed(figure.seed + 1)
    return figure.noise * torch.randn(len(figure), size, size, generator=generator)


def painted(figure: Figures, condition: str, size: int) -> Tensor:
    """Return what is painted as a difference from the background, ``(B, size, size)``."""
    parts = []
    for index in torch.arange(len(figure)).split(CHUNK) if condition != "BLANK" else ():
        part = figure.select(index)
        image = torch.zeros(len(part), size, size)
        if condition == "REAL":
            image = _real(part, size)
        else:
            for corner in range(4):
                _inducer(image, part, condition, corner)
        parts.append(image)
    return torch.cat(parts) if parts else torch.zeros(len(figure), size, size)


def _real(figure: Figures, size: int) -> Tensor:
    canvas = Canvas(size, SUPERSAMPLE)
    x, y = canvas.frame(figure.centre, torch.zeros(len(figure)))
    side, slope = figure.side[:, None, None], figure.rotation[:, None, None].tan()

    def beyond(across: Tensor, along: Tensor, slope: Tensor) -> Tensor:
        """Signed distance to a pair of bowed sides, to first order in the slope."""
        height = slope / side * (side.square() / 4 - along.square())
        return (across.abs() - side / 2 - height) / (1 + (2 * slope * along / side).square()).sqrt()

    distance = torch.maximum(beyond(x, y, slope), beyond(y, x, -slope))
    line = outline(distance, max(1.0, LINE * size))
    chosen = torch.where(figure.outlined[:, None, None], line, distance)
    return canvas.coverage(chosen) * figure.contrast[:, None, None]


def _inducer(image: Tensor, figure: Figures, condition: str, corner: int) -> None:
    """Paint the inducer of one corner of every figure."""
    radius, line = figure.disc_radius, max(1.0, LINE * image.shape[-1])
    direction = math.pi / 4 + corner * math.pi / 2
    sides = torch.tensor([math.cos(direction), math.sin(direction)]).sign()
    place = figure.centre + sides * figure.side[:, None] / 2
    facing = {"OUT": direction, "DOWN": math.pi / 2}.get(condition, direction + math.pi)
    opening = torch.full_like(radius, math.pi / 2)

    angle = facing + (-1) ** corner * figure.rotation
    shape = inducer_shape(condition, radius, opening, line)
    stamp(image, shape, place, angle, float(radius.max()), figure.contrast, SUPERSAMPLE)
