"""Predictive coding against closed forms, plain gradient descent on the energy, and backprop in its limits (float64)."""

import copy
import itertools
from math import comb

import pytest
import torch
from torch import nn

from models import cnn, mlp
from models.base import Stage, StagedNet, initialise
from rules._energy import energy, feed_forward
from rules.backprop import Backprop
from rules.base import OBJECTIVES, differentiate
from rules.error_predictive_coding import ErrorPredictiveCoding
from rules.fixed_prediction import FixedPrediction
from rules.incremental_predictive_coding import IncrementalPredictiveCoding
from rules.predictive_coding import PredictiveCoding

CE, MSE = OBJECTIVES["cross_entropy"], OBJECTIVES["mean_squared_error"]


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)


def batch(net, num=6):
    x = torch.randn(num, *net.in_shape)
    return x, torch.randint(0, net.out_shape[0], (num,))


def relative(a, b):
    return ((a - b).norm() / b.norm().clamp(min=1e-300)).item()


def cosine(a, b):
    return torch.cosine_similarity(a.flatten(), b.flatten(), 0).item()


def linear_net(widths):
    stages = {f"s{i}": Stage(nn.Linear(a, b, bias=False)) for i, (a, b) in enumerate(itertools.pairwise(widths))}
    return initialise(StagedNet(stages, widths[:1], widths[-1:]))


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 12])
def test_inference_is_plain_gradient_descent_on_the_energy(build, steps):
    """All stages computed, no front, autograd of the whole energy: the textbook algorithm."""
    net = build()
    x, target = batch(net)
    rule = PredictiveCoding(steps=steps, step_size=0.15, nudge=0.7)
    *_, states = rule.relax(net, feed_forward(net, x), target, CE)
    naive = feed_forward(net, x).states
    for _ in range(steps):
        hidden = [v.detach().requires_grad_() for v in naive[1:]]
        slopes = torch.autograd.grad(energy(net, [x, *hidden], target, CE, 0.7).sum(), hidden)
        naive = [x, *(v.detach() - 0.15 * s for v, s in zip(hidden, slopes, strict=True))]
    for ours, theirs in zip(states, naive, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-11)
    learned = rule.learn(net, x, target, CE)
    params = dict(net.named_parameters())
    total = energy(net, [v.detach() for v in naive], target, CE, 0.7).sum() / (len(x) * 0.7)
    for (name, ours), theirs in zip(
        learned.grads.items(), torch.autograd.grad(total, list(params.values())), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-11), name


def test_energy_never_rises_during_inference_and_the_trajectory_shows_it(build):
    net = build()
    x, target = batch(net)
    rule = PredictiveCoding(steps=40, step_size=0.05)
    energies = torch.stack([e for e, _ in rule.trajectory(net, x, target, CE)])
    assert energies.shape == (41, len(x))
    assert torch.equal(energies[0], CE.losses(net(x), target))
    assert (energies.diff(dim=0) <= 1e-12).all() and (energies[-1] < energies[0]).all()
    *_, (_, states) = rule.trajectory(net, x, target, CE)
    assert list(states) == list(net.stages)


def test_all_solvers_descend_one_energy_and_a_rule_without_inference_has_one_point_on_it():
    net = mlp.build((1, 8, 8), (10,), width=12)
    x, target = batch(net)
    for rule in (PredictiveCoding(steps=6), IncrementalPredictiveCoding(steps=6), ErrorPredictiveCoding(steps=6)):
        path = list(rule.trajectory(net, x, target, CE))
        assert len(path) == 7
        for now, states in path:  # the definition of F, from what was yielded
            v = [x.flatten(1), *(states[s] for s in net.hidden)]
            total = CE.losses(states["readout"], target)
            for stage, below, state in zip(net.hidden, v[:-1], v[1:], strict=True):
                total = total + 0.5 * (net.stages[stage](below) - state).square().sum(1)
            assert torch.allclose(now, total, atol=1e-12)
        assert (path[-1][0] < path[0][0]).all()
    ((loss, activity),) = Backprop().trajectory(net, x, target, CE)
    assert torch.equal(loss, CE.losses(net(x), target)) and list(activity) == list(net.stages)


@pytest.mark.parametrize("rule", [PredictiveCoding, ErrorPredictiveCoding])
def test_without_inference_no_hidden_stage_learns_and_the_readout_learns_as_in_backprop(rule, build):
    net = build()
    x, target = batch(net)
    learned, reference = rule(steps=0).learn(net, x, target, CE), Backprop().learn(net, x, target, CE)
    for stage in net.stages:
        for name in net.parameters_of(stage):
            if stage == net.readout:
                assert relative(learned.grads[name], reference.grads[name]) < 1e-12
            else:
                assert not learned.grads[name].any()


def test_the_error_descends_one_stage_per_step():
    net = mlp.build((1, 8, 8), (10,), width=12, depth=4)
    x, target = batch(net)
    for steps in range(6):
        learned = PredictiveCoding(steps=steps).learn(net, x, target, CE)
        reached = [s for s in net.hidden if learned.signals[s].any()]
        assert reached == net.hidden[len(net.hidden) - min(steps, len(net.hidden)) :]


@pytest.mark.parametrize(
    "rule", [PredictiveCoding, ErrorPredictiveCoding, IncrementalPredictiveCoding, FixedPrediction]
)
def test_a_target_that_is_predicted_teaches_nothing(rule, build):
    net = build((1, 8, 8), (1, 3, 3))
    x = torch.randn(6, 1, 8, 8)
    learned = rule().learn(net, x, net(x).detach(), MSE)
    assert all(g.abs().max() < 1e-12 for g in learned.grads.values())


def test_equilibrium_of_a_deep_linear_network_is_its_closed_form():
    """F* = ½ Σ (y − ŷ)ᵀ S⁻¹ (y − ŷ), S = I + Σ_{l≥2} P_l P_lᵀ, P_l = W_L ⋯ W_l (two outputs: the loss is ½‖y − ŷ‖²)."""
    net = linear_net((5, 7, 6, 4, 2))
    x, y = torch.randn(8, 5), torch.randn(8, 2)
    weights = [s.synapse.weight.detach() for s in net.stages.values()]
    product, total = torch.eye(2), torch.eye(2)
    for w in reversed(weights[1:]):
        product = product @ w
        total = total + product @ product.T
    residual = y - net(x).detach()
    expected = 0.5 * (residual @ torch.linalg.inv(total) * residual).sum(1)
    for energies in ([e for e, _ in PredictiveCoding(steps=6000, step_size=0.1).trajectory(net, x, y, MSE)],):
        assert torch.allclose(energies[-1], expected, rtol=1e-8, atol=1e-10)
    rule = ErrorPredictiveCoding(steps=3000, step_size=0.05)
    learned = rule.learn(net, x, y, MSE)
    hidden = sum(0.5 * learned.signals[s].square().sum(1) for s in net.hidden)
    readout = 0.5 * learned.signals[net.readout].square().sum(1)  # e_L = ŷ − y at equilibrium
    assert torch.allclose(hidden + readout, expected, rtol=1e-8, atol=1e-10)


def strided():
    """Convolutions without max pooling: its ties make the energy rough, and descent then chatters instead of settling."""
    stages = {
        "conv1": Stage(nn.Conv2d(1, 4, 3, stride=2, padding=1), nonlinearity=nn.Tanh()),
        "conv2": Stage(nn.Conv2d(4, 6, 3, stride=2, padding=1), nonlinearity=nn.Tanh()),
        "readout": Stage(nn.Linear(24, 10)),
    }
    return initialise(StagedNet(stages, (1, 8, 8), (10,)))


@pytest.mark.parametrize(
    "small", [lambda: mlp.build((1, 8, 8), (10,), width=12, depth=3), strided], ids=["mlp", "conv"]
)
def test_states_and_errors_relax_to_the_same_equilibrium(small):
    """The best single check of either: another parametrisation, the same energy and the same updates."""
    net = small()
    x, target = batch(net)
    strict = PredictiveCoding(steps=4000, step_size=0.1).learn(net, x, target, CE)
    errors = ErrorPredictiveCoding(steps=3000, step_size=0.05).learn(net, x, target, CE)
    for name, grad in strict.grads.items():
        assert relative(errors.grads[name], grad) < 1e-5, name
    for stage, signal in strict.signals.items():
        assert relative(errors.signals[stage], signal) < 1e-5, stage


def test_the_zil_schedule_is_backprop(build):
    """γ = 1, and the error of stage l read when it first arrives, after L − l steps: exactly backprop's."""
    net = build()
    x, target = batch(net)
    start = feed_forward(net, x)
    reference = Backprop().learn(net, x, target, CE)
    relaxing = PredictiveCoding(steps=len(net.hidden), step_size=1.0).relax(net, start, target, CE)
    trajectory = [[v.clone() for v in states] for states in relaxing]
    top = len(net.stages)
    for step, stage in enumerate(reversed(net.hidden), 1):
        arrived = start.states[top - step] - trajectory[step][top - step]
        assert relative(arrived, reference.signals[stage]) < 1e-10, stage


def test_at_equilibrium_it_is_measurably_not_backprop_and_becomes_it_as_the_error_vanishes():
    torch.manual_seed(1)
    net = mlp.build((100,), (10,), width=64, depth=3)
    x, target = torch.randn(64, 100), torch.randint(0, 10, (64,))
    weight = [f"stages.{s}.synapse.weight" for s in net.stages]

    def cosines(rule, t, objective):
        learned, reference = rule.learn(net, x, t, objective), differentiate(net, x, t, objective)
        return [cosine(learned.grads[n], reference.grads[n]) for n in weight]

    far = cosines(PredictiveCoding(steps=500, step_size=0.1), target, CE)
    assert min(far) < 0.9 and far[0] > far[-1]  # published: .99 .95 .66 .28 from the input to the output stage
    # With cross-entropy the loss is flat where the output is right, so that nothing is left to redistribute. (With
    # squared error it is not: S⁻¹ of the closed form turns the error however small it is.)
    near = []
    for bias in (0.0, 5.0, 15.0):
        with torch.no_grad():
            net.stages["readout"].synapse.bias[3] = bias
        near.append(min(cosines(PredictiveCoding(steps=500, step_size=0.1), torch.full((64,), 3), CE)))
    with torch.no_grad():
        net.stages["readout"].synapse.bias[3] = 0.0
    weak = [min(cosines(PredictiveCoding(steps=500, step_size=0.1, nudge=b), target, CE)) for b in (1.0, 0.1, 1e-3)]
    assert near[2] > 0.99999 and near[0] < near[1] < near[2]
    assert weak[0] < weak[1] < weak[2] and weak[2] > 0.9999


@pytest.mark.parametrize(("steps", "step_size"), [(0, 0.5), (2, 0.3), (5, 0.5), (20, 0.1), (40, 1.0)])
def test_fixed_prediction_is_its_iteration(steps, step_size):
    """Every step written out, with a Jacobian product per stage at the held feed-forward states."""
    net = cnn.build((1, 8, 8), (10,), width=3, hidden=12)
    x, target = batch(net)
    stages = list(net.stages.values())
    inputs = [v.requires_grad_() for v in feed_forward(net, x).states]
    predictions = [s(v) for s, v in zip(stages, inputs, strict=True)]
    errors = [torch.zeros_like(p) for p in predictions[:-1]] + [CE.error(predictions[-1].detach(), target)]
    for _ in range(steps):
        downs = [
            torch.autograd.grad(p, v, e, retain_graph=True)[0]
            for p, v, e in zip(predictions, inputs, errors, strict=True)
        ]
        errors = [(1 - step_size) * e + step_size * d for e, d in zip(errors[:-1], downs[1:], strict=True)] + errors[
            -1:
        ]
    params = dict(net.named_parameters())
    expected = torch.autograd.grad(predictions, list(params.values()), errors)
    learned = FixedPrediction(steps=steps, step_size=step_size).learn(net, x, target, CE)
    for (name, grad), theirs in zip(((n, learned.grads[n]) for n in params), expected, strict=True):
        assert torch.allclose(grad, theirs / len(x), atol=1e-13), name
    for stage, error in zip(net.stages, errors, strict=True):
        assert torch.allclose(learned.signals[stage], error, atol=1e-13)


def test_fixed_prediction_is_backprop_at_step_one_and_parallel_to_it_always(build):
    net = build()
    x, target = batch(net)
    reference = Backprop().learn(net, x, target, CE)
    exact = FixedPrediction(steps=len(net.stages), step_size=1.0).learn(net, x, target, CE)
    some = FixedPrediction(steps=30, step_size=0.4).learn(net, x, target, CE)
    for name, grad in reference.grads.items():
        assert relative(exact.grads[name], grad) < 1e-10
        assert cosine(some.grads[name], grad) > 1 - 1e-12


def test_arrived_error_is_the_binomial_tail_and_the_published_scalars():
    """Torch2PC reads errors one step earlier: its T = 20 is 19 steps here (published .295 .580 .865 1)."""
    rule = FixedPrediction(steps=19, step_size=0.1)
    assert [round(rule.arrived(k), 3) for k in (3, 2, 1, 0)] == [0.295, 0.58, 0.865, 1.0]
    tail = sum(comb(19, k) * 0.1**k * 0.9 ** (19 - k) for k in range(2, 20))
    assert rule.arrived(2) == pytest.approx(tail)


def test_incremental_with_vanishing_weight_step_averages_the_gradients_along_the_trajectory():
    net = mlp.build((1, 8, 8), (10,), width=12)
    x, target = batch(net)
    ours = IncrementalPredictiveCoding(steps=5, step_size=0.2, weight_step=1e-9).learn(net, x, target, CE)
    parts = [PredictiveCoding(steps=t, step_size=0.2).learn(net, x, target, CE).grads for t in range(5)]
    for name, grad in ours.grads.items():
        assert relative(grad, sum(p[name] for p in parts) / 5) < 1e-5


def test_incremental_moves_states_and_weights_from_the_same_errors(build):
    """T steps by hand, no front: autograd of the whole energy with respect to states and weights at once."""
    net = build()
    x, target = batch(net)
    ours = IncrementalPredictiveCoding(steps=6, step_size=0.2, weight_step=0.1).learn(net, x, target, CE)
    moving, states, energies = copy.deepcopy(net), feed_forward(net, x).states, []
    for _ in range(6):
        hidden = [v.detach().requires_grad_() for v in states[1:]]
        total = energy(moving, [x, *hidden], target, CE, 1.0).sum()
        energies.append(total.item())
        slopes = torch.autograd.grad(total, [*hidden, *moving.parameters()])
        states = [x, *(v.detach() - 0.2 * s for v, s in zip(hidden, slopes, strict=False))]
        with torch.no_grad():
            for p, s in zip(moving.parameters(), slopes[len(hidden) :], strict=True):
                p -= 0.1 * s / len(x)
    assert energies == sorted(energies, reverse=True)
    for (name, before), after in zip(net.named_parameters(), moving.parameters(), strict=True):
        assert torch.allclose(ours.grads[name], (before - after) / (0.1 * 6), atol=1e-11), name


def test_memory_does_not_grow_with_the_number_of_steps():
    """Tensors alive while the states relax: as many after 40 steps as after 5."""
    import gc

    net = mlp.build((1, 8, 8), (10,), width=12)
    x, target = batch(net)

    def alive(steps):
        relaxing = PredictiveCoding(steps=steps).relax(net, feed_forward(net, x), target, CE)
        for _ in range(steps + 1):
            next(relaxing)
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    alive(5)
    assert alive(40) == alive(5)


@pytest.mark.parametrize("rule", [PredictiveCoding, ErrorPredictiveCoding, IncrementalPredictiveCoding])
def test_batch_statistics_are_refused_with_a_reason(rule):
    net = cnn.build((1, 8, 8), (10,), width=3, norm="batch")
    assert "norm=none" in rule().supports(net, CE)


@pytest.mark.parametrize(
    ("rule", "bad"),
    [(PredictiveCoding, {"step_size": 0.0}), (ErrorPredictiveCoding, {"nudge": -1.0}), (FixedPrediction, {"step_size": 1.5}),
     (IncrementalPredictiveCoding, {"steps": 0})],
)  # fmt: skip
def test_options_out_of_range(rule, bad):
    with pytest.raises(ValueError, match="needs"):
        rule(**bad)


@pytest.mark.parametrize(
    "rule", [PredictiveCoding, ErrorPredictiveCoding, IncrementalPredictiveCoding, FixedPrediction]
)
@pytest.mark.parametrize("autocast", [False, True])
def test_single_and_mixed_precision_keep_the_updates(rule, autocast):
    """Errors are small differences of activities: what float64 says must survive float32, and bfloat16 around it."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    net = cnn.build((1, 16, 16), (10,), width=8, hidden=32)
    x, target = batch(net, 16)
    exact = rule().learn(copy.deepcopy(net).double(), x.double(), target, CE)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        learned = rule().learn(net, x, target, CE)
    for stage in net.stages:
        ours, theirs = (
            torch.cat([g.grads[n].double().flatten() for n in net.parameters_of(stage)]) for g in (learned, exact)
        )
        if theirs.norm() > 0:
            assert cosine(ours, theirs) > (0.97 if autocast and rule is FixedPrediction else 0.999), stage


def test_fixed_prediction_takes_any_number_of_steps():
    assert FixedPrediction(steps=5000, step_size=0.1).arrived(4) == pytest.approx(1.0)
    assert FixedPrediction(steps=3, step_size=1.0).arrived(3) == 1.0 and FixedPrediction(steps=3).arrived(4) == 0.0
