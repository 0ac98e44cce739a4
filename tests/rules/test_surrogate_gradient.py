"""The surrogate gradient against backpropagation through time written as loops."""

import pytest
import torch
from torch import nn

from models import mlp
from rules._encoding import encode
from rules.surrogate_gradient import SurrogateGradient
from tests.rules.spiking import CE, attached, batch


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


@pytest.mark.parametrize("encoding", ["latency", "constant"])
@pytest.mark.parametrize("neuron", ["first_spike", "lif"])
def test_the_surrogate_gradient_is_backpropagation_through_time_by_hand(neuron, encoding):
    """Forward and backward recursions over time as loops; a reset passes no derivative (snnTorch)."""
    slope, steps, decay = 6.0, 9, 0.8
    net = mlp.build((1, 8, 8), (10,), width=11, depth=1)
    options = {"steps": steps, "decay": decay, "slope": slope}
    rule = attached(SurrogateGradient(encoding=encoding, neuron=neuron, **options), net)
    x, target = batch(5)
    learned = rule.learn(net, x, target, CE)
    hidden, readout = (net.stages[s].synapse for s in ("hidden1", "readout"))
    theta = rule.threshold("hidden1").detach()
    c = encode(x, encoding, steps, 0.5, 0, latched=neuron == "first_spike").flatten(2)
    with torch.no_grad():
        current = c @ hidden.weight.T + hidden.bias
        v, signal, above, before = torch.zeros(5, 11), [], [], []
        last = torch.zeros(5, 11)
        for now in current:
            before.append(last)
            if neuron == "first_spike":
                v = v + now / steps
                above.append(v - theta)
                last = last + (1 - last) * (above[-1] > 0)
            else:
                v = decay * v + now / theta - last
                above.append(v - 1)
                last = (above[-1] > 0).double()
            signal.append(last)
        code = torch.stack(signal).mean(0)
        assert 0.05 < code.mean() < 0.95
        output = code @ readout.weight.T + readout.bias
        error = output.softmax(1) - nn.functional.one_hot(target, 10)
        direct = error @ readout.weight / steps  # ∂loss/∂signal(t) of each image, without what comes after t
        weight = torch.zeros_like(hidden.weight)
        to_signal, to_potential = torch.zeros(5, 11), torch.zeros(5, 11)
        for t in reversed(range(steps)):
            to_signal = direct + to_signal
            spike = 1 / (1 + slope * above[t].abs()) ** 2
            if neuron == "first_spike":
                to_potential = to_potential + to_signal * (1 - before[t]) * spike
                weight += (to_potential / steps).T @ c[t] / 5
                to_signal = to_signal * (1 - (above[t] > 0).double())  # through the latch, to the step before
            else:
                to_potential = decay * to_potential + to_signal * spike
                weight += (to_potential / theta).T @ c[t] / 5
                to_signal = torch.zeros(5, 11)
    assert torch.allclose(learned.output, output)
    assert torch.allclose(learned.grads["stages.hidden1.synapse.weight"], weight, atol=1e-7)  # snnTorch: float32
    assert weight.norm() > 1e-4
    assert torch.allclose(learned.signals["hidden1"], error @ readout.weight)
