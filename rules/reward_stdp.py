"""Reward-modulated STDP (Mozafari et al. 2018, IEEE TNNLS 29:6178; 2019, Pattern Recognit. 94:87).

    R = +1:  Δp = p (1 − p) · g N_miss/N · { a₊ if t_pre ≤ t_post;  −a₋ otherwise }
    R = −1:  Δp = p (1 − p) · g N_hit/N  · { −b₊ if t_pre ≤ t_post;  +b₋ otherwise }      (anti-STDP)
    R =  0:  Δp = 0

Each neuron (or map) of the last hidden stage stands for one class from the start, neuron j for class j mod K. The class
whose neurons together fired most and earliest is the stage's decision, by the mean of their latency codes; R rewards it
if it is the image's class, punishes it if not, and R = 0 if no neuron fired. The neurons that learn are the first ones
among those of the decided class: it was their decision. R is one global scalar per image: it is all that a hidden
stage hears of a label. The stages below learn by plain STDP (`below="unsupervised"`) or under the same R
(`below="reward"`). N_hit/N is a running mean. With soft bounds p (1 − p) is the distance to the bound of each change.

Where this differs: published networks decide by the first neuron of all to fire, which works where that neuron sees the
whole image. Here the last stage may be a map of small fields, whose first spike says little of the class.

Local: spike times of the two sides, the sum of a neuron's own synapses, its class's decision and R. The rest is as in
`stdp`, the readout's delta rule included.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from models.base import StagedNet
from rules._encoding import Encoding
from rules._spiking import Layer
from rules._spiking_rule import RATES, UNIT_RATE
from rules._stdp import Winners
from rules._winner_take_all import WinnerTakeAll
from rules.base import Learned, Objective, Tags, loguniform


class RewardSTDP(WinnerTakeAll):
    """STDP under a global reward. Signal: Σ |Δw| of a neuron's synapses that this image causes.

    Args:
        encoding: How images become input spikes: ``latency``, ``poisson`` or ``constant``.
        steps: Time steps per image.
        potentiation: a₊.
        depression: a₋.
        punished_potentiation: b₊.
        punished_depression: b₋.
        gain: Factor on all four under a reward.
        soft: Whether changes shrink with the distance to their bound, or with p (1 − p) as published.
        balanced: Whether a neuron keeps the sum of its weights.
        coactive: Share of the neurons at one position that may fire.
        below: What the stages below the last hidden one learn by.
        winners: Neurons that learn per image in a convolutional stage; one in a dense stage.
        target: Share of neurons that reach their thresholds.
        readout: Rate of the delta rule.
        memory: Rate of the running mean N_hit/N, per step.
    """

    tags = Tags(
        supervised=True, separate_backward=False, phases=1, spiking=True,
        locality="spike times of the two sides; the sum of a neuron's own synapses; one global reward",
    )  # fmt: skip
    baseline = "spiking_readout_only"
    version = 2
    search_space = {"lr": RATES, "potentiation": loguniform(1e-4, 1e-1), "target": loguniform(0.05, 0.6)}

    def __init__(
        self,
        *,
        encoding: Encoding = "latency",
        steps: int = 10,
        potentiation: float = 0.02,
        depression: float = 0.015,
        punished_potentiation: float = 0.02,
        punished_depression: float = 0.0025,
        gain: float = 5.0,
        soft: bool = True,
        balanced: bool = True,
        coactive: float = 0.1,
        below: Literal["unsupervised", "reward"] = "unsupervised",
        winners: int = 5,
        target: float = 0.4,
        readout: float = 100.0,
        memory: float = 0.02,
    ) -> None:
        super().__init__(
            encoding=encoding, steps=steps, potentiation=potentiation, depression=depression, soft=soft,
            balanced=balanced, coactive=coactive, winners=winners, target=target, readout=readout,
        )  # fmt: skip
        if below not in ("unsupervised", "reward"):
            raise ValueError(f"unknown below {below!r}; choose from unsupervised, reward")
        self.punished_potentiation, self.punished_depression = punished_potentiation, punished_depression
        self.gain, self.below, self.memory = gain, below, memory
        self.hit_rate = nn.Parameter(torch.zeros(()))

    def supports(self, net: StagedNet, objective: Objective) -> str | None:
        """Refuse tasks without classes: a decision is what is rewarded."""
        if objective.name != "cross_entropy":
            return "only a decision between classes can be right or wrong, and so be rewarded"
        return super().supports(net, objective)

    def attach(self, net: StagedNet) -> None:
        """Begin at the hit rate of chance."""
        super().attach(net)
        with torch.no_grad():
            self.hit_rate.fill_(1 / net.out_shape[0])

    @torch.no_grad()
    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return −Δw of the hidden stages, the readout's delta rule, homeostasis, and the step of the hit rate."""
        try:
            learned = super().learn(net, x, target, objective)
            hits = self._reward.gt(0).to(self.hit_rate.dtype).mean()
        finally:
            self.__dict__.pop("_reward", None)  # it belongs to this batch alone
        learned.grads["hit_rate"] = self.memory * (self.hit_rate - hits) / UNIT_RATE
        return learned

    def amplitudes(
        self, found: Winners, stage: str, net: StagedNet, layers: dict[str, Layer], target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return a₊ and a₋ of each winner under the reward of its image."""
        if stage != net.hidden[-1] and self.below == "unsupervised":
            return super().amplitudes(found, stage, net, layers, target)
        if not hasattr(self, "_reward"):
            self._reward = self.reward(net, layers, target)
        return self.modulate(self._reward[found.image])

    def learn_stage(self, net: StagedNet, name: str, below: Tensor) -> dict[str, Tensor]:
        """Refuse the stages that learn under reward: the decision is that of the whole network."""
        if name == net.hidden[-1] or self.below == "reward":
            raise ValueError(f"{name} learns under the reward of the whole network's decision; call learn")
        return super().learn_stage(net, name, below)

    def eligible(self, stage: str, net: StagedNet, layers: dict[str, Layer]) -> Tensor | None:
        """Return the neurons of the decided class in the last hidden stage; all in the stages below."""
        if stage != net.hidden[-1]:
            return None
        decision, _ = self.decide(net, layers)
        return self.classes(net, layers) == decision[:, None]

    def classes(self, net: StagedNet, layers: dict[str, Layer]) -> Tensor:
        """Return the class that each neuron or map of the last hidden stage stands for, ``(F,)``."""
        overshoot = layers[net.hidden[-1]].populations[-1].overshoot
        assert overshoot is not None
        return torch.arange(overshoot.shape[1], device=overshoot.device) % net.out_shape[0]

    def decide(self, net: StagedNet, layers: dict[str, Layer]) -> tuple[Tensor, Tensor]:
        """Return the class that the last hidden stage decides for, and whether any neuron fired, ``(B,)`` each."""
        last = layers[net.hidden[-1]].populations[-1]
        code = 1 - last.latency.to(self.hit_rate.dtype) / last.steps
        code = code.flatten(2).mean(2) if code.dim() > 2 else code
        classes = self.classes(net, layers)
        num = torch.bincount(classes, minlength=net.out_shape[0])
        votes = code.new_zeros(len(code), net.out_shape[0]).index_add_(1, classes, code) / num.clamp(min=1)
        return votes.argmax(1), code.sum(1) > 0

    def reward(self, net: StagedNet, layers: dict[str, Layer], target: Tensor) -> Tensor:
        """Return R of each image, in {−1, 0, +1}, ``(B,)``: whether the stage's decision is the image's class."""
        decision, fired = self.decide(net, layers)
        reward = torch.where(decision == target, 1.0, -1.0) * fired
        return reward.to(self.hit_rate.dtype)

    def modulate(self, reward: Tensor) -> tuple[Tensor, Tensor]:
        """Return a₊ and a₋ under rewards ``(N,)``."""
        rewarded = self.gain * reward.clamp(min=0) * (1 - self.hit_rate)
        punished = self.gain * (-reward).clamp(min=0) * self.hit_rate
        return (
            rewarded * self.potentiation - punished * self.punished_potentiation,
            rewarded * self.depression - punished * self.punished_depression,
        )
