"""The contract: every rule of the house passes it, and rules with planted bugs do not."""

import functools

import pytest
import torch
from torch import nn

from experiments.check import SMALL as SMALL_OPTIONS
from experiments.new_rule import write_rule
from rules import _behaviour
from rules.backprop import Backprop
from rules.base import Learned, Rule, Tags, differentiate
from rules.contract import check_rule
from rules.feedback_alignment import FeedbackAlignment
from rules.readout_only import ReadoutOnly
from training.catalogue import MODELS, RULES

NETWORKS = {n: functools.partial(MODELS.load(n), **SMALL_OPTIONS[n]) for n in MODELS.entries()}
MLP = {"mlp": NETWORKS["mlp"]}


def failures(rule, networks=MLP, behaviour=False):
    return {o.check: o.message for o in check_rule(rule, networks, behaviour=behaviour) if o.result == "fail"}


@pytest.mark.parametrize("name", sorted(RULES.entries()))
def test_every_rule_keeps_the_contract_on_every_architecture(name):
    outcomes = check_rule(RULES.load(name), NETWORKS, behaviour=True)
    assert [o for o in outcomes if o.result == "fail"] == []
    assert sum(o.result == "pass" for o in outcomes) > 40  # 10 checks on 5 networks, for one objective or both


def test_the_template_of_a_new_rule_keeps_the_contract(tmp_path):
    rule = RULES.load(str(write_rule("fresh_rule", tmp_path)))
    assert failures(rule, NETWORKS, behaviour=True) == {}


class SumNotMean(Backprop):
    def learn(self, net, x, target, objective):
        learned = super().learn(net, x, target, objective)
        return Learned({n: g * len(x) for n, g in learned.grads.items()}, learned.loss, learned.output)


class SignalOfTheMean(Backprop):
    def learn(self, net, x, target, objective):
        learned = super().learn(net, x, target, objective)
        signals = {n: s / len(x) for n, s in learned.signals.items()}
        return Learned(learned.grads, learned.loss, learned.output, signals)


class WritesWeights(Backprop):
    def learn(self, net, x, target, objective):
        with torch.no_grad():
            next(net.parameters()).add_(1e-3)
        return super().learn(net, x, target, objective)


class WritesGrad(Backprop):
    def learn(self, net, x, target, objective):
        objective.losses(net(x), target).mean().backward()
        return super().learn(net, x, target, objective)


class LeavesHook(Backprop):
    def learn(self, net, x, target, objective):
        net.register_forward_hook(lambda *a: None)
        return super().learn(net, x, target, objective)


class KeepsGraph(Backprop):
    def learn(self, net, x, target, objective):
        learned = super().learn(net, x, target, objective)
        return Learned(learned.grads, objective.losses(net(x), target).mean(), learned.output, learned.signals)


class ChangesOnSecondCall(Backprop):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def learn(self, net, x, target, objective):
        self.calls += 1
        learned = super().learn(net, x, target, objective)
        grads = {n: g * self.calls for n, g in learned.grads.items()}
        return Learned(grads, learned.loss, learned.output, learned.signals)


class UnseededNoise(Backprop):
    def learn(self, net, x, target, objective):
        learned = super().learn(net, x, target, objective)
        noise = torch.Generator()
        noise.seed()
        grads = {n: g + torch.randn(g.shape, generator=noise) for n, g in learned.grads.items()}
        return Learned(grads, learned.loss, learned.output, learned.signals)


class HiddenState(FeedbackAlignment):
    """Feedback that is neither a buffer nor a parameter is lost in a checkpoint."""

    def attach(self, net):
        Rule.attach(self, net)
        self.plain = {n: torch.randn_like(s.weight) for n, s in list(net.synapses().items())[1:]}

    def feedback(self, net):
        return {net.synapses()[n].weight: b for n, b in self.plain.items()}


class WrongName(Backprop):
    def learn(self, net, x, target, objective):
        learned = super().learn(net, x, target, objective)
        return Learned({n.removeprefix("stages."): g for n, g in learned.grads.items()}, learned.loss, learned.output)


class NotFinite(Backprop):
    def learn(self, net, x, target, objective):
        learned = super().learn(net, x, target, objective)
        grads = {n: g / x.norm() for n, g in learned.grads.items()}  # a black image divides by zero
        return Learned(grads, learned.loss, learned.output, learned.signals)


class PredictSeesLabels(Backprop):
    def predict(self, net, x, target=None):
        return net(x)


class PredictRemembersLabels(Backprop):
    """Answers what it was last taught; the signature of ``predict`` is clean."""

    def attach(self, net):
        self.register_buffer("last", torch.zeros(net.out_shape))

    def learn(self, net, x, target, objective):
        self.last.copy_(-objective.error(torch.zeros(len(x), *net.out_shape), target)[0])
        return super().learn(net, x, target, objective)

    def predict(self, net, x):
        return net(x) + self.last


class ActivationsRememberLabels(Backprop):
    """Hidden activity carries the last targets, in an attribute that no checkpoint holds."""

    def learn(self, net, x, target, objective):
        self.bias = target.double().mean().item()
        return super().learn(net, x, target, objective)

    def activations(self, net, x):
        return {n: a + getattr(self, "bias", 0.0) * (n == net.hidden[0]) for n, a in net.trace(x).items()}


class ClaimsToBeUnsupervised(Backprop):
    tags = Tags(supervised=False)


class PredictUsesTheBatch(Backprop):
    def predict(self, net, x):
        return net(x - x.mean(0, keepdim=True))


class PositionalHyperparameter(Backprop):
    def __init__(self, scale=1.0):
        super().__init__()


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (SumNotMean, "mean_reduction"), (SignalOfTheMean, "signals"), (WritesWeights, "leaves_no_trace"),
        (WritesGrad, "leaves_no_trace"), (LeavesHook, "leaves_no_trace"), (KeepsGraph, "returned_gradients"),
        (ChangesOnSecondCall, "repeatable"), (UnseededNoise, "repeatable"), (HiddenState, "state_round_trip"),
        (WrongName, "returned_gradients"), (NotFinite, "returned_gradients"), (PredictSeesLabels, "predict"),
        (PredictRemembersLabels, "labels_stay_out_of_inference"),
        (ActivationsRememberLabels, "labels_stay_out_of_inference"),
        (ClaimsToBeUnsupervised, "unsupervised_stages_are_blind_to_labels"), (PredictUsesTheBatch, "predict"), (PositionalHyperparameter, "constructor"),
    ],
)  # fmt: skip
def test_planted_bugs_are_found(mutant, check):
    found = failures(mutant)
    assert check in found, found
    assert "expected" in found[check] and "fix:" in found[check]


def test_a_label_that_reaches_inference_is_named_as_such():
    message = failures(PredictRemembersLabels)["labels_stay_out_of_inference"]
    assert "predict differ" in message and "labels must not reach inference" in message
    message = failures(ActivationsRememberLabels)["labels_stay_out_of_inference"]
    assert "activations of hidden1 differ" in message


class WrongLimit(FeedbackAlignment):
    def tie_feedback(self, net):
        for weight, b in self.feedback(net).items():
            b.copy_(weight.detach() * 1.001)


class Ascends(Backprop):
    def learn(self, net, x, target, objective):
        learned = super().learn(net, x, target, objective)
        return Learned({n: -g for n, g in learned.grads.items()}, learned.loss, learned.output, learned.signals)


class RandomFeaturesInDisguise(ReadoutOnly):
    """Trains the readout; its hidden updates are clamped to nothing, as in a published comparison."""

    tags = Tags()

    def learn(self, net, x, target, objective):
        learned = differentiate(net, x, target, objective)
        clamp = {n: g if n.startswith("stages.readout") else g * 0 for n, g in learned.grads.items()}
        return Learned(clamp, learned.loss, learned.output, learned.signals)


class Disguise(Rule):
    learn = RandomFeaturesInDisguise.learn


def test_a_wrong_exact_limit_is_found():
    assert "exact_limit" in failures(WrongLimit)


def test_a_rule_that_climbs_the_loss_does_not_beat_the_controls():
    assert "beats_controls" in failures(Ascends, behaviour=True)


def test_random_features_with_a_trained_readout_are_unmasked():
    found = failures(Disguise, behaviour=True)
    assert "hidden_stages_move" in found and "beats_controls" in found


@pytest.mark.parametrize("name", ["nothing_of_the_kind", "backprop"])
def test_a_baseline_that_is_no_control_is_named(name, monkeypatch):
    monkeypatch.setattr(Disguise, "baseline", name)
    monkeypatch.setattr(_behaviour, "STEPS", 1)
    with pytest.raises(_behaviour.Failure, match=name):
        _behaviour.check_beats_controls(Disguise)


def test_a_rule_that_raises_is_reported_not_raised():
    class Broken(Rule):
        def learn(self, net, x, target, objective):
            raise RuntimeError("not yet")

    assert all("raised RuntimeError: not yet" in m for c, m in failures(Broken).items() if c != "constructor")


def test_an_unsupported_network_is_skipped_with_its_reason():
    class NoConvolutions(Backprop):
        def supports(self, net, objective):
            conv = any(isinstance(m, nn.Conv2d) for m in net.modules())
            return "dense stages only" if conv else None

    outcomes = check_rule(NoConvolutions, NETWORKS, behaviour=False)
    skipped = {o.network.split(",")[0] for o in outcomes if o.result == "skip" and "dense stages only" in o.message}
    assert skipped == set(NETWORKS) - {"mlp"}
