"""The census of spikes and the orientation selectivity of filters, on cases whose answer is known."""

import copy
import math

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from evaluation import spikes
from evaluation.base import TrainedObserver
from evaluation.observers._linear import LinearReadout
from evaluation.observers.pixels import features
from evaluation.spikes import Spikes, first_filters, selectivity, wins_of
from models import cnn, mlp
from rules.backprop import Backprop
from rules.base import OBJECTIVES
from rules.stdp import STDP
from training.data.base import Images, Preprocess


def observer(rule, net=None):
    torch.manual_seed(0)
    net = (net or cnn.build((1, 8, 8), (10,), width=4, hidden=12)).eval()
    rule.attach(net)
    return TrainedObserver(
        "name", net, rule, copy.deepcopy(net), copy.deepcopy(rule), OBJECTIVES["cross_entropy"],
        Preprocess((1, 8, 8), (0.5,), (0.3,), "linear"), tuple("0123456789"),
        Images(torch.rand(60, 1, 8, 8), torch.arange(60) % 10),
    )  # fmt: skip


def pick(scores, metric, stage="", target=""):
    return next(s for s in scores if s.metric == metric and s.stage == stage and s.target == target)


def gabor(angle, size=9, cycles=1.5):
    axis = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    carrier = torch.cos(2 * math.pi * cycles / size * (x * math.cos(angle) + y * math.sin(angle)))
    return (carrier * torch.exp(-(x**2 + y**2) / (2 * (size / 4) ** 2)))[None]


def test_selectivity_is_high_for_gabors_of_any_orientation_and_zero_for_round_filters():
    filters = torch.stack([gabor(a) for a in (0.0, math.pi / 4, math.pi / 2, 2.0)])
    assert (selectivity(filters) > 0.5).all()
    axis = torch.arange(9) - 4.0
    square = axis[:, None] ** 2 + axis[None] ** 2
    round_filter = (torch.exp(-square / 4) - 0.4 * torch.exp(-square / 12))[None, None]
    assert selectivity(round_filter) < 0.1
    assert torch.allclose(selectivity(filters), selectivity(-3 * filters))


def test_wins_go_to_the_first_and_ties_are_shared():
    latencies = torch.tensor([[3, 5, 10], [10, 10, 10], [2, 2, 4], [9, 1, 1]])
    assert wins_of(latencies, 10).tolist() == [1.5, 1.0, 0.5]
    maps = latencies[:, :, None, None].expand(-1, -1, 2, 2).clone()
    maps[0, 2, 1, 1] = 0
    assert wins_of(maps, 10).tolist() == [0.5, 1.0, 1.5]


def test_a_silenced_map_is_counted_as_silent_and_dead():
    seen = observer(STDP())
    with torch.no_grad():
        seen.rule.log_threshold_conv1[0] = 20.0
    scores = Spikes().measure(seen)
    assert pick(scores, "silent_share", "conv1").raw >= 0.25 and pick(scores, "dead_share", "conv1").raw >= 0.25
    assert pick(scores, "silent").raw >= 0.25
    rates = seen.rule.activations(seen.net, seen.probe(60)[0])
    assert (rates["conv1"][:, 0] == 0).all()


def test_rules_that_do_not_spike_have_selectivity_and_nothing_else():
    scores = Spikes().measure(observer(Backprop()))
    assert pick(scores, "silent").gate == "n/a" and "does not spike" in pick(scores, "silent").reason
    initial, final = (pick(scores, "orientation_selectivity", target=t).raw for t in ("initial", "final"))
    assert initial == final > 0
    null = LinearReadout("pixels", features, None, ("a", "b"), (1, 8, 8), None)
    assert Spikes().measure(null)[0].gate == "n/a"


def trained_from_round_to_oriented(rule):
    """Return an observer whose filters are spots before training, and Gabors of several orientations after it."""
    seen = observer(rule, mlp.build((1, 8, 8), (10,), width=5))
    square = (torch.arange(8) - 3.5).square()
    spot = torch.exp(-(square[:, None] + square[None]) / 4)[None]
    for net, filters in ((seen.initial, [spot] * 5), (seen.net, [gabor(0.6 * k, 8) for k in range(5)])):
        net.stages["hidden1"].synapse.weight.data = torch.stack(filters).flatten(1)
    return seen


@pytest.mark.parametrize("make", [Backprop, STDP])
def test_filters_that_become_oriented_are_selective_at_the_end_and_not_at_the_start(make):
    scores = Spikes().measure(trained_from_round_to_oriented(make()))
    assert pick(scores, "orientation_selectivity", target="initial").raw < 0.1
    assert pick(scores, "orientation_selectivity", target="final").raw > 0.5


def test_figures_call_the_initial_weights_before_and_the_final_ones_after(tmp_path, monkeypatch):
    seen = trained_from_round_to_oriented(STDP())
    weights = {"before": seen.initial, "after": seen.net}
    rows, bars = {}, {}
    monkeypatch.setattr(spikes, "receptive_fields", lambda path, title, moments: rows.update(moments))
    hist = Axes.hist
    monkeypatch.setattr(
        Axes, "hist", lambda self, x, **k: bars.setdefault(k["label"], []).append(x) or hist(self, x, **k)
    )
    Spikes().draw(tmp_path, {"stdp": seen})
    assert rows.keys() == bars.keys() == weights.keys()
    for moment, net in weights.items():
        assert torch.equal(rows[moment], first_filters(net))
        assert np.array_equal(bars[moment][0], net.stages["hidden1"].synapse.weight.detach().flatten().numpy())


def test_dense_first_stages_have_filters_as_large_as_the_image():
    net = mlp.build((1, 8, 8), (10,), width=5)
    assert first_filters(net).shape == (5, 1, 8, 8)
    assert torch.equal(first_filters(net)[2].flatten(), net.stages["hidden1"].synapse.weight[2])


@pytest.mark.parametrize("build", [None, lambda: mlp.build((1, 8, 8), (10,), width=5)])
def test_figures_are_drawn_for_spiking_rules_only(tmp_path, build):
    net = build and build()
    paths = Spikes().draw(tmp_path, {"stdp": observer(STDP(), net)})
    assert {p.name for p in paths} == {"receptive_fields.png", "weights.png", "raster.png", "wins.png"}
    assert all(p.stat().st_size > 1000 for p in paths)
    assert Spikes().draw(tmp_path, {"backprop": observer(Backprop())}) == []
