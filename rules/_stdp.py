"""Spike-timing-dependent plasticity between populations: who learns (winners), what they learn, and homeostasis.

Signed weights. Classical STDP keeps an efficacy p in [0, 1]; the networks here start from signed Gaussian weights,
the same for every rule. Each synapse is read as

    w = s (2p − 1),    s = max |w⁰| of its weight tensor, fixed for good:

an excitatory synapse of efficacy p and strength 2s, next to a fixed inhibition of s through which every
presynaptic spike reaches every postsynaptic neuron (feed-forward inhibition). The mapping changes no initial weight,
no shape and no number of parameters; its bounds are −s ≤ w ≤ s. In the first stage p is the efficacy of an ON synapse
and 1 − p that of an OFF synapse of equal strength: together they drive the neuron with w · (ON − OFF), so that one
signed weight reads a signed contrast, and either synapse learns from its own cell's spikes. What differs from the
published networks: weights start around p = ½ rather than at .8, and a synapse that goes to p = 0 inhibits rather than
falls silent.

Shapes: ``N`` winners of a batch, ``B`` images.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import StagedNet
from rules._neurons import Population, Synapse

POOLS = (nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)  # poolings whose neurons ``under`` finds


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


def find_winners(population: Population, num: int, radius: int, among: Tensor | None = None) -> Winners:
    """Return up to ``num`` winners per image: the earliest spikes, among equals those furthest above threshold.

    A winner silences its map everywhere and, in all maps, the positions up to ``radius`` from its own
    (Kheradpisheh et al. 2018): the winners of an image are of distinct maps and apart from each other.

    Args:
        population: After its simulation.
        num: Winners per image.
        radius: Reach of lateral inhibition, in positions.
        among: Neurons or maps that may win in each image ``(B, F)``; all by default.
    """
    assert population.overshoot is not None
    latency = population.latency.long()
    height, width = latency.shape[2:] if latency.dim() == 4 else (1, 1)
    latency, score = (t.reshape(*t.shape[:2], -1) for t in (latency, population.priority()))
    if among is not None:
        score = score * among[:, :, None]
    dense = latency.shape[2] == 1
    images = torch.arange(len(latency), device=latency.device)
    row = torch.arange(height, device=latency.device).repeat_interleave(width)
    column = torch.arange(width, device=latency.device).repeat(height)
    found = []
    if dense:
        top, neurons = score[:, :, 0].topk(min(num, score.shape[1]), 1)
        for j in range(top.shape[1]):
            found.append(torch.stack([images, neurons[:, j], torch.zeros_like(images)], 1)[top[:, j] >= 1])
    else:
        best, owner = score.max(1)  # the map that is first at each position
        for _ in range(num):
            top, place = best.max(1)
            neuron = owner.gather(1, place[:, None])
            found.append(torch.stack([images, neuron[:, 0], place], 1)[top >= 1])
            near = (row - row[place][:, None]).abs().le(radius) & (column - column[place][:, None]).abs().le(radius)
            best = best.masked_fill(near | (owner == neuron), -1)
    image, neuron, place = torch.cat(found).unbind(1)
    return Winners(image, neuron, torch.stack([row[place], column[place]], 1), latency[image, neuron, place])


def afferents(module: Synapse, inputs: list[Tensor], winners: Winners) -> Tensor:
    """Return what each winner's synapses had received at its spike, ``(N, *weight.shape[1:])``.

    With latched signals that is 1 for a presynaptic neuron that fired at or before the winner, 0 for one that
    did not; ±1 for ON and OFF cells; the contrast for a constant current. Pulses are latched first (``latched``).

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


def latched(pulses: list[Tensor]) -> list[Tensor]:
    """Return, at every step, whether each input cell has fired yet, with the sign of its spikes.

    Args:
        pulses: Spikes of ON (+1) and OFF cells (−1) at every step; a cell is always one of the two.
    """
    return list(torch.stack(pulses).cumsum(0).sign())


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


def change(
    weight: Tensor,
    bound: Tensor,
    seen: Tensor,
    winners: Winners,
    potentiation: Tensor,
    depression: Tensor,
    *,
    push_pull: bool,
    soft: bool,
    balanced: bool,
) -> Tensor:
    """Return Δw = 2s Δp of every synapse of each winner, ``(N, *weight.shape[1:])``.

        Δp = a₊ (1 − p) where the presynaptic neuron fired at or before the winner,  −a₋ p where later or not at all

    Without soft bounds both factors are the published p (1 − p). On a push–pull input both the ON synapse, of
    efficacy p, and the OFF synapse, of 1 − p, follow the rule, and their changes of p add up: (a₊ + a₋) (1 − p) where
    ON fired, −(a₊ + a₋) p where OFF fired, and a₋ (1 − 2p), towards no effect, where neither did.

    Args:
        weight: Weights of the synapse.
        bound: s.
        seen: From ``afferents``.
        winners: The winners.
        potentiation: a₊ of each winner ``(N,)``.
        depression: a₋ of each winner ``(N,)``.
        push_pull: Whether the presynaptic side are pairs of ON and OFF cells.
        soft: Whether a change shrinks with the distance to the bound that it goes to, or with p (1 − p).
        balanced: Whether the sum of a neuron's weights is kept: heterosynaptic competition takes off what was added,
            in proportion to p (1 − p) (after von der Malsburg 1973).
    """
    p = ((weight / bound + 1) / 2).clamp(0, 1)[winners.neuron]
    free = p * (1 - p)
    up, down = (1 - p, p) if soft else (free, free)
    ltp, ltd = (a.view(-1, *(1,) * (seen.dim() - 1)) for a in (potentiation, depression))
    # Anti-STDP, of negative amplitudes, goes to the other bound.
    rise, fall = torch.where(ltp < 0, down, up), torch.where(ltp < 0, up, down)
    lift, drop = torch.where(ltd < 0, down, up), torch.where(ltd < 0, up, down)
    if push_pull:
        on, off = seen.clamp(min=0), (-seen).clamp(min=0)
        delta = ltp * (rise * on - fall * off) + ltd * (lift * (1 - off) - drop * (1 - on))
    else:
        delta = ltp * rise * seen - ltd * drop * (1 - seen)
    if balanced:
        added, room = delta.flatten(1).sum(1), free.flatten(1).sum(1).clamp(min=1e-12)
        delta = delta - free * (added / room).view(-1, *(1,) * (free.dim() - 1))
    return 2 * bound * delta


def under(grid: Tensor, pool: nn.Module) -> Tensor:
    """Return the sum of a map's values ``(B, F, H, W)`` under each unit of the pooled map.

    What no pooled unit sees (the last row of a map of odd height, say) is in no sum.

    Args:
        grid: One value per neuron.
        pool: One of ``POOLS``.
    """
    if isinstance(pool, nn.MaxPool2d):
        return F.avg_pool2d(grid, pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, divisor_override=1)
    if isinstance(pool, nn.AvgPool2d):
        return F.avg_pool2d(grid, pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, divisor_override=1)
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        mean = pool(grid)
        sides = [
            torch.tensor([-(-(i + 1) * whole // num) - i * whole // num for i in range(num)], device=grid.device)
            for whole, num in zip(grid.shape[2:], mean.shape[2:], strict=True)
        ]
        return mean * sides[0][:, None] * sides[1]
    return grid


def unpoolable(net: StagedNet) -> str | None:
    """Return why a network's poolings have no ``under``, or ``None``."""
    for stage in net.hidden:
        pool = net.stages[stage].pool
        if not isinstance(pool, POOLS):
            return f"{stage}: which neurons a unit behind {type(pool).__name__} stands for is not known"
    return None


def onto_stage(values: Tensor, winners: Winners, population: Population, pool: nn.Module) -> Tensor:
    """Return per-winner values summed onto the units of the stage's output, ``(B, ...)``.

    Args:
        values: One number per winner ``(N,)``.
        winners: The winners.
        population: Theirs.
        pool: The stage's pooling; a pooled unit stands for all neurons under it.
    """
    assert population.overshoot is not None
    grid = torch.zeros_like(population.overshoot)
    if grid.dim() == 2:
        grid.index_put_((winners.image, winners.neuron), values, accumulate=True)
        return grid
    row, column = winners.position.unbind(1)
    grid.index_put_((winners.image, winners.neuron, row, column), values, accumulate=True)
    return under(grid, pool)


def bound_name(synapse: str) -> str:
    """Return the name of a synapse's bound among a rule's buffers."""
    return f"bound_{synapse.replace('.', '_')}"
