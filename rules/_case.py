"""One rule on one network, as the contract's checks see it: the same seed, the same data, every time."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.base import StagedNet
from rules._behaviour import CLASSES, IN_SHAPE
from rules.base import Learned, Objective, Rule

Build = Callable[[tuple[int, ...], tuple[int, ...]], StagedNet]


@dataclass(frozen=True)
class Case:
    """One rule on one network and objective; every call builds them afresh from the same seed."""

    make: Callable[[], Rule]
    build: Build
    objective: Objective

    def attached(self) -> tuple[StagedNet, Rule]:
        """Return a network and the rule attached to it."""
        torch.manual_seed(0)
        net = self.build(IN_SHAPE, out_shape(self.objective))
        rule = self.make()
        torch.manual_seed(1)
        rule.attach(net.eval())
        return net.train(), rule

    def data(self, num: int = 6) -> tuple[Tensor, Tensor]:
        """Return inputs and targets."""
        generator = torch.Generator().manual_seed(2)
        x = torch.randn(num, *IN_SHAPE, generator=generator)
        if self.objective.name == "cross_entropy":
            return x, torch.randint(0, CLASSES, (num,), generator=generator)
        return x, torch.rand(num, *out_shape(self.objective), generator=generator)

    def learn(self, net: StagedNet, rule: Rule, x: Tensor, target: Tensor, seed: int = 3) -> Learned:
        """Return ``rule.learn`` from a given random state."""
        torch.manual_seed(seed)
        return rule.learn(net, x, target, self.objective)


def out_shape(objective: Objective) -> tuple[int, ...]:
    """Return the shape of the output on which an objective is checked."""
    return (CLASSES,) if objective.name == "cross_entropy" else IN_SHAPE
