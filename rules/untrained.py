"""Control: the network as it was initialised. What it scores, no learning rule can claim."""

import torch
from torch import Tensor

from models.base import StagedNet
from rules.base import Learned, Objective, Rule, Tags


class Untrained(Rule):
    """No weight ever changes. There is no learning signal."""

    tags = Tags(supervised=False, separate_backward=False, locality="none", phases=1, learns=False, control=True)

    recurrent = True

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return the loss and no gradient."""
        with torch.no_grad():
            output = net(x)
            return Learned({}, objective.losses(output, target).mean(), output)
