"""The energy that predictive-coding rules share, and the local weight update at given states.

    μ_l = f_l(v_{l-1})        e_l = μ_l − v_l  (0 < l < L)        F = ½ Σ_{0<l<L} ‖e_l‖² + β · loss(μ_L, target)

v_0 is the input, v_l the state of stage l, f_l the whole stage, μ_L the output; e_L = β ∂loss/∂μ_L. One
convention everywhere: energies are summed over units and per image; the batch is averaged once, in the
weights' gradient, which is divided by β so that it has the scale of the loss's gradient:

    ∂F/∂W_l = (∂μ_l/∂W_l)ᵀ e_l
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.base import StagedNet
from rules.base import Learned, Objective, Rule

States = list[Tensor]  # v_0 … v_{L-1}: the input and the hidden stages


class EnergyRule(Rule):
    """What predictive-coding rules share: T steps of size γ on the energy, and no batch statistics.

    Args:
        steps: T.
        step_size: γ.
        nudge: β, weight of the loss in the energy.
        fewest: Smallest T that makes sense.
    """

    def __init__(self, steps: int, step_size: float, nudge: float, *, fewest: int = 0) -> None:
        super().__init__()
        if steps < fewest or step_size <= 0 or nudge <= 0:
            raise ValueError(
                f"needs steps >= {fewest}, step_size > 0 and nudge > 0; got {steps=}, {step_size=}, {nudge=}"
            )
        self.steps, self.step_size, self.nudge = steps, step_size, nudge

    def supports(self, net: StagedNet, objective: Objective) -> str | None:
        """Refuse batch statistics: they would move with the states."""
        del objective
        moving = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())
        return "batch statistics would change during inference; use norm=none" if moving else None

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Relax, then return the local gradients of the energy.

        Without mixed precision: errors are differences of activities that bfloat16 rounds away.
        """
        with torch.autocast(x.device.type, enabled=False):
            return self.descend(net, x, target, objective)

    def descend(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return what ``learn`` returns.

        Raises:
            NotImplementedError: If the subclass has no ``descend``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define descend(net, x, target, objective)")


@dataclass(frozen=True)
class FeedForward:
    """The pass from which inference starts: every prediction error is zero.

    Attributes:
        inputs: v_0 … v_{L-1}, each without a past.
        predictions: μ_1 … μ_L, each with the graph of its own stage and of no other. Whoever first moves a state
            or a weight can differentiate them instead of predicting again.
    """

    inputs: States
    predictions: list[Tensor]

    @property
    def states(self) -> States:
        """v_0 … v_{L-1}."""
        return [v.detach() for v in self.inputs]


def feed_forward(net: StagedNet, x: Tensor) -> FeedForward:
    """Return the feed-forward pass."""
    inputs, predictions = [x], []
    with torch.enable_grad():
        for stage in net.stages.values():
            predictions.append(stage(inputs[-1]))
            inputs.append(predictions[-1].detach().requires_grad_())
    return FeedForward(inputs[:-1], predictions)


def energy(net: StagedNet, states: Sequence[Tensor], target: Tensor, objective: Objective, nudge: float) -> Tensor:
    """Return the energy F of each image, ``(B,)``.

    Args:
        net: The network.
        states: v_0 … v_{L-1}.
        target: Class indices or images.
        objective: The task's loss.
        nudge: β.
    """
    *hidden, readout = net.stages.values()
    total = nudge * objective.losses(readout(states[-1]).unflatten(1, net.out_shape), target)
    for stage, below, state in zip(hidden, states[:-1], states[1:], strict=True):
        total = total + 0.5 * (stage(below) - state).square().flatten(1).sum(1)
    return total


def output_error(net: StagedNet, prediction: Tensor, target: Tensor, objective: Objective, nudge: float) -> Tensor:
    """Return e_L, shaped like the readout's prediction ``(B, units)``."""
    error = objective.error(prediction.detach().unflatten(1, net.out_shape), target)
    return nudge * error.view_as(prediction)


def local_update(
    net: StagedNet,
    states: Sequence[Tensor],
    target: Tensor,
    objective: Objective,
    nudge: float,
    first: FeedForward,
) -> Learned:
    """Return every stage's weight gradient from its own two states, and the prediction errors as signals.

    Args:
        net: The network.
        states: v_0 … v_{L-1}, relaxed.
        target: Class indices or images.
        objective: The task's loss.
        nudge: β.
        first: The feed-forward pass. Its output is what the network predicts; its first stage, whose input
            never moves, is not predicted again.
    """
    params = dict(net.named_parameters())
    stages = list(net.stages.values())
    with torch.enable_grad():
        predictions = [first.predictions[0]]
        predictions += [s(v.detach()) for s, v in zip(stages[1:], states[1:], strict=True)]
        errors = [p.detach() - v for p, v in zip(predictions[:-1], states[1:], strict=True)]
        errors.append(output_error(net, predictions[-1], target, objective, nudge))
        scale = 1.0 / (len(states[0]) * nudge)
        grads = torch.autograd.grad(predictions, list(params.values()), [e * scale for e in errors])
    signals = {n: e / nudge for n, e in zip(net.stages, errors, strict=True)}
    output = first.predictions[-1].detach().unflatten(1, net.out_shape)
    signals[net.readout] = signals[net.readout].view_as(output)
    loss = objective.losses(output, target).mean()
    return Learned(dict(zip(params, grads, strict=True)), loss, output, signals)


def prediction_errors(
    net: StagedNet, states: Sequence[Tensor], target: Tensor, objective: Objective, nudge: float
) -> dict[str, Tensor]:
    """Return e_l / β of every stage at given states: the learning signals."""
    with torch.no_grad():
        *predictions, output = (s(v) for s, v in zip(net.stages.values(), states, strict=True))
    errors = [(p - v) / nudge for p, v in zip(predictions, states[1:], strict=True)]
    return dict(zip(net.stages, [*errors, objective.error(output.unflatten(1, net.out_shape), target)], strict=True))
