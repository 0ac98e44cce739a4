"""Sign symmetry, Kolen–Pollack and weight mirror against their defining identities in float64.

The updates themselves are in ``test_feedback_equations.py``.
"""

import pytest
import torch

from models import cnn, mlp
from rules.backprop import Backprop
from rules.base import OBJECTIVES, differentiate
from rules.kolen_pollack import KolenPollack
from rules.sign_symmetry import SignSymmetry
from rules.weight_mirror import WeightMirror

CE = OBJECTIVES["cross_entropy"]


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)


def batch(num=16):
    return torch.randn(num, 1, 8, 8), torch.randint(0, 10, (num,))


def attached(rule, net):
    rule.attach(net)
    return rule


def step(net, rule, optimizer, *data):
    learned = rule.learn(net, *data, CE)
    for name, parameter in (dict(rule.named_parameters()) | dict(net.named_parameters())).items():
        parameter.grad = learned.grads.get(name)
    optimizer.step()
    rule.after_step(net)


@pytest.mark.parametrize(
    "rule",
    [
        SignSymmetry,
        lambda: SignSymmetry(magnitude="fixed"),
        lambda: SignSymmetry(magnitude="batch"),
        KolenPollack,
        WeightMirror,
    ],
)
def test_tied_it_is_backprop_on_every_architecture(rule, build):
    net = build()
    x, target = batch(6)
    rule = attached(rule(), net)
    free, reference = rule.learn(net, x, target, CE), Backprop().learn(net, x, target, CE)
    first = next(iter(net.parameters_of(net.hidden[0])))
    assert (free.grads[first] - reference.grads[first]).norm() > 0.05 * reference.grads[first].norm()
    rule.tie_feedback(net)
    tied = rule.learn(net, x, target, CE)
    for name, grad in reference.grads.items():
        assert (tied.grads[name] - grad).norm() <= 1e-10 * grad.norm()


def test_initial_angle_of_uniform_sign_symmetry_is_the_published_one():
    """One layer of Gaussian weights: arccos √(2/π) = 37.1°; below it the angles add up (36° and 50° published)."""
    torch.manual_seed(0)
    net = mlp.build((50,), (5,), width=100)
    x, target = torch.randn(500, 50), torch.randint(0, 5, (500,))
    rule = attached(SignSymmetry(), net)
    ours, reference = rule.learn(net, x, target, CE), differentiate(net, x, target, CE)
    angles = [
        torch.rad2deg(
            torch.acos(torch.cosine_similarity(ours.grads[n].flatten(), reference.grads[n].flatten(), 0))
        ).item()
        for n in ("stages.hidden1.synapse.weight", "stages.hidden2.synapse.weight")
    ]
    assert angles[1] == pytest.approx(37, abs=6) and angles[0] == pytest.approx(50, abs=7)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_kolen_pollack_gap_shrinks_by_exactly_one_minus_lambda(kind, build):
    net = build()
    rule = attached(KolenPollack(), net)
    parameters = [*net.parameters(), *rule.parameters()]
    lr, decay = 0.01, 0.5
    optimizer = {
        "sgd": lambda: torch.optim.SGD(parameters, lr, weight_decay=decay),
        "adamw": lambda: torch.optim.AdamW(parameters, lr, weight_decay=decay),
    }[kind]()

    def gaps():
        pairs = list(net.synapses().items())[1:]
        return [s.weight.detach() - rule.get_parameter(n.replace(".", "_")).detach() for n, s in pairs]

    before = gaps()
    for _ in range(5):
        step(net, rule, optimizer, *batch(8))
        after = gaps()
        for a, b in zip(after, before, strict=True):
            assert torch.allclose(a, (1 - lr * decay) * b, rtol=1e-9, atol=1e-12)
        before = after


def test_kolen_pollack_without_decay_keeps_its_gap():
    net = mlp.build((1, 8, 8), (10,), width=12)
    rule = attached(KolenPollack(), net)
    optimizer = torch.optim.SGD([*net.parameters(), *rule.parameters()], 0.05)
    name = "stages_readout_synapse"
    before = net.stages["readout"].synapse.weight.detach() - rule.get_parameter(name).detach()
    for _ in range(10):
        step(net, rule, optimizer, *batch())
    after = net.stages["readout"].synapse.weight.detach() - rule.get_parameter(name).detach()
    assert torch.allclose(before, after, atol=1e-12)


def test_mirror_phases_alone_turn_feedback_into_the_forward_weights(build):
    """cos(B, W) → 1 without any training, in dense, convolutional and residual stages alike."""
    net = build()
    rule = attached(WeightMirror(rate=0.02, images=64), net)

    def cosines():
        return [torch.cosine_similarity(w.flatten(), b.flatten(), 0).item() for w, b in rule.feedback(net).items()]

    start = cosines()
    weights = [p.detach().clone() for p in net.parameters()]
    for _ in range(300):
        rule.after_step(net)
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))
    assert sum(start) / len(start) < 0.5 and min(cosines()) > 0.98


def test_mirror_estimate_is_unbiased():
    """The mean of many correlations is the weight itself, scale included."""
    torch.manual_seed(0)
    net = cnn.build((1, 8, 8), (10,), width=3, hidden=12)
    rule = attached(WeightMirror(images=64), net)
    for synapse in list(net.synapses().values())[1:]:
        estimates = torch.stack([rule._correlate(synapse) for _ in range(400)])
        error = (estimates.mean(0) - synapse.weight).detach() / (estimates.std(0) / 20)
        assert error.abs().mean() < 1.0 and abs(error.mean().item()) < 0.25  # standard normal: mean |z| = 0.8


@pytest.mark.parametrize(
    ("rule", "bad"), [(SignSymmetry, {"magnitude": "big"}), (KolenPollack, {"scale": 0}), (WeightMirror, {"rate": 2})]
)
def test_options_out_of_range(rule, bad):
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        rule(**bad)


def test_mirror_phases_at_the_defaults_reach_the_default_network():
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    net = cnn.build((1, 16, 16), (10,), width=16)
    rule = attached(WeightMirror(), net)
    for _ in range(200):
        rule.after_step(net)
    cosines = [torch.cosine_similarity(w.flatten(), b.flatten(), 0).item() for w, b in rule.feedback(net).items()]
    assert min(cosines) > 0.95, cosines
