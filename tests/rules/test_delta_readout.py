"""The readout's delta rule against its equation as loops, its invariance to a constant input, and image-shaped outputs."""

import pytest
import torch
from torch import nn

from models import cnn
from models.base import Stage, StagedNet
from rules._delta_readout import MEAN, delta_rule, running_mean
from rules.base import OBJECTIVES
from rules.stdp import STDP
from rules.trace_stdp import TraceSTDP

CE, MSE = OBJECTIVES["cross_entropy"], OBJECTIVES["mean_squared_error"]
WEIGHT, BIAS = "stages.readout.synapse.weight", "stages.readout.synapse.bias"


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


def dense(units=7, classes=4):
    stages = {"hidden": Stage(nn.Linear(3, units)), "readout": Stage(nn.Linear(units, classes))}
    return StagedNet(stages, (3,), (classes,))


def painter(out=2):
    """A network whose output is an image: a convolutional readout."""
    stages = {
        "conv1": Stage(nn.Conv2d(1, 4, 3, padding=1), nonlinearity=nn.Tanh()),
        "readout": Stage(nn.Conv2d(4, out, 3, padding=1)),
    }
    return StagedNet(stages, (1, 6, 6), (out, 6, 6))


def test_it_is_its_equation():
    net = dense()
    v, mean, error = torch.rand(5, 7), torch.rand(7), torch.randn(5, 4)
    grads = delta_rule(net, v, mean, error, CE, 3.0, 0.5, 1.0)
    weight, bias = torch.zeros(4, 7), torch.zeros(4)
    for n in range(5):
        u = v[n] - mean
        step = -3.0 / 5 / (0.5 + float(u @ u))
        own = step * error[n][:, None] * u[None]
        weight += own
        bias += step * 0.5 * error[n] - own @ mean
    assert torch.allclose(-grads[WEIGHT], weight) and torch.allclose(-grads[BIAS], bias)
    assert torch.allclose(grads[MEAN] / 0.02, mean - v.mean(0))


def test_under_an_unbounded_loss_the_error_is_that_of_an_energy_and_its_rate_one_at_most():
    """e = output − target, whatever the number of outputs over which the loss is a mean; ε = 0 shows −η e u / |u|²."""
    net = dense()
    v, mean, output, target = torch.rand(5, 7), torch.rand(7), torch.randn(5, 4), torch.randn(5, 4)
    u, error = v - mean, MSE.error(output, target)
    expected = ((output - target) / u.square().sum(1, keepdim=True)).T @ u / 5
    for rate, counts in ((0.3, 0.3), (1.0, 1.0), (7.0, 1.0)):
        grads = delta_rule(net, v, mean, error, MSE, rate, 0.0, 1.0)
        assert torch.allclose(grads[WEIGHT], counts * expected), rate


def test_a_unit_that_is_always_equally_on_teaches_nothing():
    """Once the mean is known, adding a constant to every input changes neither Δw nor what the outputs become."""
    net = dense()
    v, mean, error, constant = torch.rand(5, 7), torch.rand(7), torch.randn(5, 4), torch.tensor([0.0, 9, 0, 0, 3, 0, 1])
    here, there = (delta_rule(net, v + c, mean + c, error, CE, 1.0, 1.0, 1.0) for c in (0.0, constant))
    assert torch.allclose(here[WEIGHT], there[WEIGHT])
    moved = lambda grads, c: (v + c) @ grads[WEIGHT].T + grads[BIAS]
    assert torch.allclose(moved(here, 0.0), moved(there, constant))


def test_the_response_to_the_mean_input_moves_by_the_bias_alone():
    net = dense()
    v, mean, error = torch.rand(5, 7), torch.rand(7), torch.randn(5, 4)
    grads = delta_rule(net, v, mean, error, CE, 1.0, 1.0, 1.0)
    e = error / (1 + (v - mean).square().sum(1, keepdim=True))
    assert torch.allclose(grads[WEIGHT] @ mean + grads[BIAS], e.mean(0))


def test_it_learns_faster_than_without_the_mean_where_units_are_always_on():
    x = torch.rand(400, 7) * 0.2 + 1.0
    target = ((x - x.mean(0)) @ torch.randn(7, 4)).argmax(1)

    def loss(memory):
        torch.manual_seed(1)
        net, mean = dense(), torch.zeros(7)
        w, b = net.stages["readout"].synapse.weight, net.stages["readout"].synapse.bias
        with torch.no_grad():
            for i in range(300):
                part = slice(i % 10 * 40, i % 10 * 40 + 40)
                grads = delta_rule(net, x[part], mean, CE.error(x[part] @ w.T + b, target[part]), CE, 5.0, 0.01, 1.0)
                w -= grads[WEIGHT]
                b -= grads[BIAS]
                mean = mean - memory * grads[MEAN]
            return CE.losses(x @ w.T + b, target).mean()

    assert loss(1.0) < 0.8 * loss(0.0)


def test_a_convolutional_readout_is_a_dense_one_at_every_position():
    net = painter()
    v, error = torch.rand(3, 4, 6, 6), torch.randn(3, 2, 6, 6)
    assert running_mean(net).shape == (4,)
    grads = delta_rule(net, v, torch.zeros(4), error, CE, 1.0, 1.0, 1.0)
    patches = nn.functional.unfold(v, 3, padding=1)  # (B, C·K·K, positions)
    expected = torch.zeros(2, 36)
    for place in range(36):
        single = dense(36, 2)
        at = delta_rule(single, patches[:, :, place], torch.zeros(36), error.flatten(2)[:, :, place], CE, 1.0, 1.0, 1.0)
        expected += at[WEIGHT] / 36
    assert torch.allclose(grads[WEIGHT].flatten(1), expected)


@pytest.mark.parametrize(("make", "build"), [
    (STDP, lambda: painter(1)), (TraceSTDP, lambda: painter(1)), (STDP, lambda: cnn.build((1, 6, 6), (1, 6, 6), width=4)),
])  # fmt: skip
def test_rules_learn_to_paint(make, build):
    """An image-shaped output under mean squared error: the error falls."""
    net, rule = build(), make()
    assert rule.supports(net, MSE) is None
    rule.attach(net.eval())
    x = torch.randn(16, 1, 6, 6)
    target = nn.functional.avg_pool2d(x, 3, 1, 1)
    losses = []
    for _ in range(100):
        learned = rule.learn(net, x, target, MSE)
        assert learned.output.shape == target.shape and learned.signals["readout"].shape == target.shape
        losses.append(float(learned.loss))
        with torch.no_grad():
            for name, p in (dict(rule.named_parameters()) | dict(net.named_parameters())).items():
                if name in learned.grads:
                    p -= 1e-3 * learned.grads[name]
        rule.after_step(net)
    assert losses[-1] < 0.8 * losses[0]


def test_other_readouts_are_refused_with_their_reason():
    stages = {"hidden": Stage(nn.Linear(3, 4)), "readout": Stage(nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2)))}
    assert "single linear or convolutional" in STDP().supports(StagedNet(stages, (3,), (2,)), CE)
    upwards = {"hidden": Stage(nn.ConvTranspose2d(1, 4, 2)), "readout": Stage(nn.Linear(100, 2))}
    assert "stages.hidden.synapse.weight" in STDP().supports(StagedNet(upwards, (1, 4, 4), (2,)), CE)
