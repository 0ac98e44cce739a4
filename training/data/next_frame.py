"""The next frame of a clip: photographs that move, shapes that move, or footage of one's own.

``clips``: ``natural_motion`` (pans, zooms, rotations, saccades and occlusions over the photographs that scikit-image
and scikit-learn ship), ``moving_shapes`` (flat polygons and discs), ``folder`` (numbered frames or videos).
``order`` is a control of what is learned from: the frames as they follow (``natural``), each clip's frames in random
order (``shuffled``: the same images, no motion), one frame of the clip in the place of all (``static``). Held-out clips
are always natural, and their photographs, or sequences, are not among those trained on.

``predicts`` is what a network puts out: the ``frame`` itself, or its ``change`` from the last one. The squared error is
the same; a network that puts out the change need not first learn to copy, which small networks never do well enough
for turns of less than half a pixel to show.

No clip holds rings of repeated asymmetric luminance steps: those are the illusion that networks are examined with.

Shapes: an input is ``(frames · C, size, size)``, the oldest frame first; a target ``(C, size, size)``.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from training.config import stream
from training.data._footage import footage
from training.data._motion import natural_motion
from training.data._moving_shapes import moving_shapes
from training.data.base import Images, Predicts, Source, Task
from training.errors import UserError

Clips = Literal["natural_motion", "moving_shapes", "folder"]
Order = Literal["natural", "shuffled", "static"]
MEMORY = 4 * 2**30  # bytes of clips that are held


def build(
    source: Source,
    *,
    clips: Clips = "natural_motion",
    order: Order = "natural",
    frames: int = 4,
    size: int = 64,
    train: int = 2048,
    test: int = 256,
    grey: bool = False,
    path: str = "",
    skip: int = 1,
    predicts: Predicts = "frame",
) -> Task:
    """Return the task of predicting the next frame.

    Args:
        source: Its seed draws the training clips; the held-out ones are the same for every seed.
        clips: What is seen.
        order: Of the frames of training clips.
        frames: Frames of a clip that are seen; the next one is to be predicted.
        size: Side of the frames in pixels.
        train: Number of training clips.
        test: Number of held-out clips.
        grey: Whether frames have one channel instead of three.
        path: Of ``folder``: frames, videos, or folders of them; relative to the data folder if it is not there.
        skip: Of ``folder``: every so manieth frame is taken.
        predicts: Whether the next frame is to be put out, or its change from the last one.

    Raises:
        UserError: If an option is out of range, or the folder holds no clip.
    """
    if predicts not in get_args(Predicts):
        raise UserError(f"next_frame predicts {' or '.join(get_args(Predicts))}, got {predicts}")
    if frames < 1 or size < 16 or min(train, test) < 1 or skip < 1:
        raise UserError(
            f"next_frame needs frames >= 1, size >= 16, train, test and skip >= 1; got {frames=}, {size=}, {train=}, "
            f"{test=}, {skip=}"
        )
    channels = 1 if grey else 3
    total = (frames + 1) * channels * size * size * (train + test)
    if total > MEMORY:
        raise UserError(
            f"next_frame: {total / 2**30:.0f} GiB of clips are more than the {MEMORY >> 30} GiB that are held"
        )
    if (clips == "folder") != bool(path):
        raise UserError("next_frame: clips=folder needs path=…, and the other clips need none")
    seeds = {"train": stream(source.seed, "next_frame"), "test": stream(0, "next_frame", "test")}
    counts = {"train": train, "test": test}
    if clips == "folder":
        drawn = footage(source.root, path, frames + 1, size, counts, seeds["train"], grey=grey, skip=skip)
    else:
        draw = natural_motion if clips == "natural_motion" else moving_shapes
        drawn = {s: draw(counts[s], frames + 1, size, seeds[s], held_out=s == "test", grey=grey) for s in counts}
    generator = torch.Generator().manual_seed(stream(source.seed, "next_frame", "order"))
    ordered = reorder(drawn["train"], order, generator)
    train_set, test_set = (Images(c[:, :-1].flatten(1, 2), target(c, predicts)) for c in (ordered, drawn["test"]))
    return Task(
        (),
        train_set,
        test_set,
        encoding="linear" if clips == "moving_shapes" else "srgb",
        objective="mean_squared_error",
        predicts=predicts,
    )


def target(clips: Tensor, predicts: Predicts) -> Tensor:
    """Return the last frame of clips ``(N, T, C, H, W)``, or its change from the one before, int16 for uint8 clips."""
    if predicts == "frame":
        return clips[:, -1]
    last, before = (c.short() if c.dtype == torch.uint8 else c for c in (clips[:, -1], clips[:, -2]))
    return last - before


def reorder(clips: Tensor, order: Order, generator: torch.Generator) -> Tensor:
    """Return clips ``(N, T, C, H, W)`` with their frames in the order of a training control.

    Args:
        clips: In natural order.
        order: ``natural``, ``shuffled`` or ``static``.
        generator: Draws the order, or the frame that is repeated.
    """
    if order == "natural":
        return clips
    places = torch.rand(clips.shape[:2], generator=generator).argsort(1)
    if order == "static":
        places = places[:, :1].expand_as(places)
    return clips[torch.arange(len(clips))[:, None], places]
