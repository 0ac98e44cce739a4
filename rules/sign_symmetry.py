"""Sign-symmetric feedback (Liao, Leibo & Poggio 2016, arXiv 1510.05067; Xiao et al. 2018, arXiv 1811.03567).

    δ_l = (B_{l+1} δ_{l+1}) ⊙ f′(z_l)        B = M ⊙ sign(W)        ∂L/∂W_l := δ_l h_{l-1}ᵀ

Feedback weights share the sign of the forward weights and nothing else: M holds magnitudes that are all
equal (uSF), fixed at random (frSF), or drawn anew for every batch (brSF). Their scale is 1 / √fan-in of the
forward synapse: equal to it for uSF, the σ of a half-normal otherwise. Forward weights start with that σ too where
the activation is not rectified, with √2 times it under ReLU (He), with less on top of a residual branch.

Weight transport of one bit per synapse; the error returns in a pass of its own.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from models.base import StagedNet
from rules._synapse import fed_back, feedback_through
from rules.base import Learned, Objective, Rule, Tags, differentiate

Magnitude = Literal["uniform", "fixed", "batch"]


class SignSymmetry(Rule):
    """Feedback with the forward weights' signs. Signal: the fed-back error at each stage.

    Args:
        magnitude: ``uniform`` (uSF), ``fixed`` (frSF) or ``batch`` (brSF).
    """

    tags = Tags(
        locality="presynaptic activity and an error carried by weights that copy the forward weights' signs",
        exact_limit="tie_feedback",
    )
    search_space = {"magnitude": lambda rng: str(rng.choice(["uniform", "fixed", "batch"]))}

    def __init__(self, *, magnitude: Magnitude = "uniform") -> None:
        super().__init__()
        if magnitude not in ("uniform", "fixed", "batch"):
            raise ValueError(f"magnitude must be uniform, fixed or batch, got {magnitude!r}")
        self.magnitude = magnitude
        self.redrawn = magnitude == "batch"

    def attach(self, net: StagedNet) -> None:
        """Draw M at the scale of 1 / √fan-in for every synapse but the first."""
        for name, synapse in fed_back(net).items():
            self.register_buffer(name, self._draw(synapse.weight))

    def tie_feedback(self, net: StagedNet) -> None:
        """Set M to the forward weights' magnitudes and keep it: the limit in which the rule is backprop."""
        self.redrawn = False
        for name, synapse in fed_back(net).items():
            self.get_buffer(name).copy_(synapse.weight.detach().abs())

    def feedback(self, net: StagedNet) -> dict[Tensor, Tensor]:
        """Return forward weight → M ⊙ sign(W)."""
        found = {}
        for name, synapse in fed_back(net).items():
            weight = synapse.weight
            m = self._draw(weight) if self.redrawn else self.get_buffer(name)
            found[weight] = m * weight.detach().sign()
        return found

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return backprop's equations with M ⊙ sign(W) in the place of the weights."""
        with feedback_through(self.feedback(net)):
            return differentiate(net, x, target, objective)

    def _draw(self, weight: Tensor) -> Tensor:
        scale = 1.0 / math.sqrt(weight[0].numel())
        if self.magnitude == "uniform":
            return torch.full_like(weight, scale, requires_grad=False)
        return torch.randn_like(weight, requires_grad=False).abs() * scale
