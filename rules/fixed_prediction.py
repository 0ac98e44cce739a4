"""Fixed-prediction predictive coding (Millidge et al. 2020, arXiv 2006.04182; Rosenbaum 2022, PLoS ONE 17:e0266102).

    v̂ = feed-forward states, held
    T times:   e_l ← (1 − γ) e_l + γ J_{l+1}(v̂_l)ᵀ e_{l+1}             then   ∂F/∂W_l = (∂μ̂_l/∂W_l)ᵀ e_l

With predictions and Jacobians held, a step is linear, and by induction from the top every error is a multiple of
backprop's δ_l:

    e_l(T) = a_l δ_l        a_l = P[Bin(T, γ) ≥ L − l]

So T steps of any γ cost one backward pass: this file computes δ_l once and scales it. γ = 1 with T ≥ L − 1 is
backprop; every other setting is backprop with a learning rate per stage, zero where T < L − l. An optimiser
that normalises each parameter's gradient (Adam) removes the difference.
"""

from fractions import Fraction
from math import comb

from torch import Tensor

from models.base import StagedNet
from rules.base import Learned, Objective, Rule, Tags, differentiate, loguniform


class FixedPrediction(Rule):
    """Backprop's gradients, scaled per stage. Signal: e_l of each stage after T steps.

    Args:
        steps: T, inference steps.
        step_size: γ, in (0, 1].
    """

    tags = Tags(
        weight_transport=True,
        locality="the stage's own error and the one above, with all predictions held at the feed-forward pass",
        phases=2,
        exact_limit="set_exact",
    )
    search_space = {"steps": lambda rng: int(rng.integers(4, 33)), "step_size": loguniform(0.1, 1.0)}

    def __init__(self, *, steps: int = 20, step_size: float = 0.1) -> None:
        super().__init__()
        if steps < 0 or not 0 < step_size <= 1:
            raise ValueError(f"needs steps >= 0 and 0 < step_size <= 1; got {steps=}, {step_size=}")
        self.steps, self.step_size = steps, step_size

    def set_exact(self, net: StagedNet) -> None:
        """Take γ = 1 and as many steps as there are stages: the limit in which the rule is backprop."""
        self.steps, self.step_size = len(net.stages), 1.0

    def arrived(self, below_top: int) -> float:
        """Return a_l, the share of backprop's error that has arrived ``below_top`` = L − l stages under the output."""
        p = self.step_size
        if below_top > self.steps:
            return 0.0
        missing = (
            comb(self.steps, k) * Fraction(p) ** k * Fraction(1 - p) ** (self.steps - k) for k in range(below_top)
        )
        return float(1 - sum(missing))

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return backprop's gradients and signals times a_l."""
        exact = differentiate(net, x, target, objective)
        share = {stage: self.arrived(i) for i, stage in enumerate(reversed(list(net.stages)))}
        grads = {n: share[stage] * exact.grads[n] for stage in net.stages for n in net.parameters_of(stage)}
        signals = {stage: share[stage] * s for stage, s in exact.signals.items()}
        return Learned(grads, exact.loss, exact.output, signals)
