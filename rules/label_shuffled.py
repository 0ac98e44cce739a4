"""Control: backpropagation on shuffled labels. What it scores comes from the images and the architecture, not the task.

    ∂L/∂W with every image's target replaced by a class drawn once from the image's own pixels

The same image always gets the same class, which tells nothing about what it shows (Zhang et al. 2017,
arXiv 1611.03530). Not local: the error travels as in backprop.
"""

import torch
from torch import Tensor

from models.base import StagedNet
from rules.base import OBJECTIVES, Learned, Objective, Rule, Tags, differentiate


class LabelShuffled(Rule):
    """Gradient descent on the loss of labels that say nothing. Signal: dL/dh of each image, by the shuffled label."""

    tags = Tags(
        weight_transport=True, locality="as backprop's, with labels that say nothing about the image", control=True
    )

    def supports(self, net: StagedNet, objective: Objective) -> str | None:
        """Refuse image-shaped targets: only labels can be shuffled."""
        return "only class labels can be shuffled" if objective.name == "mean_squared_error" else None

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return the gradient of the mean loss of shuffled labels.

        Only a task's classes are shuffled. A benchmark's loss of its own (categories of other images, telling
        images apart) numbers something else, and its gradient is backprop's.
        """
        if objective.name in OBJECTIVES:
            target = shuffled(x, net.out_shape[0]).to(target)
        return differentiate(net, x, target, objective)


def shuffled(x: Tensor, classes: int) -> Tensor:
    """Return a class for every image ``(B,)``: a hash of its pixels' bits, exact in any batch.

    Args:
        x: Images ``(B, ...)``.
        classes: Number of classes.
    """
    bits = x.detach().cpu().float().flatten(1).contiguous().view(torch.int32).long()
    weights = torch.randint(2**62, (bits.shape[1],), generator=torch.Generator().manual_seed(0)) * 2 + 1
    return ((bits * weights).sum(1) >> 33).remainder(classes)  # sums wrap around: their order does not matter
