"""What all spiking rules share: encoding, thresholds, inference, the record of spikes, and a local readout.

Thresholds θ = exp(log θ) are parameters of the rule, one per neuron or map: homeostasis is a gradient like any
other, so that checkpoints, several processes and gradient accumulation treat it as they treat weights.
"""

from collections.abc import Callable
from typing import ClassVar

import snntorch.surrogate
import torch
from torch import Tensor, nn

from models.base import StagedNet
from rules._delta_readout import MEAN, delta_rule, readout_synapse, running_mean
from rules._encoding import Encoding, contrast, encode
from rules._neurons import Neuron, Population, Surrogate, Synapse
from rules._spiking import Layer, simulate
from rules.base import Objective, Rule, SpikeRecord, loguniform

# At this learning rate the amplitudes of the plastic rules are what they say: a study's rate and schedule scale them.
UNIT_RATE = 1e-3
RATES = loguniform(UNIT_RATE / 10, UNIT_RATE * 10)  # what a search draws learning rates from
CHUNK = 64  # images simulated at once in inference, for memory; it changes nothing
SLOPES = (2.0, 10.0, 50.0)  # of the surrogates that attacks take
START = 0.2  # threshold at the start, in units of the length of the neuron's weight vector


class SpikingRule(Rule):
    """Spiking inference; subclasses say how the weights change. Not a rule itself.

    Args:
        encoding: How images become input spikes: ``latency``, ``poisson`` or ``constant``.
        steps: Time steps T per image.
        neuron: ``first_spike`` or ``lif``.
        decay: β of a leaky neuron, per step.
        max_rate: Largest probability of a Poisson spike per step.
        coactive: Share of the first-spike neurons at one position that may fire; the first silence the others.
    """

    compete: ClassVar[bool] = False
    local_readout: ClassVar[bool] = True  # whether the readout learns by the local delta rule

    def __init__(
        self,
        *,
        encoding: Encoding,
        steps: int,
        neuron: Neuron,
        decay: float = 0.9,
        max_rate: float = 0.5,
        coactive: float = 1.0,
    ) -> None:
        super().__init__()
        if encoding not in ("latency", "poisson", "constant"):
            raise ValueError(f"unknown encoding {encoding!r}; choose from latency, poisson, constant")
        if neuron not in ("first_spike", "lif"):
            raise ValueError(f"unknown neuron {neuron!r}; choose from first_spike, lif")
        if steps < 1 or not 0 < decay <= 1 or not 0 < max_rate <= 1 or not 0 < coactive <= 1:
            raise ValueError(
                f"needs steps >= 1, decay, max_rate and coactive in (0, 1]; got {steps=}, {decay=}, {max_rate=}, "
                f"{coactive=}"
            )
        self.encoding: Encoding = encoding
        self.neuron: Neuron = neuron
        self.steps, self.decay, self.max_rate, self.coactive = steps, decay, max_rate, coactive

    def supports(self, net: StagedNet, objective: Objective) -> str | None:
        """Refuse normalisation, which has no spiking counterpart, and convolutions that are not handled."""
        del objective
        if any(isinstance(m, nn.modules.batchnorm._NormBase) for m in net.modules()):
            return "normalisation layers have no spiking counterpart; build the network with norm=none"
        if self.local_readout and readout_synapse(net) is None:
            return "the readout's delta rule needs a single linear or convolutional synapse"
        affine = net.synapses()
        strange = [n for n, _ in net.named_parameters() if n.rpartition(".")[0] not in affine]
        if strange and self.local_readout:
            return f"{strange[0]}: only the weights of linear and convolutional synapses are known to STDP"
        for name, m in affine.items():
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
        if self.local_readout:
            self.register_parameter(MEAN, running_mean(net))

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

        Without mixed precision: potentials sum currents that bfloat16 rounds away.

        Args:
            net: The network.
            x: Inputs ``(B, *in_shape)``.
            seed: Of Poisson spikes.
            surrogate: Derivative of a spike, for training by backpropagation.
            keep: Whether to keep potentials.
            remember: Whether to keep the neurons' signals.
        """

        def populate(name: str) -> Population:
            return self.population(name, surrogate, keep=keep, remember=remember)

        with torch.autocast(x.device.type, enabled=False):
            inputs = encode(x, self.encoding, self.steps, self.max_rate, seed, latched=self.neuron == "first_spike")
            if x.requires_grad and surrogate is not None and self.encoding != "constant":
                # Spikes have no derivative: that of the contrast stands in for it (straight through).
                drive = contrast(x) * (self.max_rate if self.encoding == "poisson" else 1.0)
                inputs = inputs + (drive - drive.detach())
            return simulate(net, inputs, populate)

    def population(
        self, name: str, surrogate: Surrogate | None = None, *, keep: bool = False, remember: bool = False
    ) -> Population:
        """Return the neurons of a place, at rest; arguments as in ``run``."""
        theta = self.threshold(name).detach()
        return Population(
            name, theta, self.steps, self.neuron, self.decay, surrogate, self.compete, self.coactive, keep, remember
        )

    def learn_readout(
        self,
        net: StagedNet,
        layers: dict[str, Layer],
        error: Tensor,
        objective: Objective,
        *,
        rate: float,
        floor: float,
    ) -> dict[str, Tensor]:
        """Return −Δ of the readout's weights, bias and mean input; see ``rules/_delta_readout.py``."""
        v, mean = layers[net.hidden[-1]].signal.mean(0), self.get_parameter(MEAN)
        return delta_rule(net, v, mean, error, objective, rate, floor, UNIT_RATE)

    def inference_seed(self) -> int:
        """Return the seed of Poisson spikes outside learning: an image then has the same spikes every time."""
        return int(self.get_buffer("poisson_seed"))

    @torch.no_grad()
    def predict(self, net: StagedNet, x: Tensor) -> Tensor:
        """Return the readout's potential at the end."""
        return torch.cat([self.run(net, part, seed=self.inference_seed())[1] for part in x.split(CHUNK)])

    def ways_back(self, net: StagedNet) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the same inference with surrogate derivatives of several widths in the place of a spike's.

        There is none through lateral inhibition among neurons that fire once, which ranks them after all steps.
        """
        if self.neuron == "first_spike" and self.coactive < 1:
            return {}

        def way(slope: float) -> Callable[[Tensor], Tensor]:
            surrogate = snntorch.surrogate.fast_sigmoid(slope=slope)
            return lambda x: self.run(net, x, seed=self.inference_seed(), surrogate=surrogate)[1]

        return {f"surrogate {slope:g}": way(slope) for slope in SLOPES}

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
