"""The readout's local rule, the same for every spiking rule and its control: a normalised delta rule on centred input.

    ΔW = −η e u / (ε + |u|²)        Δb = −η ε e / (ε + |u|²) − ΔW m        u = v − m

v is the mean signal below the readout, m its running mean per unit, e the gradient of the loss at the output. A unit
that is always on tells nothing of this image: without m its share of |u|² takes the step from the units that do. The
bias gives back what the weights change at the mean input (centring; Schraudolph 1998; Montavon & Müller 2012),
so that prediction is W v + b as in every network, and m is no part of it.

Local: presynaptic activity and its mean, the readout neuron's own error and own changes, and its total input.
"""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from models.base import StagedNet
from rules._neurons import Synapse
from rules.base import Objective

MEAN = "readout_mean"  # the name of m among a rule's parameters: like thresholds, the optimiser steps it
MEMORY = 0.02  # rate of the running mean per step, at unit learning rate
BOUNDED = ("cross_entropy", "sigmoid_cross_entropy")  # losses whose error is bounded, so that no rate diverges


def readout_synapse(net: StagedNet) -> Synapse | None:
    """Return the readout's affine map; ``None`` where it is not a single one, or not all that the readout does."""
    stage = net.stages[net.readout]
    plain = isinstance(stage.nonlinearity, nn.Identity) and isinstance(stage.pool, nn.Identity | nn.PixelShuffle)
    return stage.synapse if plain and isinstance(stage.synapse, Synapse) else None


def running_mean(net: StagedNet) -> nn.Parameter:
    """Return m at the start: zero, one per unit of a linear readout, one per map of a convolutional one."""
    synapse = readout_synapse(net)
    assert synapse is not None
    num = synapse.in_features if isinstance(synapse, nn.Linear) else synapse.in_channels
    return nn.Parameter(synapse.weight.new_zeros(num))


def delta_rule(
    net: StagedNet, v: Tensor, mean: Tensor, error: Tensor, objective: Objective, rate: float, floor: float, unit: float
) -> dict[str, Tensor]:
    """Return the readout's −Δw and −Δb, averaged over images and, where weights are shared, over positions; and −Δm.

    Args:
        net: The network.
        v: Mean signal below the readout, ``(B, ...)``.
        mean: m.
        error: e of each image's own loss, ``(B, *out_shape)``.
        objective: The loss. One of unbounded error is taken as an energy and η as 1 at most: η < 2 is stable.
        rate: η at the unit learning rate.
        floor: ε.
        unit: The learning rate that means η.
    """
    synapse = readout_synapse(net)
    assert synapse is not None
    if objective.name not in BOUNDED:
        error, rate = error * objective.to_energy(error[0].numel()), min(rate, 1.0)
    pool = net.stages[net.readout].pool
    if isinstance(pool, nn.PixelShuffle):  # a layout: every unit of the synapse is one pixel
        error = F.pixel_unshuffle(error, pool.upscale_factor)
    if isinstance(synapse, nn.Linear):
        v = v.flatten(1)
        u = v - mean
        e = error.flatten(1) / (floor + u.square().sum(1, keepdim=True))
        weight, bias, now = e.t() @ u, e.sum(0), v.mean(0)
        lost = weight @ mean
    else:
        u = v - mean[:, None, None]
        ones = u.new_ones(1, 1, *synapse.kernel_size)
        e = error / (floor + F.conv2d(u.square().sum(1, keepdim=True), ones, None, synapse.stride, synapse.padding))
        e = e / e[0, 0].numel()
        weight = conv2d_weight(u, synapse.weight.shape, e, synapse.stride, synapse.padding)
        bias, now = e.sum((0, 2, 3)), v.mean((0, 2, 3))
        lost = weight.sum((2, 3)) @ mean
    scale = rate / unit / len(v)
    prefix = f"stages.{net.readout}.synapse"
    grads = {f"{prefix}.weight": scale * weight, MEAN: MEMORY * (mean - now) / unit}
    if synapse.bias is not None:
        grads[f"{prefix}.bias"] = scale * (floor * bias - lost)
    return grads
