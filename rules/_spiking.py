"""Spiking inference over any staged network: the same stages and weights, with neurons that spike.

Neurons stand in the place of every nonlinearity, also of those inside residual blocks; pooling pools their spikes.
Shapes: ``T`` time steps, ``B`` batch; a ``signal`` is what a stage hands on at every step, ``(T, B, ...)``.

The neurons and their equations: ``rules/_neurons.py``. The readout does not spike: its output is its potential at the
end, W · (mean signal) + b.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.base import NONLINEARITIES, Stage, StagedNet
from rules._neurons import Population, Synapse

SPIKING_PLACES: tuple[type[nn.Module], ...] = tuple(set(NONLINEARITIES.values()) - {nn.Identity})


@dataclass(frozen=True)
class Layer:
    """One hidden stage in time: its populations in order (the stage's own last), its signal behind its pooling."""

    populations: list[Population]
    signal: Tensor
    pool: nn.Module


def simulate(net: StagedNet, inputs: Tensor, populate: Callable[[str], Population]) -> tuple[dict[str, Layer], Tensor]:
    """Run a network in time and return its hidden stages and its output.

    Args:
        net: The network.
        inputs: Signal of the input, ``(T, B, *in_shape)``.
        populate: Name of a place → its neurons.

    Returns:
        Stage → layer for the hidden stages, and the output ``(B, *out_shape)``.
    """
    layers: dict[str, Layer] = {}
    signal = inputs
    for name in net.hidden:
        stage = net.stages[name]
        assert isinstance(stage, Stage)
        layers[name] = layer = advance(name, stage, signal, populate)
        signal = layer.signal
    output = net.stages[net.readout](signal.mean(0))
    return layers, net.shaped(output)


def advance(name: str, stage: Stage, signal: Tensor, populate: Callable[[str], Population]) -> Layer:
    """Run one hidden stage in time under the signal below it, ``(T, B, ...)``."""
    own = populate(name)
    prefix = f"stages.{name}.synapse"
    pooled = []
    if isinstance(stage.synapse, Synapse):
        if isinstance(stage.synapse, nn.Linear):
            signal = signal.flatten(2)
        frames = list(signal)
        own.synapses[prefix] = stage.synapse, frames
        constant = all(frame.data_ptr() == frames[0].data_ptr() for frame in frames)
        if own.neuron == "first_spike" and own.surrogate is None:
            # Maps in order, one after the other: neurons of a position are compared map by map.
            weight = {"weight": stage.synapse.weight.clone(memory_format=torch.contiguous_format)}
            if constant and not own.keep:
                own.integrate_constant(functional_call(stage.synapse, weight, (frames[0],)))
            else:
                for frame in frames:
                    own.integrate(functional_call(stage.synapse, weight, (frame,)))
            own.inhibit()
            return Layer([own], _latched(own, stage.pool, signal), stage.pool)
        currents: Iterable[Tensor]
        if constant:
            currents = itertools.repeat(stage.synapse(frames[0]), len(frames))
        elif isinstance(stage.synapse, nn.Linear):  # one product for all steps: the weights are read once
            currents = together = stage.synapse(signal.flatten(0, 1)).unflatten(0, signal.shape[:2])
            if own.compete and own.surrogate is None:
                spikes = own.compete_throughout(together)
                return Layer([own], stage.pool(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2]), stage.pool)
        else:
            currents = map(stage.synapse, frames)
        for current in currents:
            pooled.append(stage.pool(own.step(current)))
        return Layer([own], torch.stack(pooled), stage.pool)
    inner: list[Population] = []
    with _tapped(name, stage.synapse, populate, inner, own):
        for frame in signal:
            pooled.append(stage.pool(own.step(stage.synapse(frame))))
    return Layer([*inner, own], torch.stack(pooled), stage.pool)


def _latched(own: Population, pool: nn.Module, like: Tensor) -> Tensor:
    """Return the latched signal behind the pooling, from the latencies alone.

    The first spike under a maximum is the spike of its earliest neuron, so that latencies are pooled once rather than
    spikes at every step.
    """
    step = torch.arange(own.steps, device=like.device).view(-1, *(1,) * own.latency.dim())
    if isinstance(pool, nn.MaxPool2d | nn.Identity):
        pooled = _earliest(own.latency.to(like.dtype), pool)
        latched = pooled.new_empty(own.steps, *pooled.shape)
        return torch.le(pooled, step.to(like.dtype), out=latched)
    return torch.stack([pool((own.latency <= t).to(like.dtype)) for t in range(own.steps)])


def _earliest(latency: Tensor, pool: nn.Module) -> Tensor:
    """Return the earliest latency under each unit of a maximum pooling."""
    plain = isinstance(pool, nn.MaxPool2d) and (pool.padding, pool.dilation, pool.ceil_mode) == (0, 1, False)
    if plain and pool.kernel_size == pool.stride == 2:
        # What ``pool`` does without the indices that its derivative would need, in a tenth of the time.
        height, width = (side // 2 * 2 for side in latency.shape[2:])
        rows = torch.minimum(latency[:, :, 0:height:2], latency[:, :, 1:height:2])
        return torch.minimum(rows[..., 0:width:2], rows[..., 1:width:2])
    return -pool(-latency)


@contextmanager
def _tapped(
    name: str, synapse: nn.Module, populate: Callable[[str], Population], inner: list[Population], own: Population
) -> Iterator[None]:
    """Put neurons in the place of the nonlinearities inside a synapse, and note what its affine maps see.

    An affine map drives the neurons that the current reaches next: those inside, or the stage's own.
    """
    waiting: dict[str, tuple[Synapse, Tensor]] = {}
    by_place: dict[str, Population] = {}
    handles: list[Any] = []

    def deliver(population: Population) -> None:
        for key, (module, x) in waiting.items():
            population.synapses.setdefault(key, (module, []))[1].append(x)
        waiting.clear()

    def listen(key: str) -> Callable[..., None]:
        def hook(module: Any, args: Any) -> None:
            waiting[key] = module, args[0]

        return hook

    def replace(place: str) -> Callable[..., Tensor]:
        def hook(module: Any, args: Any, output: Tensor) -> Tensor:
            del module, output
            if place not in by_place:
                by_place[place] = populate(f"{name}.{place}")
                inner.append(by_place[place])
            deliver(by_place[place])
            return by_place[place].step(args[0])

        return hook

    def finish(module: Any, args: Any, output: Tensor) -> None:
        del module, args, output
        deliver(own)

    try:
        for place, module in synapse.named_modules():
            if isinstance(module, Synapse):
                handles.append(module.register_forward_pre_hook(listen(f"stages.{name}.synapse.{place}")))
            elif isinstance(module, SPIKING_PLACES):
                handles.append(module.register_forward_hook(replace(place)))
        handles.append(synapse.register_forward_hook(finish))
        yield
    finally:
        for handle in handles:
            handle.remove()
