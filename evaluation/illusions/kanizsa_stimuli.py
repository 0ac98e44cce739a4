"""Kanizsa figures and their controls, in linear luminance (Kanizsa 1955; support ratio of Ringach & Shapley 1996).

Discs stand on the corners of a regular polygon that is not drawn. With their mouths turned inwards the
polygon appears; every control breaks one thing that carries the illusion and keeps the discs' places (all but SHEAR).

    support ratio = disc diameter / side length (centre to centre)

Shapes: ``B`` layouts; images are ``(B, 1, size, size)``. Lengths are pixels, angles radians.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from training.data.drawing import Canvas, contrasting, disc, outline, paint, polygon, wedge

CORNERS = {3: "triangle", 4: "square", 5: "pentagon", 6: "hexagon"}
SUPPORT_RATIOS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
CONDITIONS = {
    "REAL": "the polygon itself, drawn by luminance",
    "IN": "mouths turned inwards: the illusory polygon",
    "ROT": "every mouth turned by its own 60–300°",
    "OUT": "mouths turned outwards",
    "DISC": "whole discs",
    "OUTL": "mouths inwards, pacmen drawn as thin outlines: same corners, no illusion for us",
    "CLOSED": "mouths inwards, each closed by a thin arc",
    "SHEAR": "mouths inwards, the two pacmen of every side displaced against each other along its normal",
}
CONTROLS = tuple(c for c in CONDITIONS if c not in ("REAL", "IN"))
SHEAR = 0.5  # disc radii by which the two pacmen of every side are displaced against each other
CONTRAST = 0.3
NOISE = 0.03
SUPERSAMPLE = 4
CHUNK = 64  # layouts drawn at once


@dataclass(frozen=True)
class Layouts:
    """What all conditions of one matched set share, one entry per layout."""

    corners: Tensor
    support_ratio: Tensor
    radius: Tensor
    centre: Tensor
    angle: Tensor
    background: Tensor
    inducer: Tensor
    turn: Tensor  # (B, 6): the angle by which ROT turns each mouth
    seed: int

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def disc_radius(self) -> Tensor:
        """Radius of the discs: support ratio × half the side length."""
        return self.support_ratio * self.radius * torch.sin(math.pi / self.corners)

    def select(self, index: Tensor) -> "Layouts":
        """Return some of the layouts."""
        chosen: dict[str, Any] = {n: v[index] for n, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **chosen)


def layouts(size: int, per_cell: int = 15, seed: int = 0) -> Layouts:
    """Return ``per_cell`` layouts for every number of corners and support ratio.

    The polygon's radius depends on its corners alone, so that a support ratio changes the discs and
    nothing else; it is the largest at which the largest discs, also displaced, stay in the image.
    """
    generator = torch.Generator().manual_seed(seed)
    cells = [(n, ratio) for n in CORNERS for ratio in SUPPORT_RATIOS for _ in range(per_cell)]
    corners = torch.tensor([n for n, _ in cells])
    ratio = torch.tensor([r for _, r in cells])
    num = len(cells)
    largest_disc = max(SUPPORT_RATIOS) * torch.sin(math.pi / corners)  # relative to the polygon's radius
    sheared = torch.tensor([shear(n, d) for n, d in zip(corners.tolist(), largest_disc.tolist(), strict=True)])
    reach = torch.hypot(torch.ones(num), sheared) + largest_disc
    largest = (size / 2 - 0.5) / reach
    radius = largest * (0.97 + 0.03 * torch.rand(num, generator=generator))
    room = (size / 2 - 0.5 - radius * reach)[:, None]
    background = torch.rand(num, generator=generator)
    return Layouts(
        corners=corners,
        support_ratio=ratio,
        radius=radius,
        centre=(2 * torch.rand(num, 2, generator=generator) - 1) * room,
        angle=2 * math.pi * torch.rand(num, generator=generator),
        background=background,
        inducer=contrasting(background, CONTRAST, generator),
        turn=math.pi / 3 + torch.rand(num, max(CORNERS), generator=generator) * (4 * math.pi / 3),
        seed=seed,
    )


def shear(corners: int, disc_radius: float) -> float:
    """Return how far every inducer moves along the circle of the corners in SHEAR, its mouth keeping its direction.

    A step τ along the circle displaces the two pacmen of every side against each other, along the side's normal, by
    2 τ sin(π/N): with the τ returned, by ``SHEAR × disc_radius``, the same for every side and polygon.
    """
    return SHEAR * disc_radius / (2 * math.sin(math.pi / corners))


def render(layout: Layouts, condition: str, size: int) -> Tensor:
    """Return the images of one condition; conditions of equal layouts differ in nothing but the condition.

    Args:
        layout: What is shared.
        condition: One of ``CONDITIONS``.
        size: Side of the image in pixels, the one that the layouts were made for.

    Raises:
        ValueError: If the condition is unknown.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"unknown condition {condition!r}; choose from {', '.join(CONDITIONS)}")
    canvas = Canvas(size, SUPERSAMPLE)
    images = torch.empty(len(layout), size, size)
    for num in sorted(set(layout.corners.tolist())):
        for index in (layout.corners == num).nonzero()[:, 0].split(CHUNK):
            part = layout.select(index)
            figure = _polygon(part, canvas) if condition == "REAL" else _inducers(part, condition, canvas)
            background = part.background[:, None, None].expand(-1, size, size)
            images[index] = paint(background, canvas.coverage(figure), part.inducer)
    generator = torch.Generator().manual_seed(layout.seed + 1)
    noise = NOISE * torch.randn(images.shape, generator=generator)
    return (images + noise).clamp_(0, 1)[:, None]


def _polygon(layout: Layouts, canvas: Canvas) -> Tensor:
    x, y = canvas.frame(layout.centre, layout.angle)
    return polygon(x, y, layout.corners, layout.radius)


def _inducers(layout: Layouts, condition: str, canvas: Canvas) -> Tensor:
    """Return the signed distance to all inducers of layouts with equal numbers of corners."""
    num = int(layout.corners[0])
    radius = layout.disc_radius
    line = max(1.0, 0.03 * canvas.size)
    mouth = torch.full_like(radius, math.pi * (num - 2) / num)
    union = torch.full((len(layout), 1, 1), math.inf)
    for k in range(num):
        direction = layout.angle + 2 * math.pi * k / num
        place = layout.centre + layout.radius[:, None] * torch.stack([direction.cos(), direction.sin()], 1)
        if condition == "SHEAR":
            along = shear(num, 1.0) * radius
            place = place + along[:, None] * torch.stack([-direction.sin(), direction.cos()], 1)
        turn = {"ROT": layout.turn[:, k], "OUT": torch.full_like(radius, math.pi)}.get(
            condition, torch.zeros_like(radius)
        )
        x, y = canvas.frame(place, direction + math.pi + turn)
        whole = disc(x, y, radius)
        pacman = torch.maximum(whole, -wedge(x, y, mouth))
        inducer = {
            "DISC": whole,
            "OUTL": outline(pacman, line),
            "CLOSED": torch.minimum(pacman, outline(whole, line)),
        }.get(condition, pacman)
        union = torch.minimum(union, inducer)
    return union
