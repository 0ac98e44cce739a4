"""Shallow convolutional network: two conv stages and a readout over the whole map, the size of the STDP literature."""

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
    expand: int = 4,
    kernel: int = 5,
    activation: str = "tanh",
    norm: Norm = "none",
) -> StagedNet:
    """Return stages ``conv1, conv2, readout``; each conv stage halves the map.

    Where an image of the input's size is predicted, only the first stage halves the map and the readout is a
    convolution to pixels.

    Args:
        in_shape: Shape of one image ``(C, H, W)``, of any size.
        out_shape: Shape of one output.
        width: Channels of the first conv stage.
        expand: Channels of the second one, in units of ``width``.
        kernel: Width of the (odd) square kernels of the first stage; those of the second are 3 pixels wide.
        activation: Name of the nonlinearity.
        norm: ``none`` or ``batch``.

    Raises:
        ValueError: If a size is out of range.
    """
    channels, height, width_in = image_shape(in_shape, "shallow")
    if width < 1 or expand < 1 or kernel % 2 == 0:
        raise ValueError(f"shallow needs width >= 1, expand >= 1 and an odd kernel, got {width=}, {expand=}, {kernel=}")
    size = (height, width_in)
    predicts = predicts_images(in_shape, out_shape)
    stages: dict[str, Stage] = {}
    for name, out, side in (("conv1", width, kernel), ("conv2", width * expand, 3)):
        pool, size = (None, size) if predicts else max_pool(size)
        stride = first_stride(in_shape) if predicts and name == "conv1" else 1
        stages[name] = Stage(
            nn.Conv2d(channels, out, side, stride, padding=side // 2),
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
