"""Multi-layer perceptron: fully connected hidden stages of equal width."""

import math

from torch import nn

from models.base import Stage, StagedNet, initialise, nonlinearity


def build(
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    *,
    width: int = 256,
    depth: int = 2,
    activation: str = "tanh",
) -> StagedNet:
    """Return ``depth`` hidden stages ``hidden1, hidden2, …`` and a linear readout.

    Args:
        in_shape: Shape of one input; flattened.
        out_shape: Shape of one output.
        width: Units per hidden stage.
        depth: Number of hidden stages.
        activation: Name of the nonlinearity.

    Raises:
        ValueError: If ``width`` or ``depth`` is below 1.
    """
    if width < 1 or depth < 1:
        raise ValueError(f"mlp needs width >= 1 and depth >= 1, got width={width}, depth={depth}")
    stages: dict[str, Stage] = {}
    fan_in = math.prod(in_shape)
    for i in range(depth):
        stages[f"hidden{i + 1}"] = Stage(nn.Linear(fan_in, width), nonlinearity=nonlinearity(activation))
        fan_in = width
    stages["readout"] = Stage(nn.Linear(fan_in, math.prod(out_shape)))
    return initialise(StagedNet(stages, in_shape, out_shape))
