"""What is trained: a network as named stages in order, the areas of a visual hierarchy.

Shapes: ``B`` batch, ``C, H, W`` channels, height, width. Images are ``(B, C, H, W)``.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

NONLINEARITIES = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "identity": nn.Identity,
}
Norm = Literal["none", "batch"]


class Stage(nn.Module):
    """One named area of a network: synapse (affine), nonlinearity, pooling.

    The three parts are kept apart because rules need them apart: spiking rules put neurons in the
    place of the nonlinearity, predictive coding predicts the pre-activation, Hebbian rules see
    what is on either side of the synapse.

    Args:
        synapse: The map from the stage's input to its pre-activation: ``nn.Linear``,
            ``nn.Conv2d``, or a residual branch that holds several of them.
        nonlinearity: Elementwise and non-decreasing; identity by default.
        pool: Spatial pooling, or the layout of channels as pixels; identity by default.
        norm: Normalisation of the pre-activation; identity by default.
    """

    def __init__(
        self,
        synapse: nn.Module,
        *,
        nonlinearity: nn.Module | None = None,
        pool: nn.Module | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.synapse = synapse
        self.norm = norm or nn.Identity()
        self.nonlinearity = nonlinearity or nn.Identity()
        self.pool = pool or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the stage's activity ``pool(f(norm(synapse(x))))``; images are flattened for a linear synapse."""
        if isinstance(self.synapse, nn.Linear):
            x = x.flatten(1)
        z = self.norm(self.synapse(x))
        if isinstance(self.pool, nn.MaxPool2d):
            # max(f(z)) = f(max(z)) for a non-decreasing f, and f then runs on a quarter of the units.
            return self.nonlinearity(self.pool(z))
        return self.pool(self.nonlinearity(z))


class StagedNet(nn.Module):
    """Stages in order. The last one is the readout; the others are the hidden stages.

    Args:
        stages: Stage name to stage, in order from the input to the readout.
        in_shape: Shape of one input, without the batch axis.
        out_shape: Shape of one output: ``(classes,)`` or an image ``(C, H, W)``.

    Raises:
        ValueError: If there are fewer than two stages.

    Attributes:
        recurrent: Whether stages run several times for one input and feed back on each other: they are no chain.
    """

    recurrent: ClassVar[bool] = False

    def __init__(self, stages: Mapping[str, nn.Module], in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> None:
        super().__init__()
        if len(stages) < 2:
            raise ValueError(f"a StagedNet needs a hidden stage and a readout, got {list(stages)}")
        self.stages = nn.ModuleDict(stages)
        self.in_shape = tuple(in_shape)
        self.out_shape = tuple(out_shape)
        # On the CPU channels-last convolution and pooling take about 3/4 of the time of the default
        # layout; convolutions follow the layout of their weights.
        self.to(memory_format=torch.channels_last)

    @property
    def hidden(self) -> list[str]:
        """Names of the hidden stages, from the input upwards."""
        return list(self.stages)[:-1]

    @property
    def readout(self) -> str:
        """Name of the last stage."""
        return list(self.stages)[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, ``(B, *out_shape)``."""
        return self.trace(x)[self.readout]

    def trace(self, x: Tensor) -> dict[str, Tensor]:
        """Return the activity of every stage, ``{stage: (B, ...)}``, the output last."""
        activity = {}
        for name, stage in self.stages.items():
            x = activity[name] = stage(x)
        activity[self.readout] = self.shaped(x)
        return activity

    def shaped(self, output: Tensor) -> Tensor:
        """Return what the readout stage gives as outputs ``(B, *out_shape)``; a dense one gives an image's units."""
        return output if output.shape[1:] == self.out_shape else output.unflatten(1, self.out_shape)

    def parameters_of(self, stage: str) -> dict[str, nn.Parameter]:
        """Return the parameters of one stage under the names that ``named_parameters`` gives them."""
        prefix = f"stages.{stage}."
        return {f"{prefix}{n}": p for n, p in self.stages[stage].named_parameters()}

    def synapses(self) -> dict[str, nn.Linear | nn.Conv2d]:
        """Return every affine map in forward order; a residual stage holds several."""
        return {n: m for n, m in self.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


def nonlinearity(name: str) -> nn.Module:
    """Return the nonlinearity of that name.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in NONLINEARITIES:
        raise ValueError(f"unknown nonlinearity {name!r}; choose from {', '.join(NONLINEARITIES)}")
    return NONLINEARITIES[name]()


def norm2d(name: Norm, channels: int) -> nn.Module | None:
    """Return the normalisation of that name for feature maps: ``none`` (the default everywhere) or ``batch``.

    Raises:
        ValueError: If there is none of that name.
    """
    if name == "none":
        return None
    if name == "batch":
        return nn.BatchNorm2d(channels)
    raise ValueError(f"unknown norm {name!r}; choose from none, batch")


def max_pool(size: tuple[int, int]) -> tuple[nn.Module | None, tuple[int, int]]:
    """Return a 2×2 max pooling and the size after it, or none where the map is already one unit wide."""
    if min(size) < 2:
        return None, size
    return nn.MaxPool2d(2), (size[0] // 2, size[1] // 2)


def predicts_images(in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> bool:
    """Return whether the output is an image as large as the input, as the next frame of a clip is.

    Architectures of convolutions then keep the map's size: the first stage halves it by its stride and no stage pools,
    since a maximum loses where it was; ``image_readout`` undoes the stride.
    """
    return len(in_shape) == len(out_shape) == 3 and in_shape[1:] == out_shape[1:]


def first_stride(in_shape: tuple[int, ...]) -> int:
    """Return the stride of the first stage of a network that predicts images: 2 where both sides are even."""
    return 1 if in_shape[1] % 2 or in_shape[2] % 2 else 2


def image_readout(channels: int, in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> Stage:
    """Return a 3×3 convolution to the pixels under each position of the map, laid out as an image.

    Args:
        channels: Of the stage below.
        in_shape: Shape of the network's input.
        out_shape: Shape of the image.
    """
    side = first_stride(in_shape)
    synapse = nn.Conv2d(channels, out_shape[0] * side**2, 3, padding=1)
    return Stage(synapse, pool=nn.PixelShuffle(side) if side > 1 else None)


def image_shape(in_shape: tuple[int, ...], model: str) -> tuple[int, int, int]:
    """Return ``in_shape`` as ``(C, H, W)``.

    Raises:
        ValueError: If it is not an image shape.
    """
    if len(in_shape) != 3 or min(in_shape) < 1:
        raise ValueError(f"{model} takes images (channels, height, width), got in_shape {in_shape}; use mlp")
    return in_shape[0], in_shape[1], in_shape[2]


def initialise(net: StagedNet) -> StagedNet:
    """Draw the weights from torch's global generator, which the caller seeds; biases start at zero.

    Hidden synapses are Gaussian with He's gain for ReLU and unit gain otherwise, so that activity
    keeps its scale over depth; the readout has unit gain. (He et al. 2015, arXiv 1502.01852.)
    """
    for name, stage in net.stages.items():
        rectified = isinstance(stage, Stage) and isinstance(stage.nonlinearity, nn.ReLU)
        gain = math.sqrt(2.0) if rectified and name != net.readout else 1.0
        for module in stage.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, std=gain / math.sqrt(fan_in))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return net
