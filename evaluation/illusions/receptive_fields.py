"""Which units see a region of the image and nothing else, on the feed-forward way: measured, not assumed.

Every pixel outside the region is put to not-a-number, which spreads through every sum and maximum that reads it: a
unit whose value is still a number has its whole receptive field inside. Normalisations that look at the whole image
(group, layer, instance, local response) are taken out first, since a receptive field is that of synapses and pooling;
what they carry into a gap then shows as a leak.

Shapes: ``B`` images, ``U`` units of a stage.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.base import evaluating
from models.base import StagedNet

GLOBAL = (nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.modules.instancenorm._InstanceNorm)


def units_within(net: StagedNet, region: Tensor) -> dict[str, Tensor]:
    """Return, for every stage, whether each unit's receptive field lies wholly in a region, ``(B, units)`` boolean.

    Args:
        net: The network.
        region: ``(B, H, W)`` boolean, at the size of the network's input.
    """
    return {name: ~unknown for name, unknown in _unknown(net, ~region).items()}


def units_touching(net: StagedNet, region: Tensor) -> dict[str, Tensor]:
    """Return, for every stage, whether each unit's receptive field holds a pixel of a region, ``(B, units)``."""
    return _unknown(net, region)


def seen_apart(net: StagedNet, drawn: Tensor, asked: Tensor, reach: int = 0) -> dict[str, Tensor]:
    """Return, for every stage, which pixels are seen, and by no unit that sees anything drawn too, ``(H, W)`` boolean.

    Args:
        net: The network.
        drawn: ``(H, W)`` boolean, where something is drawn, at the size of the network's input.
        asked: ``(H, W)`` boolean, pixels that are asked about.
        reach: Pixels by which an encoding spreads the image before the network sees it.
    """
    rows, columns = asked.nonzero(as_tuple=True)
    single = torch.zeros(len(rows), *asked.shape, dtype=torch.bool)
    single[torch.arange(len(rows)), rows, columns] = True
    found = {}
    shown = units_touching(net, _spread(drawn[None], reach))
    for name, seeing in units_touching(net, _spread(single, reach)).items():
        apart = torch.zeros_like(asked)
        apart[rows, columns] = seeing.any(1) & ~(seeing & shown[name]).any(1)
        found[name] = apart
    return found


def _spread(region: Tensor, reach: int) -> Tensor:
    return F.max_pool2d(region.float()[:, None], 2 * reach + 1, 1, reach)[:, 0] > 0


def global_modules(net: nn.Module) -> list[str]:
    """Return the names of normalisations that look at the whole image, with their kind."""
    return [f"{name} ({type(m).__name__})" for name, m in net.named_modules() if isinstance(m, GLOBAL)]


def _unknown(net: StagedNet, where: Tensor) -> dict[str, Tensor]:
    skeleton = _without_global_modules(net)
    x = torch.zeros(len(where), *net.in_shape, dtype=torch.float64).masked_fill(where[:, None], float("nan"))
    with evaluating(skeleton):
        return {name: a.isnan().flatten(1) for name, a in skeleton.trace(x).items()}


def _without_global_modules(net: StagedNet) -> StagedNet:
    # In double precision convolutions are plain sums: faster ones may spread a number over its neighbours.
    skeleton = copy.deepcopy(net).cpu().double()
    for module in list(skeleton.modules()):
        for name, child in module.named_children():
            if isinstance(child, GLOBAL):
                setattr(module, name, nn.Identity())
    return skeleton
