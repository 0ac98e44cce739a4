"""Weight mirror (Akrout et al. 2019, arXiv 1904.05391, eq. 7).

    engaged:  δ_l = (B_{l+1} δ_{l+1}) ⊙ f′(z_l)        ∂L/∂W_l := δ_l h_{l-1}ᵀ
    mirror:   x ~ N(0, σ²),  y = W x,  B ← (1 − η) B + η ⟨y xᵀ⟩ / σ²        E⟨y xᵀ⟩ = σ² W

Between batches every synapse is driven by noise of its own; correlating what went in with what came out
makes its feedback weights the forward weights, without ever reading them. The running average keeps
the norm of B; noise is fresh for every synapse, since noise that travelled up would not be white. Eq. 7 correlates
what the neurons answer, f(W x + b), whose expectation is W only up to a factor f′ per neuron; here y is the synapses'
own current W x, without f and b, so that B tends to W itself.

No weight transport; a second, mirror phase per batch. The error returns in a pass of its own.
"""

import math
from typing import Any

import torch
import torch.nn.grad
from torch import Tensor, nn

from models.base import StagedNet
from rules._synapse import fed_back, feedback_through
from rules.base import Learned, Objective, Rule, Tags, differentiate, loguniform


class WeightMirror(Rule):
    """Feedback weights that a mirror phase turns into the forward weights. Signal: the fed-back error at each stage.

    Args:
        rate: η, share of the running average that one mirror phase renews.
        images: Noise patterns per mirror phase, at least; a dense synapse gets as many as it has inputs.
        side: Side of the noise maps that drive a convolution, in kernel widths.
    """

    tags = Tags(
        locality="presynaptic activity and an error carried by weights that learned from noise on either side",
        phases=3,
        exact_limit="tie_feedback",
    )
    search_space = {"rate": loguniform(0.003, 0.3)}

    def __init__(self, *, rate: float = 0.05, images: int = 32, side: int = 3) -> None:
        super().__init__()
        if not 0 < rate <= 1 or images < 1 or side < 2:
            raise ValueError(f"needs 0 < rate <= 1, images >= 1, side >= 2; got {rate=}, {images=}, {side=}")
        self.rate, self.images, self.side = rate, images, side

    def attach(self, net: StagedNet) -> None:
        """Draw the initial B for every synapse but the first."""
        for name, synapse in fed_back(net).items():
            b = torch.randn_like(synapse.weight, requires_grad=False) / math.sqrt(synapse.weight[0].numel())
            self.register_buffer(name, b)

    def tie_feedback(self, net: StagedNet) -> None:
        """Set B to the forward weights: where the mirror phase leads, and where the rule is backprop."""
        for weight, b in self.feedback(net).items():
            b.copy_(weight.detach())

    def feedback(self, net: StagedNet) -> dict[Tensor, Tensor]:
        """Return forward weight → feedback weight."""
        return {synapse.weight: self.get_buffer(name) for name, synapse in fed_back(net).items()}

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return backprop's equations with B in the place of the transposed weights."""
        with feedback_through(self.feedback(net)):
            return differentiate(net, x, target, objective)

    @torch.no_grad()
    def after_step(self, net: StagedNet) -> None:
        """Run one mirror phase; the network's weights are driven, not read and not changed."""
        for name, synapse in fed_back(net).items():
            self.get_buffer(name).lerp_(self._correlate(synapse), self.rate)

    def _correlate(self, synapse: nn.Linear | nn.Conv2d) -> Tensor:
        """Return ⟨y xᵀ⟩ / σ² of one synapse under white noise: an unbiased estimate of its weights."""
        weight = synapse.weight
        if isinstance(synapse, nn.Linear):
            # As many patterns as inputs at least: fewer leave the estimate noisier than it is large.
            num = max(self.images, synapse.in_features)
            x = torch.randn(num, synapse.in_features, dtype=weight.dtype, device=weight.device)
            return (x @ weight.t()).t() @ x / num
        size = [k * self.side for k in synapse.kernel_size]
        x = torch.randn(self.images, synapse.in_channels, *size, dtype=weight.dtype, device=weight.device)
        geometry: dict[str, Any] = {"stride": synapse.stride, "dilation": synapse.dilation, "groups": synapse.groups}
        # No padding: every position then sees noise at all of the kernel's inputs.
        y = torch.nn.functional.conv2d(x, weight, **geometry)
        positions = self.images * y.shape[2] * y.shape[3]
        return torch.nn.grad.conv2d_weight(x, list(weight.shape), y, **geometry) / positions
