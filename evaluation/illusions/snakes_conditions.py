"""Clips of every condition of Rotating Snakes: still, on onset, blinking, jittering, and really turning.

Shapes: clips are ``(B, T, C, H, W)`` in linear luminance. Their phases are spread over one period at random.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from evaluation.illusions.extrapolation import View
from evaluation.illusions.snakes_stimuli import GREY, KITAOKA, Disc, render, texture, variants
from training.data._motion import photographs
from training.data.base import to_linear

PHASES = 8
TEXTURES = 16
PHOTOGRAPHS = 60
JITTERS = (0.25, 0.5, 1.0)  # root mean square, in pixels
SPEEDS = (0.05, 0.1, 0.2, 0.5, 1.0)  # deg per frame of real rotation, both ways
REAL = ("C1", "C2", "texture")  # patterns without a direction of their own, really turning


def phases(num: int, period: float, seed: int = 0) -> Tensor:
    """Return one random phase in each of ``num`` equal parts of a period, in degrees."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.arange(num) + torch.rand(num, generator=generator)) * period / num


def snake(seen: View) -> Disc:
    """Return the snake that an observer sees best: in colour if it sees colours."""
    return replace(seen.disc, colours=KITAOKA if seen.channels == 3 else GREY)


def clips(
    seen: View, num: int = PHASES, seed: int = 0, only: Collection[str] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield every condition's code and its clips.

    Args:
        seen: How the observer sees.
        num: Images per condition; an even number.
        seed: Of phases, orders and displacements.
        only: Codes of discs; none but these are drawn.
    """
    disc = snake(seen)
    turns = phases(num, disc.period, seed)
    for code, variant in variants(disc).items():
        if only is None or code in only:
            yield code, seen.still(render(variant, seen.size, turns, seed=seed))
    if only is not None:
        return
    yield "C5", seen.still(torch.cat([texture(seen.size, torch.zeros(1), seed=seed + n) for n in range(TEXTURES)]))
    yield "C6", seen.still(crops(seen.size, seen.channels == 1, seed=seed))
    if seen.frames > 1:
        image = seen.still(render(disc, seen.size, turns))
        frame = torch.arange(seen.frames)[:, None, None, None]
        grey = torch.full_like(image, disc.background)
        yield "O", torch.where(frame < seen.frames // 2, grey, image)
        if seen.frames > 2:
            yield "B", torch.where(frame == seen.frames - 2, grey, image)
        for pixels in JITTERS:
            yield f"J={pixels}", jitter(seen, disc, turns, pixels, seed)


def crops(size: int, grey: bool, num: int = PHOTOGRAPHS, seed: int = 0) -> Tensor:
    """Return random crops of photographs that no training clip shows, ``(num, 1 or 3, size, size)``.

    Args:
        size: Side in pixels.
        grey: Whether they have one channel.
        num: How many; every photograph and scale is cropped about as often.
        seed: Of the places.
    """
    album = photographs(True, size, grey)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for n in range(num):
        picture = album[n % len(album)]
        top, left = (int(torch.randint(0, room - size + 1, (), generator=generator)) for room in picture.shape[1:])
        found.append(picture[:, top : top + size, left : left + size])
    return to_linear(torch.stack(found) / 255)


def jitter(seen: View, disc: Disc, turns: Tensor, pixels: float, seed: int = 0) -> Tensor:
    """Return clips whose frames are displaced at random, as by small eye movements.

    Displacements have mean zero in every clip, and come in pairs of opposite sign, so that real motion cancels.

    Args:
        seen: How the observer sees.
        disc: What is displaced.
        turns: ``(B,)`` phases, an even number; both of a pair take the first one's.
        pixels: Root mean square displacement along either axis.
        seed: Of the displacements.
    """
    generator = torch.Generator().manual_seed(seed)
    half = len(turns) // 2
    moves = torch.randn(half, seen.frames, 2, generator=generator)
    moves = moves - moves.mean(1, keepdim=True)
    moves = pixels * moves / moves.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-9)
    moves = torch.cat([moves, -moves])
    turns = turns[:half].repeat(2).repeat_interleave(seen.frames)
    images = render(disc, seen.size, turns, centre=moves.flatten(0, 1))
    return seen.fit(images).unflatten(0, (2 * half, seen.frames))


def turning(seen: View, pattern: str, turns: Tensor, speed: float, num: int, seed: int = 0) -> Tensor:
    """Return clips of a pattern that really turns, of ``num`` frames; the last frame has the phase ``turns`` ``(B,)``.

    Args:
        seen: How the observer sees.
        pattern: ``texture``, or the code of a disc.
        turns: Phase of the last frame in degrees.
        speed: Degrees per frame.
        num: Frames.
        seed: Of the texture.
    """
    every = turns[:, None] + speed * (torch.arange(num) - num + 1)
    if pattern == "texture":
        images = texture(seen.size, every.flatten(), seed=seed)
    else:
        images = render(variants(snake(seen))[pattern], seen.size, every.flatten())
    return seen.fit(images).unflatten(0, every.shape)


def real(seen: View, num: int = 2, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return clips ``(B, T + 1, …)`` of patterns that really turn, and their speeds ``(B,)``.

    The first T frames are what the observer sees, the last one is what follows.
    """
    speeds = [s * sign for s in SPEEDS for sign in (1, -1)]
    turns = phases(num, seen.disc.period, seed)
    drawn = [turning(seen, pattern, turns, s, seen.frames + 1, seed) for pattern in REAL for s in speeds]
    return torch.cat(drawn), torch.tensor(speeds, dtype=torch.float64).repeat_interleave(num).repeat(len(REAL))
