"""Clips of photographs that move: pans, zooms, rotations, saccades and occlusions, drawn in batches.

    source point of pixel u at time t:   c(t) + s(t) R(θ(t)) u

c moves with a constant velocity and jumps at a saccade; log s and θ change at constant rates. An occluder, a disc or a
bar filled with another photograph, crosses in front with a velocity of its own.

Shapes: ``N`` clips, ``T`` frames; clips are uint8 ``(N, T, C, size, size)``. Lengths are pixels of the frame, rates
are per frame and scale with the frame's side, so that a motion looks the same at every size.
"""

import functools
import math
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from training.data.drawing import Canvas, bar, disc

TRAIN = (
    "astronaut.png", "camera.png", "coffee.png", "coins.png", "china.jpg", "grass.png", "gravel.png", "ihc.png",
    "moon.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
TEST = ("brick.png", "chelsea.png", "flower.jpg", "hubble_deep_field.jpg", "motorcycle_left.png")
WIDTHS = (2.0, 4.0)  # shorter side of a photograph, in sides of the frame: seen from near and from far
CHUNK = 256  # clips drawn at once

PAN = 0.05  # fastest pan, in sides of the frame: 3.2 pixels of 64
ZOOM = 0.03  # fastest change of log scale
TURN = math.radians(3.0)  # fastest rotation
SACCADE, LEAP = 0.15, 0.4  # share of clips with a saccade, and its longest leap in sides of the frame
OCCLUDED = 0.4  # share of clips with an occluder


@functools.lru_cache(maxsize=4)
def photographs(held_out: bool, size: int, grey: bool) -> tuple[Tensor, ...]:
    """Return photographs at every width, float ``(C, h, w)`` in 0…255, those for training or those held out."""
    import skimage.data
    import sklearn.datasets

    folders = (Path(skimage.data.__file__).parent, Path(sklearn.datasets.__file__).parent / "images")
    found = []
    for name in TEST if held_out else TRAIN:
        with Image.open(next(f / name for f in folders if (f / name).exists())) as file:
            image = file.convert("L" if grey else "RGB")
        for width in WIDTHS:
            scale = min(1.0, width * size / min(image.size))  # never larger than it is
            shape = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            pixels = np.asarray(image.resize(shape, Image.Resampling.LANCZOS), dtype=np.float32)
            found.append(torch.from_numpy(pixels.copy()).view(shape[1], shape[0], -1).permute(2, 0, 1).contiguous())
    return tuple(found)


@dataclass(frozen=True)
class Motion:
    """How ``N`` views of photographs move.

    Attributes:
        photograph: ``(N,)`` index into ``photographs``.
        place: ``(N, 2)`` around where the view moves, in 0…1 across the places that keep it inside.
        shift: ``(N, T, 2)`` x and y of its middle from there, in pixels of the photograph.
        angle: ``(N, T)`` in radians.
        scale: ``(N, T)`` pixels of the photograph per pixel of the frame.
    """

    photograph: Tensor
    place: Tensor
    shift: Tensor
    angle: Tensor
    scale: Tensor

    def of(self, clips: Tensor) -> "Motion":
        """Return the motion of some of the views."""
        return Motion(*(getattr(self, f.name)[clips] for f in fields(self)))


def natural_motion(
    num: int, frames: int, size: int, seed: int, *, held_out: bool = False, grey: bool = False
) -> Tensor:
    """Return ``num`` clips, uint8 ``(num, frames, C, size, size)``, sRGB-encoded.

    Args:
        num: Number of clips.
        frames: Frames per clip.
        size: Side of the frames in pixels.
        seed: Of everything that is drawn.
        held_out: Whether the photographs are those that are not trained on.
        grey: Whether frames have one channel.
    """
    generator = torch.Generator().manual_seed(seed)
    album = photographs(held_out, size, grey)
    clips = torch.empty(num, frames, 1 if grey else 3, size, size, dtype=torch.uint8)
    for start in range(0, num, CHUNK):
        count = min(CHUNK, num - start)
        view, before = (sample(count, frames, size, len(album), generator) for _ in range(2))
        seen = render(album, view, size)
        occluded, cover = occluders(count, frames, size, generator)
        seen[occluded] = seen[occluded].lerp_(render(album, before.of(occluded), size), cover[:, :, None])
        clips[start : start + count] = seen.round_().to(torch.uint8)
    return clips


def sample(num: int, frames: int, size: int, album: int, generator: torch.Generator) -> Motion:
    """Draw how ``num`` views of ``album`` photographs move.

    Pan, zoom and rotation are each present in some clips; a clip may have none and stand still.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num, *shape, generator=generator)

    def present(share: float) -> Tensor:
        return (uniform(0, 1) < share).float()

    time = torch.arange(frames, dtype=torch.float32) - (frames - 1) / 2
    heading, speed = uniform(0, 2 * math.pi), uniform(0, PAN * size) * present(0.85)
    velocity = torch.stack([heading.cos(), heading.sin()], 1) * speed[:, None]
    shift = velocity[:, None] * time[:, None]
    leap = uniform(-LEAP, LEAP, 2) * size * present(SACCADE)[:, None]
    after = time + (frames - 1) / 2 >= torch.randint(1, max(frames, 2), (num, 1), generator=generator)
    shift = shift + leap[:, None] * after[..., None]
    scale = uniform(0.75, 1.15)[:, None] * (uniform(-ZOOM, ZOOM) * present(0.5))[:, None].mul(time).exp()
    angle = (uniform(-TURN, TURN) * present(0.5))[:, None] * time
    place = uniform(0, 1, 2)
    return Motion(
        torch.randint(album, (num,), generator=generator), place, shift * scale.mean(1)[:, None, None], angle, scale
    )


def render(album: tuple[Tensor, ...], motion: Motion, size: int) -> Tensor:
    """Return what is seen, float ``(N, T, C, size, size)`` in 0…255, by bilinear interpolation."""
    num, frames = motion.angle.shape
    x, y = Canvas(size).points()
    cos, sin = (f(motion.angle)[..., None, None] * motion.scale[..., None, None] for f in (torch.cos, torch.sin))
    turned = torch.stack([cos * x - sin * y, sin * x + cos * y], -1)
    seen = torch.empty(num, frames, len(album[0]), size, size)
    for index in motion.photograph.unique().tolist():
        clips = (motion.photograph == index).nonzero()[:, 0]
        own, photograph = motion.of(clips), album[index]
        extent = torch.tensor([photograph.shape[2], photograph.shape[1]], dtype=torch.float32)
        room = (extent - size).clamp(min=0)
        middle = extent / 2 + ((own.place - 0.5) * room)[:, None] + own.shift
        points = turned[clips] + middle[:, :, None, None]
        grid = (2 * points / extent - 1).flatten(0, 1)
        # Beyond its border a photograph goes on as its mirror image.
        pixels = F.grid_sample(
            photograph.expand(len(grid), -1, -1, -1), grid, padding_mode="reflection", align_corners=False
        )
        seen[clips] = pixels.unflatten(0, (len(clips), frames))
    return seen


def occluders(num: int, frames: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return which of ``num`` clips have an occluder, and the share of each pixel it covers, ``(N, T, size, size)``."""
    occluded = (torch.rand(num, generator=generator) < OCCLUDED).nonzero()[:, 0]
    num = len(occluded)
    disc_shaped, extent, length, angle, heading, speed = torch.rand(6, num, generator=generator)
    start = (torch.rand(num, 2, generator=generator) - 0.5) * size
    heading = 2 * math.pi * heading
    velocity = torch.stack([heading.cos(), heading.sin()], 1) * (PAN * size * speed)[:, None]
    time = torch.arange(frames, dtype=torch.float32) - (frames - 1) / 2
    centre = (start[:, None] + velocity[:, None] * time[:, None]).flatten(0, 1)
    canvas = Canvas(size)
    x, y = canvas.frame(centre, (math.pi * angle).repeat_interleave(frames))
    width = ((0.1 + 0.2 * extent) * size).repeat_interleave(frames)
    distance = torch.where(
        (disc_shaped < 0.5).repeat_interleave(frames)[:, None, None],
        disc(x, y, width),
        bar(x, y, (2 * length * size).repeat_interleave(frames), width),
    )
    return occluded, canvas.coverage(distance).unflatten(0, (num, frames))
