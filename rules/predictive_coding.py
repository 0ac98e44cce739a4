"""Predictive coding, strict inference learning (Rao & Ballard 1999; Whittington & Bogacz 2017, Neural Comput. 29:1229).

    F = ½ Σ_{0<l<L} ‖e_l‖² + β · loss        e_l = f_l(v_{l-1}) − v_l        e_L = β ∂loss/∂μ_L
    inference, T times:   v_l ← v_l + γ (e_l − J_{l+1}ᵀ e_{l+1})             then once:   ∂F/∂W_l = (∂μ_l/∂W_l)ᵀ e_l

J_{l+1} is the Jacobian of stage l + 1 at v_l: the states descend the energy, all at once (Jacobi order), from
the feed-forward pass, with the target at the output (``EnergyRule.relax``). The weights then descend the same
energy. States are a stage's outputs, behind its nonlinearity and pooling.

Local: a state sees its own error and the one above, through the weights between them (which a symmetric or
learned feedback pathway would have to carry: weight transport within one synapse). No backward pass; but
inference and learning are two phases. At T = 0 no hidden stage learns, and stage l only once T ≥ L − l. Near
backprop where the output error is small; with γ = 1 and each error taken when it arrives (the Z-IL schedule,
Song et al. 2020) exactly backprop; at equilibrium another rule.
"""

from torch import Tensor

from models.base import StagedNet
from rules._energy import Activity, EnergyRule, feed_forward, local_update
from rules.base import Learned, Objective, Tags, loguniform


class PredictiveCoding(EnergyRule):
    """States relax, then weights learn. Signal: the prediction error e_l / β of each stage after relaxation.

    Args:
        steps: T, inference steps.
        step_size: γ. Stable below 2 over the largest eigenvalue of the energy's Hessian.
        nudge: β, weight of the loss in the energy.
        activity: Whether ``activations`` are the ``feed_forward`` pass or states ``relaxed`` to the own decision.
    """

    tags = Tags(
        weight_transport=True,
        separate_backward=False,
        locality="the stage's own state and prediction error, and the error one stage above",
        phases=2,
    )
    search_space = {
        "steps": lambda rng: int(rng.integers(6, 21)),
        "step_size": loguniform(0.03, 0.3),
        "nudge": loguniform(0.05, 2.0),
    }

    def __init__(
        self, *, steps: int = 20, step_size: float = 0.1, nudge: float = 1.0, activity: Activity = "feed_forward"
    ) -> None:
        super().__init__(steps, step_size, nudge, activity)

    def descend(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Relax the states, then return the local gradients of the energy."""
        first = feed_forward(net, x)
        states = self.relaxed(net, first, target, objective)
        return local_update(net, states, target, objective, self.weight_of_loss(net, objective), first)
