"""White's effect, simultaneous contrast and Howe's figure as pairs with one and the same target, in linear luminance.

The two images of a pair hold a target of bit-identical pixels at the same place and differ in its context alone: we see
the first target lighter.

    white       on a dark bar of a grating, against on a light one; the flanks have the other luminance
    howe        the same, with the flanks' luminance drawn out to a stripe of the target's height: no illusion for us
    contrast    on a dark surround, against on a light one

Bars and targets keep the proportions of Robinson, Hammon & de Sa 2007: thick bars 2°, thin ones 1°, targets of the
contrast displays 3° and 1°. A degree is an eighth of the image; thin is 5/32 of it in place of 4/32, so that
a stage that halves the image of 32 pixels still resolves it. Edges lie on pixel edges: nothing is anti-aliased.

Shapes: ``B`` pairs; images are ``(B, 1, size, size)``, masks ``(B, size, size)``. Lengths are pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

DISPLAYS = {
    "white_thick": "White's effect, bars a quarter of the image",
    "white_thin": "White's effect, bars 5/32 of the image",
    "contrast_large": "simultaneous contrast, target 3/8 of the image",
    "contrast_small": "simultaneous contrast, target 5/32 of the image",
    "howe": "Howe's figure: White's with stripes, no illusion",
}
GRATINGS = ("white_thick", "white_thin", "howe")
CONTEXTS = ((0.0, 1.0), (0.25, 0.75))  # dark and light
TARGETS = (0.4, 0.5, 0.6)
PATCHES = 14  # rectangles of a Mondrian


@dataclass(frozen=True)
class Pairs:
    """Two contexts around the same targets.

    Attributes:
        first: Where we see the target lighter (or, in colour, yellower).
        second: The other context.
        mask: Where the target is.
        bar: Width of the grating's bars; 0 where there is none.
        stratum: Which of the context's values a pair has, ``(B,)``.
    """

    first: Tensor
    second: Tensor
    mask: Tensor
    bar: int
    stratum: Tensor


@dataclass(frozen=True)
class Place:
    """Where a display puts its target: ``(top, left, height, width)``, and whether its bars lie down."""

    top: int
    left: int
    height: int
    width: int
    lying: bool

    def mask(self, size: int) -> Tensor:
        """Return the target's mask, ``(size, size)``."""
        mask = torch.zeros(size, size, dtype=torch.bool)
        mask[self.top : self.top + self.height, self.left : self.left + self.width] = True
        return mask.t() if self.lying else mask


def bar_width(display: str, size: int) -> int:
    """Return the width of a display's bars; 0 where it has none."""
    if display not in GRATINGS:
        return 0
    return size // 4 if display == "white_thick" else round(5 * size / 32)


def target_shape(display: str, size: int) -> tuple[int, int]:
    """Return height and width of a display's target, along and across the bars."""
    bar = bar_width(display, size)
    if display == "howe":
        return round(3.2 * bar), bar
    if bar:
        return 2 * bar, bar
    side = 3 * size // 8 if display == "contrast_large" else round(5 * size / 32)
    return side, side


def place(display: str, size: int, generator: torch.Generator) -> Place:
    """Draw a place near the centre, within a sixteenth of the image, upright or lying."""
    height, width = target_shape(display, size)
    reach = size // 16
    down, right = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
    lying = bool(torch.randint(2, (), generator=generator))
    return Place((size - height) // 2 + down, (size - width) // 2 + right, height, width, lying)


def pairs(display: str, size: int, num: int, seed: int = 0, change: float = 0.0) -> Pairs:
    """Return pairs of a display.

    Args:
        display: One of ``DISPLAYS``.
        size: Side of the images.
        num: Number of pairs.
        seed: Of places and luminances; they do not depend on ``change``.
        change: Added to the luminance of every target, physically.

    Raises:
        ValueError: If the display is unknown, or the image too small for it.
    """
    if display not in DISPLAYS:
        raise ValueError(f"unknown display {display!r}; choose from {', '.join(DISPLAYS)}")
    if size < 16:
        raise ValueError(f"a lightness display needs at least 16 pixels, got {size}")
    generator = torch.Generator().manual_seed(seed)
    first: list[Tensor] = []
    second: list[Tensor] = []
    masks, strata = [], []
    for i in range(num):
        spot = place(display, size, generator)
        target = TARGETS[int(torch.randint(len(TARGETS), (), generator=generator))] + change
        dark, light = CONTEXTS[i % len(CONTEXTS)]
        mask = spot.mask(size)
        for images, own, other in ((first, dark, light), (second, light, dark)):
            images.append(context(display, size, spot, own, other).masked_fill(mask, target))
        masks.append(mask)
        strata.append(i % len(CONTEXTS))
    return Pairs(
        torch.stack(first)[:, None],
        torch.stack(second)[:, None],
        torch.stack(masks),
        bar_width(display, size),
        torch.tensor(strata),
    )


def context(display: str, size: int, spot: Place, own: float, other: float) -> Tensor:
    """Return a display without its target, ``(size, size)``.

    Args:
        display: One of ``DISPLAYS``.
        size: Side of the image.
        spot: Where the target will be.
        own: Luminance of the bar, or of the surround, that the target is put on.
        other: Luminance of the other bars.
    """
    bar = bar_width(display, size)
    image = torch.full((size, size), own)
    if bar:
        index = torch.div(torch.arange(size) - spot.left, bar, rounding_mode="floor")
        image[:, index % 2 == 1] = other
    if display == "howe":
        image[spot.top : spot.top + spot.height] = other
    return image.t() if spot.lying else image


@dataclass(frozen=True)
class Ramp:
    """Targets of known value, to fit a read-out to: images ``(B, C, size, size)``, masks, values ``(B, C)``."""

    images: Tensor
    mask: Tensor
    values: Tensor


def ramp(
    size: int,
    num: int,
    seed: int,
    spots: Callable[[torch.Generator], Tensor],
    *,
    channels: int = 1,
    mondrian: bool = False,
) -> Ramp:
    """Return targets of random values on surrounds that say nothing about them.

    Args:
        size: Side of the images.
        num: Number of images.
        seed: Of everything.
        spots: Draws the mask of a target.
        channels: 1 for luminance, 3 for colour.
        mondrian: Whether the surround is made of rectangles of random values rather than uniform.
    """
    generator = torch.Generator().manual_seed(seed)
    surround = torch.rand(num, channels, 1, 1, generator=generator).expand(-1, -1, size, size).clone()
    values = 0.1 + 0.8 * torch.rand(num, channels, generator=generator)
    masks = torch.stack([spots(generator) for _ in range(num)])
    if mondrian:
        for image in surround:
            for _ in range(PATCHES):
                top, left = torch.randint(0, size, (2,), generator=generator).tolist()
                height, width = torch.randint(size // 8, size // 2 + 1, (2,), generator=generator).tolist()
                value = torch.rand(channels, 1, 1, generator=generator)
                image[:, top : top + height, left : left + width] = value
    images = torch.where(masks[:, None], values[:, :, None, None], surround)
    return Ramp(images, masks, values)


def joined(*ramps: Ramp) -> Ramp:
    """Return several ramps as one."""
    return Ramp(*(torch.cat([getattr(r, name) for r in ramps]) for name in ("images", "mask", "values")))


def any_display(size: int) -> Callable[[torch.Generator], Tensor]:
    """Return a function that draws the target of a random display."""
    names = list(DISPLAYS)

    def spots(generator: torch.Generator) -> Tensor:
        display = names[int(torch.randint(len(names), (), generator=generator))]
        return place(display, size, generator).mask(size)

    return spots
