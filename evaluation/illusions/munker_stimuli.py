"""Munker's illusion as the church of one colour behind stripes of two, in linear RGB.

A grating of yellow and blue bars; a church of one colour is seen behind every other bar. In the first image of a pair
the bars in front of it are yellow, in the second they are blue; what is seen of the church are the same pixels of the
same colour, to the last bit. We see the church behind yellow bars as yellower (assimilation).

Shapes: ``B`` pairs; images are ``(B, 3, size, size)``, masks ``(B, size, size)``. Lengths are pixels. All edges lie on
pixel edges: nothing is anti-aliased.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.illusions.lightness_stimuli import Pairs
from training.data.base import to_srgb

DISPLAYS = {
    "church_thick": "stripes 5/32 of the image wide",
    "church_thin": "stripes 3/32 of the image wide",
}
TARGETS = {"red": (0.7, 0.2, 0.2), "green": (0.2, 0.6, 0.2), "grey": (0.4, 0.4, 0.4)}
STRIPES = (((0.9, 0.8, 0.1), (0.1, 0.2, 0.9)), ((0.7, 0.65, 0.3), (0.3, 0.35, 0.7)))  # yellow and blue
# One unit of yellow–blue, (R + G) / 2 − B, at constant luminance.
YELLOWER = (0.0722, 0.0722, -0.9278)


def stripe_width(display: str, size: int) -> int:
    """Return the width of a display's stripes."""
    return round((5 if display == "church_thick" else 3) * size / 32)


def church(size: int, down: int = 0, right: int = 0) -> Tensor:
    """Return the silhouette of a church, ``(size, size)``: a tower with a spire, a nave with a gabled roof.

    Args:
        size: Side of the image.
        down: Pixels by which it is moved down.
        right: Pixels by which it is moved to the right.
    """
    axis = (torch.arange(size) + 0.5) / size - 0.5
    x, y = axis[None, :] - right / size, axis[:, None] - down / size
    tower = (x >= -0.40) & (x < -0.08) & (y >= -0.18) & (y < 0.42)
    spire = (y >= -0.46) & (y < -0.18) & ((x + 0.24).abs() < 0.16 * (y + 0.46) / 0.28)
    nave = (x >= -0.08) & (x < 0.42) & (y >= 0.08) & (y < 0.42)
    roof = (y >= -0.14) & (y < 0.08) & (x >= -0.08) & ((x - 0.17).abs() < 0.29 * (y + 0.14) / 0.22)
    return tower | spire | nave | roof


def place(display: str, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a place and return what is seen of the church, the bars that it is seen on, and where its colour is read.

    The outline borders on the colour behind the church, which is the other one: it is read a sixteenth of the image
    away from it, where only the stripes in front are near. All are ``(size, size)``.
    """
    reach = size // 32
    down, right = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
    width = stripe_width(display, size)
    shift = int(torch.randint(2 * width, (), generator=generator))
    own = torch.div(torch.arange(size) + shift, width, rounding_mode="floor") % 2 == 0
    lying = bool(torch.randint(2, (), generator=generator))
    bars = own[:, None].expand(size, size) if lying else own[None].expand(size, size)
    whole = church(size, down, right)
    margin = size // 16
    inner = F.max_pool2d((~whole)[None, None].float(), 2 * margin + 1, 1, margin)[0, 0] == 0
    return whole & bars, bars, inner & bars


def any_church(size: int) -> Callable[[torch.Generator], Tensor]:
    """Return a function that draws where the colour of a church behind random stripes is read."""
    names = list(DISPLAYS)

    def spots(generator: torch.Generator) -> Tensor:
        return place(names[int(torch.randint(len(names), (), generator=generator))], size, generator)[2]

    return spots


def pairs(display: str, size: int, num: int, seed: int = 0, change: float = 0.0) -> Pairs:
    """Return pairs of a display; the first has yellow stripes in front, the second blue ones.

    The mask is where the church's colour is read.

    Args:
        display: One of ``DISPLAYS``.
        size: Side of the images.
        num: Number of pairs; targets and stripes take turns.
        seed: Of places; they do not depend on ``change``.
        change: Added to the target's yellow–blue, physically, at constant luminance.

    Raises:
        ValueError: If the display is unknown, or the image too small for it.
    """
    if display not in DISPLAYS:
        raise ValueError(f"unknown display {display!r}; choose from {', '.join(DISPLAYS)}")
    if size < 16:
        raise ValueError(f"a church behind stripes needs at least 16 pixels, got {size}")
    generator = torch.Generator().manual_seed(seed)
    first: list[Tensor] = []
    second: list[Tensor] = []
    masks, strata = [], []
    colours = list(TARGETS.values())
    for i in range(num):
        seen, bars, mask = place(display, size, generator)
        stratum = i % (len(colours) * len(STRIPES))
        target = torch.tensor(colours[stratum % len(colours)]) + change * torch.tensor(YELLOWER)
        yellow, blue = (torch.tensor(c) for c in STRIPES[stratum // len(colours)])
        for images, front, behind in ((first, yellow, blue), (second, blue, yellow)):
            image = torch.where(bars, behind[:, None, None], front[:, None, None])
            images.append(torch.where(seen, target[:, None, None], image))
        masks.append(mask)
        strata.append(stratum)
    return Pairs(
        torch.stack(first), torch.stack(second), torch.stack(masks), stripe_width(display, size), torch.tensor(strata)
    )


def yellow_blue(colour: Tensor) -> Tensor:
    """Return (R + G) / 2 − B of linear colours ``(B, 3)``: 1 for pure yellow, −1 for pure blue."""
    return (colour[:, 0] + colour[:, 1]) / 2 - colour[:, 2]


def lab(colour: tuple[float, float, float], change: float = 0.0) -> tuple[float, float, float]:
    """Return CIE L*, a*, b* (D65) of a linear colour whose yellow–blue is changed by ``change``."""
    from skimage.color import rgb2lab

    linear = torch.tensor(colour) + change * torch.tensor(YELLOWER)
    found = rgb2lab(to_srgb(linear).double().numpy()[None, None])[0, 0]
    return float(found[0]), float(found[1]), float(found[2])
