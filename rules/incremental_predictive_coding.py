"""Incremental predictive coding (Salvatori et al. 2022, arXiv 2212.00720): states and weights move together.

    t = 1 … T:    v_l ← v_l + γ (e_l − J_{l+1}ᵀ e_{l+1})        and at once    W_l ← W_l − α ⟨(∂μ_l/∂W_l)ᵀ e_l⟩ / β

The energy and its errors are those of ``predictive_coding``, ⟨⟩ the mean over the batch. The same errors move
states and weights: there are no two phases and nothing has to settle. The T steps of the weights are taken on a
copy; their mean, without α, is returned as the gradient, so that α → 0 gives the mean of ``predictive_coding``'s
gradients after 0 … T − 1 steps. The signals take T steps of inference more, with the weights held, which its cost
includes: with weights that move, an image's errors would depend on the other images of its batch.

Local as predictive coding is; no backward pass and no phases. From a feed-forward start stage l first learns at
step L − l + 1.
"""

import torch
from torch import Tensor
from torch.func import functional_call

from models.base import StagedNet
from rules._energy import (
    Activity,
    EnergyRule,
    feed_forward,
    output_error,
    prediction_errors,
)
from rules.base import Learned, Objective, Tags, loguniform


class IncrementalPredictiveCoding(EnergyRule):
    """States and weights descend one energy together. Signal: the prediction error after T steps, weights held.

    Args:
        steps: T.
        step_size: γ, of the states.
        weight_step: α, of the weights inside the batch.
        nudge: β, weight of the loss in the energy.
        activity: Whether ``activations`` are the ``feed_forward`` pass or states ``relaxed`` to the own decision.
    """

    tags = Tags(
        weight_transport=True,
        separate_backward=False,
        locality="the stage's own state and prediction error, and the error one stage above",
        phases=1,
    )
    search_space = {
        "steps": lambda rng: int(rng.integers(6, 13)),
        "step_size": loguniform(0.05, 0.4),
        "weight_step": loguniform(1e-4, 1e-2),
        "nudge": loguniform(0.05, 2.0),
    }
    version = 2

    def __init__(
        self,
        *,
        steps: int = 8,
        step_size: float = 0.2,
        weight_step: float = 1e-3,
        nudge: float = 1.0,
        activity: Activity = "feed_forward",
    ) -> None:
        super().__init__(steps, step_size, nudge, activity, fewest=1)
        if weight_step <= 0:
            raise ValueError(f"needs weight_step > 0, got {weight_step=}")
        self.weight_step = weight_step

    def descend(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return the net change of T weight steps as a gradient."""
        first = feed_forward(net, x)
        output = net.shaped(first.predictions[-1].detach())
        weights = {s: {n: p.detach() for n, p in stage.named_parameters()} for s, stage in net.stages.items()}
        total = {f"stages.{s}.{n}": torch.zeros_like(w) for s, own in weights.items() for n, w in own.items()}
        states = [x, *(v.clone() for v in first.states[1:])]
        nudge = self.weight_of_loss(net, objective)
        names, top, scale = list(net.stages), len(net.stages), 1.0 / (len(x) * nudge)
        for t in range(self.steps):
            from_above = None  # J_{l+1}ᵀ e_{l+1}
            for level in range(top, max(0, top - t - 1), -1):  # further down every error is still exactly zero
                name = names[level - 1]
                below = states[level - 1].detach().requires_grad_(level > 1)
                own = {n: w.requires_grad_() for n, w in weights[name].items()}
                with torch.enable_grad():
                    prediction = functional_call(net.stages[name], own, (below,))
                if level == top:
                    error = output_error(net, prediction, target, objective, nudge)
                else:
                    error = prediction.detach() - states[level]
                wanted = [*own.values(), *([below] if level > 1 else [])]
                slopes = torch.autograd.grad(prediction, wanted, error)
                if level < top:  # everything that reads the old v_level has been computed
                    states[level].add_(error, alpha=self.step_size)
                if from_above is not None:
                    states[level].sub_(from_above, alpha=self.step_size)
                from_above = slopes[-1] if level > 1 else None
                # The sum of the steps, not the difference of the weights, which single precision would round away.
                for (n, w), slope in zip(own.items(), slopes, strict=False):
                    total[f"stages.{name}.{n}"].add_(slope, alpha=scale)
                    weights[name][n] = w.detach().sub(slope, alpha=self.weight_step * scale)
            if from_above is not None:  # the state below the lowest error that is not zero
                states[top - t - 1].sub_(from_above, alpha=self.step_size)
        grads = {n: g / self.steps for n, g in total.items()}
        held = self.relaxed(net, first, target, objective)
        signals = prediction_errors(net, held, target, objective, nudge)
        return Learned(grads, objective.losses(output, target).mean(), output, signals)
