"""Trace STDP against its card: spike by spike in time, at every position, and the homeostasis of its thresholds."""

import math

import pytest
import torch
from torch import nn

from models import cnn, mlp
from rules._encoding import encode
from rules.trace_stdp import TraceSTDP
from tests.rules.spiking import UNIT, attached, batch, learn, step


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


def online_trace(p, pre, post, there, rule, signed):
    """Return Δp of one image, spike by spike in time; a synapse without a presynaptic cell never changes.

    Args:
        p: ``(F, I)``.
        pre: ``(T, I)``.
        post: ``(T, F)``.
        there: Whether a synapse has a presynaptic cell, ``(I,)``.
        rule: Its options.
        signed: Whether a weight is an ON synapse of p next to an OFF synapse of 1 − p.
    """
    up, down = math.exp(-1 / rule.tau_plus), math.exp(-1 / rule.tau_minus)
    total = torch.zeros_like(p)
    for sign in (1, -1) if signed else (1,):
        efficacy = p if sign == 1 else 1 - p
        x, y = torch.zeros(pre.shape[1]), torch.zeros(post.shape[1])
        for before, after in zip((sign * pre).clamp(min=0), post, strict=True):
            x, y = x * up, y * down
            gain = rule.potentiation * ((1 - efficacy) ** rule.mu * x - rule.trace_target * efficacy**rule.mu)
            total += sign * after[:, None] * gain * there
            total -= sign * rule.depression * efficacy**rule.mu * y[:, None] * before
            x, y = x + before, y + after
    return total


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
def test_trace_stdp_is_its_card_spike_by_spike(mu):
    """Both hidden stages of a network, from spikes to −Δw; x_tar, push–pull and the sign included."""
    net = mlp.build((1, 8, 8), (10,), width=6)
    options = {"depression": 0.004, "tau_plus": 5.0, "tau_minus": 9.0, "trace_target": 0.7}
    rule = attached(TraceSTDP(potentiation=0.01, mu=mu, steps=12, **options), net)
    x, target = batch(4)
    learned, seed = learn(rule, net, x, target)
    layers, _ = rule.run(net, x, seed=seed, remember=True)
    inputs = {"hidden1": encode(x, "poisson", 12, 0.5, seed, latched=False).flatten(2)}
    inputs["hidden2"] = torch.stack(layers["hidden1"].populations[0].signals)
    for stage in net.hidden:
        weight = net.stages[stage].synapse.weight.detach()
        bound = weight.abs().max()
        post = torch.stack(layers[stage].populations[0].signals)
        assert post.sum() > 10
        fair = 6 / (0.9 * 12)  # one over the spikes of a neuron that fires its share
        expected = torch.stack(
            [
                2 * bound * fair * online_trace(
                    (weight / bound + 1) / 2, inputs[stage][:, b], post[:, b], torch.ones(weight.shape[1]), rule,
                    stage == "hidden1",
                )
                for b in range(4)
            ]
        )  # fmt: skip
        assert torch.allclose(-UNIT * learned.grads[f"stages.{stage}.synapse.weight"], expected.mean(0), atol=1e-12)
        assert torch.allclose(learned.signals[stage], expected.sum(2), atol=1e-12)


def test_convolutional_trace_stdp_is_its_card_at_every_position():
    net = cnn.build((1, 8, 8), (10,), width=3, hidden=12)
    rule = attached(TraceSTDP(potentiation=0.01, depression=0.004, trace_target=0.7, steps=8), net)
    x, target = batch(2)
    learned, seed = learn(rule, net, x, target)
    layers, _ = rule.run(net, x, seed=seed, remember=True)
    conv = net.stages["conv1"].synapse
    weight, bound = conv.weight.detach().flatten(1), conv.weight.abs().max().detach()
    post = torch.stack(layers["conv1"].populations[0].signals).flatten(3)
    unfold = lambda frames: nn.functional.unfold(frames, 3, padding=1)  # (·, I, positions)
    pre = torch.stack([unfold(frame) for frame in encode(x, "poisson", 8, 0.5, seed, latched=False)])
    there = unfold(torch.ones(1, 1, 8, 8))[0]
    expected, drive = torch.zeros_like(weight), torch.zeros(2, 3, 64)
    for b in range(2):
        for place in range(64):
            p, own = (weight / bound + 1) / 2, (pre[:, b, :, place], post[:, b, :, place])
            delta = 2 * bound * 3 / (0.9 * 8 * 64) * online_trace(p, *own, there[:, place], rule, True)
            expected += delta / 2
            drive[b, :, place] = delta.sum(1)
    found = -UNIT * learned.grads["stages.conv1.synapse.weight"].flatten(1)
    assert torch.allclose(found, expected, atol=1e-12) and found.abs().max() > 1e-5
    pooled = drive.view(2, 3, 4, 2, 4, 2).sum((3, 5))  # a unit behind the pooling stands for four neurons
    assert torch.allclose(learned.signals["conv1"], pooled, atol=1e-12)


def test_thresholds_of_trace_stdp_share_the_spikes_out_and_reach_the_target():
    net = mlp.build((1, 8, 8), (10,), width=10, depth=1)
    rule = attached(TraceSTDP(potentiation=0.0, target=0.6), net)
    rule.log_threshold_hidden1.data += torch.randn(10)
    images = torch.randn(128, 1, 8, 8)

    def census():
        layers, _ = rule.run(net, images, seed=0, remember=True)
        rate = torch.stack(layers["hidden1"].populations[0].signals).mean((0, 1))
        return rate.std() / rate.mean(), rate.sum()

    uneven, _ = census()
    for i in range(300):
        step(rule, net, images[(i % 4) * 32 :][:32], torch.zeros(32).long())
    after, fired = census()
    assert after < 0.5 * uneven and float(fired) == pytest.approx(0.6, abs=0.05)
