"""Error-based predictive coding (Goemaere et al. 2026): a fast solver for the equilibrium of predictive coding.

    v_l = f_l(v_{l-1}) − e_l        F = ½ Σ_{0<l<L} ‖e_l‖² + β · loss        T times:   e_l ← e_l − λ dF/de_l

The errors are the variables and the states follow from them, so that a change at any stage reaches the output at
once; states reach theirs one stage per step. The equilibrium, and so the weights' update, is that of
``predictive_coding``. With few and small steps it is backprop scaled by λ T below the output.

A solver, not a plausible rule: dF/de is a global derivative, computed by backpropagation through the network.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from models.base import StagedNet
from rules._energy import Activity, EnergyRule, FeedForward, States, feed_forward, local_update
from rules.base import Learned, Objective, Tags, loguniform


class ErrorPredictiveCoding(EnergyRule):
    """Errors relax, then weights learn. Signal: the prediction error e_l / β of each stage after relaxation.

    Args:
        steps: T, steps of the solver.
        step_size: λ.
        nudge: β, weight of the loss in the energy.
        activity: Whether ``activations`` are the ``feed_forward`` pass or states ``relaxed`` to the own decision.
    """

    tags = Tags(weight_transport=True, locality="errors relax by a global derivative; weights learn locally", phases=2)
    search_space = {
        "steps": lambda rng: int(rng.integers(6, 21)),
        "step_size": loguniform(0.02, 0.3),
        "nudge": loguniform(0.05, 2.0),
    }

    def __init__(
        self, *, steps: int = 16, step_size: float = 0.1, nudge: float = 1.0, activity: Activity = "feed_forward"
    ) -> None:
        super().__init__(steps, step_size, nudge, activity)

    def descend(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Relax the errors, then return the local gradients of the energy."""
        first = feed_forward(net, x)
        for errors in self._descent(net, first, target, objective):
            final = errors
        with torch.no_grad():
            states = self._states(net, x, final)
        return local_update(net, states, target, objective, self.weight_of_loss(net, objective), first)

    def relax(self, net: StagedNet, first: FeedForward, target: Tensor, objective: Objective) -> Iterator[States]:
        """Yield the states that follow from the errors, before inference and after each step."""
        for errors in self._descent(net, first, target, objective):
            with torch.no_grad():
                states = self._states(net, first.inputs[0], errors)
            yield states

    def _descent(
        self, net: StagedNet, first: FeedForward, target: Tensor, objective: Objective
    ) -> Iterator[list[Tensor]]:
        """Yield e_1 … e_{L-1} before inference and after each step."""
        nudge = self.weight_of_loss(net, objective)
        errors = [torch.zeros_like(p) for p in first.predictions[:-1]]
        yield errors
        for _ in range(self.steps):
            with torch.enable_grad():
                moving = [e.requires_grad_() for e in errors]
                top = self._states(net, first.inputs[0], moving)[-1]
                prediction = net.shaped(net.stages[net.readout](top))
                total = nudge * objective.losses(prediction, target).sum()
                total = total + sum(0.5 * e.square().sum() for e in moving)
                slopes = torch.autograd.grad(total, moving)
            errors = [e.detach() - self.step_size * s for e, s in zip(errors, slopes, strict=True)]
            yield errors

    def _states(self, net: StagedNet, x: Tensor, errors: list[Tensor]) -> States:
        """Return v_0 … v_{L-1}."""
        states = [x]
        for name, error in zip(net.hidden, errors, strict=True):
            states.append(net.stages[name](states[-1]) - error)
        return states
