"""Surrogate-gradient backpropagation through time (Neftci, Mostafa & Zenke 2019, arXiv 1901.09948).

    spike = Θ(V − θ) forwards;    ∂spike/∂V := 1 / (1 + k |V − θ|)² backwards        (snnTorch's fast sigmoid)

The control that separates spiking from STDP: the first-spike neurons of `stdp` on the same weights, trained by
backpropagation. By default it reads contrasts as a constant current; `encoding=latency` is the input of `stdp`.
There is no lateral inhibition. Only weights and biases are trained; thresholds stay where they start.

Not local: errors travel back through the transposed weights and through time.
"""

import snntorch.surrogate
import torch
from torch import Tensor

from models.base import StagedNet
from rules._encoding import Encoding
from rules._neurons import Neuron
from rules._spiking_rule import SpikingRule
from rules.base import Learned, Objective, Tags, loguniform


class SurrogateGradient(SpikingRule):
    """Backpropagation through spikes. Signal: Σ_t ∂loss/∂signal(t) at a stage's output, of the image's own loss.

    Args:
        encoding: How images become input spikes: ``latency``, ``poisson`` or ``constant``.
        steps: Time steps per image.
        neuron: ``first_spike`` or ``lif``.
        decay: β of a leaky neuron, per step.
        slope: k, in units of one over the threshold's scale of potentials.
    """

    local_readout = False
    tags = Tags(
        weight_transport=True, spiking=True, phases=2,
        locality="presynaptic activity and an error that came through the transposed weights and through time",
    )  # fmt: skip
    baseline = "surrogate_readout_only"
    search_space = {"slope": loguniform(2.0, 100.0)}

    def __init__(
        self,
        *,
        encoding: Encoding = "constant",
        steps: int = 10,
        neuron: Neuron = "first_spike",
        decay: float = 0.9,
        slope: float = 10.0,
    ) -> None:
        super().__init__(encoding=encoding, steps=steps, neuron=neuron, decay=decay)
        if not slope > 0:
            raise ValueError(f"slope must be positive, got {slope}")
        self.slope = slope

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return the surrogate gradient of the mean loss."""
        surrogate = snntorch.surrogate.fast_sigmoid(slope=self.slope)
        with torch.enable_grad():
            layers, output = self.run(net, x, seed=int(torch.randint(2**31, ())), surrogate=surrogate)
            loss = objective.losses(output, target).mean()
            params = dict(net.named_parameters())
            signals = [layer.signal for layer in layers.values()]
            derivatives = torch.autograd.grad(loss, [*params.values(), *signals, output])
        grads = dict(zip(params, derivatives, strict=False))
        errors = [d * len(x) for d in derivatives[len(params) :]]
        seen = {n: e.sum(0) for n, e in zip(layers, errors[:-1], strict=True)} | {net.readout: errors[-1]}
        return Learned(grads, loss.detach(), output.detach(), seen)
