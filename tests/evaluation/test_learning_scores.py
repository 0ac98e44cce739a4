"""Did-it-learn, credit, cost, accuracy: each on networks whose answer is known beforehand."""

import copy
import dataclasses
import math

import pytest
import torch

from evaluation.accuracy import Accuracy
from evaluation.base import Score, TrainedObserver, evaluating, learn_without_trace
from evaluation.cost import Cost
from evaluation.credit import Credit, compare
from evaluation.learned import Learned
from evaluation.observers._linear import LinearReadout
from evaluation.observers.pixels import features
from models import cnn, mlp
from rules.backprop import Backprop
from rules.base import OBJECTIVES, Rule, differentiate
from rules.base import Learned as Result
from rules.direct_feedback_alignment import DirectFeedbackAlignment
from rules.feedback_alignment import FeedbackAlignment
from rules.readout_only import ReadoutOnly
from rules.untrained import Untrained
from training.data.base import Images, Preprocess

CE = OBJECTIVES["cross_entropy"]


def observer(rule=None, net=None, initial=None, classes=10):
    torch.manual_seed(0)
    net = net or cnn.build((1, 8, 8), (classes,), width=4, hidden=12)
    rule = rule or Backprop()
    if not list(rule.buffers()):
        rule.attach(net)
    images = torch.rand(80, 1, 8, 8)
    return TrainedObserver(
        "name", net, rule, initial or copy.deepcopy(net), copy.deepcopy(rule), CE,
        Preprocess((1, 8, 8), (0.5,), (0.3,), "linear"), tuple(str(i) for i in range(classes)),
        Images(images, torch.arange(80) % classes),
    )  # fmt: skip


def pick(scores, metric, stage="", target=None):
    return next(s for s in scores if s.metric == metric and s.stage == stage and target in (None, s.target))


def moved(net, stage, factor):
    other = copy.deepcopy(net)
    with torch.no_grad():
        for p in other.parameters_of(stage).values():
            p.mul_(factor)
    return other


def test_weight_change_is_the_relative_distance_and_a_still_stage_is_named():
    seen = observer()
    net = seen.initial
    for stage in net.stages:
        net = moved(net, stage, 1.25)
    scores = Learned().measure(observer(net=net, initial=seen.initial))
    assert pick(scores, "weight_change", "conv2").raw == pytest.approx(0.25, rel=1e-5)
    assert pick(scores, "hidden_change").raw == pytest.approx(0.25, rel=1e-5)
    partly = moved(moved(seen.initial, "conv1", 1.25), "readout", 2)
    verdict = pick(Learned().measure(observer(net=partly, initial=seen.initial)), "hidden_change")
    assert verdict.gate == "n/a" and verdict.reason == "did not move: conv2, conv3, hidden"


def test_credit_of_backprop_is_one_and_it_is_bp_equivalent():
    scores = Credit().measure(observer())
    for stage in observer().net.stages:
        assert pick(scores, "cosine", stage, "final").raw == pytest.approx(1, abs=1e-6)
        assert pick(scores, "norm_ratio", stage, "final").raw == pytest.approx(1, abs=1e-6)
    assert pick(scores, "bp_equivalent").raw == 1


def test_credit_sees_through_scale_and_sign():
    class Scaled(Backprop):
        def learn(self, net, x, target, objective):
            learned = super().learn(net, x, target, objective)
            grads = {n: -0.5 * g for n, g in learned.grads.items()}
            return Result(grads, learned.loss, learned.output, learned.signals)

    scores = Credit().measure(observer(Scaled()))
    assert pick(scores, "cosine", "conv1", "final").raw == pytest.approx(-1, abs=1e-6)
    assert pick(scores, "angle", "conv1", "final").raw == pytest.approx(180, abs=0.1)
    assert pick(scores, "norm_ratio", "conv1", "final").raw == pytest.approx(0.5, abs=1e-6)
    assert pick(scores, "bp_equivalent").raw == 0


def test_parallel_to_backprop_at_the_end_alone_is_not_backprop_by_another_name():
    """Feedback alignment that has aligned (B = W) at the final weights, or only at the initial ones; and at both."""
    tied, free = FeedbackAlignment(), FeedbackAlignment()
    net = cnn.build((1, 8, 8), (10,), width=4, hidden=12)
    for rule in (tied, free):
        rule.attach(net)
    tied.tie_feedback(net)
    for final, initial, equivalent in ((tied, free, 0), (free, tied, 0), (tied, tied, 1), (free, free, 0)):
        seen = dataclasses.replace(observer(final, net), initial_rule=initial)
        scores = Credit().measure(seen)
        assert pick(scores, "bp_equivalent").raw == equivalent
        aligned = min(pick(scores, "cosine", s, "final").raw for s in net.stages) > 0.999
        assert aligned == (final is tied)


def test_credit_of_random_feedback_is_orthogonal_below_and_exact_at_the_readout():
    net = mlp.build((1, 8, 8), (10,), width=400)
    x, target = torch.randn(128, 1, 8, 8), torch.randint(0, 10, (128,))
    for rule in (FeedbackAlignment(), DirectFeedbackAlignment()):
        rule.attach(net)
        found = compare(net, rule, CE, x, target)
        assert found["readout"] == (pytest.approx(1), pytest.approx(1))
        assert abs(found["hidden1"][0]) < 0.25 and abs(found["hidden2"][0]) < 0.35


def test_credit_of_controls_says_what_is_not_trained():
    scores = Credit().measure(observer(ReadoutOnly()))
    assert pick(scores, "cosine", "conv1", "final").gate == "n/a"
    assert pick(scores, "cosine", "readout", "final").raw == pytest.approx(1)
    assert pick(scores, "hidden_cosine").gate == "n/a"
    assert pick(Credit().measure(observer(Untrained())), "hidden_cosine").gate == "n/a"


def test_a_vanished_gradient_has_no_angle():
    class Vanishes(Backprop):
        def learn(self, net, x, target, objective):
            learned = super().learn(net, x, target, objective)
            return Result({n: g * 1e-20 for n, g in learned.grads.items()}, learned.loss, learned.output)

    assert compare(observer().net, Vanishes(), CE, *observer().probe()) == {}


def test_probing_leaves_no_trace_on_weights_statistics_random_state_or_rule():
    class Draws(Rule):
        def attach(self, net):
            self.register_buffer("calls", torch.zeros(()))

        def learn(self, net, x, target, objective):
            self.calls += torch.rand(()) + 1
            return differentiate(net, x, target, objective)

    net = cnn.build((1, 8, 8), (10,), width=4, hidden=12, norm="batch").train()
    rule = Draws()
    rule.attach(net)
    probe = observer().probe()
    before, random = copy.deepcopy(net.state_dict()), torch.random.get_rng_state()
    learn_without_trace(net, rule, CE, *probe)
    compare(net, rule, CE, *probe)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(random, torch.random.get_rng_state()) and rule.calls == 0 and net.training


def test_cost_in_flops_is_the_closed_form():
    """MACs per image on an MLP: backprop 3F − m₁, direct feedback 2F + feedback, readout only F + m_L, untrained F."""
    net = mlp.build((1, 8, 8), (10,), width=50)
    layers = [64 * 50, 50 * 50, 50 * 10]
    forward, backprop = sum(layers), 3 * sum(layers) - layers[0]
    expected = {
        Backprop: backprop, FeedbackAlignment: backprop, DirectFeedbackAlignment: 2 * forward + 10 * 100,
        ReadoutOnly: forward + layers[-1], Untrained: forward,
    }  # fmt: skip
    for rule, macs in expected.items():
        scores = Cost().measure(observer(rule(), net))
        assert pick(scores, "flops_ratio").raw == pytest.approx(macs / backprop, rel=1e-6), rule
        assert pick(scores, "time_ratio").raw > 0
    assert pick(scores, "parameters").raw == sum(layers) + 110


def test_accuracy_counts_and_shows_a_constant_answer():
    seen = observer()
    with torch.no_grad():
        for p in seen.net.parameters_of("readout").values():
            p.zero_()
        seen.net.stages["readout"].synapse.bias[3] = 5.0
    scores = Accuracy().measure(seen)
    assert pick(scores, "accuracy").raw == pytest.approx(0.1)
    assert pick(scores, "most_frequent_answer").raw == 1.0
    p = math.exp(5) / (math.exp(5) + 9)
    expected = -(0.1 * math.log(p) + 0.9 * math.log((1 - p) / 9))
    assert pick(scores, "cross_entropy").raw == pytest.approx(expected, rel=1e-4)


def test_observers_see_in_true_evaluation_mode_and_whatever_the_batch():
    net = cnn.build((1, 8, 8), (10,), width=4, hidden=12, norm="batch").train()
    seen = observer(net=net)
    stimuli = torch.rand(300, 1, 8, 8)
    whole, single = seen.predict(stimuli), seen.predict(stimuli[7:8])
    assert torch.allclose(whole[7:8], single, atol=1e-6)
    assert torch.allclose(whole.sum(1), torch.ones(300), atol=1e-5)
    assert all(m.training for m in net.modules())  # restored
    activity = seen.activations(stimuli)
    assert list(activity) == list(net.stages) and all(len(a) == 300 for a in activity.values())
    signals = seen.signals(stimuli, torch.zeros(300).long())
    assert {n: s.shape for n, s in signals.items()} == {n: a.shape for n, a in activity.items()}
    with evaluating(net):
        assert not any(m.training for m in net.modules()) and not torch.is_grad_enabled()


def test_null_observers_are_not_scored_as_learners():
    null = LinearReadout("pixels", features, None, ("a",), (1, 8, 8), None)
    for bench in (Accuracy(), Learned(), Credit(), Cost()):
        assert [s.gate for s in bench.measure(null)] == ["n/a"]


def test_a_score_that_is_not_finite_is_not_a_number_on_the_board():
    score = Score("x", float("nan"))
    assert score.gate == "n/a" and score.raw is None and score.value is None and "not finite" in score.reason
    assert Score("x", 0.5).value == 0.5


def test_a_diverged_network_has_no_accuracy():
    seen = observer()
    with torch.no_grad():
        next(iter(seen.net.parameters_of("readout").values())).fill_(float("nan"))
    assert pick(Accuracy().measure(seen), "accuracy").reason.startswith("its output is not finite")
    assert pick(Credit().measure(seen), "hidden_cosine").gate == "n/a"


def test_measuring_cost_leaves_the_rule_as_it_was():
    class Counts(Backprop):
        def attach(self, net):
            self.register_buffer("calls", torch.zeros(()))

        def learn(self, net, x, target, objective):
            self.calls += 1
            return super().learn(net, x, target, objective)

    seen = observer(Counts())
    Cost().measure(seen)
    assert seen.rule.calls == 0


def test_the_pixel_observer_answers_in_the_tasks_classes_even_if_it_saw_only_some():
    from evaluation.observers import pixels
    from training.data.base import Task

    images = Images(torch.rand(60, 1, 8, 8), torch.arange(60) % 2 + 1)
    seen = pixels.build(Task(("a", "b", "c"), images, images))
    p = seen.predict(torch.rand(5, 1, 8, 8))
    assert p.shape == (5, 3) and not p[:, 0].any() and torch.allclose(p.sum(1), torch.ones(5).double())
