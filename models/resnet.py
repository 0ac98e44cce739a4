"""ResNet-18: torchvision's residual blocks as stages, with the CIFAR stem (3×3, stride 1, no pooling)."""

import math

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1

from models.base import (
    Norm,
    Stage,
    StagedNet,
    first_stride,
    image_readout,
    image_shape,
    initialise,
    nonlinearity,
    norm2d,
    predicts_images,
)

BLOCKS = (2, 2, 2, 2)  # blocks per resolution in ResNet-18


class ResidualSynapse(BasicBlock):
    """torchvision's basic block up to its last nonlinearity, which is the stage's own."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the pre-activation ``conv2(f(conv1(x))) + shortcut(x)``."""
        branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return branch + (x if self.downsample is None else self.downsample(x))


def build(
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    *,
    width: int = 64,
    activation: str = "relu",
    norm: Norm = "none",
) -> StagedNet:
    """Return stages ``stem, block1 … block8, readout``.

    Without normalisation the variance of a residual stream doubles at every block, so the second
    convolution of each of the L blocks starts smaller by √L.

    Where an image of the input's size is predicted, only the stem halves the map and the readout is a convolution.

    Args:
        in_shape: Shape of one image ``(C, H, W)``, of any size.
        out_shape: Shape of one output.
        width: Channels of the stem.
        activation: Name of the nonlinearity.
        norm: ``none`` or ``batch``.

    Raises:
        ValueError: If ``width`` is below 1.
    """
    channels, _, _ = image_shape(in_shape, "resnet")
    if width < 1:
        raise ValueError(f"resnet needs width >= 1, got {width}")
    norm_layer = nn.Identity if norm == "none" else nn.BatchNorm2d
    predicts = predicts_images(in_shape, out_shape)
    stages = {
        "stem": Stage(
            nn.Conv2d(channels, width, 3, first_stride(in_shape) if predicts else 1, padding=1, bias=norm == "none"),
            nonlinearity=nonlinearity(activation),
            norm=norm2d(norm, width),
        )
    }
    channels = width
    for level, count in enumerate(BLOCKS):
        out = width * 2**level
        for i in range(count):
            stride = 2 if level > 0 and i == 0 and not predicts else 1
            shortcut = None
            if stride != 1 or channels != out:
                # Subsample, then a 1×1 convolution: equal to torchvision's strided 1×1 convolution, whose
                # backward pass corrupts memory on CPUs for few channels in the channels-last layout (torch 2.15).
                shortcut = nn.Sequential(nn.MaxPool2d(1, stride), conv1x1(channels, out), norm_layer(out))
            block = ResidualSynapse(channels, out, stride, shortcut, norm_layer=norm_layer)
            block.relu = nonlinearity(activation)
            stages[f"block{len(stages)}"] = Stage(block, nonlinearity=nonlinearity(activation))
            channels = out
    if predicts:
        stages["readout"] = image_readout(channels, in_shape, out_shape)
    else:
        stages[f"block{sum(BLOCKS)}"].pool = nn.AdaptiveAvgPool2d(1)
        stages["readout"] = Stage(nn.Linear(channels, math.prod(out_shape)))
    net = initialise(StagedNet(stages, in_shape, out_shape))
    with torch.no_grad():
        for stage in net.stages.values():
            if isinstance(stage.synapse, ResidualSynapse):
                stage.synapse.conv2.weight.div_(math.sqrt(sum(BLOCKS)))
    return net
