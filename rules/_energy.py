"""The energy that predictive-coding rules share, and the local weight update at given states.

    μ_l = f_l(v_{l-1})        e_l = μ_l − v_l  (0 < l < L)        F = ½ Σ_{0<l<L} ‖e_l‖² + β · loss(μ_L, target)

v_0 is the input, v_l the state of stage l, f_l the whole stage, μ_L the output; e_L = β ∂loss/∂μ_L. One
convention everywhere: energies are summed over units and per image. So is the loss in F: a mean squared error over
n output units enters as the Gaussian energy ½ ‖μ_L − target‖² = n/2 · loss, whatever n (``Objective.to_energy``).
The batch is averaged once, in the weights' gradient, which is divided by β, and by n/2 where that came in, so that it
has the scale of the gradient of the task's loss:

    ∂F/∂W_l = (∂μ_l/∂W_l)ᵀ e_l
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.base import StagedNet
from rules.base import Learned, Objective, Rule

Activity = Literal["feed_forward", "relaxed"]
States = list[Tensor]  # v_0 … v_{L-1}: the input and the hidden stages


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
        nudge: What the task's loss is multiplied by: β, times what makes the loss a sum over units.
    """
    *hidden, readout = net.stages.values()
    total = nudge * objective.losses(net.shaped(readout(states[-1])), target)
    for stage, below, state in zip(hidden, states[:-1], states[1:], strict=True):
        total = total + 0.5 * (stage(below) - state).square().flatten(1).sum(1)
    return total


def output_error(net: StagedNet, prediction: Tensor, target: Tensor, objective: Objective, nudge: float) -> Tensor:
    """Return e_L, shaped like the readout's prediction ``(B, units)``."""
    error = objective.error(net.shaped(prediction.detach()), target)
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
        nudge: What the task's loss is multiplied by.
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
    output = net.shaped(first.predictions[-1].detach())
    signals[net.readout] = signals[net.readout].view_as(output)
    loss = objective.losses(output, target).mean()
    return Learned(dict(zip(params, grads, strict=True)), loss, output, signals)


def prediction_errors(
    net: StagedNet, states: Sequence[Tensor], target: Tensor, objective: Objective, nudge: float
) -> dict[str, Tensor]:
    """Return e_l of every stage at given states, at the scale of the task's loss: the learning signals."""
    with torch.no_grad():
        *predictions, output = (s(v) for s, v in zip(net.stages.values(), states, strict=True))
    errors = [(p - v) / nudge for p, v in zip(predictions, states[1:], strict=True)]
    return dict(zip(net.stages, [*errors, objective.error(net.shaped(output), target)], strict=True))


def activity_at(net: StagedNet, states: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the hidden states and what they predict at the output, by stage."""
    with torch.no_grad():
        output = net.shaped(net.stages[net.readout](states[-1]))
    return dict(zip(net.stages, [*states[1:], output], strict=True))


class EnergyRule(Rule):
    """What predictive-coding rules share: T steps of size γ on the energy, its trajectory, no batch statistics.

    Args:
        steps: T.
        step_size: γ.
        nudge: β, weight of the loss in the energy, where either is summed over units.
        activity: What ``activations`` returns. Without a target the feed-forward pass is the energy's minimum;
            ``relaxed`` are the states after T steps towards the network's own decision, which needs no label, by
            the loss that the network is trained with; it must be one over classes.
        fewest: Smallest T that makes sense.
    """

    def __init__(
        self, steps: int, step_size: float, nudge: float, activity: Activity = "feed_forward", *, fewest: int = 0
    ) -> None:
        super().__init__()
        if steps < fewest or step_size <= 0 or nudge <= 0:
            raise ValueError(
                f"needs steps >= {fewest}, step_size > 0 and nudge > 0; got {steps=}, {step_size=}, {nudge=}"
            )
        if activity not in ("feed_forward", "relaxed"):
            raise ValueError(f"activity must be feed_forward or relaxed, got {activity!r}")
        self.steps, self.step_size, self.nudge, self.activity = steps, step_size, nudge, activity
        self.objective: Objective | None = None  # the task's loss, which relaxed activity descends too

    def supports(self, net: StagedNet, objective: Objective) -> str | None:
        """Refuse batch statistics, which would move with the states, and a decision where there are no classes."""
        self.objective = objective
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()):
            return "batch statistics would change during inference; use norm=none"
        if self.activity == "relaxed" and objective.name == "mean_squared_error":
            return "activity=relaxed needs classes to decide between: an image is its own target; use feed_forward"
        return None

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Relax, then return the local gradients of the energy.

        Without mixed precision: errors are differences of activities that bfloat16 rounds away.
        """
        self.objective = objective
        with torch.autocast(x.device.type, enabled=False):
            return self.descend(net, x, target, objective)

    def weight_of_loss(self, net: StagedNet, objective: Objective) -> float:
        """Return what multiplies the task's loss in the energy: β, times what makes the loss a sum over units."""
        return self.nudge * objective.to_energy(math.prod(net.out_shape))

    def relax(self, net: StagedNet, first: FeedForward, target: Tensor, objective: Objective) -> Iterator[States]:
        """Yield v_0 … v_{L-1} before inference and after each step: the same tensors, which move in place.

            v_l ← v_l + γ (e_l − J_{l+1}ᵀ e_{l+1})

        From a feed-forward start the errors below the top are exactly zero and reach one stage further down per
        step; stages that they have not reached are not computed.
        """
        stages = list(net.stages.values())
        top, nudge = len(stages), self.weight_of_loss(net, objective)
        start = first.states
        states = [start[0], *(v.clone() for v in start[1:])]
        yield states
        for t in range(self.steps):
            lowest = max(1, top - t - 1)  # the lowest state that moves
            from_above = None  # J_{l+1}ᵀ e_{l+1}
            for level in range(top, lowest, -1):  # stage `level` predicts v_level from v_{level-1}
                if t == top - level:  # the first time, v_{level-1} has not moved yet
                    below, prediction = first.inputs[level - 1], first.predictions[level - 1]
                else:
                    below = states[level - 1].detach().requires_grad_()
                    with torch.enable_grad():
                        prediction = stages[level - 1](below)
                if level == top:
                    error = output_error(net, prediction, target, objective, nudge)
                else:
                    error = prediction.detach() - states[level]
                (down,) = torch.autograd.grad(prediction, below, error)
                if from_above is not None:  # everything that reads the old v_level has been computed
                    states[level].add_(error, alpha=self.step_size).sub_(from_above, alpha=self.step_size)
                from_above = down
            if from_above is not None:
                # What predicts the lowest state that moves has not moved itself: its prediction is the first one.
                states[lowest].lerp_(start[lowest], self.step_size).sub_(from_above, alpha=self.step_size)
            yield states

    def relaxed(self, net: StagedNet, first: FeedForward, target: Tensor, objective: Objective) -> States:
        """Return v_0 … v_{L-1} after the last step of inference."""
        for states in self.relax(net, first, target, objective):
            final = states
        return final

    def trajectory(
        self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yield the energy, the hidden states and what they predict at the output, before and after each step."""
        with torch.autocast(x.device.type, enabled=False):
            nudge = self.weight_of_loss(net, objective)
            for states in self.relax(net, feed_forward(net, x), target, objective):
                with torch.no_grad():
                    now = energy(net, states, target, objective, nudge)
                yield now, {n: v.clone() for n, v in activity_at(net, states).items()}

    def activations(self, net: StagedNet, x: Tensor) -> dict[str, Tensor]:
        """Return the feed-forward pass, or the states relaxed towards the network's own decision.

        Raises:
            ValueError: If they should be relaxed and nothing has said by which loss.
        """
        if self.activity == "feed_forward":
            return net.trace(x)
        if self.objective is None:
            raise ValueError("activity=relaxed descends the task's loss: call supports(net, objective) or learn first")
        with torch.autocast(x.device.type, enabled=False):
            first = feed_forward(net, x)
            decision = first.predictions[-1].detach().argmax(1)
            return activity_at(net, self.relaxed(net, first, decision, self.objective))

    def descend(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return what ``learn`` returns.

        Raises:
            NotImplementedError: If the subclass has no ``descend``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define descend(net, x, target, objective)")
