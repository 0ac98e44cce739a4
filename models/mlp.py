"""Multi-layer perceptron: fully connected hidden stages."""

import math

from torch import nn

from models.base import Stage, StagedNet, initialise, nonlinearity


def build(
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    *,
    width: int = 256,
    depth: int = 2,
    widths: tuple[int, ...] | None = None,
    activation: str = "tanh",
) -> StagedNet:
    """Return ``depth`` hidden stages ``hidden1, hidden2, …`` and a linear readout.

    Args:
        in_shape: Shape of one input; flattened.
        out_shape: Shape of one output.
        width: Units per hidden stage.
        depth: Number of hidden stages.
        widths: Units of each hidden stage, in place of ``width`` and ``depth``.
        activation: Name of the nonlinearity.

    Raises:
        ValueError: If a width or ``depth`` is below 1.
    """
    if min(width, depth, *(widths or ())) < 1:
        raise ValueError(f"mlp needs widths and depth of at least 1, got {width=}, {depth=}, {widths=}")
    stages: dict[str, Stage] = {}
    fan_in = math.prod(in_shape)
    for i, units in enumerate(widths or [width] * depth):
        stages[f"hidden{i + 1}"] = Stage(nn.Linear(fan_in, units), nonlinearity=nonlinearity(activation))
        fan_in = units
    stages["readout"] = Stage(nn.Linear(fan_in, math.prod(out_shape)))
    return initialise(StagedNet(stages, in_shape, out_shape))
