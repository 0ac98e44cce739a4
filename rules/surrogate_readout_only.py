"""Control: frozen random spiking features and a trained readout, with the inference of `surrogate_gradient`.

    ∂L/∂W_L = e v_{L-1}ᵀ        ∂L/∂W_l = 0 for l < L

v is the mean signal below the readout. The comparison that `surrogate_gradient` must win: same encoding, neurons,
thresholds and optimiser. Local: the readout sees its own input and its own error.
"""

import torch
from torch import Tensor

from models.base import StagedNet
from rules._encoding import Encoding
from rules._neurons import Neuron
from rules._spiking_rule import SpikingRule
from rules.base import Learned, Objective, Tags


class SurrogateReadoutOnly(SpikingRule):
    """`surrogate_gradient` on the readout alone. Signal: the output error; none in the hidden stages.

    Args:
        encoding: How images become input spikes: ``latency``, ``poisson`` or ``constant``.
        steps: Time steps per image.
        neuron: ``first_spike`` or ``lif``.
        decay: β of a leaky neuron, per step.
    """

    local_readout = False
    tags = Tags(
        separate_backward=False, phases=1, spiking=True, control=True,
        locality="presynaptic activity and the stage's own error",
    )  # fmt: skip

    def __init__(
        self,
        *,
        encoding: Encoding = "constant",
        steps: int = 10,
        neuron: Neuron = "first_spike",
        decay: float = 0.9,
    ) -> None:
        super().__init__(encoding=encoding, steps=steps, neuron=neuron, decay=decay)

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return the readout's gradient only."""
        with torch.no_grad():
            layers, _ = self.run(net, x, seed=int(torch.randint(2**31, ())))
        with torch.enable_grad():
            output = net.stages[net.readout](layers[net.hidden[-1]].signal.mean(0)).reshape(len(x), *net.out_shape)
            loss = objective.losses(output, target).mean()
            params = net.parameters_of(net.readout)
            *grads, error = torch.autograd.grad(loss, [*params.values(), output])
        signals = {net.readout: error * len(x)}
        return Learned(dict(zip(params, grads, strict=True)), loss.detach(), output.detach(), signals)
