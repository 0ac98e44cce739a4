"""Spikes and filters: is a spiking stage alive, do its neurons share the work, are its first filters oriented?

    orientation selectivity of a filter = |Σ_θ r(θ) e^{2iθ}| / Σ_θ r(θ)

r(θ) is the filter's largest response to a grating of orientation θ over phases and spatial frequencies (1 − circular
variance; Ringach et al. 2002, J. Neurosci. 22:5639): 0 for a filter that responds to all orientations alike, 1 for one
that responds to a single one. Random filters are not at 0, so the value at the initial weights stands beside it.

Silent: neurons (maps) that never spike on the held-out images. Wins: how often a neuron is the first of its stage to
spike; dead neurons never are, and the hog's share is that of the most frequent one.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evaluation.base import Benchmark, Observer, Score, TrainedObserver, not_available
from models.base import StagedNet

IMAGES = 256  # held-out images
ORIENTATIONS, PHASES = 16, 8
SHOWN_FILTERS = 24  # of the figures of receptive fields


class Spikes(Benchmark):
    """Rates, latencies, silent neurons, wins per stage; orientation selectivity of the first stage's filters."""

    name = "spikes"
    pillar = "learning"
    headline = "silent"
    reference = "Kheradpisheh et al. 2018, Neural Netw. 99:56"

    def measure(self, observer: Observer) -> list[Score]:
        """Return the census of every hidden stage, and the selectivity of first filters for spiking or other rules."""
        if not isinstance(observer, TrainedObserver):
            return [not_available("silent", "a null observer has no neurons")]
        scores = self._selectivity(observer)
        x, _ = observer.probe(IMAGES)
        records = observer.spikes(x)
        if not records:
            return [*scores, not_available("silent", "its inference does not spike")]
        silent = []
        for stage, record in records.items():
            here: dict[str, Any] = {"stage": stage, "n_stimuli": len(x), "higher_is_better": None}
            per_neuron = _per_neuron(record.rates.gt(0).double())
            fired = record.spikes.gt(0).any(0)
            silent.append(per_neuron.eq(0).double().mean().item())
            wins = wins_of(record.latencies, len(record.spikes))
            scores += [
                Score("rate", record.rates.mean().item(), **here),
                Score("silent_share", silent[-1], **here),
                Score("dead_share", wins.eq(0).double().mean().item(), **here),
                Score("hog_share", (wins.max() / wins.sum().clamp(min=1)).item(), **here),
                Score("latency", record.latencies[fired].double().mean().item(), **here)
                if fired.any()
                else not_available("latency", "no spikes", stage=stage),
            ]
        return [*scores, Score("silent", max(silent), higher_is_better=False, n_stimuli=len(x))]

    def _selectivity(self, observer: TrainedObserver) -> list[Score]:
        filters = first_filters(observer.net)
        if filters is None or filters.shape[-1] < 3:
            return [not_available("orientation_selectivity", "its first stage has no spatial filters")]
        before = first_filters(observer.initial)
        assert before is not None
        here: dict[str, Any] = {"higher_is_better": None, "n_stimuli": len(filters)}
        return [
            Score("orientation_selectivity", selectivity(f).mean().item(), target=moment, **here)
            for moment, f in (("initial", before), ("final", filters))
        ]

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Draw receptive fields and weight histograms at both ends of training; rasters and wins of spiking stages."""
        paths = []
        for name, observer in observers.items():
            if not isinstance(observer, TrainedObserver):
                continue
            records = observer.spikes(observer.probe(IMAGES)[0])
            if not records:
                continue
            paths += [_weights(folder, name, observer), _rasters(folder, name, records), _wins(folder, name, records)]
            if (filters := first_filters(observer.net)) is not None:
                before = first_filters(observer.initial)
                assert before is not None
                title = f"Receptive fields of the first stage: {name}"
                both = {"before": before, "after": filters}
                paths.append(receptive_fields(folder / "receptive_fields.png", title, both))
        return paths


def wins_of(latencies: Tensor, steps: int) -> Tensor:
    """Return how often each neuron or map is the first of its stage to spike, ties shared, ``(F,)``.

    Args:
        latencies: Steps of first spikes ``(B, F, ...)``.
        steps: T, the latency of a silent neuron.
    """
    earliest = latencies.flatten(2).amin(2) if latencies.dim() > 2 else latencies
    first = earliest.amin(1, keepdim=True)
    leads = ((earliest == first) & (first < steps)).double()
    return (leads / leads.sum(1, keepdim=True).clamp(min=1)).sum(0)


def first_filters(net: StagedNet) -> Tensor | None:
    """Return the first stage's filters ``(F, C, K, K)``, dense ones as images; ``None`` where not spatial."""
    module = next(iter(net.synapses().values()))
    weight = module.weight.detach()
    if isinstance(module, nn.Conv2d):
        return weight
    return weight.unflatten(1, net.in_shape) if len(net.in_shape) == 3 else None


def selectivity(filters: Tensor) -> Tensor:
    """Return the orientation selectivity of filters ``(F, C, K, K)``, of the channel-mean of each, ``(F,)``."""
    f = filters.double().mean(1)
    f = f - f.mean((1, 2), keepdim=True)
    size = f.shape[-1]
    axes = [torch.arange(s, dtype=torch.double) - (s - 1) / 2 for s in f.shape[1:]]
    y, x = torch.meshgrid(*axes, indexing="ij")
    angles = torch.arange(ORIENTATIONS).double() * math.pi / ORIENTATIONS
    phases = torch.arange(PHASES).double() * 2 * math.pi / PHASES
    response = torch.zeros(len(f), ORIENTATIONS, dtype=torch.double)
    for cycles in (0.5, 1.0, 1.5, 2.0):  # per width of the filter; beyond, small filters alias
        if cycles > size / 2:
            continue
        along = x[None] * angles.cos()[:, None, None] + y[None] * angles.sin()[:, None, None]
        grating = torch.cos(2 * math.pi * cycles / size * along[:, None] + phases[:, None, None])
        grating = grating - grating.mean((2, 3), keepdim=True)
        grating = grating / grating.square().sum((2, 3), keepdim=True).sqrt().clamp(min=1e-9)
        best = torch.einsum("fyx,opyx->fop", f, grating).amax(2).clamp(min=0)
        response = torch.maximum(response, best)
    turn = torch.polar(torch.ones_like(angles), 2 * angles)
    return (response.to(turn.dtype) @ turn).abs() / response.sum(1).clamp(min=1e-12)


def _per_neuron(values: Tensor) -> Tensor:
    """Return ``(B, F, ...)`` averaged over images and positions."""
    return values.transpose(0, 1).flatten(1).mean(1)


def receptive_fields(path: Path, title: str, moments: Mapping[str, Tensor]) -> Path:
    """Draw one row of filters per moment of training, each filter on its own scale, and return the path.

    Args:
        path: File to write.
        title: Above the rows.
        moments: Label of a row → filters ``(F, C, K, K)``; the first ones are drawn.
    """
    from matplotlib.figure import Figure

    num = min(SHOWN_FILTERS, len(next(iter(moments.values()))))
    drawing = Figure(figsize=(0.55 * num + 1.0, 0.55 * len(moments) + 0.6), layout="constrained")
    grid = drawing.subplots(len(moments), num, squeeze=False)
    for row, (label, filters) in zip(grid, moments.items(), strict=True):
        for axes, f in zip(row, filters[:num].mean(1), strict=True):
            largest = f.abs().max().clamp(min=1e-9).item()
            axes.imshow(f.cpu().numpy(), cmap="gray", vmin=-largest, vmax=largest)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
    drawing.suptitle(title, fontsize=9)
    return _save(drawing, path)


def _weights(folder: Path, name: str, observer: TrainedObserver) -> Path:
    from matplotlib.figure import Figure

    hidden = observer.net.hidden
    drawing = Figure(figsize=(2.4 * len(hidden), 2.3), layout="constrained")
    for axes, stage in zip(drawing.subplots(1, len(hidden), squeeze=False)[0], hidden, strict=True):
        for net, label in ((observer.initial, "before"), (observer.net, "after")):
            values = [p.detach().flatten() for n, p in net.parameters_of(stage).items() if n.endswith("weight")]
            axes.hist(torch.cat(values).cpu().numpy(), bins=60, histtype="step", density=True, label=label)
        axes.set(title=stage, xlabel="weight", yticks=[])
    axes.legend(frameon=False, fontsize=7)
    drawing.suptitle(f"Weights: {name}", fontsize=9)
    return _save(drawing, folder / "weights.png")


def _rasters(folder: Path, name: str, records: Mapping[str, Any]) -> Path:
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(2.4 * len(records), 2.6), layout="constrained")
    for axes, (stage, record) in zip(drawing.subplots(1, len(records), squeeze=False)[0], records.items(), strict=True):
        step, neuron = record.spikes[:, 0].flatten(1).gt(0).nonzero().cpu().unbind(1)
        axes.scatter(step.numpy(), neuron.numpy(), s=1, marker="|")
        axes.set(title=stage, xlabel="time step", ylabel="neuron", xlim=(-0.5, len(record.spikes) - 0.5))
    drawing.suptitle(f"Spikes for one held-out image: {name}", fontsize=9)
    return _save(drawing, folder / "raster.png")


def _wins(folder: Path, name: str, records: Mapping[str, Any]) -> Path:
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(2.4 * len(records), 2.3), layout="constrained")
    for axes, (stage, record) in zip(drawing.subplots(1, len(records), squeeze=False)[0], records.items(), strict=True):
        wins = wins_of(record.latencies, len(record.spikes)).sort(descending=True).values
        axes.bar(range(len(wins)), wins.cpu().numpy(), width=1.0)
        axes.set(title=stage, xlabel="neuron, by rank", ylabel=f"first of {len(record.latencies)}")
    drawing.suptitle(f"Wins: {name}", fontsize=9)
    return _save(drawing, folder / "wins.png")


def _save(drawing: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=130)
    return path
