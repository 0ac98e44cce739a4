"""LeNet-5 (LeCun et al. 1998, Proc. IEEE 86:2278) with max pooling, in the sizes that papers on learning rules use."""

import math

from torch import nn

from models.base import (
    Stage,
    StagedNet,
    first_stride,
    image_readout,
    image_shape,
    initialise,
    max_pool,
    nonlinearity,
    predicts_images,
)


def build(in_shape: tuple[int, ...], out_shape: tuple[int, ...], *, activation: str = "relu") -> StagedNet:
    """Return stages ``conv1, conv2, conv3, hidden, readout`` of 6, 16, 120 maps and 84 units.

    Kernels are 5×5, or as large as a smaller map. The first stage pads 28×28 images to the 32×32 of the original; the
    third sees all that is left of its input at that size.

    Where an image of the input's size is predicted, maps are padded to keep their size, only the first stage halves
    them, ``hidden`` is a 1×1 convolution and the readout a 3×3 convolution to pixels.

    Args:
        in_shape: Shape of one image ``(C, H, W)``, of any size.
        out_shape: Shape of one output.
        activation: Name of the nonlinearity.
    """
    channels, height, width = image_shape(in_shape, "lenet")
    if predicts_images(in_shape, out_shape):
        return _predictor(in_shape, out_shape, activation)
    padding = 2 if min(height, width) < 32 else 0
    size = (height + 2 * padding, width + 2 * padding)
    stages: dict[str, Stage] = {}
    for name, maps, pooled in (("conv1", 6, True), ("conv2", 16, True), ("conv3", 120, False)):
        kernel = min(5, *size)
        size = (size[0] - kernel + 1, size[1] - kernel + 1)
        pool = None
        if pooled:
            pool, size = max_pool(size)
        synapse = nn.Conv2d(channels, maps, kernel, padding=padding if name == "conv1" else 0)
        stages[name] = Stage(synapse, nonlinearity=nonlinearity(activation), pool=pool)
        channels = maps
    stages["hidden"] = Stage(nn.Linear(channels * size[0] * size[1], 84), nonlinearity=nonlinearity(activation))
    stages["readout"] = Stage(nn.Linear(84, math.prod(out_shape)))
    return initialise(StagedNet(stages, in_shape, out_shape))


def _predictor(in_shape: tuple[int, ...], out_shape: tuple[int, ...], activation: str) -> StagedNet:
    stages: dict[str, Stage] = {}
    channels = in_shape[0]
    for name, maps, kernel in (("conv1", 6, 5), ("conv2", 16, 5), ("conv3", 120, 5), ("hidden", 84, 1)):
        stride = 1 if stages else first_stride(in_shape)
        synapse = nn.Conv2d(channels, maps, kernel, stride, padding=kernel // 2)
        stages[name] = Stage(synapse, nonlinearity=nonlinearity(activation))
        channels = maps
    stages["readout"] = image_readout(channels, in_shape, out_shape)
    return initialise(StagedNet(stages, in_shape, out_shape))
