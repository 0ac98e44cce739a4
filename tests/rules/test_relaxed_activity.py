"""``activity=relaxed``: states that descend the energy of the trained loss towards the network's own decision."""

import functools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from models import mlp
from rules._case import Case
from rules.base import OBJECTIVES
from rules.contract import check_labels_stay_out_of_inference
from rules.error_predictive_coding import ErrorPredictiveCoding
from rules.incremental_predictive_coding import IncrementalPredictiveCoding
from rules.predictive_coding import PredictiveCoding
from training.config import Execution, run_config
from training.run import build

RULES = [PredictiveCoding, ErrorPredictiveCoding, IncrementalPredictiveCoding]
OVER_CLASSES = ["cross_entropy", "sigmoid_cross_entropy", "squared_error"]
MSE = OBJECTIVES["mean_squared_error"]


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)


def loss(name, output, classes):
    """Every loss over classes, written out."""
    wanted = F.one_hot(classes, 10).double()
    if name == "cross_entropy":
        return torch.logsumexp(output, 1) - (output * wanted).sum(1)
    if name == "squared_error":
        return 0.5 * ((output - wanted) ** 2).sum(1)
    return (F.softplus(output) - wanted * output).sum(1)


def small():
    return mlp.build((1, 8, 8), (10,), width=12), torch.randn(6, 1, 8, 8)


@pytest.mark.parametrize("objective", OVER_CLASSES)
@pytest.mark.parametrize("rule", [PredictiveCoding, IncrementalPredictiveCoding])
def test_relaxed_states_are_gradient_descent_on_the_energy_of_the_trained_loss(rule, objective):
    """All states at once by autograd of F = ½ Σ ‖e‖² + β loss(μ_L, own decision)."""
    net, x = small()
    relaxed = rule(steps=9, step_size=0.15, nudge=0.7, activity="relaxed")
    assert relaxed.supports(net, OBJECTIVES[objective]) is None
    found = relaxed.activations(net, x)
    decision = net(x).argmax(1)
    hidden = [net.trace(x)[s].detach() for s in net.hidden]
    for _ in range(9):
        v1, v2 = (v.requires_grad_() for v in hidden)
        total = (
            0.5 * (net.stages["hidden1"](x) - v1).square().sum() + 0.5 * (net.stages["hidden2"](v1) - v2).square().sum()
        )
        total = total + 0.7 * loss(objective, net.stages["readout"](v2), decision).sum()
        hidden = [v.detach() - 0.15 * s for v, s in zip((v1, v2), torch.autograd.grad(total, (v1, v2)), strict=True)]
    for stage, state in zip(net.hidden, hidden, strict=True):
        assert torch.allclose(found[stage], state, atol=1e-12), stage
    assert torch.allclose(found["readout"], net.stages["readout"](hidden[-1]), atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_relaxed_states_answer_the_decision_better_and_feed_forward_ones_are_the_plain_pass(rule):
    net, x = small()
    plain, relaxed = rule(steps=15), rule(steps=15, activity="relaxed")
    for stage, activity in net.trace(x).items():
        assert torch.equal(plain.activations(net, x)[stage], activity)
    decision = net(x).argmax(1)
    for objective in map(OBJECTIVES.get, OVER_CLASSES):
        relaxed.supports(net, objective)
        found = relaxed.activations(net, x)
        *_, (last, states) = plain.trajectory(net, x, decision, objective)
        assert all(torch.equal(found[s], states[s]) for s in net.stages)
        assert (last < objective.losses(net(x), decision)).all()
        assert (objective.losses(found["readout"], decision) < objective.losses(net(x), decision)).all()


@pytest.mark.parametrize("rule", RULES)
def test_learning_says_which_loss_too_and_without_one_there_is_nothing_to_descend(rule):
    net, x = small()
    relaxed = rule(steps=5, activity="relaxed")
    with pytest.raises(ValueError, match="supports"):
        relaxed.activations(net, x)
    relaxed.learn(net, x, torch.randint(0, 10, (6,)), OBJECTIVES["squared_error"])
    asked = rule(steps=5, activity="relaxed")
    asked.supports(net, OBJECTIVES["squared_error"])
    for stage, activity in asked.activations(net, x).items():
        assert torch.equal(relaxed.activations(net, x)[stage], activity)


def test_a_run_relaxes_by_its_own_loss():
    """Two runs that differ in their loss alone start from the same weights and relax differently."""
    torch.set_default_dtype(torch.float32)
    found = {}
    for objective in OVER_CLASSES:
        values = {
            "rule": "predictive_coding", "model": "mlp", "task": "digits", "seed": 0, "objective": objective,
            "precision": "64-true", "model_params": {"width": 12}, "rule_params": {"activity": "relaxed"},
        }  # fmt: skip
        config = run_config(values, "here")
        trained = build(config, Execution(runs=Path("unused"), data=Path("unused")))
        x = trained.preprocess(trained.task.test.images[:8]).double()
        found[objective] = trained.rule.activations(trained.net, x)["hidden2"]
    one, two, three = found.values()
    assert min((a - b).abs().max() for a, b in ((one, two), (two, three), (one, three))) > 1e-3


@pytest.mark.parametrize("rule", RULES)
def test_an_image_is_no_decision_and_is_refused(rule):
    net = mlp.build((1, 8, 8), (1, 3, 3), width=12)
    assert "feed_forward" in rule(activity="relaxed").supports(net, MSE)
    assert rule().supports(net, MSE) is None


@pytest.mark.parametrize("rule", RULES)
def test_labels_stay_out_of_relaxed_activity(rule):
    torch.set_default_dtype(torch.float32)
    make = functools.partial(rule, activity="relaxed")
    check_labels_stay_out_of_inference(Case(make, lambda i, o: mlp.build(i, o, width=12), OBJECTIVES["cross_entropy"]))


def test_relaxing_towards_the_last_labels_is_found():
    torch.set_default_dtype(torch.float32)

    class RelaxesToLabels(PredictiveCoding):
        def learn(self, net, x, target, objective):
            self.last = target
            return super().learn(net, x, target, objective)

        def activations(self, net, x):
            *_, (_, activity) = self.trajectory(net, x, self.last, self.objective)
            return activity

    case = Case(RelaxesToLabels, lambda i, o: mlp.build(i, o, width=12), OBJECTIVES["cross_entropy"])
    with pytest.raises(AssertionError, match="activations of hidden1 differ"):
        check_labels_stay_out_of_inference(case)
