"""Winner-take-all STDP: what `stdp`, `reward_stdp` and their frozen control share. The equations are in ``stdp.py``."""

import torch
from torch import Tensor

from models.base import Stage, StagedNet
from rules._encoding import Encoding
from rules._neurons import Population
from rules._spiking import Layer, advance
from rules._spiking_rule import UNIT_RATE, SpikingRule, hidden_synapses, threshold_name
from rules._stdp import Winners, afferents, bound_name, change, find_winners, latched, onto_stage, unpoolable
from rules.base import Learned, Objective


class WinnerTakeAll(SpikingRule):
    """Winner-take-all STDP in all hidden stages; options as in ``stdp.STDP``."""

    optimizer = "sgd"
    local_readout = True

    def __init__(
        self,
        *,
        encoding: Encoding = "latency",
        steps: int = 10,
        potentiation: float = 0.02,
        depression: float = 0.015,
        soft: bool = True,
        balanced: bool = True,
        coactive: float = 0.1,
        winners: int = 5,
        radius: int = 1,
        competition: float = 0.3,
        homeostasis: float = 0.1,
        scaling: float = 0.003,
        target: float = 0.4,
        readout: float = 100.0,
        images_per_stage: int = 0,
    ) -> None:
        super().__init__(encoding=encoding, steps=steps, neuron="first_spike", coactive=coactive)
        if winners < 1 or radius < 0 or not 0 < target < 1 or images_per_stage < 0:
            raise ValueError(
                f"needs winners >= 1, radius >= 0, 0 < target < 1, images_per_stage >= 0; got {winners=}, {radius=}, "
                f"{target=}, {images_per_stage=}"
            )
        self.potentiation, self.depression, self.soft, self.balanced = potentiation, depression, soft, balanced
        self.winners, self.radius = winners, radius
        self.competition, self.homeostasis, self.scaling, self.target = competition, homeostasis, scaling, target
        self.readout, self.images_per_stage = readout, images_per_stage

    def supports(self, net: StagedNet, objective: Objective) -> str | None:
        """Refuse poolings whose units do not see their neurons alike."""
        return unpoolable(net) or super().supports(net, objective)

    def attach(self, net: StagedNet) -> None:
        """Fix the bounds of the weights at the largest initial one of each synapse."""
        super().attach(net)
        for name, synapse in hidden_synapses(net).items():
            self.register_buffer(bound_name(name), synapse.weight.detach().abs().max().clamp(min=1e-6))
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return −Δw of the hidden stages, the readout's delta rule, and homeostasis; without mixed precision."""
        with torch.autocast(x.device.type, enabled=False):
            layers, output = self.run(net, x, seed=int(torch.randint(2**31, ())))
            error = objective.error(output, target)
            grads = self.learn_readout(net, layers, error, objective, rate=self.readout, floor=1.0)
            signals = {net.readout: error}
            learning = self.learning_stages(net)
            for name in layers:
                stage_grads, signals[name] = self.learn_layer(net, name, layers, target, plastic=name in learning)
                grads |= stage_grads
            if self.images_per_stage:
                self.get_buffer("images_seen").add_(len(x))
            return Learned(grads, objective.losses(output, target).mean(), output, signals)

    def learn_layer(
        self, net: StagedNet, name: str, layers: dict[str, Layer], target: Tensor, *, plastic: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return −Δw and −Δ log θ of one hidden stage, and its learning signal.

        Args:
            net: The network.
            name: The stage.
            layers: The stages in time, at least this one.
            target: Of every image; a stage without reward does not look at it.
            plastic: Whether the weights learn, or the thresholds alone.
        """
        layer, grads = layers[name], {}
        signal = torch.zeros_like(layer.signal[0])
        for population in layer.populations:
            num = self.winners if population.overshoot is not None and population.overshoot.dim() == 4 else 1
            among = self.eligible(name, net, layers) if population is layer.populations[-1] else None
            found = find_winners(population, num, self.radius, among)
            grads[threshold_name(population.name)] = self.regulate(population, found, num)
            if not plastic:
                continue
            ltp, ltd = self.amplitudes(found, name, net, layers, target)
            first, images = name == net.hidden[0], len(signal)
            drive = self.plasticity(population, found, num, ltp, ltd, first, grads, images)
            if population is layer.populations[-1]:
                signal = onto_stage(drive, found, population, layer.pool)
        return grads, signal

    @torch.no_grad()
    def learn_stage(self, net: StagedNet, name: str, below: Tensor) -> dict[str, Tensor]:
        """Return −Δw and −Δ log θ of one stage alone, from the latched spikes below it: layer-wise learning by hand.

        Args:
            net: The network.
            name: The stage, not one that learns under reward.
            below: ``(T, B, ...)``, such as the pooled spikes of a stage that has learned, kept for all images.
        """
        stage = net.stages[name]
        assert isinstance(stage, Stage)
        layer = advance(name, stage, below, self.population)
        return self.learn_layer(net, name, {name: layer}, below.new_zeros(0), plastic=True)[0]

    def learning_stages(self, net: StagedNet) -> list[str]:
        """Return the stages that learn now."""
        if not self.images_per_stage:
            return net.hidden
        turn = int(self.get_buffer("images_seen")) // self.images_per_stage
        return net.hidden[turn : turn + 1]

    def eligible(self, stage: str, net: StagedNet, layers: dict[str, Layer]) -> Tensor | None:
        """Return which neurons of a stage may learn from each image, ``(B, F)``; ``None`` for all."""
        del stage, net, layers
        return None

    def amplitudes(
        self, found: Winners, stage: str, net: StagedNet, layers: dict[str, Layer], target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return a₊ and a₋ of each winner."""
        del stage, net, layers, target
        one = torch.ones(len(found), device=found.image.device)
        return self.potentiation * one, self.depression * one

    def plasticity(
        self, population: Population, found: Winners, num: int, ltp: Tensor, ltd: Tensor, first: bool,
        grads: dict[str, Tensor], num_images: int,
    ) -> Tensor:  # fmt: skip
        """Write −Δw of a population's synapses into ``grads`` and return Σ|Δw| of each winner, at unit rate."""
        drive = torch.zeros(len(found), dtype=population.threshold.dtype, device=found.image.device)
        for name, (module, inputs) in population.synapses.items():
            fair = len(module.weight) / num  # a neuron's fair share of the wins is 1 / fair
            bound = self.get_buffer(bound_name(name))
            pulses = first and self.encoding == "poisson"  # all other spikes stay switched on
            seen = afferents(module, latched(inputs) if pulses else inputs, found)
            delta = change(
                module.weight, bound, seen, found, fair * ltp.to(seen.dtype), fair * ltd.to(seen.dtype),
                push_pull=first, soft=self.soft, balanced=self.balanced,
            )  # fmt: skip
            total = torch.zeros_like(module.weight).index_add_(0, found.neuron, delta) / num_images
            if self.scaling and not first:
                total += self.scale(module.weight, bound, population, inputs)
            grads[f"{name}.weight"] = total / -UNIT_RATE
            drive += delta.flatten(1).abs().sum(1)
        return drive

    def scale(self, weight: Tensor, bound: Tensor, population: Population, inputs: list[Tensor]) -> Tensor:
        """Return the Δw of synaptic scaling, shaped like ``weight``."""
        fired = self.reached(population).transpose(0, 1).flatten(1).mean(1)
        activity = torch.stack(inputs).mean((0, 1))
        if activity.dim() == 3:
            activity = activity.mean((1, 2))[:, None, None]
        activity = activity / activity.mean().clamp(min=1e-6)
        p = (weight / bound + 1) / 2
        error = (self.target - fired).view(-1, *(1,) * (weight.dim() - 1))
        return 2 * bound * self.scaling * (p * (1 - p)).clamp(min=0) * error * activity

    def reached(self, population: Population) -> Tensor:
        """Return 1 for neurons whose potential reached threshold, whether or not others silenced them, ``(B, ...)``."""
        assert population.crossed is not None
        return torch.lt(population.crossed, population.steps, out=torch.empty_like(population.crossed))

    def regulate(self, population: Population, found: Winners, num: int) -> Tensor:
        """Return −Δ log θ of a population."""
        fired = self.reached(population)
        num_images, num_neurons = fired.shape[:2]
        wins = torch.zeros_like(population.threshold).index_add_(
            0, found.neuron, torch.ones_like(found.neuron, dtype=fired.dtype)
        )
        share = wins / (num * num_images)
        change = self.competition * (share - share.mean()) + self.homeostasis * (fired.mean() - self.target)
        return -change.expand(num_neurons) / UNIT_RATE

    @torch.no_grad()
    def after_step(self, net: StagedNet) -> None:
        """Keep every weight within its bounds."""
        for name, synapse in hidden_synapses(net).items():
            bound = float(self.get_buffer(bound_name(name)))
            synapse.weight.clamp_(-bound, bound)
