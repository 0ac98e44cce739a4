"""Direct feedback alignment (Nøkland 2016, arXiv 1609.01596).

    ∂L/∂W_l := ((B_l e) ⊙ f′(z_l)) h_{l-1}ᵀ        ∂L/∂W_L = e h_{L-1}ᵀ

The output error e of each image reaches every hidden stage directly through a fixed random matrix
B_l; no error crosses a synapse. B_l e stands at the stage's output, behind its pooling. Inside a
residual block the activity between the two convolutions has a feedback matrix of its own, and the
shortcut is cut at the block's border: nothing is summed over the blocks above.

Where a network of convolutions predicts an image, e is an image too, and a full matrix from all of its pixels to all
units of a map would hold 10⁹ weights at 64 × 64 pixels. B_l then is as local as the network's own weights, a fixed
random convolution: a unit receives the errors of the pixels around its own position.

No weight transport, no chain of backward steps: all stages can learn at once. Not local: e is global.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import StagedNet
from rules._synapse import cut_at_synapses
from rules.base import Learned, Objective, Rule, Tags, loguniform

MAX_FEEDBACK = 2**28  # weights, 1 GiB in float32: image-sized outputs of wide networks exceed it
REACH = 3  # side of a convolution's feedback kernel, in positions of the map


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

    def supports(self, net: StagedNet, objective: Objective) -> str | None:
        """Refuse feedback matrices of more than 2²⁸ weights."""
        del objective
        num = sum(math.prod(self._feedback_shape(net, shape)) for shape in self._targets(net).values())
        return f"its feedback would hold {num:.1e} weights" if num > MAX_FEEDBACK else None

    def attach(self, net: StagedNet) -> None:
        """Draw B_l for every hidden activity."""
        weight = next(net.parameters())
        for name, shape in self._targets(net).items():
            b = torch.randn(self._feedback_shape(net, shape), dtype=weight.dtype)
            # Units that one value of e reaches: all of the activity, or those around its position.
            units = math.prod(shape) if b.dim() == 2 else len(b) * REACH**2
            self.register_buffer(f"to_{name}", (b * (self.scale / math.sqrt(units))).to(weight.device))

    def tie_feedback(self, net: StagedNet) -> None:
        """Set B to the readout's weights: with one hidden stage the rule then is backprop."""
        self.get_buffer(f"to_{net.hidden[-1]}").copy_(list(net.synapses().values())[-1].weight.detach())

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return each stage's own gradient at the error that is fed back to it."""
        with torch.enable_grad():
            activity = self._trace(net, x)
            output = activity[net.readout].detach()
            error = objective.error(output, target)
            signals = {n: self._feed_back(error, n, a) for n, a in activity.items() if n != net.readout}
            signals[net.readout] = error
            params = dict(net.named_parameters())
            grads = torch.autograd.grad(list(activity.values()), list(params.values()), [signals[n] for n in activity])
        means = {n: g / len(x) for n, g in zip(params, grads, strict=True)}
        loss = objective.losses(output, target).mean()
        return Learned(means, loss, output, {n: s for n, s in signals.items() if n in net.stages})

    def _trace(self, net: StagedNet, x: Tensor) -> dict[str, Tensor]:
        """Return the activity of every stage, and after it those inside stages, with no path across a synapse."""
        activity = {}
        with cut_at_synapses() as cut:
            for name, stage in net.stages.items():
                x = activity[name] = stage(x.detach())
        activity[net.readout] = net.shaped(x)
        return activity | {f"inner{i}": a for i, a in enumerate(cut.inputs)}

    def _targets(self, net: StagedNet) -> dict[str, tuple[int, ...]]:
        """Return name → shape of every hidden activity that feedback reaches; channels alone if they share it."""
        weight = next(net.parameters())
        blank = torch.zeros(2, *net.in_shape, dtype=weight.dtype, device=weight.device)
        with torch.enable_grad():
            activity = self._trace(net, blank)
        shapes = {n: tuple(a.shape[1:]) for n, a in activity.items() if n != net.readout}
        return {n: s[:1] for n, s in shapes.items()} if self.shared else shapes

    def _feedback_shape(self, net: StagedNet, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of B to an activity: outputs × units, or that of a convolution's weight."""
        synapse = list(net.synapses().values())[-1]
        if len(shape) != 3 or len(net.out_shape) != 3 or not isinstance(synapse, nn.Conv2d):
            return math.prod(net.out_shape), math.prod(shape)
        side = net.out_shape[1] // shape[1]
        if (shape[1] * side, shape[2] * side) != net.out_shape[1:]:
            return math.prod(net.out_shape), math.prod(shape)
        return shape[0], net.out_shape[0] * side**2, REACH, REACH

    def _feed_back(self, error: Tensor, name: str, activity: Tensor) -> Tensor:
        """Return B_l e for one activity, shaped like it."""
        b = self.get_buffer(f"to_{name}").to(error.dtype)
        if b.dim() == 4:
            pixels = F.pixel_unshuffle(error, error.shape[2] // activity.shape[2])  # those under one position
            return F.conv2d(pixels, b, padding=REACH // 2).contiguous(memory_format=torch.channels_last)
        signal = error.flatten(1) @ b
        if activity.dim() == 2:
            return signal
        channels, *size = activity.shape[1:]
        if self.shared:
            # The same error stands at p positions: 1/√p keeps its length.
            signal = signal[:, :, None, None] / math.sqrt(math.prod(size))
            return signal.expand_as(activity).contiguous(memory_format=torch.channels_last)
        # B's columns are in the order of a channels-last map, so that no copy is needed.
        return signal.view(-1, *size, channels).permute(0, 3, 1, 2)
