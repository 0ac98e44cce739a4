"""Rotating Snakes and their controls, in linear luminance (Kitaoka & Ashida 2003; geometry of Watanabe et al. 2018).

Concentric rings repeat black – dark – white – light, counter-clockwise. Humans see every ring turn in that direction,
black → dark → white → light, in grey nearly as well as in colour; the mirror image turns the other way. Angles are
degrees, counter-clockwise as seen on the screen; radii are shares of half the image's side.

Shapes: ``B`` images; images are ``(B, 1 or 3, size, size)`` in 0…1. Discs are drawn at any phase, so that a physically
rotating copy is exact at any speed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.data.base import LUMINANCE
from training.data.drawing import Canvas

SUPERSAMPLE = 2  # per pixel and side; along the arc, where discs turn, colours are averaged exactly
BLACK, DARK, WHITE, LIGHT = range(4)
Colour = tuple[float, ...]
# sRGB (0, 0, 0), (18, 121, 255), (255, 255, 255), (230, 230, 17), made linear: measured from the published stimulus.
KITAOKA: tuple[Colour, ...] = ((0.0, 0.0, 0.0), (0.0060, 0.1912, 1.0), (1.0, 1.0, 1.0), (0.7913, 0.7913, 0.0056))
# Four hues of luminance 0.3: without luminance no direction is expected.
ISOLUMINANT: tuple[Colour, ...] = (
    (1.0, 0.1110, 0.1110),
    (0.2455, 0.2455, 1.0),
    (0.0490, 0.4, 0.0490),
    (0.3233, 0.3233, 0.0),
)
LEAST_BLACK = 2.0  # pixels that a black wedge must have in the middle of the innermost ring
CONTRASTS = (0.1, 0.3)
# Code of every condition → what it is. S2, the mirror image of S1, is what every condition is compared with.
CONDITIONS = {
    "S1": "the snake, counter-clockwise, in colour for networks that see colours; still, as under steady fixation",
    "S3_base": "the snake with dark cells narrower than light ones",
    "S3": "the same with dark and light exchanged: the colour order reversed, not by mirroring",
    "C1": "symmetric order black, dark, light, white, light, dark",
    "C2": "black and white only",
    "C3": "dark and light equal",
    "C4": "every cycle in its own random order",
    "C5": "random textures",
    "C6": "photographs",
    "G1": "grey of the colours' luminance",
    "G2": "grey of the colours' lightness",
    "G3": "four hues of one luminance",
    "D3_dark": "black, dark, white: one half of the pattern",
    "D3_light": "white, light, black: the other half",
    **{f"D2={c}": f"contrast {c}" for c in CONTRASTS},
    "O": "onset: grey frames, then the snake",
    "B": "blink: a grey frame before the last",
    **{f"J={p}": f"every frame displaced, {p} pixels on average" for p in (0.25, 0.5, 1.0)},
}
WAVES = 48  # gratings of which a texture is made


def luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of a linear colour."""
    return sum(w * c for w, c in zip(LUMINANCE, colour, strict=True)) if len(colour) == 3 else colour[0]


def lightness(relative: float) -> float:
    """Return CIE L* / 100 of a relative luminance."""
    return (116 * relative ** (1 / 3) - 16) / 100 if relative > (6 / 29) ** 3 else relative * (29 / 3) ** 3 / 100


def grey(levels: Sequence[float]) -> tuple[Colour, ...]:
    """Return grey levels as colours of one channel."""
    return tuple((float(level),) for level in levels)


GREY = grey([0.0, 0.2, 1.0, 0.6])  # at which humans see it turn (Atala-Gerard & Bach 2017)
GREY_LUMINANCE = grey([luminance(c) for c in KITAOKA])
GREY_LIGHTNESS = grey([lightness(luminance(c)) for c in KITAOKA])


@dataclass(frozen=True)
class Disc:
    """What a disc looks like.

    Attributes:
        colours: Linear colours by index: black, dark, white, light.
        order: Indices of colours of one cycle, counter-clockwise.
        duty: Share of the cycle of each place in ``order``; they sum to 1.
        cycles: Cycles per ring.
        rings: Number of rings.
        outer: Outer radius of the largest ring.
        ratio: Radius of every ring's inner edge relative to its outer edge.
        direction: +1, or −1 for the mirror image.
        ring_phase: Shift of each ring against the next, in cycles.
        alternate_rings: Whether neighbouring rings run in opposite directions.
        ellipse: Whether dark and light cells are ellipses, as in the original, rather than sectors.
        shuffled: Whether every cycle has its own random order: the same histogram without a direction.
        background: Luminance outside.
        contrast: Of everything around the background.
    """

    colours: tuple[Colour, ...] = GREY
    order: tuple[int, ...] = (BLACK, DARK, WHITE, LIGHT)
    duty: tuple[float, ...] = (0.15, 0.35, 0.15, 0.35)
    cycles: int = 12
    rings: int = 4
    outer: float = 0.98
    ratio: float = 0.8
    direction: int = 1
    ring_phase: float = 0.5
    alternate_rings: bool = False
    ellipse: bool = False
    shuffled: bool = False
    background: float = 0.5
    contrast: float = 1.0

    def __post_init__(self) -> None:
        if len(self.order) != len(self.duty) or abs(sum(self.duty) - 1) > 1e-6 or min(self.duty) <= 0:
            raise ValueError(f"duty must be positive, sum to 1 and match order {self.order}, got {self.duty}")
        if self.direction not in (1, -1):
            raise ValueError(f"direction must be 1 or -1, got {self.direction}")

    @property
    def edges(self) -> tuple[tuple[float, float], ...]:
        """Inner and outer radius of every ring, from the largest ring inwards."""
        return tuple((self.outer * self.ratio ** (k + 1), self.outer * self.ratio**k) for k in range(self.rings))

    @property
    def period(self) -> float:
        """Degrees after which a ring repeats."""
        return 360 / self.cycles


def fitting(size: int) -> Disc | None:
    """Return the disc with the most cycles and rings that ``size`` pixels can show, or none if they show none.

    Black wedges must be two pixels wide in the middle of the innermost ring: of 20 cycles, 12 or 8, the most at which
    four rings have that, else three rings of eight.
    """
    for cycles, rings in ((20, 4), (12, 4), (8, 4), (8, 3)):
        disc = Disc(cycles=cycles, rings=rings)
        middle = sum(disc.edges[-1]) / 2
        if disc.duty[0] * 2 * math.pi * middle * size / 2 / cycles >= LEAST_BLACK:
            return disc
    return None


def render(
    disc: Disc, size: int, phase: Tensor, *, centre: Tensor | None = None, seed: int = 0, supersample: int = SUPERSAMPLE
) -> Tensor:
    """Return discs turned by ``phase``, ``(B, C, size, size)``.

    Args:
        disc: What is drawn.
        size: Side in pixels.
        phase: ``(B,)`` degrees, counter-clockwise; image b of any two calls with one seed shares its shuffled order.
        centre: ``(B, 2)`` displacement of the disc in pixels, to the right and downwards.
        seed: Of shuffled orders.
        supersample: Sample points per pixel and side.
    """
    canvas = Canvas(size, supersample)
    x, y = canvas.points()
    colours = torch.tensor(disc.colours)
    colours = disc.background + disc.contrast * (colours - disc.background)
    centre = torch.zeros(len(phase), 2) if centre is None else centre
    generator = torch.Generator().manual_seed(seed)
    images = []
    for turn, (right, down) in zip(phase.double().deg2rad(), centre, strict=True):
        orders = torch.tensor(disc.order).expand(disc.rings, disc.cycles, -1)
        if disc.shuffled:
            orders = orders.gather(2, torch.rand(orders.shape, generator=generator).argsort(2))
        radius = torch.hypot(x - right, y - down)
        inside = (radius < disc.outer * size / 2) & (radius > disc.edges[-1][0] * size / 2)
        radius = radius[inside] / (size / 2)
        angle = torch.atan2(down - y[inside], x[inside] - right) - turn.float()
        image = torch.full((*x.shape, colours.shape[1]), disc.background)
        image[inside] = _paint(disc, colours, radius, angle, orders, 1 / (math.pi * size * supersample))
        images.append(torch.nn.functional.avg_pool2d(image.permute(2, 0, 1), supersample))
    return torch.stack(images).clamp_(0, 1)


def _paint(disc: Disc, colours: Tensor, radius: Tensor, angle: Tensor, orders: Tensor, sample: float) -> Tensor:
    """Return the colour at sample points ``(P, C)``, averaged over one sample's width along the arc.

    The average makes a turn by a thousandth of a pixel visible. It is the difference of the integral of the colour at
    the two ends of that width. Edges between rings do not move and need no average.
    """
    ring = ((radius / disc.outer).log() / math.log(disc.ratio)).long().clamp(0, disc.rings - 1)
    turns = angle / (2 * math.pi) * disc.direction
    if disc.alternate_rings:
        turns = turns * (1 - 2 * (ring % 2))
    position = turns * disc.cycles + ring * disc.ring_phase
    half = disc.cycles * sample / (2 * radius)
    outer = disc.outer * disc.ratio ** ring.float()
    across = 2 * (radius - outer * disc.ratio) / (outer * (1 - disc.ratio)) - 1
    (before, low), (after, high) = (_integral(disc, colours, position + h, ring, across, orders) for h in (-half, half))
    per_cycle = _integral(disc, colours, torch.ones_like(radius) - 1e-7, ring, across, orders)[1]
    return (high - low + (after - before)[:, None] * per_cycle) / (2 * half)[:, None]


def _integral(
    disc: Disc, colours: Tensor, position: Tensor, ring: Tensor, across: Tensor, orders: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the number of whole cycles before a position ``(P,)`` and the integral of the colour since ``(P, C)``."""
    cycle = position.floor()
    within = position - cycle
    order = orders[ring, cycle.long() % disc.cycles] if disc.shuffled else orders[:1, 0]
    start = torch.zeros_like(within)
    total = torch.zeros(len(within), colours.shape[1])
    for place in range(len(disc.order)):
        duty = _duty(disc, order[:, place], across)
        total += colours[order[:, place]] * torch.minimum((within - start).clamp(min=0), duty)[:, None]
        start = start + duty
    return cycle, total


def _duty(disc: Disc, colour: Tensor, across: Tensor) -> Tensor:
    """Return the share of the cycle that a sector of that colour takes, at places from −1 to 1 across the ring."""
    own = torch.tensor([disc.duty[disc.order.index(c)] if c in disc.order else 0.0 for c in range(len(disc.colours))])
    if not disc.ellipse:
        return own[colour].expand(len(across))
    # An ellipse whose tips lie beyond the ring: .35 of the cycle in the middle of the ring, .21 at its edges.
    narrower = (1 - 0.64 * across.square()).clamp(min=0).sqrt()
    taken = sum(d for c, d in zip(disc.order, disc.duty, strict=True) if c in (DARK, LIGHT))
    rest = (1 - taken * narrower) / max(1 - taken, 1e-6)
    return own[colour] * torch.where((colour == DARK) | (colour == LIGHT), narrower, rest)


def variants(disc: Disc) -> dict[str, Disc]:
    """Return the conditions that are discs like ``disc`` with one thing changed, by their code."""
    dark, light = disc.colours[DARK], disc.colours[LIGHT]
    middle = tuple((a + b) / 2 for a, b in zip(dark, light, strict=True))
    unequal = replace(disc, duty=(0.15, 0.32, 0.15, 0.38))
    found = {
        "S1": disc,
        "S3_base": unequal,
        "S3": replace(unequal, order=(BLACK, LIGHT, WHITE, DARK)),
        "C1": replace(
            disc, order=(BLACK, DARK, LIGHT, WHITE, LIGHT, DARK), duty=(0.15, 0.175, 0.175, 0.15, 0.175, 0.175)
        ),
        "C2": replace(disc, order=(BLACK, WHITE), duty=(0.5, 0.5)),
        "C3": replace(disc, colours=(disc.colours[BLACK], middle, disc.colours[WHITE], middle)),
        "C4": replace(disc, shuffled=True),
        "G1": replace(disc, colours=GREY_LUMINANCE),
        "G2": replace(disc, colours=GREY_LIGHTNESS),
        "D3_dark": replace(disc, order=(BLACK, DARK, WHITE), duty=(0.325, 0.35, 0.325)),
        "D3_light": replace(disc, order=(WHITE, LIGHT, BLACK), duty=(0.325, 0.35, 0.325)),
        **{f"D2={c}": replace(disc, contrast=c) for c in CONTRASTS},
    }
    return found | ({"G3": replace(disc, colours=ISOLUMINANT)} if len(dark) == 3 else {})


def texture(size: int, turn: Tensor, *, seed: int = 0) -> Tensor:
    """Return a random texture turned by ``turn`` degrees ``(B,)``, exactly: a sum of gratings, ``(B, 1, size, size)``.

    Args:
        size: Side in pixels; wavelengths are 5 % to 30 % of it.
        turn: Counter-clockwise.
        seed: Of the texture, the same in all images.
    """
    generator = torch.Generator().manual_seed(seed)
    wavelength = size * 0.05 * 6 ** torch.rand(WAVES, generator=generator)
    direction, phase = (2 * math.pi * torch.rand(2, WAVES, generator=generator)).unbind()
    x, y = Canvas(size).points()
    total = torch.zeros(len(turn), size, size)
    for length, angle, offset in zip(wavelength, direction, phase, strict=True):
        now = angle + turn.deg2rad()[:, None, None]
        total += torch.cos(2 * math.pi / length * (x * now.cos() - y * now.sin()) + offset)
    return (0.5 + 0.2 * total / math.sqrt(WAVES / 2)).clamp(0, 1)[:, None]
