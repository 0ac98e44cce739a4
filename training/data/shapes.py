"""Real polygons: triangles, squares, pentagons, hexagons, generated; nothing to download.

Filled or outlined, darker or lighter than the background, of random size, position and orientation,
over a clutter of bars, with noise. Anti-aliased, in linear luminance. A figure differs from its
background by at least 0.3 and the clutter holds no discs: a polygon in background luminance over
discs would be a Kanizsa figure, which training must not contain.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from training.config import stream
from training.data.base import Images, Source, Task
from training.data.drawing import Canvas, bar, contrasting, outline, paint, polygon
from training.errors import UserError

CLASSES = ("triangle", "square", "pentagon", "hexagon")
CORNERS = (3, 4, 5, 6)
MEMORY = 8 * 2**30  # bytes of images that are held
CHUNK = 512  # images drawn at once
SMALLEST_FIGURE = 0.25  # radius as a share of the image's side
LARGEST_FIGURE = 0.46
CONTRAST = 0.3  # least difference between a figure and its background


@dataclass(frozen=True)
class Figures:
    """The parameters of ``B`` images, one entry each; lengths in pixels, luminances in 0…1."""

    target: Tensor
    centre: Tensor
    angle: Tensor
    radius: Tensor
    filled: Tensor
    line: Tensor
    background: Tensor
    figure: Tensor


def build(
    source: Source,
    *,
    size: int = 32,
    train: int = 16384,
    test: int = 2048,
    clutter: int = 2,
    noise: float = 0.03,
) -> Task:
    """Return the task of naming the polygon.

    Args:
        source: Its seed draws the training set; the test set is the same for every seed.
        size: Side of the image in pixels, at least 16.
        train: Number of training images.
        test: Number of test images.
        clutter: Number of bars behind the figure.
        noise: Standard deviation of the Gaussian noise, in luminance.

    Raises:
        UserError: If an option is out of range.
    """
    check(size, train, test, clutter, noise)
    sets = [
        draw(n, size, clutter=clutter, noise=noise, seed=seed)
        for n, seed in ((train, stream(source.seed, "shapes")), (test, stream(0, "shapes", "test")))
    ]
    return Task(CLASSES, sets[0], sets[1])


def check(size: int, train: int, test: int, clutter: int, noise: float) -> None:
    """Make sure that the options are in range.

    Raises:
        UserError: If one is not.
    """
    if 4 * size * size * (train + test) > MEMORY:
        raise UserError(f"shapes: {train + test} images of {size} × {size} pixels are more than {MEMORY >> 30} GiB")
    if size < 16 or min(train, test) < 4 or clutter < 0 or noise < 0:
        raise UserError(
            f"shapes needs size >= 16, train and test >= 4, clutter and noise >= 0; got {size=}, {train=}, "
            f"{test=}, {clutter=}, {noise=}"
        )


# From images (B, H, W) and the luminance of their backgrounds (B,) to images with more behind the figure.
Behind = Callable[[Tensor, Tensor], Tensor]


def draw(
    num: int, size: int, *, clutter: int = 2, noise: float = 0.03, seed: int = 0, behind: Behind | None = None
) -> Images:
    """Return ``num`` images with balanced classes in random order; ``behind`` paints what else is behind a figure."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.empty(num, 1, size, size)
    targets = torch.empty(num, dtype=torch.long)
    for start in range(0, num, CHUNK):
        stop = min(start + CHUNK, num)
        figures = sample(stop - start, size, generator)
        images[start:stop, 0] = render(figures, size, clutter, noise, generator, behind)
        targets[start:stop] = figures.target
    return Images(images, targets)


def sample(num: int, size: int, generator: torch.Generator) -> Figures:
    """Draw the parameters of ``num`` images."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(num, generator=generator)

    target = torch.arange(num)[torch.randperm(num, generator=generator)] % len(CLASSES)
    radius = uniform(SMALLEST_FIGURE, LARGEST_FIGURE) * size
    room = (size / 2 - 1 - radius).clamp(min=0)[:, None]
    centre = (2 * torch.rand(num, 2, generator=generator) - 1) * room
    background = uniform(0.0, 1.0)
    return Figures(
        target=target,
        centre=centre,
        angle=uniform(0, 2 * math.pi),
        radius=radius,
        filled=torch.rand(num, generator=generator) < 0.5,
        line=uniform(0.04, 0.08) * size,
        background=background,
        figure=contrasting(background, CONTRAST, generator),
    )


def render(
    figures: Figures,
    size: int,
    clutter: int,
    noise: float,
    generator: torch.Generator,
    behind: Behind | None = None,
) -> Tensor:
    """Return the images of ``figures``, ``(B, size, size)``."""
    canvas = Canvas(size)
    num = len(figures.target)
    image = figures.background[:, None, None].expand(num, size, size)
    for _ in range(clutter):
        centre = (torch.rand(num, 2, generator=generator) - 0.5) * size
        angle, length, width, shade = torch.rand(4, num, generator=generator)
        x, y = canvas.frame(centre, math.pi * angle)
        line = bar(x, y, (0.1 + 0.25 * length) * size, (0.03 + 0.04 * width) * size)
        image = paint(image, canvas.coverage(line), shade)
    if behind is not None:
        image = behind(image, figures.background)
    x, y = canvas.frame(figures.centre, figures.angle)
    corners = torch.tensor(CORNERS)[figures.target]
    edge = polygon(x, y, corners, figures.radius)
    edge = torch.where(figures.filled[:, None, None], edge, outline(edge, figures.line[:, None, None]))
    image = paint(image, canvas.coverage(edge), figures.figure)
    return (image + noise * torch.randn(image.shape, generator=generator)).clamp_(0, 1)
