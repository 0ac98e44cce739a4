"""Neurons that spike: those in one place of a network, under the currents that their synapses give them.

``T`` time steps, ``B`` batch; a ``signal`` is what neurons hand on at every step.

First spike (time to first spike; after Mostafa 2017 and Rueckauer & Liu 2018): a spike switches a synaptic current on
until the end of the presentation, and the neuron integrates,

    V(t) = V(t−1) + I(t) / T,    I(t) = W · [t_pre ≤ t] + b,    spike at the first t with V(t) > θ, none after it.

(Poisson spikes of the input are pulses: each adds its weight once, as in an integrate-and-fire neuron.)
The signal is the latched spike [t_post ≤ t]; its mean over time is the latency code (T − t_post) / T: 1 for a spike at
the first step, 0 for none. Stronger drive fires earlier: t_post ≈ θ T / I.

Leaky integrate-and-fire (snnTorch's ``Leaky``): V(t) = β V(t−1) + I(t) − θ · spike(t−1), any number of spikes, and the
signal is the spike train; its mean over time is the rate.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import snntorch
import torch
from torch import Tensor, nn

Neuron = Literal["first_spike", "lif"]
Synapse = nn.Linear | nn.Conv2d
Surrogate = Callable[[Tensor], Tensor]


@dataclass
class Population:
    """The neurons in one place of a network, and the synapses that drive them.

    Attributes:
        name: The stage, or ``stage.place`` inside a residual block.
        threshold: θ per neuron or map, shaped to broadcast over ``(B, ...)``.
        steps: T.
        neuron: Kind of neuron.
        decay: β of a leaky neuron.
        surrogate: Derivative of a spike for training by backpropagation; ``None`` for inference.
        compete: Whether one leaky neuron per position may spike at a step, the one furthest above its threshold; the
            others at that position are reset (lateral inhibition).
        coactive: Share of the first-spike neurons at one position (maps, or units of a dense stage) that may fire:
            the first to cross their thresholds silence the others (lateral inhibition). 1: all of them.
        keep: Whether to keep the potentials of all steps.
        remember: Whether to keep the signals of all steps, before pooling.
        synapses: Parameter prefix → (synapse, its input at every step).
        signals: What it handed on, one tensor per step, if remembered.
        potentials: Potentials, one tensor per step, if kept.
        overshoot: Potential above threshold at the first spike, where it then stays; at the last step where there was
            none.
    """

    name: str
    threshold: Tensor
    steps: int
    neuron: Neuron
    decay: float
    surrogate: Surrogate | None = None
    compete: bool = False
    coactive: float = 1.0
    keep: bool = False
    remember: bool = False
    synapses: dict[str, tuple[Synapse, list[Tensor]]] = field(default_factory=dict)
    signals: list[Tensor] = field(default_factory=list)
    potentials: list[Tensor] = field(default_factory=list)
    overshoot: Tensor | None = None

    def __post_init__(self) -> None:
        self.charge: Tensor | None = None  # the potential; of leaky neurons in units of the threshold, snnTorch's 1
        self.latched: Tensor | None = None
        self.crossed: Tensor | None = None  # step at which the threshold is first crossed, with or without a spike
        self.waited: Tensor | None = None  # step of the spike, where inhibition makes it another
        self.spiked: Tensor | None = None
        self.ranks: Tensor | None = None  # who is first, once time is over
        if self.neuron == "lif" and not self.compete:
            self.cell = snntorch.Leaky(
                beta=self.decay, threshold=1.0, reset_mechanism="subtract", spike_grad=self.surrogate
            )
            # snnTorch keeps every neuron ever made, with its potential and the graph behind that: memory would grow
            # with every batch.
            snntorch.SpikingNeuron.instances.remove(self.cell)

    def step(self, current: Tensor) -> Tensor:
        """Advance by one step under an input current ``(B, ...)`` and return the signal."""
        theta = self._theta(current)
        signal = self._first_spike(current, theta) if self.neuron == "first_spike" else self._leaky(current, theta)
        if self.remember:
            self.signals.append(signal)
        if self.keep and self.charge is not None:
            self.potentials.append(self.potential.detach().clone())  # type: ignore[union-attr]
        return signal

    @property
    def potential(self) -> Tensor | None:
        """Return the potential; of first-spike neurons only where they have a surrogate."""
        if self.charge is None or self.neuron == "first_spike":
            return self.charge
        return self.charge * self._theta(self.charge)

    @property
    def latency(self) -> Tensor:
        """Step of each neuron's first spike, T where there is none, ``(B, ...)``."""
        if self.waited is not None:
            return self.waited
        if self.crossed is not None:
            return self.crossed
        return torch.stack(self.signals).gt(0).cummax(0).values.logical_not().sum(0)

    def _theta(self, like: Tensor) -> Tensor:
        return self.threshold.view(-1, *(1,) * (like.dim() - 2))

    @torch.no_grad()
    def integrate(self, current: Tensor) -> None:
        """Advance first-spike neurons by one step without handing on a signal (no surrogate)."""
        if self.overshoot is None:
            self.overshoot = torch.zeros_like(current) - self._theta(current)
            self.waiting = torch.ones_like(current)
            self.crossed = torch.zeros_like(current)
        assert self.crossed is not None
        # A neuron that has crossed its threshold stays as it is: the overshoot is that of its first spike.
        # Ones and zeros as floating-point numbers: Boolean masks cost ten times the time on a CPU.
        self.overshoot.addcmul_(current, self.waiting, value=1 / self.steps)
        torch.le(self.overshoot, 0, out=self.waiting)
        self.crossed += self.waiting
        if self.keep:
            self.potentials.append(self.overshoot + self._theta(current))

    @property
    def fired(self) -> Tensor:
        """Return which first-spike neurons have crossed their thresholds so far, ``(B, ...)``."""
        assert self.overshoot is not None
        return self.overshoot > 0

    def integrate_constant(self, current: Tensor) -> None:
        """Do what T steps of ``integrate`` under one constant current do: V(t) = (t + 1) I / T, in closed form."""
        theta = self._theta(current)
        wait = (theta * self.steps / current.clamp(min=torch.finfo(current.dtype).tiny)).floor()
        wait = wait.clamp(max=self.steps)
        at = (wait + 1).clamp(max=self.steps)
        self.overshoot = current * at / self.steps - theta
        self.crossed = wait

    def priority(self) -> Tensor:
        """Return who is first: the earlier, among equals the further above threshold; less than 1: silent."""
        if self.ranks is None:
            assert self.overshoot is not None
            margin = self.overshoot.clamp(min=0)
            self.ranks = margin.div_(margin + 1).sub_(self.latency).add_(self.steps)  # it counts below one step
        return self.ranks

    def inhibit(self) -> None:
        """Silence, at every position, all but the first neurons to cross their thresholds (after all steps)."""
        num = self.allowed(self.latency.shape[1])
        if num < self.latency.shape[1]:
            score = self.priority()
            fires = torch.ge(score, kth_largest(score, num), out=torch.empty_like(score))
            self.waited = self.steps - fires * (self.steps - self.latency)
            self.ranks = score * fires

    def allowed(self, maps: int) -> int:
        """Return how many of so many neurons at one position may fire."""
        return max(1, round(self.coactive * maps))

    def _inhibit_now(self, before: Tensor) -> Tensor:
        """Return the latched spikes where inhibition acts step by step: of those that cross now, the first few fire."""
        assert self.overshoot is not None and self.crossed is not None
        if self.spiked is None or self.waited is None:
            self.spiked, self.waited = torch.zeros_like(before), torch.zeros_like(self.crossed)
        room = self.allowed(before.shape[1]) - self.spiked.sum(1, keepdim=True)
        fresh = self.fired & ~before
        rank = torch.where(fresh, self.overshoot, -torch.inf).argsort(1, descending=True).argsort(1)
        self.spiked = self.spiked | (fresh & (rank < room))
        self.waited += self.spiked.logical_not()
        return self.spiked

    def _first_spike(self, current: Tensor, theta: Tensor) -> Tensor:
        if self.surrogate is None:
            before = torch.zeros_like(current, dtype=torch.bool) if self.overshoot is None else self.fired
            self.integrate(current)
            everyone = self.allowed(current.shape[1]) == current.shape[1]
            return (self.fired if everyone else self._inhibit_now(before)).to(current.dtype)
        drive = current / self.steps
        self.charge = drive if self.charge is None else self.charge + drive
        above = self.charge - theta
        before = torch.zeros_like(above) if self.latched is None else self.latched
        self.latched = before + (1 - before) * self.surrogate(above).to(above.dtype)  # snnTorch's are float32
        return self.latched

    def _leaky(self, current: Tensor, theta: Tensor) -> Tensor:
        rest = torch.zeros_like(current) if self.charge is None else self.charge
        if self.compete:
            spikes, self.charge = self._compete(current / theta, rest)
        else:
            spikes, self.charge = self.cell(current / theta, rest)
            spikes = spikes.to(current.dtype)  # snnTorch's are float32
        return spikes

    @torch.no_grad()
    def compete_throughout(self, currents: Tensor) -> Tensor:
        """Do at once what ``step`` does at T steps, for competing neurons at rest (no surrogate); return the signals.

        Where few neurons are simulated, calls take most of the time: this makes four a step, in place, and writes
        spikes when all winners are known.

        Args:
            currents: ``(T, B, ...)``.
        """
        theta = self._theta(currents[0])
        charges = currents / theta  # becomes, step by step, the potentials after the spikes
        best = torch.empty_like(charges[:, :, :1])
        winner = torch.empty_like(best, dtype=torch.long)
        rests = torch.empty_like(best[0])
        one = best.new_ones(())  # a Python number would be made a tensor at every step
        before = torch.zeros_like(charges[0])
        for now, top, first in zip(charges, best, winner, strict=True):
            now.add_(before, alpha=self.decay)
            torch.max(now, 1, keepdim=True, out=(top, first))
            before = now.mul_(torch.le(top, one, out=rests))
        self.charge = before.clone()
        spikes = torch.zeros_like(charges).scatter_(2, winner, (best > 1).to(charges.dtype))
        if self.remember:
            self.signals.extend(spikes)
        if self.keep:
            self.potentials.extend(charges * theta)
        return spikes

    def _compete(self, current: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        potential = torch.add(current, rest, alpha=self.decay)
        best, winner = potential.max(1, keepdim=True)
        fires = (best > 1).to(potential.dtype)
        spikes = torch.zeros_like(potential).scatter_(1, winner, fires)
        if self.surrogate is not None:  # the winner alone passes derivatives on
            spikes = spikes * self.surrogate(potential - 1).to(potential.dtype)
        return spikes, potential * (1 - fires)


def kth_largest(x: Tensor, k: int) -> Tensor:
    """Return the k-th largest value along dimension 1, which is kept: a tenth of ``topk`` over many positions.

    Args:
        x: ``(B, F, ...)``.
        k: 1 ≤ k ≤ F.
    """
    if x.dim() == 2 or k > 32:
        return x.topk(k, 1).values[:, -1:]
    largest: list[Tensor] = []  # of the values so far, in order
    for value in x.unbind(1):
        for i, other in enumerate(largest):
            largest[i] = torch.maximum(other, value)
            value = torch.minimum(other, value)
        if len(largest) < k:
            largest.append(value)
    return largest[-1][:, None]
