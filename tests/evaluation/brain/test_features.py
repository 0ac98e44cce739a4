"""Activations and learning signals as features: true evaluation mode, losses, streaming, reductions, resolutions."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.brain import features
from evaluation.brain.features import (
    Reducer,
    Spec,
    activations_of,
    at_resolution,
    patterns,
    pooled,
    precise,
    reducer_for,
    signals_of,
    stage_rdms,
    untrained,
)  # fmt: skip
from evaluation.brain.losses import (
    LOSSES,
    CategoryCrossEntropy,
    Entropy,
    ExactCrossEntropy,
    InstanceDiscrimination,
    probe,
    unit,
)
from evaluation.brain.mode import NotInEvaluationMode, assert_evaluation_mode
from evaluation.brain.rdm import rdm
from models import cnn, mlp, resnet
from models.base import Stage, StagedNet
from rules.backprop import Backprop
from rules.direct_feedback_alignment import DirectFeedbackAlignment
from rules.feedback_alignment import FeedbackAlignment
from rules.predictive_coding import PredictiveCoding
from rules.untrained import Untrained
from tests.evaluation.brain.conftest import observer_of


class StubbornNorm(nn.BatchNorm2d):
    """The published bug: ``eval()`` does nothing."""

    def train(self, mode=True):
        del mode
        return super().train(True)


class BatchStatistics(nn.BatchNorm2d):
    """Uses the batch's statistics whatever the mode."""

    def forward(self, x):
        return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)


class AlwaysDropout(nn.Dropout):
    """Monte-Carlo dropout: drops in evaluation too."""

    def forward(self, x):
        return nn.functional.dropout(x, self.p, training=True)


def net_with(norm=None, nonlinearity=None):
    torch.manual_seed(0)
    stages = {
        "conv": Stage(nn.Conv2d(3, 4, 3, padding=1), norm=norm, nonlinearity=nonlinearity or nn.Tanh(), pool=nn.MaxPool2d(4)),
        "readout": Stage(nn.Linear(4 * 8 * 8, 4)),
    }  # fmt: skip
    return StagedNet(stages, (3, 32, 32), (4,))


@pytest.mark.parametrize(
    "net, named",
    [
        (net_with(BatchStatistics(4, affine=False)), "stages.conv.norm"),
        (net_with(nonlinearity=AlwaysDropout(0.5)), "stages.conv.nonlinearity"),
    ],
)
def test_a_module_that_depends_on_the_batch_or_on_chance_in_evaluation_is_named(net, named):
    with pytest.raises(NotInEvaluationMode, match=named):
        assert_evaluation_mode(observer_of(net, Backprop()))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), StubbornNorm(4), nn.GroupNorm(2, 4), None])
def test_evaluation_mode_is_set_even_where_eval_does_nothing(norm):
    """Whatever a class makes of ``eval()``, an image's activation and signal are the same alone and in a batch."""
    observer = precise(observer_of(net_with(norm), Backprop()))
    observer.net.train()
    assert_evaluation_mode(observer)
    x, target = torch.rand(9, 3, 32, 32), torch.randint(0, 4, (9,))
    for function in (lambda i: observer.activations(x[i]), lambda i: observer.signals(x[i], target[i])):
        together, alone = function(slice(None)), function(slice(2, 3))
        for stage, value in alone.items():
            assert torch.allclose(together[stage][2:3], value, atol=1e-12)
    assert observer.net.training  # restored


class TurnsOnTraining(Backprop):
    """A rule that switches the network into training mode to learn."""

    def learn(self, net, x, target, objective):
        net.train()
        return super().learn(net, x, target, objective)


def test_a_rule_that_switches_to_training_mode_is_named():
    with pytest.raises(NotInEvaluationMode, match=r"stages.conv.norm .* training mode"):
        assert_evaluation_mode(observer_of(net_with(nn.BatchNorm2d(4)), TurnsOnTraining()))
    assert_evaluation_mode(observer_of(net_with(), TurnsOnTraining()))  # nothing there that minds


@pytest.mark.parametrize("name", ["entropy", "exact", "category", "instance"])
def test_the_error_of_a_loss_is_its_gradient(name):
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    bank = unit(torch.randn(6, 5, generator=generator, dtype=torch.float64))
    loss = {
        "entropy": Entropy(),
        "exact": ExactCrossEntropy(),
        "category": CategoryCrossEntropy(torch.randn(5, 3, generator=generator, dtype=torch.float64)),
        "instance": InstanceDiscrimination(bank),
    }[name]
    (expected,) = torch.autograd.grad(loss.losses(output, target).sum(), output)
    if name == "exact":
        assert torch.allclose(
            loss.losses(output, target), nn.functional.cross_entropy(output, target, reduction="none")
        )
    assert torch.allclose(loss.error(output.detach(), target), expected, atol=1e-12)


@pytest.mark.parametrize("margin", [1.0, 21.0, 45.0, 300.0])
def test_the_gradients_of_certain_networks_keep_their_digits(margin):
    """Against 400 digits: 1 − p of an answer that is certain is rounding in float64, its gradient must not be."""
    import mpmath

    z = [margin, 0.0, -2.0, 1.0 - margin / 3]
    with mpmath.workdps(400):
        weights = [mpmath.exp(mpmath.mpf(v)) for v in z]
        p = [w / mpmath.fsum(weights) for w in weights]
        entropy = -mpmath.fsum(q * mpmath.log(q) for q in p)
        expected = {
            "answer": [float(p[0] - 1), *map(float, p[1:])],
            "wrong": [float(p[0]), float(p[1] - 1), *map(float, p[2:])],
            "entropy": [float(-q * (mpmath.log(q) + entropy)) for q in p],
        }
    for name, loss, target in (
        ("answer", ExactCrossEntropy(), 0), ("wrong", ExactCrossEntropy(), 1), ("entropy", Entropy(), 0),
    ):  # fmt: skip
        output = torch.tensor([z], dtype=torch.float64, requires_grad=True)
        index = torch.tensor([target])
        (gradient,) = torch.autograd.grad(loss.losses(output, index).sum(), output)
        wanted = torch.tensor([expected[name]], dtype=torch.float64)
        assert torch.allclose(loss.error(output.detach(), index), wanted, rtol=1e-10, atol=0), name
        assert torch.allclose(gradient, wanted, rtol=1e-10, atol=0), name


def test_entropy_is_largest_for_a_flat_answer():
    flat = Entropy().losses(torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1, dtype=torch.long))
    assert flat.item() == pytest.approx(np.log(4))
    assert torch.allclose(Entropy().error(torch.zeros(1, 4), torch.zeros(1)), torch.zeros(1, 4))


@pytest.mark.parametrize("rule", [Backprop, FeedbackAlignment, DirectFeedbackAlignment, PredictiveCoding])
@pytest.mark.parametrize("loss", ["pseudo_label", "entropy", "label", "instance"])
def test_every_rule_gives_signals_for_every_loss_independent_of_the_batch(rule, loss, few):
    torch.manual_seed(0)
    observer = precise(observer_of(cnn.build((3, 16, 16), (4,), width=2, hidden=8), rule(), size=16))
    ready = probe(loss, observer, few)
    source = signals_of(observer, few.stimuli, ready)
    whole, alone = source(np.arange(16)), source(np.array([3]))
    assert set(whole) <= set(observer.net.stages) and "readout" in whole
    for stage, value in alone.items():
        assert torch.allclose(whole[stage][3:4], value, atol=1e-10), stage


def test_backprop_s_signals_are_the_gradients_of_each_image_s_own_loss(small, few):
    observer = precise(small)
    ready = probe("entropy", observer, few)
    x = observer.preprocess.stimulus(few.stimuli).double()
    signals = observer.signals(few.stimuli, ready.target, ready.objective)
    activity, values = x, {}
    for name, stage in observer.net.stages.items():
        activity = stage(activity)
        activity.retain_grad()
        values[name] = activity
    p = activity.softmax(1)
    (-(p * p.log()).sum()).backward()
    for name, value in values.items():
        assert torch.allclose(signals[name].flatten(1), value.grad.flatten(1), atol=1e-12), name


def test_losses_that_do_not_exist_say_why(small, few):
    unlabelled = dataclasses.replace(few, labels={})
    with pytest.raises(ValueError, match="no categories"):
        probe("label", small, unlabelled)
    with pytest.raises(ValueError, match="an answer, not an image"):
        probe("reconstruction", small, few)
    with pytest.raises(ValueError, match="unknown loss"):
        probe("dino", small, few)
    assert set(LOSSES) >= {"pseudo_label", "entropy", "label", "instance", "reconstruction"}


def test_a_network_that_paints_gives_reconstruction_and_no_answer(few):
    from rules.base import OBJECTIVES

    torch.manual_seed(0)
    net = mlp.build((3, 16, 16), (3, 16, 16), width=12)
    observer = dataclasses.replace(
        observer_of(net, Backprop(), size=16), classes=(), objective=OBJECTIVES["mean_squared_error"]
    )
    ready = probe("reconstruction", observer, few)
    assert ready.target.shape == (16, 3, 16, 16)
    # In the network's own units, those of the frames that it is trained to predict: seen as an image it is the stimulus.
    assert torch.allclose(ready.target, observer.preprocess.stimulus(few.stimuli), atol=1e-6)
    signals = observer.signals(few.stimuli, ready.target, ready.objective)
    output = list(observer.activations(few.stimuli).values())[-1]
    expected = 2 * (output - ready.target) / output[0].numel()
    assert torch.allclose(signals[observer.net.readout].view_as(expected), expected, atol=1e-6)
    with pytest.raises(ValueError, match="an image, not an answer"):
        probe("pseudo_label", observer, few)


def test_the_control_without_learning_has_no_signal(few):
    observer = observer_of(cnn.build((3, 16, 16), (4,), width=2, hidden=8), Untrained(), size=16)
    assert signals_of(observer, few.stimuli, probe("pseudo_label", observer, few))(np.arange(4)) == {}


@pytest.mark.parametrize("distance", ["correlation", "euclidean"])
def test_blocks_give_the_same_rdms_as_all_at_once(small, few, distance):
    observer = precise(small)
    source, reducer = activations_of(observer, few.stimuli), Reducer(Spec(distance=distance))
    whole = stage_rdms(source, 16, reducer)
    sizes = []

    def counted(index):
        sizes.append(len(index))
        return source(index)

    blocks = stage_rdms(counted, 16, reducer, memory=100_000)
    assert 1 < max(sizes) < 16
    for stage, vector in whole.items():
        assert np.abs(vector - blocks[stage]).max() < 1e-10 * max(1, np.abs(vector).max())
        direct = rdm(observer.activations(few.stimuli)[stage].flatten(1).numpy(), distance)
        assert np.allclose(vector, direct, atol=1e-10)


@pytest.mark.slow
def test_memory_stays_bounded_for_a_thousand_stimuli_at_full_features():
    """1,000 stimuli × 150,000 features are 1.2 GB, and as much again while they are computed; blocks need less."""
    import subprocess
    import sys

    code = (
        "import numpy as np, torch, resource\n"
        "from evaluation.brain.features import Reducer, Spec, stage_rdms\n"
        "def source(index):\n"
        "    return {'conv1': torch.stack([torch.randn(150, 1000, generator=torch.Generator().manual_seed(int(i)))"
        " for i in index])}\n"
        "found = stage_rdms(source, 1000, Reducer(Spec()))\n"
        "assert found['conv1'].shape == (499500,) and abs(found['conv1'].mean() - 1) < 1e-3\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=900)
    assert int(result.stdout) < 1_700_000, result.stdout  # kB, of which torch itself takes a third


def test_pooling_over_space():
    x = torch.arange(2 * 3 * 4 * 4, dtype=torch.float64).view(2, 3, 4, 4)
    assert torch.equal(pooled(x, "none"), x.flatten(1))
    assert torch.allclose(pooled(x, "global"), x.mean((2, 3)))
    pyramid = pooled(x, "pyramid")
    assert pyramid.shape == (2, 3 + 12) and torch.allclose(pyramid[:, 3], x[:, 0, :2, :2].mean((1, 2)))
    assert torch.equal(pooled(x.flatten(1), "global"), x.flatten(1))
    for wrong in ({"pooling": "max"}, {"reduction": "umap"}, {"distance": "cosine"}, {"components": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Spec(**wrong)


def test_a_random_projection_keeps_distances_and_is_the_same_in_any_batch(small, few):
    x = torch.randn(20, 9000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reducer = Reducer(Spec(reduction="projection", components=2000))
    projected = reducer("conv1", x)
    ratio = rdm(projected, "euclidean") * 2000 / (rdm(x.numpy(), "euclidean") * 9000)
    assert projected.shape == (20, 2000) and np.abs(ratio - 1).max() < 0.15
    assert np.allclose(projected[3:4], reducer("conv1", x[3:4]))
    assert np.array_equal(reducer("hidden", x[:, :100]), x[:, :100].numpy())  # nothing to reduce


def test_components_are_fitted_on_the_network_s_own_images_only(small, few):
    observer = precise(small)
    reducer = reducer_for(observer, Spec(reduction="pca", components=5), signals=False)
    own = observer.net.trace(observer.probe(256)[0])["conv2"].detach().flatten(1)
    _, axes = np.linalg.eigh(np.cov(own.numpy().T))
    assert np.allclose(np.abs(reducer.fitted["conv2"][1].numpy().T @ axes[:, ::-1][:, :5]), np.eye(5), atol=1e-6)
    found = patterns(activations_of(observer, few.stimuli), 16, reducer)
    assert all(v.shape[1] <= 5 for v in found.values())
    single = patterns(activations_of(observer, few.stimuli[:1]), 1, reducer)  # what else is shown does not matter
    assert np.allclose(single["conv2"], found["conv2"][:1])
    assert reducer_for(observer, Spec(reduction="pca", components=5), signals=True).fitted.keys() <= set(
        observer.net.stages
    )


def test_other_resolutions(small, few):
    same = at_resolution(small, 32)
    assert same is small
    double = at_resolution(small, 64)
    shapes = {n: a.shape[1:] for n, a in double.activations(few.stimuli).items()}
    assert shapes["conv1"] == (4, 32, 32) and shapes["conv3"] == (16, 4, 4) and shapes["hidden"] == (16,)
    assert small.net.stages["conv3"].pool is not double.net.stages["conv3"].pool  # the network itself is untouched
    flat = at_resolution(observer_of(resnet.build((3, 32, 32), (4,), width=2), Backprop()), 48)
    assert flat.activations(few.stimuli)["readout"].shape == (16, 4)  # pools over space by itself
    with pytest.raises(ValueError, match="sees one size only"):
        at_resolution(observer_of(mlp.build((3, 32, 32), (4,), width=8), Backprop()), 64)


def test_a_network_whose_map_cannot_be_resized_says_so():
    """A stage of one's own making before a linear one: a reason, not an assertion."""
    observer = observer_of(net_with(), Backprop())
    observer.net.stages["conv"] = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(4))
    with pytest.raises(ValueError, match="conv is a Sequential, whose map"):
        at_resolution(observer, 64)


def test_the_untrained_network_is_the_one_before_training(small):
    with torch.no_grad():
        moved = dataclasses.replace(small, initial=cnn.build((3, 32, 32), (4,), width=4, hidden=16))
    assert untrained(moved).net is moved.initial
    assert precise(moved).net is not moved.net and next(precise(moved).initial.parameters()).dtype == torch.float64
    assert next(moved.net.parameters()).dtype == torch.float32


def test_blocks_never_hold_more_images_than_allowed():
    assert features.BLOCK * 400_000 * 8 < 2 * features.MEMORY
