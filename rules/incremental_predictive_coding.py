"""Incremental predictive coding (Salvatori et al. 2022, arXiv 2212.00720): states and weights move together.

    t = 1 … T:    v_l ← v_l + γ (e_l − J_{l+1}ᵀ e_{l+1})        then at once    W_l ← W_l − α ⟨∂F/∂W_l⟩ / β

The energy is that of ``predictive_coding``, ⟨⟩ the mean over the batch. One weight step follows every step of
inference: there are no two phases and nothing has to settle. The T steps are taken on a copy; their mean,
without α, is returned as the gradient, so that α → 0 gives the mean of the gradients along the trajectory of
``predictive_coding``. The signals take T steps of inference more, with the weights held, which its cost includes.

Local as predictive coding is; no backward pass and no phases.
"""

import torch
from torch import Tensor
from torch.func import functional_call

from models.base import StagedNet
from rules._energy import energy, feed_forward, full_precision, unsupported_norm
from rules.base import Learned, Objective, Rule, Tags, loguniform


class IncrementalPredictiveCoding(Rule):
    """States and weights descend one energy in turns. Signal: the prediction error after T steps, weights held.

    Args:
        steps: T.
        step_size: γ, of the states.
        weight_step: α, of the weights inside the batch.
        nudge: β, weight of the loss in the energy.
    """

    tags = Tags(
        weight_transport=True,
        separate_backward=False,
        locality="the stage's own state and prediction error, and the error one stage above",
        phases=1,
    )
    search_space = {
        "steps": lambda rng: int(rng.integers(4, 17)),
        "step_size": loguniform(0.05, 0.5),
        "weight_step": loguniform(1e-4, 1e-2),
        "nudge": loguniform(0.3, 3.0),
    }

    def __init__(
        self, *, steps: int = 8, step_size: float = 0.2, weight_step: float = 1e-3, nudge: float = 1.0
    ) -> None:
        super().__init__()
        if steps < 1 or min(step_size, weight_step, nudge) <= 0:
            raise ValueError("needs steps >= 1 and positive step_size, weight_step and nudge")
        self.steps, self.step_size, self.weight_step, self.nudge = steps, step_size, weight_step, nudge

    def supports(self, net: StagedNet, objective: Objective) -> str | None:
        """Refuse batch statistics."""
        del objective
        return unsupported_norm(net)

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return the net change of T weight steps as a gradient."""
        with full_precision(x):
            return self._learn(net, x, target, objective)

    def _learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        states = feed_forward(net, x)
        with torch.no_grad():
            output = net.stages[net.readout](states[-1]).unflatten(1, net.out_shape)
        first = {n: p.detach() for n, p in net.named_parameters()}
        weights, total = dict(first), {n: torch.zeros_like(p) for n, p in first.items()}
        scale = 1.0 / (len(x) * self.nudge)
        for _ in range(self.steps):
            slopes = self._slopes(net, weights, states, target, objective, of_states=True)
            states = [states[0], *(v - self.step_size * s for v, s in zip(states[1:], slopes, strict=True))]
            slopes = self._slopes(net, weights, states, target, objective, of_states=False)
            steps = {n: scale * s for n, s in zip(weights, slopes, strict=True)}
            weights = {n: w - self.weight_step * steps[n] for n, w in weights.items()}
            # The sum of the steps, not the difference of the weights, which single precision would round away.
            total = {n: t + steps[n] for n, t in total.items()}
        grads = {n: t / self.steps for n, t in total.items()}
        signals = self._errors(net, first, self._relaxed(net, first, x, target, objective), target, objective)
        return Learned(grads, objective.losses(output, target).mean(), output, signals)

    def _relaxed(
        self, net: StagedNet, weights: dict[str, Tensor], x: Tensor, target: Tensor, objective: Objective
    ) -> list[Tensor]:
        """Return the states after T steps with the weights held: what the signals are read from.

        With weights that move, an image's errors would depend on the other images of its batch.
        """
        states = feed_forward(net, x)
        for _ in range(self.steps):
            slopes = self._slopes(net, weights, states, target, objective, of_states=True)
            states = [states[0], *(v - self.step_size * s for v, s in zip(states[1:], slopes, strict=True))]
        return states

    def _slopes(
        self,
        net: StagedNet,
        weights: dict[str, Tensor],
        states: list[Tensor],
        target: Tensor,
        objective: Objective,
        *,
        of_states: bool,
    ) -> tuple[Tensor, ...]:
        """Return the gradient of the summed energy with respect to the hidden states, or to the weights."""
        with torch.enable_grad():
            hidden = [v.detach().requires_grad_(of_states) for v in states[1:]]
            own = {n: w.detach().requires_grad_(not of_states) for n, w in weights.items()}
            args = (net, [states[0], *hidden], target, objective, self.nudge)
            total = functional_call(_Energy(net), {f"net.{n}": w for n, w in own.items()}, args).sum()
            return torch.autograd.grad(total, hidden if of_states else list(own.values()))

    def _errors(
        self, net: StagedNet, weights: dict[str, Tensor], states: list[Tensor], target: Tensor, objective: Objective
    ) -> dict[str, Tensor]:
        """Return e_l / β of every stage at the last states and weights."""
        with torch.no_grad():
            named = {f"net.{n}": w for n, w in weights.items()}
            predictions = functional_call(_Predictions(net), named, (states,))
        errors = [(p - v) / self.nudge for p, v in zip(predictions[:-1], states[1:], strict=True)]
        output = predictions[-1].unflatten(1, net.out_shape)
        return dict(zip(net.stages, [*errors, objective.error(output, target)], strict=True))


class _Energy(torch.nn.Module):
    """The energy as a module, so that it can be called with other weights."""

    def __init__(self, net: StagedNet) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, net: StagedNet, states: list[Tensor], target: Tensor, objective: Objective, nudge: float
    ) -> Tensor:
        """Return the energy of each image."""
        return energy(self.net, states, target, objective, nudge)


class _Predictions(torch.nn.Module):
    """Every stage's prediction as a module, so that it can be called with other weights."""

    def __init__(self, net: StagedNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, states: list[Tensor]) -> list[Tensor]:
        """Return μ_1 … μ_L."""
        return [stage(v) for stage, v in zip(self.net.stages.values(), states, strict=True)]
