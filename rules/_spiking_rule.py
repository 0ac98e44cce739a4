"""What all spiking rules share: encoding, thresholds, inference, the record of spikes, and a local readout.

Thresholds θ = exp(log θ) are parameters of the rule, one per neuron or map: homeostasis is a gradient like any
other, so that checkpoints, several processes and gradient accumulation treat it as they treat weights.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from models.base import StagedNet
from rules._encoding import Encoding, encode
from rules._spiking import Layer, Neuron, Population, Surrogate, Synapse, simulate
from rules.base import Objective, Rule, SpikeRecord, loguniform

# At this learning rate the amplitudes of the plastic rules are what they say: a study's rate and schedule scale them.
UNIT_RATE = 1e-3
RATES = loguniform(UNIT_RATE / 10, UNIT_RATE * 10)  # what a search draws learning rates from
CHUNK = 64  # images simulated at once in inference, for memory; it changes nothing
START = 0.2  # threshold at the start, in units of the length of the neuron's weight vector


class SpikingRule(Rule):
    """Spiking inference; subclasses say how the weights change. Not a rule itself.

    Args:
        encoding: How images become input spikes: ``latency``, ``poisson`` or ``constant``.
        steps: Time steps T per image.
        neuron: ``first_spike`` or ``lif``.
        decay: β of a leaky neuron, per step.
        max_rate: Largest probability of a Poisson spike per step.
    """

    compete: ClassVar[bool] = False
    local_readout: ClassVar[bool] = False  # learns by ``delta_rule``

    def __init__(
        self, *, encoding: Encoding, steps: int, neuron: Neuron, decay: float = 0.9, max_rate: float = 0.5
    ) -> None:
        super().__init__()
        if encoding not in ("latency", "poisson", "constant"):
            raise ValueError(f"unknown encoding {encoding!r}; choose from latency, poisson, constant")
        if neuron not in ("first_spike", "lif"):
            raise ValueError(f"unknown neuron {neuron!r}; choose from first_spike, lif")
        if steps < 1 or not 0 < decay <= 1 or not 0 < max_rate <= 1:
            raise ValueError(f"needs steps >= 1, decay and max_rate in (0, 1]; got {steps=}, {decay=}, {max_rate=}")
        self.encoding: Encoding = encoding
        self.neuron: Neuron = neuron
        self.steps, self.decay, self.max_rate = steps, decay, max_rate

    def supports(self, net: StagedNet, objective: Objective) -> str | None:
        """Refuse normalisation, which has no spiking counterpart, and convolutions that are not handled."""
        del objective
        if self.local_readout and not isinstance(net.stages[net.readout].synapse, nn.Linear):
            return "its delta rule is for a dense readout; this network predicts an image by a convolution (use mlp)"
        if any(isinstance(m, nn.modules.batchnorm._NormBase) for m in net.modules()):
            return "normalisation layers have no spiking counterpart; build the network with norm=none"
        for name, m in net.synapses().items():
            if isinstance(m, nn.Conv2d) and (m.groups > 1 or max(m.dilation) > 1 or isinstance(m.padding, str)):
                return f"{name}: grouped, dilated or string-padded convolutions are not handled"
        return None

    def attach(self, net: StagedNet) -> None:
        """Set every threshold in proportion to its neuron's weights, and draw the seed of Poisson spikes."""
        self.register_buffer("poisson_seed", torch.randint(2**31, ()))
        for p in self.places(net):
            squares = [s.weight.detach().flatten(1).square().sum(1) for s, _ in p.synapses.values()]
            length = torch.stack(squares).sum(0).sqrt().clamp(min=1e-6)
            self.register_parameter(threshold_name(p.name), nn.Parameter((START * length).log()))

    def places(self, net: StagedNet) -> list[Population]:
        """Return the populations of a network, in order, after one step on a blank image."""
        weight = next(net.parameters())
        blank = torch.zeros(1, 1, *net.in_shape, dtype=weight.dtype, device=weight.device)
        one = weight.new_ones(1)
        with torch.no_grad():
            layers, _ = simulate(net, blank, lambda n: Population(n, one, 1, "first_spike", 1.0))
        return [p for layer in layers.values() for p in layer.populations]

    def threshold(self, name: str) -> Tensor:
        """Return θ of a population."""
        return self.get_parameter(threshold_name(name)).exp()

    def run(
        self,
        net: StagedNet,
        x: Tensor,
        *,
        seed: int,
        surrogate: Surrogate | None = None,
        keep: bool = False,
        remember: bool = False,
    ) -> tuple[dict[str, Layer], Tensor]:
        """Return the hidden stages in time, and the output.

        Args:
            net: The network.
            x: Inputs ``(B, *in_shape)``.
            seed: Of Poisson spikes.
            surrogate: Derivative of a spike, for training by backpropagation.
            keep: Whether to keep potentials.
            remember: Whether to keep the neurons' signals.
        """
        inputs = encode(x, self.encoding, self.steps, self.max_rate, seed, latched=self.neuron == "first_spike")

        def populate(name: str) -> Population:
            theta = self.threshold(name).detach()
            return Population(name, theta, self.steps, self.neuron, self.decay, surrogate, self.compete, keep, remember)

        return simulate(net, inputs, populate)

    def inference_seed(self) -> int:
        """Return the seed of Poisson spikes outside learning: an image then has the same spikes every time."""
        return int(self.get_buffer("poisson_seed"))

    @torch.no_grad()
    def predict(self, net: StagedNet, x: Tensor) -> Tensor:
        """Return the readout's potential at the end."""
        return torch.cat([self.run(net, part, seed=self.inference_seed())[1] for part in x.split(CHUNK)])

    @torch.no_grad()
    def activations(self, net: StagedNet, x: Tensor) -> dict[str, Tensor]:
        """Return each stage's latency code (first spike) or rate (leaky), and the readout's potential."""
        parts = []
        for part in x.split(CHUNK):
            layers, output = self.run(net, part, seed=self.inference_seed())
            parts.append({n: layer.signal.mean(0) for n, layer in layers.items()} | {net.readout: output})
        return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}

    @torch.no_grad()
    def record(self, net: StagedNet, x: Tensor) -> dict[str, SpikeRecord]:
        """Return what every hidden stage does in time for inputs ``(B, *in_shape)``."""
        layers, _ = self.run(net, x, seed=self.inference_seed(), keep=True)
        return {
            n: SpikeRecord(self._spikes(s.signal), torch.stack(s.populations[-1].potentials)) for n, s in layers.items()
        }

    def _spikes(self, signal: Tensor) -> Tensor:
        if self.neuron == "lif":
            return signal
        return torch.cat([signal[:1], signal[1:] - signal[:-1]])


def threshold_name(population: str) -> str:
    """Return the name of a population's thresholds among the rule's parameters."""
    return f"log_threshold_{population.replace('.', '_')}"


def hidden_synapses(net: StagedNet) -> dict[str, Synapse]:
    """Return the affine maps of the hidden stages."""
    return {n: s for n, s in net.synapses().items() if n.split(".")[1] != net.readout}


def delta_rule(
    net: StagedNet, layers: dict[str, Layer], error: Tensor, rate: float, floor: float = 1.0
) -> dict[str, Tensor]:
    """Return the readout's −Δw under the normalised, balanced delta rule.

        Δw = −η mean over images of e u / (ε + |u|²),    u = v − mean over units of v

    v is the mean signal below the readout. The sum of a readout neuron's weights is kept, as in the hidden stages; its
    bias takes their part. Local: presynaptic activity, the readout neuron's own error, and its total input.

    Args:
        net: The network.
        layers: Its hidden stages in time.
        error: e, the gradient of each image's own loss, ``(B, *out_shape)``.
        rate: η at ``UNIT_RATE``.
        floor: ε.
    """
    readout = net.stages[net.readout].synapse
    assert isinstance(readout, Synapse)
    v = layers[net.hidden[-1]].signal.mean(0).flatten(1)
    v = v - v.mean(1, keepdim=True)
    e = error.flatten(1) / (floor + v.square().sum(1, keepdim=True))
    scale = rate / UNIT_RATE / len(v)
    prefix = f"stages.{net.readout}.synapse"
    grads = {f"{prefix}.weight": scale * (e.t() @ v)}
    if readout.bias is not None:
        grads[f"{prefix}.bias"] = scale * floor * e.sum(0)  # an input of size √ε that is always on
    return grads
