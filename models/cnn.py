"""Convolutional network: three conv stages, a hidden linear stage, a readout (the field's comparison network)."""

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


def build(
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    *,
    width: int = 32,
    hidden: int = 256,
    kernel: int = 3,
    activation: str = "tanh",
    norm: Norm = "none",
) -> StagedNet:
    """Return stages ``conv1, conv2, conv3, hidden, readout``; each conv stage doubles the channels and halves the map.

    Where an image of the input's size is predicted, only the first stage halves the map, ``hidden`` is a 1×1
    convolution and the readout a 3×3 convolution to pixels.

    Args:
        in_shape: Shape of one image ``(C, H, W)``, of any size.
        out_shape: Shape of one output.
        width: Channels of the first conv stage.
        hidden: Units of the hidden linear stage, or per position of the map.
        kernel: Width of the (odd) square kernels, in pixels of the stage's input.
        activation: Name of the nonlinearity.
        norm: ``none`` or ``batch``.

    Raises:
        ValueError: If a size is out of range.
    """
    channels, height, width_in = image_shape(in_shape, "cnn")
    size = (height, width_in)
    if width < 1 or hidden < 1 or kernel % 2 == 0:
        raise ValueError(f"cnn needs width >= 1, hidden >= 1 and an odd kernel, got {width=}, {hidden=}, {kernel=}")
    predicts = predicts_images(in_shape, out_shape)
    stages: dict[str, Stage] = {}
    for i in range(3):
        out = width * 2**i
        pool, size = (None, size) if predicts else max_pool(size)
        stride = first_stride(in_shape) if predicts and i == 0 else 1
        stages[f"conv{i + 1}"] = Stage(
            nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2),
            nonlinearity=nonlinearity(activation),
            pool=pool,
            norm=norm2d(norm, out),
        )
        channels = out
    if predicts:
        stages["hidden"] = Stage(nn.Conv2d(channels, hidden, 1), nonlinearity=nonlinearity(activation))
        stages["readout"] = image_readout(hidden, in_shape, out_shape)
    else:
        dense = nn.Linear(channels * size[0] * size[1], hidden)
        stages["hidden"] = Stage(dense, nonlinearity=nonlinearity(activation))
        stages["readout"] = Stage(nn.Linear(hidden, math.prod(out_shape)))
    return initialise(StagedNet(stages, in_shape, out_shape))
