"""Clips of flat shapes that move: polygons and discs of saturated colours, each with a velocity and a rotation.

Shapes: ``N`` clips, ``T`` frames; clips are uint8 ``(N, T, C, size, size)``, linear in luminance.
"""

import math

import torch
from torch import Tensor

from training.data.base import LUMINANCE
from training.data.drawing import Canvas, disc, polygon

SHAPES = 3  # per clip
SPEED = 0.05  # fastest motion, in sides of the frame per frame
SPIN = math.radians(8.0)  # fastest rotation per frame
CHUNK = 128  # clips whose numbers are drawn at once
PAINTED = 64  # frames painted at once: what a processor's cache holds
LARGEST = 0.3  # radius, in sides of the frame


def moving_shapes(num: int, frames: int, size: int, seed: int, *, held_out: bool = False, grey: bool = False) -> Tensor:
    """Return ``num`` clips, uint8 ``(num, frames, C, size, size)``.

    Args:
        num: Number of clips.
        frames: Frames per clip.
        size: Side of the frames in pixels.
        seed: Of everything that is drawn; held-out clips are those of another seed.
        held_out: Not needed: no two clips are alike.
        grey: Whether frames have one channel.
    """
    del held_out
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor(LUMINANCE)
    clips = torch.empty(num, frames, 1 if grey else 3, size, size, dtype=torch.uint8)
    time = torch.arange(frames, dtype=torch.float32) - (frames - 1) / 2
    for start in range(0, num, CHUNK):
        count = min(CHUNK, num - start)
        colours = torch.rand(count, SHAPES + 1, 3, generator=generator)
        if grey:
            colours = (colours * weights).sum(2, keepdim=True)
        image = colours[:, 0, :, None, None].repeat_interleave(frames, 0).repeat(1, 1, size, size)
        for i in range(1, SHAPES + 1):
            heading, speed, angle, spin, radius = torch.rand(5, count, generator=generator)
            heading = 2 * math.pi * heading
            velocity = torch.stack([heading.cos(), heading.sin()], 1) * (SPEED * size * speed)[:, None]
            middle = (torch.rand(count, 2, generator=generator) - 0.5) * size
            centre = (middle[:, None] + velocity[:, None] * time[:, None]).flatten(0, 1)
            turn = ((2 * math.pi * angle)[:, None] + (SPIN * (2 * spin - 1))[:, None] * time).flatten()
            corners = torch.randint(2, 7, (count,), generator=generator).repeat_interleave(frames)  # 2: a disc
            radius = ((0.1 + (LARGEST - 0.1) * radius) * size).repeat_interleave(frames)
            colour = colours[:, i, :, None, None].repeat_interleave(frames, 0)
            parts = (t.split(PAINTED) for t in (image, colour, centre, turn, corners, radius))
            for painted, paint, *shape in zip(*parts, strict=True):
                painted += cover(size, *shape)[:, None] * (paint - painted)  # in place: a view of the image
        clips[start : start + count] = (image * 255).round_().to(torch.uint8).unflatten(0, (count, frames))
    return clips


def cover(size: int, centre: Tensor, turn: Tensor, corners: Tensor, radius: Tensor) -> Tensor:
    """Return the share of each pixel that a polygon or disc covers, ``(B, size, size)``.

    Computed in a patch around the shape alone, which lies within the frame, for nothing is covered elsewhere.

    Args:
        size: Side of the frame in pixels.
        centre: ``(B, 2)`` x and y from the frame's middle.
        turn: ``(B,)`` radians.
        corners: ``(B,)``; 2 for a disc.
        radius: ``(B,)``.
    """
    side = min(size, 2 * math.ceil(LARGEST * size + 1) + 1)
    corner = (centre + (size - side + 1) / 2).floor().clamp(0, size - side).long()  # left, top
    column, row = (c[:, None] + torch.arange(side) for c in corner.unbind(1))
    dx, dy = column[:, None, :] + 0.5 - size / 2, row[:, :, None] + 0.5 - size / 2
    dx, dy = dx - centre[:, 0, None, None], dy - centre[:, 1, None, None]
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    x, y = cos * dx + sin * dy, cos * dy - sin * dx
    round_, edge = corners == 2, torch.empty_like(x)
    edge[round_] = disc(x[round_], y[round_], radius[round_])
    edge[~round_] = polygon(x[~round_], y[~round_], corners[~round_], radius[~round_])
    place = (row * size)[:, :, None] + column[:, None, :]
    whole = centre.new_zeros(len(centre), size * size)
    return whole.scatter_(1, place.flatten(1), Canvas(side).coverage(edge).flatten(1)).unflatten(1, (size, size))
