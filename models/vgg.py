"""VGG-style network: five conv stages and a linear readout."""

import math

from torch import nn

from models.base import (
    Norm,
    Stage,
    StagedNet,
    first_stride,
    image_readout,
    image_shape,
    initialise,
    max_pool,
    nonlinearity,
    norm2d,
    predicts_images,
)

# Channels relative to the first stage, and whether the stage pools.
PLAN = ((1, True), (2, True), (4, False), (4, True), (8, True))


def build(
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    *,
    width: int = 64,
    activation: str = "tanh",
    norm: Norm = "none",
) -> StagedNet:
    """Return stages ``conv1 … conv5, readout`` with 3×3 kernels.

    Where an image of the input's size is predicted, only the first stage halves the map and the readout is a
    convolution to pixels.

    Args:
        in_shape: Shape of one image ``(C, H, W)``, of any size.
        out_shape: Shape of one output.
        width: Channels of the first conv stage.
        activation: Name of the nonlinearity.
        norm: ``none`` or ``batch``.

    Raises:
        ValueError: If ``width`` is below 1.
    """
    channels, height, width_in = image_shape(in_shape, "vgg")
    size = (height, width_in)
    if width < 1:
        raise ValueError(f"vgg needs width >= 1, got {width}")
    predicts = predicts_images(in_shape, out_shape)
    stages: dict[str, Stage] = {}
    for i, (factor, pooled) in enumerate(PLAN):
        out = width * factor
        pool = None
        if pooled and not predicts:
            pool, size = max_pool(size)
        stride = first_stride(in_shape) if predicts and i == 0 else 1
        stages[f"conv{i + 1}"] = Stage(
            nn.Conv2d(channels, out, 3, stride, padding=1),
            nonlinearity=nonlinearity(activation),
            pool=pool,
            norm=norm2d(norm, out),
        )
        channels = out
    if predicts:
        stages["readout"] = image_readout(channels, in_shape, out_shape)
    else:
        stages["readout"] = Stage(nn.Linear(channels * size[0] * size[1], math.prod(out_shape)))
    return initialise(StagedNet(stages, in_shape, out_shape))
