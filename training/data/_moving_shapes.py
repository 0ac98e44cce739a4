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
CHUNK = 128  # clips drawn at once


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
    canvas = Canvas(size)
    time = torch.arange(frames, dtype=torch.float32) - (frames - 1) / 2
    for start in range(0, num, CHUNK):
        count = min(CHUNK, num - start)
        colours = torch.rand(count, SHAPES + 1, 3, generator=generator)
        if grey:
            colours = (colours * weights).sum(2, keepdim=True)
        image = colours[:, 0, :, None, None].repeat_interleave(frames, 0).expand(-1, -1, size, size)
        for i in range(1, SHAPES + 1):
            heading, speed, angle, spin, radius = torch.rand(5, count, generator=generator)
            heading = 2 * math.pi * heading
            velocity = torch.stack([heading.cos(), heading.sin()], 1) * (SPEED * size * speed)[:, None]
            middle = (torch.rand(count, 2, generator=generator) - 0.5) * size
            centre = (middle[:, None] + velocity[:, None] * time[:, None]).flatten(0, 1)
            turn = (2 * math.pi * angle)[:, None] + (SPIN * (2 * spin - 1))[:, None] * time
            corners = torch.randint(2, 7, (count,), generator=generator).repeat_interleave(frames)  # 2: a disc
            radius = ((0.1 + 0.2 * radius) * size).repeat_interleave(frames)
            x, y = canvas.frame(centre, turn.flatten())
            edge = torch.where(
                (corners == 2)[:, None, None], disc(x, y, radius), polygon(x, y, corners.clamp(min=3), radius)
            )
            cover = canvas.coverage(edge)[:, None]
            image = image + cover * (colours[:, i, :, None, None].repeat_interleave(frames, 0) - image)
        clips[start : start + count] = (image * 255).round_().to(torch.uint8).unflatten(0, (count, frames))
    return clips
