"""What options of spiking rules do, against NumPy: the readout's rate, thresholds, bounds, input rates, turns of stages."""

import inspect

import numpy as np
import pytest
import torch

from models import cnn, mlp
from rules._encoding import contrast
from rules._stdp import find_winners
from rules.reward_stdp import RewardSTDP
from rules.spiking_readout_only import SpikingReadoutOnly
from rules.stdp import STDP
from rules.surrogate_gradient import SurrogateGradient
from rules.surrogate_readout_only import SurrogateReadoutOnly
from rules.trace_readout_only import TraceReadoutOnly
from rules.trace_stdp import TraceSTDP
from tests.rules.spiking import CE, UNIT, attached, batch, learn, step

WEIGHT, BIAS = "stages.readout.synapse.weight", "stages.readout.synapse.bias"
BUILD = {
    "mlp": lambda: mlp.build((1, 8, 8), (10,), width=9),
    "cnn": lambda: cnn.build((1, 8, 8), (10,), width=6, hidden=12),
}

# Rule → (options that give all others something to act on, and another value of every option).
OPTIONS = {
    STDP: ({}, {
        "encoding": "poisson", "steps": 6, "potentiation": 0.03, "depression": 0.03, "soft": False, "balanced": False,
        "coactive": 0.5, "winners": 2, "radius": 0, "competition": 0.7, "homeostasis": 0.7, "scaling": 0.05,
        "target": 0.2, "readout": 30.0, "images_per_stage": 100,
    }),
    RewardSTDP: ({"coactive": 0.5}, {
        "encoding": "poisson", "steps": 6, "potentiation": 0.03, "depression": 0.03, "punished_potentiation": 0.03,
        "punished_depression": 0.03, "gain": 2.0, "soft": False, "balanced": False, "coactive": 1.0, "below": "reward",
        "winners": 2, "target": 0.2, "readout": 30.0, "memory": 0.5,
    }),
    SpikingReadoutOnly: ({}, {
        "encoding": "poisson", "steps": 6, "coactive": 0.5, "target": 0.2, "readout": 30.0,
    }),
    TraceSTDP: ({"depression": 0.004, "max_rate": 0.1}, {
        "encoding": "latency", "steps": 9, "max_rate": 0.3, "decay": 0.3, "potentiation": 0.03, "depression": 0.03,
        "tau_plus": 4.0, "tau_minus": 4.0, "mu": 0.5, "trace_target": 0.4, "competition": 0.7, "homeostasis": 0.7,
        "target": 0.5, "readout": 30.0,
    }),
    TraceReadoutOnly: ({"max_rate": 0.1}, {
        "encoding": "latency", "steps": 9, "max_rate": 0.3, "decay": 0.3, "competition": 0.7, "homeostasis": 0.7,
        "target": 0.5, "readout": 30.0,
    }),
    SurrogateGradient: ({"neuron": "lif"}, {
        "encoding": "latency", "steps": 6, "neuron": "first_spike", "decay": 0.7, "slope": 30.0,
    }),
    SurrogateReadoutOnly: ({"neuron": "lif"}, {
        "encoding": "latency", "steps": 6, "neuron": "first_spike", "decay": 0.7,
    }),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


@pytest.mark.parametrize("make", OPTIONS)
def test_every_option_has_an_effect_on_what_is_learned(make):
    base, others = OPTIONS[make]
    assert set(others) == set(inspect.signature(make).parameters)
    # Two classes and an odd number of images: some decisions are right, some wrong, and not as many as by chance.
    net = cnn.build((1, 8, 8), (2,), width=6, hidden=12)
    x, target = batch(15)[0], torch.arange(15) % 2

    def learned(**options):
        torch.manual_seed(1)
        found = learn(attached(make(**base | options), net), net, x, target)[0]
        return found.grads | {"output": found.output}

    before = learned()
    again = learned()
    assert all(torch.equal(grad, again[name]) for name, grad in before.items())
    for option, value in others.items():
        after = learned(**{option: value})
        same = before.keys() == after.keys() and all(torch.equal(grad, after[n]) for n, grad in before.items())
        assert not same, option


# --- the readout ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "floor"), [
    (STDP, 1.0), (RewardSTDP, 1.0), (SpikingReadoutOnly, 1.0), (TraceSTDP, 0.01), (TraceReadoutOnly, 0.01),
])  # fmt: skip
@pytest.mark.parametrize("rate", [3.0, 50.0])
def test_the_readout_learns_at_its_rate_from_the_mean_signal_over_all_steps(make, floor, rate):
    """−η e u / (ε + |u|²) image by image, with u from the latencies of first spikes, or from all spikes."""
    net = BUILD["mlp"]()
    rule = attached(make(readout=rate), net)
    rule.readout_mean.data.uniform_(0, 0.3)
    x, target = batch(6)
    learned, seed = learn(rule, net, x, target)
    layers, _ = rule.run(net, x, seed=seed, remember=True)
    below = layers["hidden2"].populations[0]
    if rule.neuron == "first_spike":  # switched on from its spike to the end
        v, last = 1 - below.latency.numpy() / rule.steps, below.latency.numpy() < rule.steps
    else:
        spikes = torch.stack(below.signals).numpy()
        v, last = spikes.mean(0), spikes[-1]
    assert not np.allclose(v, last)
    mean = rule.readout_mean.detach().numpy()
    weight, bias = (p.detach().numpy() for p in net.stages["readout"].synapse.parameters())
    odds = np.exp(v @ weight.T + bias)
    error = odds / odds.sum(1, keepdims=True) - np.eye(10)[target.numpy()]
    u = v - mean
    scale = -rate / 6 / (floor + (u**2).sum(1))
    moved = (scale[:, None] * error).T @ u
    assert np.allclose(-UNIT * learned.grads[WEIGHT].numpy(), moved)
    assert np.allclose(-UNIT * learned.grads[BIAS].numpy(), floor * scale @ error - moved @ mean)
    assert np.allclose(-UNIT * learned.grads["readout_mean"].numpy(), 0.02 * (v.mean(0) - mean))


# --- homeostasis ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coactive", [0.3, 1.0])
def test_thresholds_follow_a_neurons_share_of_the_wins_and_the_share_that_reaches_threshold(coactive):
    """Δ log θ_j = η_c (share of wins of j − 1/F) + η_r (mean share − target), silenced neurons counted as well."""
    net = mlp.build((1, 8, 8), (10,), width=15, depth=1)
    options = {"competition": 0.7, "homeostasis": 0.2, "target": 0.3, "coactive": coactive}
    rule = attached(STDP(encoding="constant", **options), net)
    rule.log_threshold_hidden1.data -= 2.0  # so that every image has a winner, and the mean share of wins is 1/F
    x, target = batch(12)
    before = rule.threshold("hidden1").detach().numpy()
    weight = net.stages["hidden1"].synapse.weight.detach().numpy().copy()
    current = contrast(x).flatten(1).numpy() @ weight.T
    potential = np.arange(1, 11)[:, None, None] * current / 10
    step(rule, net, x, target)
    above = potential > before
    time = np.where(above.any(0), above.argmax(0), 10)
    wins = np.zeros(15)
    for b in range(12):
        first = time[b].min()
        assert first < 10
        wins[np.where(time[b] == first, potential[first, b] - before, -np.inf).argmax()] += 1
    moved = 0.7 * (wins / 12 - 1 / 15) + 0.2 * ((time < 10).mean() - 0.3)
    assert np.ptp(wins) > 1
    assert np.allclose(np.log(rule.threshold("hidden1").detach().numpy() / before), moved)


def test_thresholds_of_maps_share_out_the_wins_of_several_winners():
    net = BUILD["cnn"]()
    rule = attached(STDP(competition=0.7, homeostasis=0.0, winners=2, radius=0), net)
    x, target = batch(12)
    learned = rule.learn(net, x, target, CE)
    layers, _ = rule.run(net, x, seed=0)
    found = find_winners(layers["conv1"].populations[0], 2, 0)
    assert len(found) == 2 * 12
    share = np.bincount(found.neuron.numpy(), minlength=6) / 24
    assert np.allclose(-UNIT * learned.grads["log_threshold_conv1"].numpy(), 0.7 * (share - 1 / 6))


@pytest.mark.parametrize("make", [TraceSTDP, TraceReadoutOnly])
@pytest.mark.parametrize("build", BUILD)
def test_thresholds_of_leaky_neurons_follow_their_rates_and_the_rate_of_their_position(make, build):
    net = BUILD[build]()
    rule = attached(make(competition=0.7, homeostasis=0.2, target=0.6), net)
    x, target = batch(5)
    learned, seed = learn(rule, net, x, target)
    layers, _ = rule.run(net, x, seed=seed, remember=True)
    for stage in net.hidden:
        spikes = torch.stack(layers[stage].populations[0].signals).numpy()  # (T, B, F, ...)
        rate = np.array([spikes[:, :, j].mean() for j in range(spikes.shape[2])])
        moved = 0.7 * (rate - rate.mean()) / 0.6 + 0.2 * (rate.sum() - 0.6)
        assert np.ptp(rate) > 0.01
        assert np.allclose(-UNIT * learned.grads[f"log_threshold_{stage}"].numpy(), moved), stage


# --- bounds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [STDP, RewardSTDP, TraceSTDP])
@pytest.mark.parametrize("build", BUILD)
def test_after_a_step_weights_stay_within_the_largest_initial_one(make, build):
    """−s ≤ w ≤ s with s = max |w⁰|; trace STDP first gives every neuron its sum of weights back."""
    net = BUILD[build]()
    initial = {s: net.stages[s].synapse.weight.detach().numpy().copy() for s in net.stages}
    rule = attached(make(), net)
    with torch.no_grad():
        for stage in net.stages:
            weight = net.stages[stage].synapse.weight
            weight += weight.abs().max() * torch.randn_like(weight)
    moved = {s: net.stages[s].synapse.weight.detach().numpy().copy() for s in net.stages}
    rule.after_step(net)
    for stage, w in moved.items():
        expected = w
        if stage != net.readout:
            if make is TraceSTDP:
                inputs = tuple(range(1, w.ndim))
                expected = w - (w - initial[stage]).mean(inputs, keepdims=True)
            bound = np.abs(initial[stage]).max()
            expected = np.clip(expected, -bound, bound)
            assert (np.abs(expected) == bound).mean() > 0.05
        assert np.allclose(net.stages[stage].synapse.weight.detach().numpy(), expected, atol=1e-12), stage


# --- input and turns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [TraceSTDP, TraceReadoutOnly])
@pytest.mark.parametrize("rate", [0.2, 0.9])
def test_input_cells_fire_at_the_largest_rate_times_their_contrast(make, rate):
    net = mlp.build((1, 8, 8), (10,), width=2, depth=1)
    rule = attached(make(max_rate=rate, steps=1500), net)
    x, _ = batch(2)
    layers, _ = rule.run(net, x, seed=3)
    _, frames = layers["hidden1"].populations[0].synapses["stages.hidden1.synapse"]
    found, c = torch.stack(frames).mean(0).numpy(), contrast(x).flatten(1).numpy()
    assert np.abs(c).max() == 1 and (np.abs(c) < 0.7).any()
    assert (np.abs(found - rate * c) < 5 * np.sqrt(0.25 / 1500)).all()  # five standard errors at most


@pytest.mark.parametrize("encoding", ["poisson", "latency"])
def test_straight_through_spikes_an_image_is_seen_by_the_derivative_of_its_expected_input(encoding):
    net = mlp.build((1, 8, 8), (10,), width=2, depth=1)
    rule = attached(TraceSTDP(encoding=encoding, max_rate=0.3, steps=5), net)
    x = torch.randn(2, 1, 8, 8, requires_grad=True)
    layers, _ = rule.run(net, x, seed=3, surrogate=lambda above: (above > 0).double())
    _, frames = layers["hidden1"].populations[0].synapses["stages.hidden1.synapse"]
    at = torch.randn(2, 64)
    (found,) = torch.autograd.grad((frames[2] * at).sum(), x)
    (expected,) = torch.autograd.grad((contrast(x).flatten(1) * at).sum(), x)
    assert torch.allclose(found, (0.3 if encoding == "poisson" else 1.0) * expected)


@pytest.mark.parametrize("size", [3, 4, 12])
def test_a_stage_learns_from_its_number_of_images_and_not_from_one_more(size):
    """Twelve images per stage, in batches that end with them."""
    net = BUILD["cnn"]()
    rule = attached(STDP(images_per_stage=12), net)
    seen = dict.fromkeys(net.hidden, 0)
    for _ in range(60 // size):
        learned = rule.learn(net, *batch(size), CE)
        for stage in net.hidden:
            seen[stage] += size * (f"stages.{stage}.synapse.weight" in learned.grads)
            assert f"log_threshold_{stage}" in learned.grads  # thresholds adapt in all stages, always
    assert seen == dict.fromkeys(net.hidden, 12)
