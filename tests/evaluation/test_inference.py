"""Whether inference settles: against descent on the energy written out in float64, and the bound 2 / λ_max."""

import copy

import pytest
import torch
import torch.nn.functional as F

from evaluation.base import TrainedObserver
from evaluation.inference import Inference, rises
from evaluation.observers._linear import LinearReadout
from evaluation.observers.pixels import features
from models import cnn, mlp
from rules.backprop import Backprop
from rules.base import OBJECTIVES
from rules.error_predictive_coding import ErrorPredictiveCoding
from rules.fixed_prediction import FixedPrediction
from rules.incremental_predictive_coding import IncrementalPredictiveCoding
from rules.predictive_coding import PredictiveCoding
from training.data.base import Images, Preprocess

CE, SQUARED = OBJECTIVES["cross_entropy"], OBJECTIVES["squared_error"]
CLASSES = 10


def observer(rule, net, initial=None, objective=CE, num=40):
    images = torch.rand(num, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return TrainedObserver(
        "name", net, rule, initial or copy.deepcopy(net), copy.deepcopy(rule), objective,
        Preprocess((1, 8, 8), (0.5,), (0.3,), "linear"), tuple("0123456789"),
        Images(images, torch.arange(num) % CLASSES),
    )  # fmt: skip


def number(scores, metric, moment=""):
    (found,) = [s.raw for s in scores if s.metric == metric and s.target == moment]
    return found


def small_cnn():
    torch.manual_seed(0)
    return cnn.build((1, 8, 8), (CLASSES,), width=4, hidden=12)


def descent(net, x, target, steps, step_size):
    """F = ½ Σ ‖f_l(v_{l−1}) − v_l‖² + cross-entropy, all states at once, by autograd: energies (T + 1, B)."""
    stages = list(net.stages.values())
    hidden, energies = [], []
    for stage in stages[:-1]:
        hidden.append(stage(hidden[-1] if hidden else x).detach())
    for step in range(steps + 1):
        moving = [v.detach().requires_grad_() for v in hidden]
        inputs = [x, *moving]
        total = F.cross_entropy(stages[-1](inputs[-1]), target, reduction="none")
        for stage, below, state in zip(stages, inputs, moving, strict=False):
            total = total + 0.5 * ((stage(below) - state) ** 2).flatten(1).sum(1)
        energies.append(total.detach())
        if step < steps:
            slopes = torch.autograd.grad(total.sum(), moving)
            hidden = [v.detach() - step_size * s for v, s in zip(moving, slopes, strict=True)]
    return torch.stack(energies)


@pytest.mark.parametrize("step_size", [0.01, 0.1, 0.4, 3.0])
def test_shares_and_ratios_are_those_of_descent_written_out(step_size):
    """In float64, where both agree to rounding.

    Far below the bound no image rises; at γ = 3 all do: the state on top, whose curvature is 1 or more, overshoots.
    """
    torch.set_default_dtype(torch.float64)
    net, other = small_cnn(), small_cnn()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2.0)
    seen = observer(PredictiveCoding(steps=8, step_size=step_size), net, initial=other)
    scores = Inference().measure(seen)
    for moment, at in (("final", net), ("initial", other)):
        x, target = seen.probe()
        e = descent(at, x, target, 8, step_size)
        up = (e[1:] - e[:-1] > 1e-3 * e[0]).any(0).double().mean().item()
        assert number(scores, "rising_share", moment) == pytest.approx(up, abs=1e-12)
        assert number(scores, "energy_ratio", moment) == pytest.approx((e[-1].sum() / e[0].sum()).item(), rel=1e-8)
        higher = (e[-1] > e[0]).double().mean().item()
        assert number(scores, "ends_higher_share", moment) == pytest.approx(higher, abs=1e-12)
        if step_size in (0.01, 3.0):
            assert up == float(step_size == 3.0)
    assert number(scores, "unstable_share") == number(scores, "rising_share", "final")


def largest_curvature(net):
    """λ_max of the energy's Hessian in the states of a linear network with two hidden stages and ½‖μ_L − y‖²."""
    w2, w3 = (net.stages[s].synapse.weight.detach().double() for s in ("hidden2", "readout"))
    one = torch.eye(len(w2), dtype=torch.double)
    hessian = torch.cat([torch.cat([one + w2.T @ w2, -w2.T], 1), torch.cat([-w2, one + w3.T @ w3], 1)])
    return torch.linalg.eigvalsh(hessian)[-1].item()


@pytest.mark.parametrize(("factor", "share"), [(0.98, 0.0), (1.02, 1.0)])
def test_the_bound_of_a_linear_network_is_two_over_the_largest_eigenvalue(factor, share):
    """Quadratic energy: below the bound no step raises it; above it the top mode grows without end."""
    torch.manual_seed(0)
    net = mlp.build((1, 8, 8), (CLASSES,), width=12, activation="identity")
    rule = PredictiveCoding(steps=600, step_size=factor * 2 / largest_curvature(net))
    assert number(Inference().measure(observer(rule, net, objective=SQUARED)), "unstable_share") == share


def test_training_can_leave_the_stable_range_and_the_two_moments_say_so():
    """Weights three times as large: the same step size, stable before, is not stable after."""
    initial, net = small_cnn(), small_cnn()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(4.0)
    scores = Inference().measure(observer(PredictiveCoding(steps=10, step_size=0.2), net, initial=initial))
    assert number(scores, "rising_share", "initial") == 0.0 and number(scores, "rising_share", "final") > 0.5


def test_an_energy_that_is_not_a_number_counts_as_rising():
    nan = float("nan")
    energies = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.5, nan, 1.0 + 1e-4, 1.1], [0.4, nan, 0.9, 0.2]])
    assert rises(energies).tolist() == [False, True, False, True]


@pytest.mark.parametrize("rule", [ErrorPredictiveCoding, IncrementalPredictiveCoding])
def test_every_rule_that_iterates_is_measured(rule):
    settled = Inference().measure(observer(rule(steps=6, step_size=0.02), small_cnn()))
    assert number(settled, "unstable_share") == 0.0 and number(settled, "energy_ratio", "final") < 1.0
    wild = Inference().measure(observer(rule(steps=6, step_size=8.0), small_cnn()))
    assert number(wild, "unstable_share") > 0.9


@pytest.mark.parametrize("rule", [Backprop(), FixedPrediction(), PredictiveCoding(steps=0)])
def test_without_iterations_nothing_is_computed(rule, monkeypatch):
    def never(*args):
        raise AssertionError("it ran the network")

    seen = observer(rule, small_cnn())
    monkeypatch.setattr(type(seen.net), "forward", never)
    monkeypatch.setattr(type(seen.net), "trace", never)
    (score,) = Inference().measure(seen)
    assert score.gate == "n/a" and score.reason == "its inference has no iterations"
    (score,) = Inference().measure(LinearReadout("pixels", features, None, ("a",), (1, 8, 8), None))
    assert score.gate == "n/a" and "null observer" in score.reason


def test_measuring_leaves_network_rule_and_random_state_alone():
    class Noisy(PredictiveCoding):
        def attach(self, net):
            self.register_buffer("calls", torch.zeros(()))

        def trajectory(self, net, x, target, objective):
            self.calls += torch.rand(()) + 1
            return super().trajectory(net, x, target, objective)

    net, rule = small_cnn().train(), Noisy(steps=2)
    rule.attach(net)
    before, random = copy.deepcopy(net.state_dict()), torch.random.get_rng_state()
    Inference().measure(observer(rule, net))
    assert all(torch.equal(v, before[k]) and v.dtype == torch.float32 for k, v in net.state_dict().items())
    assert rule.calls == 0 and net.training and torch.equal(random, torch.random.get_rng_state())


def test_one_figure_of_rules_that_iterate(tmp_path):
    seen = observer(PredictiveCoding(steps=5), small_cnn())
    assert Inference().draw(tmp_path, {"pc": seen}) == [tmp_path / "inference.png"]
    assert (tmp_path / "inference.png").stat().st_size > 5000
    assert Inference().draw(tmp_path, {"bp": observer(Backprop(), small_cnn())}) == []
