"""Trace STDP among competing leaky neurons: what `trace_stdp` and its frozen control share."""

import itertools
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from models.base import StagedNet
from rules._encoding import Encoding
from rules._neurons import Synapse
from rules._spiking_rule import UNIT_RATE, SpikingRule, hidden_synapses, threshold_name
from rules._stdp import bound_name, under, unpoolable
from rules.base import Learned, Objective


class Trace(SpikingRule):
    """Trace STDP in all hidden stages; options as in ``trace_stdp.TraceSTDP``. Not a rule itself."""

    compete = True
    plastic: ClassVar[bool] = True
    optimizer = "sgd"

    def __init__(
        self,
        *,
        encoding: Encoding = "poisson",
        steps: int = 16,
        max_rate: float = 0.5,
        decay: float = 0.9,
        potentiation: float = 0.01,
        depression: float = 0.0,
        tau_plus: float = 10.0,
        tau_minus: float = 10.0,
        mu: float = 1.0,
        trace_target: float = 1.0,
        competition: float = 1.0,
        homeostasis: float = 0.3,
        target: float = 0.9,
        readout: float = 10.0,
    ) -> None:
        super().__init__(encoding=encoding, steps=steps, neuron="lif", decay=decay, max_rate=max_rate)
        if min(tau_plus, tau_minus) <= 0 or mu < 0 or not 0 < target <= 1:
            raise ValueError(
                f"needs tau > 0, mu >= 0, 0 < target <= 1; got {tau_plus=}, {tau_minus=}, {mu=}, {target=}"
            )
        self.potentiation, self.depression = potentiation, depression
        self.tau_plus, self.tau_minus, self.mu, self.trace_target = tau_plus, tau_minus, mu, trace_target
        self.competition, self.homeostasis, self.target, self.readout = competition, homeostasis, target, readout

    def supports(self, net: StagedNet, objective: Objective) -> str | None:
        """Refuse poolings whose units do not see their neurons alike."""
        return unpoolable(net) or super().supports(net, objective)

    def attach(self, net: StagedNet) -> None:
        """Fix the bounds and the sums of the weights at their initial values."""
        super().attach(net)
        for name, synapse in hidden_synapses(net).items():
            weight = synapse.weight.detach()
            self.register_buffer(bound_name(name), weight.abs().max().clamp(min=1e-6))
            self.register_buffer(mean_name(name), weight.flatten(1).mean(1))

    @torch.no_grad()
    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return −Δw of the hidden stages, the readout's delta rule, and homeostasis; without mixed precision."""
        with torch.autocast(x.device.type, enabled=False):
            layers, output = self.run(net, x, seed=int(torch.randint(2**31, ())), remember=True)
            error = objective.error(output, target)
            grads = self.learn_readout(net, layers, error, objective, rate=self.readout, floor=0.01)
            signals = {net.readout: error}
            for name, layer in layers.items():
                for population in layer.populations:
                    post = torch.stack(population.signals)
                    grads[threshold_name(population.name)] = self.regulate(post)
                    drive = torch.zeros_like(post[0])
                    for synapse, (module, inputs) in population.synapses.items() if self.plastic else ():
                        bound = self.get_buffer(bound_name(synapse))
                        delta, own = self.plasticity(module, bound, torch.stack(inputs), post, name == net.hidden[0])
                        grads[f"{synapse}.weight"] = delta / (-len(x) * UNIT_RATE)
                        drive += own
                signals[name] = under(drive, layer.pool)
            return Learned(grads, objective.losses(output, target).mean(), output, signals)

    def plasticity(
        self, module: Synapse, bound: Tensor, pre: Tensor, post: Tensor, push_pull: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the Δw of a synapse, summed over the batch, and Σ_i Δw of every neuron and image.

        Args:
            module: The synapse.
            bound: s.
            pre: Its input spikes ``(T, B, ...)``.
            post: The spikes of the neurons that it drives ``(T, B, ...)``.
            push_pull: Whether the input is one of ON and OFF cells; p_off = 1 − p_on.
        """
        p = ((module.weight / bound + 1) / 2).clamp(0, 1)
        up, down = (1 - p) ** self.mu, p**self.mu
        # A neuron's fair share of the spikes, with its stage at the target: amplitudes are per step at this share.
        share = self.target * len(post) * post[0, 0, 0].numel() / post.shape[2]
        fair = 2 * bound / share
        # An ON synapse is potentiated by ON spikes; an OFF synapse, at 1 − p, by OFF spikes, which lowers p.
        sides = [(pre.clamp(min=0), up, down)]
        if push_pull:
            sides.append(((-pre).clamp(min=0), -down, -up))
        if isinstance(module, nn.Linear):
            delta, drive = self.at_spikes(sides, post)
            return fair * delta, fair * drive
        delta, drive = torch.zeros_like(module.weight), torch.zeros_like(post[0])
        y = earlier_trace(post, self.tau_minus) if self.depression else None
        for spikes, ltp, ltd in sides:
            x = earlier_trace(spikes, self.tau_plus)
            # x_tar is the same at every step, so that spikes can be counted first.
            reached = torch.full_like(x[:1], self.trace_target)
            terms = [(self.potentiation * ltp, x, post), (-self.potentiation * ltd, reached, post.sum(0, keepdim=True))]
            if y is not None:
                terms.append((-self.depression * ltd, spikes, y))
            for weight, before, after in terms:
                delta += weight * correlate(module, before, after)
                drive += (project(module, weight, before) * after).sum(0)
        return fair * delta, fair * drive

    def at_spikes(self, sides: list[tuple[Tensor, Tensor, Tensor]], post: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``plasticity`` of a dense stage, visiting postsynaptic spikes alone: one in F neurons fires at a step.

        A presynaptic spike meets the trace y of each earlier postsynaptic one: that is each postsynaptic spike meeting
        the same decaying trace of the presynaptic spikes to come.

        Args:
            sides: Presynaptic spikes ``(T, B, I)``, and the factors ``(F, I)`` of their potentiation and depression.
            post: ``(T, B, F)``.
        """
        step, image, neuron = post.nonzero(as_tuple=True)
        # What x_tar takes away is the same at every spike.
        lost = self.potentiation * self.trace_target * torch.stack([ltd for _, _, ltd in sides]).sum(0)
        spikes_of = post.sum(0)
        delta, drive = -spikes_of.sum(0)[:, None] * lost, -spikes_of * lost.sum(1)
        for spikes, ltp, ltd in sides:
            terms = [(self.potentiation * ltp, earlier_trace(spikes, self.tau_plus))]
            if self.depression:
                terms.append((-self.depression * ltd, later_trace(spikes, self.tau_minus)))
            for weight, trace in terms:
                seen = trace[step, image]
                delta += torch.zeros_like(weight).index_add_(0, neuron, seen).mul_(weight)
                change = torch.linalg.vecdot(weight[neuron], seen)
                drive.index_put_((image, neuron), change, accumulate=True)
        return delta, drive

    def regulate(self, post: Tensor) -> Tensor:
        """Return −Δ log θ of a population with spikes ``(T, B, ...)``."""
        rate = post.transpose(0, 2).flatten(1).mean(1)  # spikes per step, image and position
        total = rate.sum()
        change = self.competition * (rate - rate.mean()) / self.target + self.homeostasis * (total - self.target)
        return -change / UNIT_RATE

    @torch.no_grad()
    def after_step(self, net: StagedNet) -> None:
        """Give every neuron its sum of weights back, then keep the bounds."""
        if not self.plastic:
            return
        for name, synapse in hidden_synapses(net).items():
            weight = synapse.weight.flatten(1)
            excess = weight.mean(1) - self.get_buffer(mean_name(name))
            synapse.weight -= excess.view(-1, *(1,) * (synapse.weight.dim() - 1))
            bound = float(self.get_buffer(bound_name(name)))
            synapse.weight.clamp_(-bound, bound)


def earlier_trace(spikes: Tensor, tau: float) -> Tensor:
    """Return, at every step, the trace of the spikes before it: Σ over t' < t of s(t') e^{−(t − t')/τ}.

    Args:
        spikes: ``(T, ...)``.
        tau: In steps.
    """
    return _trace(spikes, range(len(spikes)), math.exp(-1 / tau))


def later_trace(spikes: Tensor, tau: float) -> Tensor:
    """Return, at every step, Σ over t' > t of s(t') e^{−(t' − t)/τ}: ``earlier_trace`` with time reversed."""
    return _trace(spikes, range(len(spikes) - 1, -1, -1), math.exp(-1 / tau))


def _trace(spikes: Tensor, order: range, decay: float) -> Tensor:
    trace = torch.zeros_like(spikes)
    now, seen = trace.unbind(0), spikes.unbind(0)
    factor = spikes.new_tensor(decay)  # a Python number would be made a tensor at every step
    for before, t in itertools.pairwise(order):
        torch.add(now[before], seen[before], out=now[t]).mul_(factor)
    return trace


def correlate(module: Synapse, pre: Tensor, post: Tensor) -> Tensor:
    """Return Σ over steps, images and positions of post · pre for every synapse, shaped like its weight."""
    pre, post = pre.flatten(0, 1), post.flatten(0, 1)
    if isinstance(module, nn.Linear):
        return post.t() @ pre
    return conv2d_weight(pre, module.weight.shape, post, module.stride, module.padding)


def project(module: Synapse, weight: Tensor, pre: Tensor) -> Tensor:
    """Return what ``pre`` ``(T, B, ...)`` would drive through other weights of the same synapse."""
    flat = pre.flatten(0, 1)
    if isinstance(module, nn.Linear):
        return F.linear(flat, weight).unflatten(0, pre.shape[:2])
    return F.conv2d(flat, weight, None, module.stride, module.padding).unflatten(0, pre.shape[:2])


def mean_name(synapse: str) -> str:
    """Return the name of a synapse's initial mean weights among the rule's buffers."""
    return f"mean_{synapse.replace('.', '_')}"
