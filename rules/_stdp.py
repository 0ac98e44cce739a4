"""Spike-timing-dependent plasticity between populations: who learns (winners), what they learn, and homeostasis.

Signed weights. Classical STDP keeps an efficacy p in [0, 1]; the networks here start from signed Gaussian weights,
the same for every rule. Each synapse is read as

    w = s (2p − 1),    s = max |w⁰| of its weight tensor, fixed for good:

an excitatory synapse of efficacy p and strength 2s, next to a fixed inhibition of s through which every
presynaptic spike reaches every postsynaptic neuron (feed-forward inhibition). The mapping changes no initial weight,
no shape and no number of parameters; its bounds are −s ≤ w ≤ s, and the classical stabiliser p (1 − p)
is zero at both. What differs from the published networks: weights start around p = ½ rather than at .8, and a
synapse that goes to p = 0 inhibits rather than falls silent.

Shapes: ``N`` winners of a batch, ``B`` images.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rules._spiking import Population, Synapse


@dataclass(frozen=True)
class Winners:
    """Neurons that learn, one entry each.

    Attributes:
        image: Index in the batch ``(N,)``.
        neuron: Index of the neuron, or of the map ``(N,)``.
        position: Row and column in the map ``(N, 2)``; zeros in a dense stage.
        latency: Step of the first spike ``(N,)``.
    """

    image: Tensor
    neuron: Tensor
    position: Tensor
    latency: Tensor

    def __len__(self) -> int:
        return len(self.image)


def find_winners(population: Population, num: int, radius: int) -> Winners:
    """Return up to ``num`` winners per image: the earliest spikes, among equals those furthest above threshold.

    A winner silences its map everywhere and, in all maps, the positions up to ``radius`` from its own
    (Kheradpisheh et al. 2018): the winners of an image are of distinct maps and apart from each other.

    Args:
        population: After its simulation.
        num: Winners per image.
        radius: Reach of lateral inhibition, in positions.
    """
    assert population.overshoot is not None
    latency = population.latency.long()
    height, width = latency.shape[2:] if latency.dim() == 4 else (1, 1)
    latency, overshoot = (t.reshape(*t.shape[:2], -1) for t in (latency, population.overshoot))
    margin = overshoot.clamp(min=0)
    score = (population.steps - latency) + margin / (1 + margin)  # lexicographic: the margin counts below one step
    score = torch.where(latency < population.steps, score, -torch.ones_like(score))
    dense = latency.shape[2] == 1
    images = torch.arange(len(latency), device=latency.device)
    row = torch.arange(height, device=latency.device).repeat_interleave(width)
    column = torch.arange(width, device=latency.device).repeat(height)
    found = []
    if dense:
        top, neurons = score[:, :, 0].topk(min(num, score.shape[1]), 1)
        for j in range(top.shape[1]):
            found.append(torch.stack([images, neurons[:, j], torch.zeros_like(images)], 1)[top[:, j] > 0])
    else:
        best, owner = score.max(1)  # the map that is first at each position
        for _ in range(num):
            top, place = best.max(1)
            neuron = owner.gather(1, place[:, None])
            found.append(torch.stack([images, neuron[:, 0], place], 1)[top > 0])
            near = (row - row[place][:, None]).abs().le(radius) & (column - column[place][:, None]).abs().le(radius)
            best = best.masked_fill(near | (owner == neuron), -1)
    image, neuron, place = torch.cat(found).unbind(1)
    return Winners(image, neuron, torch.stack([row[place], column[place]], 1), latency[image, neuron, place])


def afferents(module: Synapse, inputs: list[Tensor], winners: Winners) -> Tensor:
    """Return what each winner's synapses had received at its spike, ``(N, *weight.shape[1:])``.

    With latched signals that is 1 for a presynaptic neuron that fired at or before the winner, 0 for one that
    did not; ±1 for ON and OFF cells; the contrast for a constant current.

    Args:
        module: The synapse.
        inputs: Its input at every step.
        winners: The winners.
    """
    seen = module.weight.new_zeros(len(winners), *module.weight.shape[1:])
    for t in winners.latency.unique().tolist():
        now = (winners.latency == t).nonzero()[:, 0]
        image = winners.image[now]
        if isinstance(module, nn.Linear):
            seen[now] = inputs[t][image]
        else:
            seen[now] = _patches(module, inputs[t], image, winners.position[now])
    return seen


def _patches(module: nn.Conv2d, x: Tensor, image: Tensor, position: Tensor) -> Tensor:
    """Return the input patch under each output position, ``(N, C, K, K)``, zero beyond the border."""
    index, inside = [], []
    for axis in (0, 1):
        stride, padding, kernel = module.stride[axis], int(module.padding[axis]), module.kernel_size[axis]
        place = position[:, axis, None] * stride - padding + torch.arange(kernel, device=x.device)
        size = x.shape[2 + axis]
        inside.append((place >= 0) & (place < size))
        index.append(place.clamp(0, size - 1))
    patch = x.permute(0, 2, 3, 1)[image[:, None, None], index[0][:, :, None], index[1][:, None, :]]
    valid = inside[0][:, :, None] & inside[1][:, None, :]
    return (patch * valid[..., None]).permute(0, 3, 1, 2)


def window(seen: Tensor, potentiation: Tensor, depression: Tensor, *, push_pull: bool) -> Tensor:
    """Return the simplified STDP of each synapse of each winner, without weight dependence, ``(N, ...)``.

        a₊ where the presynaptic neuron fired at or before the winner,  −a₋ where it fired later or not at all

    On a push–pull input both the ON and the OFF synapse follow the rule, and p_on = p = 1 − p_off: their changes
    add up to (a₊ + a₋) · sign, and to none where neither cell fired.

    Args:
        seen: From ``afferents``.
        potentiation: a₊ of each winner ``(N,)``.
        depression: a₋ of each winner ``(N,)``.
        push_pull: Whether the presynaptic side are pairs of ON and OFF cells.
    """
    ltp, ltd = (a.view(-1, *(1,) * (seen.dim() - 1)) for a in (potentiation, depression))
    return (ltp + ltd) * seen if push_pull else ltp * seen - ltd * (1 - seen)


def change(weight: Tensor, bound: Tensor, raw: Tensor, winners: Winners, *, balanced: bool) -> Tensor:
    """Return Δw of every synapse of each winner, ``(N, *weight.shape[1:])``: 2s · p (1 − p) · window.

    ``balanced`` adds heterosynaptic competition: the mean change, weighted by p (1 − p), is taken off, so that the sum
    of a neuron's weights, its balance of excitation and inhibition, is kept (von der Malsburg 1973).

    Args:
        weight: Weights of the synapse.
        bound: s.
        raw: From ``window``.
        winners: The winners.
        balanced: Whether the sum of a neuron's weights is kept.
    """
    p = (weight / bound + 1) / 2
    stabiliser = (p * (1 - p)).clamp(min=0)[winners.neuron].flatten(1)
    raw = raw.flatten(1)
    if balanced:
        mean = (stabiliser * raw).sum(1, keepdim=True) / stabiliser.sum(1, keepdim=True).clamp(min=1e-12)
        raw = raw - mean
    return (2 * bound * stabiliser * raw).view(-1, *weight.shape[1:])


def onto_stage(values: Tensor, winners: Winners, population: Population, shape: torch.Size) -> Tensor:
    """Return per-winner values summed onto the units of the stage's output, ``shape``.

    Args:
        values: One number per winner ``(N,)``.
        winners: The winners.
        population: Theirs.
        shape: Shape of the stage's output ``(B, ...)``; a pooled unit stands for all neurons under it.
    """
    assert population.overshoot is not None
    grid = torch.zeros_like(population.overshoot)
    if grid.dim() == 2:
        grid.index_put_((winners.image, winners.neuron), values, accumulate=True)
        return grid
    row, column = winners.position.unbind(1)
    grid.index_put_((winners.image, winners.neuron, row, column), values, accumulate=True)
    if grid.shape == shape:
        return grid
    under = grid[0, 0].numel() / shape[2:].numel()
    return F.adaptive_avg_pool2d(grid, (shape[2], shape[3])) * under


def bound_name(synapse: str) -> str:
    """Return the name of a synapse's bound among a rule's buffers."""
    return f"bound_{synapse.replace('.', '_')}"
