"""Sign symmetry, Kolen–Pollack and weight mirror against their equations, written out by hand in float64.

The feedback weights B are those that the papers define, not those that a rule says it uses, and the networks are
compared after optimiser steps in which forward weights changed sign.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import mlp
from models.base import Stage, StagedNet, initialise
from rules.base import OBJECTIVES
from rules.kolen_pollack import KolenPollack
from rules.sign_symmetry import SignSymmetry
from rules.weight_mirror import WeightMirror

CE = OBJECTIVES["cross_entropy"]
LR, DECAY, STEPS, SEED = 1.0, 0.02, 15, 7


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)


def dense():
    return mlp.build((1, 4, 4), (10,), width=7, activation="tanh")


def convolutional():
    stages = {
        "conv1": Stage(nn.Conv2d(2, 4, 3, padding=1), nonlinearity=nn.Tanh()),
        "conv2": Stage(nn.Conv2d(4, 5, 3, padding=1, stride=2), nonlinearity=nn.Tanh()),
        "readout": Stage(nn.Linear(5 * 4 * 4, 10)),
    }
    return initialise(StagedNet(stages, (2, 8, 8), (10,)))


def weights_of(net):
    """W_2 … W_L, the synapses through which an error returns."""
    return [net.stages[s].synapse.weight.detach().clone() for s in list(net.stages)[1:]]


def held(rule, net):
    """What the rule keeps per synapse: B or M."""
    state = rule.state_dict()
    return [state[f"stages_{s}_synapse"].clone() for s in list(net.stages)[1:]]


# B by its definition: from the weights now, the weights and what the rule kept at the start, what it keeps now.
def uniform(now, start, kept, keeps):
    """uSF: one magnitude for all, 1 / √fan-in, as a Gaussian of unit gain has."""
    return [w.sign() / math.sqrt(w[0].numel()) for w in now]


def fixed(now, start, kept, keeps):
    """frSF: the magnitudes of the start, the signs of now."""
    assert all((m > 0).all() for m in kept)
    return [m * w.sign() for m, w in zip(kept, now, strict=True)]


def redrawn(now, start, kept, keeps):
    """brSF: half-normal magnitudes drawn for this batch, from the bottom up."""
    torch.manual_seed(SEED)
    return [torch.randn_like(w).abs() / math.sqrt(w[0].numel()) * w.sign() for w in now]


def kolen_pollack(now, start, kept, keeps):
    """(W − B)_t = (1 − λ)^t (W − B)_0, whatever was learned."""
    shrunk = (1 - LR * DECAY) ** STEPS
    return [w - shrunk * (w0 - b0) for w, w0, b0 in zip(now, start, kept, strict=True)]


def mirrored(now, start, kept, keeps):
    """What the mirror phases made of B (their estimate is tested on its own)."""
    assert all((b - b0).abs().max() > 1e-3 for b, b0 in zip(keeps, kept, strict=True))
    return keeps


CASES = {
    "uSF": (SignSymmetry, {"magnitude": "uniform"}, uniform),
    "frSF": (SignSymmetry, {"magnitude": "fixed"}, fixed),
    "brSF": (SignSymmetry, {"magnitude": "batch"}, redrawn),
    "KP": (KolenPollack, {}, kolen_pollack),
    "WM": (WeightMirror, {"rate": 0.2}, mirrored),
}


def trained(kind, options, definition, net):
    """Train for a few steps; return what the rule then learns from a batch, the batch, and the B it should have used."""
    rule = kind(**options)
    rule.attach(net)
    start, kept = weights_of(net), held(rule, net)
    parameters = dict(rule.named_parameters()) | dict(net.named_parameters())
    optimizer = torch.optim.SGD(parameters.values(), LR, weight_decay=DECAY)
    for _ in range(STEPS):
        learned = rule.learn(net, *batch(net), CE)
        for name, parameter in parameters.items():
            parameter.grad = learned.grads.get(name)
        optimizer.step()
        rule.after_step(net)
    now, keeps = weights_of(net), held(rule, net)
    flipped = [(a.sign() != b.sign()).sum().item() for a, b in zip(start, now, strict=True)]
    assert min(flipped) >= 1, f"no sign changed: {flipped}"
    data = batch(net)
    torch.manual_seed(SEED)
    learned = rule.learn(net, *data, CE)
    return learned, data, definition(now, start, kept, keeps)


def batch(net, num=12):
    return torch.randn(num, *net.in_shape), torch.randint(0, 10, (num,))


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def check_dense(kind, options, definition):
    """δ_l = (δ_{l+1} B_{l+1}) ⊙ f′(z_l), dW_l = ⟨δ_l h_{l-1}ᵀ⟩ on an MLP."""
    net = dense()
    learned, (x, target), (b2, b3) = trained(kind, options, definition, net)
    w1, w2, w3 = (s.synapse.weight.detach() for s in net.stages.values())
    c1, c2, c3 = (s.synapse.bias.detach() for s in net.stages.values())
    h0 = x.flatten(1)
    h1 = torch.tanh(h0 @ w1.T + c1)
    h2 = torch.tanh(h1 @ w2.T + c2)
    error = torch.softmax(h2 @ w3.T + c3, 1) - F.one_hot(target, 10)
    signal2 = error @ b3
    delta2 = signal2 * (1 - h2**2)
    signal1 = delta2 @ b2
    delta1 = signal1 * (1 - h1**2)
    signals = {"hidden1": signal1, "hidden2": signal2, "readout": error}
    grads = {"hidden1": delta1.T @ h0, "hidden2": delta2.T @ h1, "readout": error.T @ h2}
    for stage, grad in grads.items():
        assert relative(learned.grads[f"stages.{stage}.synapse.weight"], grad / len(x)) <= 1e-12, stage
        assert relative(learned.signals[stage], signals[stage]) <= 1e-12, stage
    for stage, delta in (("hidden1", delta1), ("hidden2", delta2), ("readout", error)):
        assert relative(learned.grads[f"stages.{stage}.synapse.bias"], delta.mean(0)) <= 1e-12, stage


def check_convolutional(kind, options, definition):
    """The error returns by the transposed convolution with B; dW from its definition, a sum over patches."""
    net = convolutional()
    learned, (x, target), (b2, b3) = trained(kind, options, definition, net)
    trace = net.trace(x)
    error = torch.softmax(trace["readout"], 1) - F.one_hot(target, 10)
    signal2 = (error @ b3).view(-1, 5, 4, 4)
    delta2 = signal2 * (1 - trace["conv2"] ** 2)
    signal1 = F.conv_transpose2d(delta2, b2, stride=2, padding=1, output_padding=1)
    delta1 = signal1 * (1 - trace["conv1"] ** 2)
    patches = F.unfold(x, 3, padding=1).view(len(x), 2 * 9, 64)
    dw1 = torch.einsum("bop,bip->oi", delta1.flatten(2), patches).view(4, 2, 3, 3) / len(x)
    patches = F.unfold(trace["conv1"], 3, padding=1, stride=2).view(len(x), 4 * 9, 16)
    dw2 = torch.einsum("bop,bip->oi", delta2.flatten(2), patches).view(5, 4, 3, 3) / len(x)
    dw3 = error.T @ trace["conv2"].flatten(1) / len(x)
    for stage, signal, grad in (("conv1", signal1, dw1), ("conv2", signal2, dw2), ("readout", error, dw3)):
        assert relative(learned.signals[stage], signal) <= 1e-12, stage
        assert relative(learned.grads[f"stages.{stage}.synapse.weight"], grad) <= 1e-12, stage


CHECKS = [check_dense, check_convolutional]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("case", CASES)
def test_updates_are_the_equations_with_the_feedback_that_the_paper_defines(case, check):
    check(*CASES[case])


@pytest.mark.parametrize("check", CHECKS)
def test_kolen_pollacks_feedback_gets_the_update_of_its_weight(check):
    """The same tensor for W and B, so that one optimiser moves both alike."""
    net = dense() if check is check_dense else convolutional()
    learned, _, _ = trained(*CASES["KP"], net)
    for stage in list(net.stages)[1:]:
        assert torch.equal(learned.grads[f"stages_{stage}_synapse"], learned.grads[f"stages.{stage}.synapse.weight"])


def test_random_magnitudes_are_half_normal_at_the_scale_of_one_over_root_fan_in():
    """E = σ √(2/π) and E² = σ² with σ = 1 / √fan-in, for ReLU networks too: the forward weights' σ is √2 larger."""
    for activation in ("tanh", "relu"):
        net = mlp.build((1, 4, 4), (10,), width=400, activation=activation)
        rule = SignSymmetry(magnitude="fixed")
        rule.attach(net)
        m = rule.get_buffer("stages_hidden2_synapse")
        assert m.mean().item() == pytest.approx(math.sqrt(2 / math.pi) / 20, rel=0.01)
        assert m.square().mean().item() == pytest.approx(1 / 400, rel=0.02)
        gain = {"tanh": 1, "relu": 2}[activation]
        assert net.stages["hidden2"].synapse.weight.square().mean().item() == pytest.approx(gain / 400, rel=0.02)


class FrozenSigns(SignSymmetry):
    """B's signs are those of the initial weights."""

    def attach(self, net):
        super().attach(net)
        self.signs = [w.sign() for w in weights_of(net)]

    def feedback(self, net):
        return {w: b.abs() * s for (w, b), s in zip(super().feedback(net).items(), self.signs, strict=True)}


class SevenTimes(SignSymmetry):
    def feedback(self, net):
        return {w: 7 * b for w, b in super().feedback(net).items()}


class NegatedMirror(WeightMirror):
    def feedback(self, net):
        return {w: -b for w, b in super().feedback(net).items()}


class NegatedKolenPollack(KolenPollack):
    def learn(self, net, x, target, objective):
        own = list(self.parameters())
        with torch.no_grad():
            for b in own:
                b.neg_()
            try:
                return super().learn(net, x, target, objective)
            finally:
                for b in own:
                    b.neg_()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    ("mutant", "case"),
    [
        (FrozenSigns, "uSF"), (FrozenSigns, "frSF"), (FrozenSigns, "brSF"), (SevenTimes, "uSF"), (SevenTimes, "brSF"),
        (NegatedMirror, "WM"), (NegatedKolenPollack, "KP"),
    ],
)  # fmt: skip
def test_planted_bugs_in_the_feedback_are_found(mutant, case, check):
    _, options, definition = CASES[case]
    with pytest.raises(AssertionError, match=r"hidden|conv|readout"):
        check(mutant, options, definition)
