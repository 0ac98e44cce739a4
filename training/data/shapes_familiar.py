"""Real polygons among discs and pacmen: inducers become familiar and never tell the class; nothing to download.

The polygons, their clutter and their noise are those of ``shapes`` at the same seed. Behind each of them stand discs
and pacmen of random place, size, mouth and luminance, as many in every class. The polygon differs from its background
by at least 0.3 and is painted last: no polygon in background luminance lies over discs, as in a Kanizsa figure.
A network that was trained on ``shapes`` has never seen an inducer; what this changes is a factor, not a remedy.
"""

import functools
import math

import torch
from torch import Tensor

from training.config import stream
from training.data import shapes
from training.data.base import Source, Task
from training.data.drawing import Canvas, contrasting, disc, paint, wedge
from training.errors import UserError

SMALLEST, LARGEST = 0.04, 0.14  # radius of an inducer as a share of the image's side
WHOLE = 0.3  # share of inducers without a mouth


def build(
    source: Source,
    *,
    size: int = 32,
    train: int = 16384,
    test: int = 2048,
    clutter: int = 2,
    noise: float = 0.03,
    inducers: int = 4,
) -> Task:
    """Return the task of naming the polygon among inducers.

    Args:
        source: Its seed draws the training set; the test set is the same for every seed.
        size: Side of the image in pixels, at least 16.
        train: Number of training images.
        test: Number of test images.
        clutter: Number of bars behind the figure.
        noise: Standard deviation of the Gaussian noise, in luminance.
        inducers: Number of discs and pacmen in every image.

    Raises:
        UserError: If an option is out of range.
    """
    if inducers < 0:
        raise UserError(f"shapes_familiar needs inducers >= 0, got {inducers}")
    shapes.check(size, train, test, clutter, noise)
    sets = []
    for num, seed in ((train, stream(source.seed, "shapes")), (test, stream(0, "shapes", "test"))):
        generator = torch.Generator().manual_seed(stream(seed, "inducers"))
        behind = functools.partial(paint_inducers, num=inducers, generator=generator)
        sets.append(shapes.draw(num, size, clutter=clutter, noise=noise, seed=seed, behind=behind))
    return Task(shapes.CLASSES, sets[0], sets[1])


def paint_inducers(image: Tensor, background: Tensor, *, num: int, generator: torch.Generator) -> Tensor:
    """Return images ``(B, H, W)`` with ``num`` discs and pacmen painted over each.

    Args:
        image: What they are painted on.
        background: ``(B,)`` luminance that they differ from.
        num: Inducers per image.
        generator: Of places, sizes, mouths and luminances.
    """
    size, batch = image.shape[-1], len(image)
    canvas = Canvas(size)
    for _ in range(num):
        across, down, amount, turn, opening, whole = torch.rand(6, batch, generator=generator)
        radius = (SMALLEST + (LARGEST - SMALLEST) * amount) * size
        place = (torch.stack([across, down], 1) - 0.5) * (size - 2 * radius[:, None])
        x, y = canvas.frame(place, 2 * math.pi * turn)
        mouth = math.pi * (1 + opening) / 3  # the interior angles of triangles to hexagons
        figure = disc(x, y, radius)
        pacman = torch.maximum(figure, -wedge(x, y, mouth))
        figure = torch.where((whole < WHOLE)[:, None, None], figure, pacman)
        image = paint(image, canvas.coverage(figure), contrasting(background, shapes.CONTRAST, generator))
    return image
