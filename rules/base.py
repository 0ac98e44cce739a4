"""The contract of a learning rule: ``Rule``, what it returns (``Learned``) and what it claims (``Tags``).

Shapes: ``B`` batch. An error or a signal is that of each image's own loss; a gradient is that of the mean.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import StagedNet


@dataclass(frozen=True)
class Tags:
    """What a rule claims; the plausibility probes test it.

    Attributes:
        supervised: Whether targets drive the hidden stages.
        weight_transport: Whether errors travel through the transposed forward weights.
        separate_backward: Whether learning needs a pass that is not the network's own activity.
        locality: What an update at one synapse reads besides its own two sides.
        phases: Number of distinct phases per batch.
        spiking: Whether inference is spiking.
        learns: Whether any weight ever changes.
        control: Whether the rule is a control, always shown.
        exact_limit: Name of the method that puts the rule into the limit where it equals backprop, if it has one.
        exact_depth: Number of hidden stages the limit holds for; any number if ``None``.
    """

    supervised: bool = True
    weight_transport: bool = False
    separate_backward: bool = True
    locality: str = ""
    phases: int = 2
    spiking: bool = False
    learns: bool = True
    control: bool = False
    exact_limit: str | None = None
    exact_depth: int | None = None


@dataclass(frozen=True)
class Learned:
    """What a rule returns for one batch.

    Attributes:
        grads: Parameter name (of the network, or of the rule itself) to the gradient of the *mean*
            loss; a rule without a loss returns −Δw. A parameter without an entry is not trained.
        loss: Mean loss, a scalar.
        output: The network's output ``(B, *out_shape)``.
        signals: Stage name to the learning signal of each image at the stage's output, ``(B, ...)``:
            the gradient, or its counterpart, of that image's own loss.
    """

    grads: dict[str, Tensor]
    loss: Tensor
    output: Tensor
    signals: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class SpikeRecord:
    """What one stage did in time.

    Attributes:
        spikes: Spikes at the stage's output, behind its pooling, ``(T, B, ...)``: 0 or 1, or shares of an average.
        potentials: Membrane potentials of the stage's neurons before pooling, ``(T, B, ...)``.
    """

    spikes: Tensor
    potentials: Tensor

    @property
    def rates(self) -> Tensor:
        """Spikes per step ``(B, ...)``."""
        return self.spikes.mean(0)

    @property
    def latencies(self) -> Tensor:
        """Step of the first spike ``(B, ...)``; T where there was none."""
        steps = len(self.spikes)
        waiting = self.spikes.gt(0).cummax(0).values.logical_not()
        return waiting.sum(0).clamp(max=steps)


class Objective:
    """A task's loss. Rules are written once for every objective."""

    name: ClassVar[str]

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each image, ``(B,)``."""
        raise NotImplementedError

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the gradient of each image's own loss at its output, shaped like ``output``."""
        raise NotImplementedError

    def to_energy(self, units: int) -> float:
        """Return the factor that makes the loss an energy, a sum over output units; 1 for a loss that is one already.

        Args:
            units: Units per output.
        """
        del units
        return 1.0


class CrossEntropy(Objective):
    """Cross-entropy over classes; ``target`` holds class indices ``(B,)``; the loss is in nats."""

    name = "cross_entropy"

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return −log p(target) of each image."""
        return F.cross_entropy(output, target, reduction="none")

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Return ``softmax(output) − onehot(target)``."""
        return output.softmax(1).scatter_add_(1, target[:, None], output.new_tensor(-1.0).expand(len(target), 1))


class MeanSquaredError(Objective):
    """Squared error averaged over the units of each output; ``target`` is shaped like the output."""

    name = "mean_squared_error"

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error of each image."""
        return (output - target).square().flatten(1).mean(1)

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Return ``2 (output − target) / n`` with n units per output."""
        return 2.0 * (output - target) / output[0].numel()

    def to_energy(self, units: int) -> float:
        """Return n / 2, with which the loss is the Gaussian energy ``½ ‖output − target‖²``."""
        return units / 2


class SigmoidCrossEntropy(Objective):
    """Cross-entropy of one sigmoid unit per class, summed over classes; ``target`` holds class indices ``(B,)``."""

    name = "sigmoid_cross_entropy"

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return ``Σ_k −y_k log σ(o_k) − (1 − y_k) log(1 − σ(o_k))`` of each image."""
        wanted = F.one_hot(target, output.shape[1]).to(output.dtype)
        return F.binary_cross_entropy_with_logits(output, wanted, reduction="none").sum(1)

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Return ``σ(output) − onehot(target)``."""
        return output.sigmoid() - F.one_hot(target, output.shape[1])


class SquaredError(Objective):
    """Half the squared distance to the one-hot target, summed over classes; ``target`` holds class indices ``(B,)``."""

    name = "squared_error"

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Return ``½ ‖output − onehot(target)‖²`` of each image."""
        return 0.5 * (output - F.one_hot(target, output.shape[1])).square().sum(1)

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Return ``output − onehot(target)``."""
        return output - F.one_hot(target, output.shape[1])


OBJECTIVES: dict[str, Objective] = {
    o.name: o for o in (CrossEntropy(), MeanSquaredError(), SigmoidCrossEntropy(), SquaredError())
}


def loguniform(low: float, high: float) -> Callable[[Any], float]:
    """Return a sampler that draws log-uniformly from ``[low, high]`` with a numpy ``Generator``."""
    return lambda rng: float(low * (high / low) ** rng.random())


class Rule(nn.Module):
    """A learning rule. Subclass it in one file and write ``learn``; the rest has defaults.

    Feedback weights, traces and thresholds are parameters (when they learn) or buffers (when they
    are fixed), so that they are checkpointed and moved with the network. Hyper-parameters are
    keyword-only constructor arguments with defaults. Randomness comes from torch's global
    generator, which the caller seeds before ``attach`` and before every ``learn``. ``supports`` and ``attach``
    are called with the network in evaluation mode.
    """

    tags: ClassVar[Tags] = Tags()
    search_space: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}  # option, or "lr", → how it is drawn
    optimizer: ClassVar[str | None] = None  # "sgd" where the size of Δw carries meaning
    recurrent: ClassVar[bool] = False  # whether it can train networks whose stages are no chain
    baseline: ClassVar[str] = "readout_only"  # the control to beat: frozen features under the rule's own inference
    version: ClassVar[int] = 1  # raise it when the rule's numbers change

    def __init__(self) -> None:
        super().__init__()

    def supports(self, net: StagedNet, objective: Objective) -> str | None:
        """Return ``None``, or the reason why this network or objective cannot be trained by the rule."""
        del net, objective
        return None

    def attach(self, net: StagedNet) -> None:
        """Allocate what depends on the network."""

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return gradients, loss, output and learning signals for one batch; change no weight.

        Args:
            net: The network.
            x: Inputs ``(B, *in_shape)``.
            target: Class indices ``(B,)`` or images ``(B, *out_shape)``.
            objective: The task's loss.

        Raises:
            NotImplementedError: If the subclass has no ``learn``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define learn(net, x, target, objective)")

    def predict(self, net: StagedNet, x: Tensor) -> Tensor:
        """Return the output for ``x`` under the rule's own inference; it never sees labels."""
        return net(x)

    def activations(self, net: StagedNet, x: Tensor) -> dict[str, Tensor]:
        """Return each stage's activity ``(B, ...)`` under the rule's own inference."""
        return net.trace(x)

    def ways_back(self, net: StagedNet) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return functions from ``x`` to what ``predict`` returns, through which derivatives reach ``x``, by name.

        Attacks take them. One that spikes returns surrogates; one whose inference has no derivative returns none.
        """
        return {"true": lambda x: self.predict(net, x)}

    def trajectory(
        self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yield the energy ``(B,)`` and each stage's activity ``(B, ...)`` before and after each step of inference.

        Iterations can be read as time. A rule without iterations yields its one pass, with the loss as the energy.
        What is yielded may move with the next step.

        Args:
            net: The network.
            x: Inputs ``(B, *in_shape)``.
            target: What the output is drawn towards.
            objective: The task's loss.
        """
        with torch.no_grad():
            activity = self.activations(net, x)
            yield objective.losses(self.predict(net, x), target), activity

    def record(self, net: StagedNet, x: Tensor) -> dict[str, SpikeRecord]:
        """Return what each hidden stage does in time; empty for rules whose inference does not spike."""
        del net, x
        return {}

    def caution(self, optimizer: str, momentum: float, weight_decay: float) -> str | None:
        """Return ``None``, or in one line why the rule is not what its paper describes under this optimiser.

        Args:
            optimizer: ``adam``, ``adamw`` or ``sgd``.
            momentum: Of ``sgd``; 0 for the others.
            weight_decay: Decoupled for ``adamw``, added to the gradient for the others.
        """
        del optimizer, momentum, weight_decay
        return None

    def after_step(self, net: StagedNet) -> None:
        """Do what must follow the optimiser's step: weight bounds, homeostasis, a mirror phase."""


def refusal(rule: Rule, net: StagedNet, objective: Objective) -> str | None:
    """Return ``None``, or the reason why a rule cannot train a network: its own, or that the stages are no chain."""
    if net.recurrent and not rule.recurrent:
        return "the network is recurrent: its stages feed back on each other, and the rule is for a chain of stages"
    return rule.supports(net, objective)


def differentiate(
    net: StagedNet,
    x: Tensor,
    target: Tensor,
    objective: Objective,
    *,
    stages: list[str] | None = None,
) -> Learned:
    """Differentiate the mean loss with respect to the parameters and the stages' outputs, also through time.

    Args:
        net: The network.
        x: Inputs ``(B, *in_shape)``.
        target: Class indices or images.
        objective: The task's loss.
        stages: Stages whose parameters are differentiated; all by default. Activity below the first
            of them is computed without a graph.
    """
    stages = list(net.stages) if stages is None else stages
    activity: dict[str, Tensor] = {}
    with torch.enable_grad():
        learning = False
        for name, stage in net.stages.items() if not net.recurrent else ():
            learning = learning or name in stages
            with torch.set_grad_enabled(learning):
                x = activity[name] = stage(x)
        if net.recurrent:
            whole = net.trace(x)
            activity = {n: whole[n] for n in list(whole)[min(map(list(whole).index, stages)) :]}
        output = net.shaped(activity[net.readout])
        loss = objective.losses(output, target).mean()
        signalled = {n: a for n, a in activity.items() if a.requires_grad}
        params = {n: p for s in stages for n, p in net.parameters_of(s).items()}
        wanted = [*params.values(), *signalled.values()]
        # In a recurrent network a synapse may be used only for what comes after the last frame.
        derivatives = torch.autograd.grad(loss, wanted, materialize_grads=net.recurrent)
    grads = dict(zip(params, derivatives, strict=False))
    # The mean loss divides by the batch; the signal of an image is that of its own loss.
    signals = {n: d * len(x) for n, d in zip(signalled, derivatives[len(params) :], strict=True)}
    signals[net.readout] = signals[net.readout].view_as(output)
    return Learned(grads, loss.detach(), output.detach(), signals)
