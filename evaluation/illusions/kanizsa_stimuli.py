"""Kanizsa figures and their controls, in linear luminance (Kanizsa 1955; support ratio of Ringach & Shapley 1996).

Discs stand on the corners of a regular polygon that is not drawn. With their mouths turned inwards the
polygon appears; every control breaks one thing that carries the illusion and keeps the discs' places (all but SHEAR).

    support ratio = disc diameter / side length (centre to centre)

The number of corners must not be told by ink. One half of the layouts has equal inducer area in every polygon at a
support ratio, (N + 2)/2 · π r², so side² (N + 2) is constant; the other half has equal physical edge length, 2 N r of
straight edges, so that side · N is constant. All conditions of a layout share place, orientation, luminances and noise.

Shapes: ``B`` layouts; images are ``(B, 1, size, size)``. Lengths are pixels, angles radians.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from training.data.drawing import Canvas, box, disc, outline, polygon, stamp, wedge

CORNERS = {3: "triangle", 4: "square", 5: "pentagon", 6: "hexagon"}
SUPPORT_RATIOS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SETS = ("equal_area", "equal_edge")
CONDITIONS = {
    "REAL": "the polygon itself, drawn by luminance",
    "IN": "mouths turned inwards: the illusory polygon",
    "ROT": "every mouth turned by its own 60–300°",
    "OUT": "mouths turned outwards",
    "DISC": "whole discs",
    "OUTL": "mouths inwards, pacmen drawn as thin outlines: same corners, no illusion for us",
    "CLOSED": "mouths inwards, each closed by a thin arc",
    "SHEAR": "mouths inwards, the two pacmen of every side displaced against each other along its normal",
    "MIX": "mouths inwards, half of the pacmen darker and half lighter than the background, by the same amount",
    "FRAG": "the corners of the outlined polygon as far as the discs reach, no discs: the same physical edge",
    "OCCL": "mouths inwards, a bar of another grey over every gap: completion behind an occluder",
    "IN_LINES": "mouths inwards, a thin line across the middle of every gap",
    "OUT_LINES": "mouths outwards, a thin line across the middle of every gap",
}
CONTROLS = ("ROT", "OUT", "DISC", "OUTL", "CLOSED", "SHEAR")
SHEAR = 0.5  # disc radii by which the two pacmen of every side are displaced against each other
CONTRAST = 0.3  # least difference of an inducer from the background, in luminance
NOISE = 0.03
SUPERSAMPLE = 4
LINE = 0.03  # width of thin lines as a share of the image's side, at least one pixel
THIN = 0.25  # most that lines around a disc are wide, as a share of its radius: half of it would fill a pacman
CROSSING = 0.3  # length of a distractor line as a share of the side
CHUNK = 64  # layouts drawn at once


@dataclass(frozen=True)
class Layouts:
    """What all conditions of one matched set share, one entry per layout."""

    corners: Tensor
    support_ratio: Tensor
    matching: Tensor  # index into SETS
    radius: Tensor
    centre: Tensor
    angle: Tensor
    background: Tensor
    contrast: Tensor  # of inducers and polygon, signed
    turn: Tensor  # (B, 6): the angle by which ROT turns each mouth
    polarity: Tensor  # (B, 6): ±1, of each inducer in MIX relative to the other conditions
    seed: int

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def side(self) -> Tensor:
        """Side length of the polygons."""
        return 2 * self.radius * torch.sin(math.pi / self.corners)

    @property
    def disc_radius(self) -> Tensor:
        """Radius of the discs: support ratio × half the side length."""
        return self.support_ratio * self.side / 2

    @property
    def inducer(self) -> Tensor:
        """Luminance of inducers and polygon."""
        return self.background + self.contrast

    def select(self, index: Tensor) -> "Layouts":
        """Return some of the layouts."""
        chosen: dict[str, Any] = {n: v[index] for n, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **chosen)

    def corner(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the direction of corner ``k`` from the centre ``(B,)`` and its place ``(B, 2)``."""
        direction = self.angle + 2 * math.pi * k / self.corners
        return direction, self.centre + self.radius[:, None] * torch.stack([direction.cos(), direction.sin()], 1)

    def gap(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the direction of the normal of side ``k`` ``(B,)`` and the middle of its gap ``(B, 2)``."""
        normal = self.angle + 2 * math.pi * (k + 0.5) / self.corners
        apothem = self.radius * torch.cos(math.pi / self.corners)
        return normal, self.centre + apothem[:, None] * torch.stack([normal.cos(), normal.sin()], 1)


def layouts(size: int, per_cell: int = 10, seed: int = 0) -> Layouts:
    """Return ``per_cell`` layouts for every way of matching, number of corners and support ratio, in this order.

    A polygon's radius depends on its corners and its set alone, so that a support ratio changes the discs and
    nothing else; it is the largest at which the largest discs of every polygon, also displaced, stay in the image.
    """
    generator = torch.Generator().manual_seed(seed)
    cells = [(m, n, s) for m in range(len(SETS)) for n in CORNERS for s in SUPPORT_RATIOS for _ in range(per_cell)]
    num = len(cells)
    matching, corners, ratio = (torch.tensor(column) for column in zip(*cells, strict=True))
    radii = torch.tensor([[polygon_radii(size)[name][n] for n in CORNERS] for name in SETS])
    radius = radii[matching, corners - min(CORNERS)]
    reach = torch.tensor([_reach(n) for n in CORNERS])[corners - min(CORNERS)] * radius
    room = (size / 2 - reach).clamp(min=0)[:, None]
    background = CONTRAST + (1 - 2 * CONTRAST) * torch.rand(num, generator=generator)
    # Both polarities must have room at every background, or MIX could not have the contrast of the others.
    most = torch.minimum(background, 1 - background)
    amount = CONTRAST + (most - CONTRAST) * torch.rand(num, generator=generator)
    sign = torch.where(torch.rand(num, generator=generator) < 0.5, 1.0, -1.0)
    centre = (2 * torch.rand(num, 2, generator=generator) - 1) * room
    angle = 2 * math.pi * torch.rand(num, generator=generator)
    turn = math.pi / 3 + torch.rand(num, max(CORNERS), generator=generator) * (4 * math.pi / 3)
    draws = torch.rand(num, max(CORNERS), generator=generator)
    draws = draws.masked_fill(torch.arange(max(CORNERS)) >= corners[:, None], 2.0)
    flipped = draws.argsort(1).argsort(1) < (corners // 2)[:, None]
    return Layouts(
        corners=corners,
        support_ratio=ratio,
        matching=matching,
        radius=radius,
        centre=centre,
        angle=angle,
        background=background,
        contrast=sign * amount,
        turn=turn,
        polarity=torch.where(flipped, -1.0, 1.0),
        seed=seed,
    )


def polygon_radii(size: int) -> dict[str, dict[int, float]]:
    """Return, for every set, the radius of each polygon in pixels."""
    half = {n: math.sin(math.pi / n) for n in CORNERS}  # half a side, relative to the radius
    widest = {n: 2 * half[n] * (size / 2) / _reach(n) for n in CORNERS}  # side that just fits
    weights = {"equal_area": {n: 1 / math.sqrt(n + 2) for n in CORNERS}, "equal_edge": {n: 1 / n for n in CORNERS}}
    found = {}
    for name, weight in weights.items():
        scale = min(widest[n] / weight[n] for n in CORNERS)
        found[name] = {n: scale * weight[n] / (2 * half[n]) for n in CORNERS}
    return found


def _reach(corners: int) -> float:
    """Return how far the largest discs reach from the centre, also displaced, relative to the polygon's radius."""
    largest = max(SUPPORT_RATIOS) * math.sin(math.pi / corners)
    return math.hypot(1.0, shear(corners, largest)) + largest


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
        condition: One of ``CONDITIONS``, or ``BLANK`` for background and noise alone.
        size: Side of the image in pixels, the one that the layouts were made for.

    Raises:
        ValueError: If the condition is unknown.
    """
    check_condition(condition, CONDITIONS)
    painted = torch.zeros(len(layout), size, size)  # difference from the background
    for num in sorted(set(layout.corners.tolist())) if condition != "BLANK" else ():
        for index in (layout.corners == num).nonzero()[:, 0].split(CHUNK):
            part = layout.select(index)
            painted[index] = _polygon(part, size) if condition == "REAL" else _figure(part, condition, size)
    generator = torch.Generator().manual_seed(layout.seed + 1)
    noise = NOISE * torch.randn(painted.shape, generator=generator)
    return (layout.background[:, None, None] + painted + noise).clamp_(0, 1)[:, None]


def check_condition(condition: str, known: Mapping[str, str]) -> None:
    """Make sure that a condition is one of the known ones, or ``BLANK``.

    Raises:
        ValueError: If it is not.
    """
    if condition not in known and condition != "BLANK":
        raise ValueError(f"unknown condition {condition!r}; choose from {', '.join(known)}")


def inducer_shape(condition: str, radius: Tensor, mouth: Tensor, line: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the signed distance to an inducer whose mouth opens along the x axis, from points in its frame.

    Args:
        condition: ``DISC``, ``OUTL``, ``CLOSED`` or ``FRAG`` draw it in their way; all others as a pacman.
        radius: ``(B,)`` of the disc.
        mouth: ``(B,)`` full angle.
        line: Width of thin lines.
    """
    rim = (THIN * radius).clamp(max=line)[:, None, None]

    def shape(x: Tensor, y: Tensor) -> Tensor:
        whole, opening = disc(x, y, radius), wedge(x, y, mouth)
        pacman = torch.maximum(whole, -opening)
        if condition == "DISC":
            return whole
        if condition == "OUTL":
            return outline(pacman, rim)
        if condition == "CLOSED":
            return torch.minimum(pacman, outline(whole, rim))
        if condition == "FRAG":
            return torch.maximum(whole, outline(opening, line))
        return pacman

    return shape


def _polygon(layout: Layouts, size: int) -> Tensor:
    canvas = Canvas(size, SUPERSAMPLE)
    x, y = canvas.frame(layout.centre, layout.angle)
    return canvas.coverage(polygon(x, y, layout.corners, layout.radius)) * layout.contrast[:, None, None]


def _figure(layout: Layouts, condition: str, size: int) -> Tensor:
    """Return what is painted, of layouts with equal numbers of corners; no two parts of a figure overlap."""
    painted = torch.zeros(len(layout), size, size)
    kind, _, lines = condition.partition("_")
    for k in range(int(layout.corners[0])):
        _inducer(painted, layout, kind, k)
        if lines or condition == "OCCL":
            _bar(painted, layout, condition, k)
    return painted


def _inducer(painted: Tensor, layout: Layouts, condition: str, k: int) -> None:
    """Paint inducer ``k`` of every layout."""
    radius, line = layout.disc_radius, max(1.0, LINE * painted.shape[-1])
    direction, place = layout.corner(k)
    mouth = math.pi * (layout.corners - 2) / layout.corners
    turn = torch.zeros_like(radius)
    if condition == "SHEAR":
        along = shear(int(layout.corners[0]), 1.0) * radius
        place = place + along[:, None] * torch.stack([-direction.sin(), direction.cos()], 1)
    elif condition == "ROT":
        turn = layout.turn[:, k]
    elif condition == "OUT":
        turn = turn + math.pi

    sign = layout.polarity[:, k] if condition == "MIX" else 1.0
    reach = float(radius.max())
    shape = inducer_shape(condition, radius, mouth, line)
    stamp(painted, shape, place, direction + math.pi + turn, reach, layout.contrast * sign, SUPERSAMPLE)


def _bar(painted: Tensor, layout: Layouts, condition: str, k: int) -> None:
    """Paint the bar over, or the line across, the gap of side ``k``."""
    normal, place = layout.gap(k)
    if condition == "OCCL":
        length, width = layout.side - 2 * layout.disc_radius, layout.disc_radius
        angle, luminance = normal + math.pi / 2, -layout.contrast / 2
    else:
        length = CROSSING * layout.side
        width = torch.full_like(length, max(1.0, LINE * painted.shape[-1]))
        angle, luminance = normal, layout.contrast
    reach = float(torch.hypot(length, width).max()) / 2
    stamp(painted, lambda x, y: box(x, y, length, width), place, angle, reach, luminance, SUPERSAMPLE)
