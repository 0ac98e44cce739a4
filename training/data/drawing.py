"""Anti-aliased drawing in linear luminance: figures as signed distances, combined, then turned into coverage.

A figure is a signed distance to its outline in pixels, negative inside, on the sample points of a
``Canvas``. Union, intersection and difference are minimum, maximum and a sign, so that a disc with a
polygon cut out of it shares its edges with the polygon exactly.

Shapes: ``B`` images, ``S`` sample points per side (``size × supersample``); distances are ``(B, S, S)``.
Coordinates are pixels, x to the right and y downwards, with the origin at the image's centre; angles
are radians from the x axis towards the y axis.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Canvas:
    """A square image of ``size`` pixels with ``supersample²`` sample points per pixel."""

    size: int
    supersample: int = 1

    def points(self) -> tuple[Tensor, Tensor]:
        """Return x and y of the sample points, each ``(S, S)``, in pixels from the centre."""
        num = self.size * self.supersample
        axis = (torch.arange(num, dtype=torch.float32) + 0.5) / self.supersample - self.size / 2
        return axis[None, :].expand(num, num), axis[:, None].expand(num, num)

    def coverage(self, distance: Tensor) -> Tensor:
        """Return the share of each pixel that lies inside, ``(B, size, size)`` in 0…1."""
        inside = (0.5 - distance * self.supersample).clamp_(0, 1)
        if self.supersample == 1:
            return inside
        return torch.nn.functional.avg_pool2d(inside[:, None], self.supersample)[:, 0]

    def frame(self, centre: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sample points in figures' own frames, two ``(B, S, S)``.

        Args:
            centre: ``(B, 2)`` position of each figure.
            angle: ``(B,)`` orientation of each figure.
        """
        x, y = self.points()
        dx, dy = x - centre[:, 0, None, None], y - centre[:, 1, None, None]
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        return cos * dx + sin * dy, cos * dy - sin * dx


def polygon(x: Tensor, y: Tensor, corners: Tensor, radius: Tensor) -> Tensor:
    """Return the signed distance to regular polygons whose first corner lies on the positive x axis.

    Args:
        x: Sample points in the polygon's frame ``(B, S, S)``.
        y: As ``x``.
        corners: ``(B,)`` number of corners, at least 3.
        radius: ``(B,)`` distance of the corners from the centre.
    """
    half = (math.pi / corners)[:, None, None]
    radius = radius[:, None, None]
    # Fold every point into the sector of its nearest edge, where the edge is the line x = apothem.
    angle = torch.atan2(y, x)
    angle = torch.remainder(angle, 2 * half) - half
    length = torch.hypot(x, y)
    along, outward = length * angle.sin(), length * angle.cos() - radius * half.cos()
    beyond = (along.abs() - radius * half.sin()).clamp(min=0)
    return torch.where(outward < 0, outward, torch.hypot(outward.clamp(min=0), beyond))


def disc(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """Return the signed distance to discs ``(B, S, S)`` of ``radius`` ``(B,)``."""
    return torch.hypot(x, y) - radius[:, None, None]


def bar(x: Tensor, y: Tensor, length: Tensor, width: Tensor) -> Tensor:
    """Return the signed distance to round-ended bars along the x axis, of ``length`` between the ends' centres."""
    beyond = (x.abs() - length[:, None, None] / 2).clamp(min=0)
    return torch.hypot(beyond, y) - width[:, None, None] / 2


def box(x: Tensor, y: Tensor, length: Tensor, width: Tensor) -> Tensor:
    """Return the signed distance to rectangles of ``length`` along the x axis and ``width`` across it."""
    across_x = x.abs() - length[:, None, None] / 2
    across_y = y.abs() - width[:, None, None] / 2
    inside = torch.maximum(across_x, across_y)
    return torch.where(inside < 0, inside, torch.hypot(across_x.clamp(min=0), across_y.clamp(min=0)))


def wedge(x: Tensor, y: Tensor, opening: Tensor) -> Tensor:
    """Return the signed distance to infinite wedges around the positive x axis.

    Args:
        x: Sample points in the wedge's frame, apex at the origin.
        y: As ``x``.
        opening: ``(B,)`` full angle, below π.
    """
    half = opening[:, None, None] / 2
    to_edge = y.abs() * half.cos() - x * half.sin()
    before_apex = x * half.cos() + y.abs() * half.sin() < 0
    return torch.where(before_apex, torch.hypot(x, y), to_edge)


def outline(distance: Tensor, width: Tensor | float) -> Tensor:
    """Return the signed distance to the line of ``width`` pixels along a figure's edge, inside it."""
    return (distance + width / 2).abs() - width / 2


def paint(image: Tensor, coverage: Tensor, luminance: Tensor) -> Tensor:
    """Return ``image`` ``(B, H, W)`` with an opaque figure of ``luminance`` ``(B,)`` painted over it."""
    return image + coverage * (luminance[:, None, None] - image)


def stamp(
    image: Tensor,
    shape: Callable[[Tensor, Tensor], Tensor],
    centre: Tensor,
    angle: Tensor,
    reach: float,
    amount: Tensor,
    supersample: int,
) -> None:
    """Add ``amount × coverage`` of small figures to images in place, computing them only where they are.

    Exact for figures that do not overlap, as anti-aliased coverages of disjoint figures add up.

    Args:
        image: ``(B, H, W)`` with equal sides.
        shape: From sample points in the figure's frame ``(B, s, s)`` to the signed distance.
        centre: ``(B, 2)`` position of each figure.
        angle: ``(B,)`` orientation of each figure.
        reach: Largest distance in pixels of any figure from its centre.
        amount: ``(B,)`` luminance that is added where the figure covers a pixel.
        supersample: Sample points per pixel's side.
    """
    size = image.shape[-1]
    patch = Canvas(2 * math.ceil(reach + 1) + 1, supersample)
    corner = torch.floor(centre + (size - patch.size + 1) / 2).long()  # left, top in whole pixels
    x, y = patch.frame(centre - (corner + (patch.size - size) / 2), angle)
    coverage = patch.coverage(shape(x, y)) * amount[:, None, None]
    cells = torch.arange(patch.size)
    column, row = corner[:, 0, None] + cells, corner[:, 1, None] + cells
    outside = ((row < 0) | (row >= size))[:, :, None] | ((column < 0) | (column >= size))[:, None, :]
    coverage = coverage.masked_fill(outside, 0.0)
    index = torch.arange(len(image))[:, None, None]
    place = (index, row.clamp(0, size - 1)[:, :, None], column.clamp(0, size - 1)[:, None, :])
    image.index_put_(place, coverage, accumulate=True)


def contrasting(background: Tensor, least: float, generator: torch.Generator) -> Tensor:
    """Draw luminances in 0…1 that differ from ``background`` ``(B,)`` by at least ``least``, lighter or darker."""
    below, above = (background - least).clamp(min=0), (1 - background - least).clamp(min=0)
    # A point of the two allowed intervals laid end to end: each polarity as often as it has room.
    point = torch.rand(len(background), generator=generator) * (below + above)
    return torch.where(point < below, point, background + least + point - below)
