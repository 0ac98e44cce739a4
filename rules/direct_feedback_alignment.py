"""Direct feedback alignment (Nøkland 2016, arXiv 1609.01596).

    ∂L/∂W_l := ((B_l e) ⊙ f′(z_l)) h_{l-1}ᵀ        ∂L/∂W_L = e h_{L-1}ᵀ

The output error e of each image reaches every hidden stage directly through a fixed random matrix
B_l; no error crosses a synapse. B_l e stands at the stage's output, behind its pooling. Inside a
residual block the activity between the two convolutions has a feedback matrix of its own, and the
shortcut is cut at the block's border: nothing is summed over the blocks above.

No weight transport, no chain of backward steps: all stages can learn at once. Not local: e is global.
"""

import math

import torch
from torch import Tensor

from models.base import StagedNet
from rules._synapse import cut_at_synapses
from rules.base import Learned, Objective, Rule, Tags, loguniform

MAX_FEEDBACK = 2**28  # weights, 1 GiB in float32: image-sized outputs of wide networks exceed it


class DirectFeedbackAlignment(Rule):
    """Fixed random feedback from the output to every hidden activity. Signal: B_l e at each stage.

    Args:
        scale: Standard deviation of B_l in units of ``1 / sqrt(n_l)``, n_l units in the target
            activity: the fed-back error then has ``scale`` times the length of e at every stage.
        shared: Feed back one error per channel, the same at all positions of a map, in the place of one
            per unit. A convolution's weights are shared over positions, so its error can be too.
    """

    tags = Tags(
        locality="presynaptic activity and the network's output error through fixed random weights",
        exact_limit="tie_feedback",
        exact_depth=1,
    )
    search_space = {"scale": loguniform(0.1, 10.0)}

    def __init__(self, *, scale: float = 1.0, shared: bool = False) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale = scale
        self.shared = shared
        self.shapes: list[tuple[int, ...]] = []

    def supports(self, net: StagedNet, objective: Objective) -> str | None:
        """Refuse feedback matrices of more than 2²⁸ weights."""
        del objective
        num = math.prod(net.out_shape) * sum(math.prod(s) for s in self._target_shapes(net))
        return f"its feedback would hold {num:.1e} weights" if num > MAX_FEEDBACK else None

    def attach(self, net: StagedNet) -> None:
        """Draw one B per hidden activity, side by side: one product feeds the error back to all."""
        self.shapes = self._target_shapes(net)
        weight = next(net.parameters())
        n_out = math.prod(net.out_shape)
        parts = [
            torch.randn(n_out, math.prod(s), dtype=weight.dtype) * (self.scale / math.sqrt(math.prod(s)))
            for s in self.shapes
        ]
        self.register_buffer("feedback", torch.cat(parts, 1).to(weight.device))

    def tie_feedback(self, net: StagedNet) -> None:
        """Set B to the readout's weights: with one hidden stage the rule then is backprop."""
        self.feedback.copy_(net.stages[net.readout].synapse.weight.detach())

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return each stage's own gradient at the error that is fed back to it."""
        with torch.enable_grad():
            activity, inner = self._trace(net, x)
            *hidden, output = activity.values()
            loss = objective.losses(output, target).mean()
            error = objective.error(output.detach(), target)
            fed_back = self._feed_back(error, [*hidden, *inner])
            params = dict(net.named_parameters())
            grads = torch.autograd.grad(
                [*hidden, *inner, loss],
                list(params.values()),
                [*(f / len(x) for f in fed_back), torch.ones_like(loss)],
            )
        signals = dict(zip(activity, fed_back, strict=False)) | {net.readout: error}
        return Learned(dict(zip(params, grads, strict=True)), loss.detach(), output.detach(), signals)

    def _trace(self, net: StagedNet, x: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the stages' activities and those inside them, with no path across a synapse."""
        activity = {}
        with cut_at_synapses() as cut:
            for name, stage in net.stages.items():
                x = activity[name] = stage(x.detach())
        activity[net.readout] = x.unflatten(1, net.out_shape)
        return activity, cut.inputs

    def _target_shapes(self, net: StagedNet) -> list[tuple[int, ...]]:
        """Return the shapes of the activities that feedback reaches: hidden stages, then those inside them."""
        weight = next(net.parameters())
        blank = torch.zeros(2, *net.in_shape, dtype=weight.dtype, device=weight.device)
        with torch.enable_grad():
            activity, inner = self._trace(net, blank)
        shapes = [tuple(a.shape[1:]) for a in [*list(activity.values())[:-1], *inner]]
        return [(s[0],) if self.shared else s for s in shapes]

    def _feed_back(self, error: Tensor, activities: list[Tensor]) -> list[Tensor]:
        """Return B_l e for every activity, shaped like it."""
        parts = (error.flatten(1) @ self.feedback.to(error.dtype)).split([math.prod(s) for s in self.shapes], 1)
        if self.shared:
            # Over p positions the same error stands p times: √p keeps its length.
            return [
                (p[(..., *[None] * (a.dim() - 2))] / math.sqrt(a[0, 0].numel())).expand_as(a)
                for p, a in zip(parts, activities, strict=True)
            ]
        return [p.view_as(a) for p, a in zip(parts, activities, strict=True)]
