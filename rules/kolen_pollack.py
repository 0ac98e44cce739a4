"""Kolen–Pollack learning (Kolen & Pollack 1994; Akrout et al. 2019, arXiv 1904.05391).

    δ_l = (B_{l+1} δ_{l+1}) ⊙ f′(z_l)        G_l = δ_l h_{l-1}ᵀ
    ΔW_l = −η G_l − λ W_l                    ΔB_l = −η G_l − λ B_l

Forward and feedback weights start apart, get the same update, and decay alike, so that their
difference decays whatever is learned: (W − B)_{t+1} = (1 − λ)(W − B)_t. G_l is local to either synapse.

The decay is the optimiser's: use ``optimizer: adamw`` or ``sgd`` without momentum, and ``weight_decay`` above 0
(λ = lr × weight_decay). Without it the difference stays as large as it began; under Adam with coupled
decay the identity does not hold.

No weight transport. Still not local in time: the error returns in a pass of its own.
"""

import math

import torch
from torch import Tensor, nn

from models.base import StagedNet
from rules._synapse import fed_back, feedback_through
from rules.base import Learned, Objective, Rule, Tags, differentiate, loguniform


class KolenPollack(Rule):
    """Feedback weights that learn as the forward weights do. Signal: the fed-back error at each stage.

    Args:
        scale: Standard deviation of the initial B in units of ``1 / sqrt(fan-in)`` of its synapse.
    """

    tags = Tags(
        locality="presynaptic activity and an error carried by feedback weights that learn from the same two",
        exact_limit="tie_feedback",
    )
    search_space = {"scale": loguniform(0.3, 3.0)}

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale = scale

    def attach(self, net: StagedNet) -> None:
        """Draw B, a parameter, for every synapse but the first."""
        for name, synapse in fed_back(net).items():
            weight = synapse.weight
            b = torch.randn_like(weight) * (self.scale / math.sqrt(weight[0].numel()))
            self.register_parameter(name, nn.Parameter(b))

    def caution(self, optimizer: str, momentum: float, weight_decay: float) -> str | None:
        """Say where (W − B) does not shrink by 1 − λ per step: what the rule lives on is then missing."""
        if weight_decay == 0:
            why = "with weight_decay=0 the feedback weights stay as far from the forward weights as they began"
        elif optimizer == "adam":
            why = "adam rescales the decay with the gradient, so that the gap to the forward weights need not close"
        elif momentum > 0:
            why = f"with momentum={momentum:g} the gap to the forward weights does not shrink by 1 - λ per step"
        else:
            return None
        return f"{why}; use optimizer=adamw, or sgd with momentum=0, and weight_decay > 0"

    def tie_feedback(self, net: StagedNet) -> None:
        """Set B to the forward weights: the limit in which the rule is backprop."""
        with torch.no_grad():
            for name, synapse in fed_back(net).items():
                self.get_parameter(name).copy_(synapse.weight)

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return the same gradient for every W and its B."""
        pairs = {name: synapse.weight for name, synapse in fed_back(net).items()}
        with feedback_through({w: self.get_parameter(name).detach() for name, w in pairs.items()}):
            learned = differentiate(net, x, target, objective)
        of_weight: dict[Tensor, Tensor] = {p: learned.grads[n] for n, p in net.named_parameters()}
        own = {name: of_weight[w] for name, w in pairs.items()}
        return Learned(learned.grads | own, learned.loss, learned.output, learned.signals)
