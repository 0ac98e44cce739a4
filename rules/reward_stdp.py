"""Reward-modulated STDP (Mozafari et al. 2018, IEEE TNNLS 29:6178; 2019, Pattern Recognit. 94:87).

    R = +1:  Δp = p (1 − p) · g N_miss/N · { a₊ if t_pre ≤ t_post;  −a₋ otherwise }
    R = −1:  Δp = p (1 − p) · g N_hit/N  · { −b₊ if t_pre ≤ t_post;  +b₋ otherwise }      (anti-STDP)
    R =  0:  Δp = 0

Each neuron (or map) of the last hidden stage stands for one class from the start, neuron j for class j mod K. The class
of the first one to fire is the stage's decision; it is rewarded if it is the image's class, punished if not, and
R = 0 if no neuron fired. R is one global scalar per image: it is all that a hidden stage hears of a label. The stages
below learn by plain STDP (`below="unsupervised"`) or under the same R (`below="reward"`). N_hit/N is a running mean.

Local: spike times of the two sides, the sum of a neuron's own synapses, and R. The rest is as in `stdp`, the
readout's delta rule included.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from models.base import StagedNet
from rules._encoding import Encoding
from rules._spiking import Layer
from rules._spiking_rule import RATES, UNIT_RATE
from rules._stdp import Winners, find_winners
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
        below: What the stages below the last hidden one learn by.
        winners: Neurons that learn per image in a convolutional stage; one in a dense stage.
        target: Share of neurons that fire.
        readout: Rate of the delta rule.
        memory: Rate of the running mean N_hit/N, per step.
    """

    tags = Tags(
        supervised=True, separate_backward=False, phases=1, spiking=True,
        locality="spike times of the two sides; the sum of a neuron's own synapses; one global reward",
    )  # fmt: skip
    search_space = {"lr": RATES, "potentiation": loguniform(1e-4, 1e-1), "target": loguniform(0.05, 0.6)}

    def __init__(
        self,
        *,
        encoding: Encoding = "constant",
        steps: int = 10,
        potentiation: float = 0.0005,
        depression: float = 0.000375,
        punished_potentiation: float = 0.0005,
        punished_depression: float = 0.0000625,
        gain: float = 10.0,
        below: Literal["unsupervised", "reward"] = "unsupervised",
        winners: int = 5,
        target: float = 0.4,
        readout: float = 10.0,
        memory: float = 0.02,
    ) -> None:
        super().__init__(
            encoding=encoding, steps=steps, potentiation=potentiation, depression=depression, winners=winners,
            target=target, readout=readout,
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
        if not hasattr(self, "_reward"):
            self._reward = self.reward(net, layers, target)
        if stage != net.hidden[-1] and self.below == "unsupervised":
            return super().amplitudes(found, stage, net, layers, target)
        return self.modulate(self._reward[found.image])

    def reward(self, net: StagedNet, layers: dict[str, Layer], target: Tensor) -> Tensor:
        """Return R of each image, in {−1, 0, +1}, ``(B,)``: whether the first neuron to fire stands for its class."""
        first = find_winners(layers[net.hidden[-1]].populations[-1], 1, 0)
        right = first.neuron % net.out_shape[0] == target[first.image]
        reward = self.hit_rate.new_zeros(len(target))
        reward[first.image] = torch.where(right, 1.0, -1.0).to(reward.dtype)
        return reward

    def modulate(self, reward: Tensor) -> tuple[Tensor, Tensor]:
        """Return a₊ and a₋ under rewards ``(N,)``."""
        rewarded = self.gain * reward.clamp(min=0) * (1 - self.hit_rate)
        punished = self.gain * (-reward).clamp(min=0) * self.hit_rate
        return (
            rewarded * self.potentiation - punished * self.punished_potentiation,
            rewarded * self.depression - punished * self.punished_depression,
        )
