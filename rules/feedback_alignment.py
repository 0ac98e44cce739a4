"""Feedback alignment (Lillicrap, Cownden, Tweed & Akerman 2016, Nature Communications 7:13276).

    δ_L = e        δ_l = (B_{l+1} δ_{l+1}) ⊙ f′(z_l)        ∂L/∂W_l := δ_l h_{l-1}ᵀ

Backprop with a fixed random matrix B_{l+1}, shaped like W_{l+1}ᵀ, in the place of W_{l+1}ᵀ: the forward
weights come to align with B, so that the error that arrives is useful after all. In a convolution B is
a fixed random kernel; in a residual block both convolutions and the shortcut's have their own, and
the identity shortcut, which has no weights, carries the error as it is.

No weight transport. Still not local in time: the error returns in a pass of its own.
"""

import math

import torch
from torch import Tensor

from models.base import StagedNet
from rules._synapse import fed_back, feedback_through
from rules.base import Learned, Objective, Rule, Tags, differentiate, loguniform


class FeedbackAlignment(Rule):
    """Fixed random feedback weights, one set per synapse. Signal: the fed-back error at each stage.

    Args:
        scale: Standard deviation of B in units of ``1 / sqrt(fan-in)`` of its synapse, which is that of
            the initial forward weights (without the gain for ReLU).
    """

    tags = Tags(
        locality="presynaptic activity and an error carried by fixed random weights",
        exact_limit="tie_feedback",
    )
    search_space = {"scale": loguniform(0.3, 3.0)}

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale = scale

    def attach(self, net: StagedNet) -> None:
        """Draw B for every synapse but the first, below which no error is needed."""
        for name, synapse in fed_back(net).items():
            weight = synapse.weight
            b = torch.randn_like(weight) * (self.scale / math.sqrt(weight[0].numel()))
            self.register_buffer(name, b)

    def tie_feedback(self, net: StagedNet) -> None:
        """Set B to the forward weights: the limit in which the rule is backprop."""
        for weight, b in self.feedback(net).items():
            b.copy_(weight.detach())

    def feedback(self, net: StagedNet) -> dict[Tensor, Tensor]:
        """Return forward weight → feedback weight."""
        return {synapse.weight: self.get_buffer(name) for name, synapse in fed_back(net).items()}

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return backprop's equations with B in the place of the transposed weights."""
        with feedback_through(self.feedback(net)):
            return differentiate(net, x, target, objective)
