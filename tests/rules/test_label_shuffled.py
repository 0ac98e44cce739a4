"""Shuffled labels: the same for an image anywhere, uniform, unrelated to the class; then plain backprop."""

import numpy as np
import scipy.stats
import torch

from evaluation.brain.losses import CategoryCrossEntropy
from models import mlp
from rules.base import OBJECTIVES, differentiate
from rules.label_shuffled import LabelShuffled, shuffled
from training.data import shapes


def test_an_image_keeps_its_label_in_any_batch_and_order():
    x = torch.randn(200, 1, 9, 9)
    labels = shuffled(x, 4)
    order = torch.randperm(200)
    assert torch.equal(shuffled(x[order], 4), labels[order])
    assert torch.equal(torch.cat([shuffled(part, 4) for part in x.split(1)]), labels)
    assert torch.equal(shuffled(x.to(memory_format=torch.channels_last), 4), labels)


def test_labels_are_uniform_and_tell_nothing_about_the_class():
    data = shapes.draw(4000, 16, seed=3)
    labels = shuffled(data.images, 4).numpy()
    counts = np.histogram2d(labels, data.targets.numpy(), bins=(4, 4))[0]
    assert scipy.stats.chisquare(counts.sum(1)).pvalue > 1e-3
    assert scipy.stats.chi2_contingency(counts).pvalue > 1e-3


def test_gradients_are_those_of_the_shuffled_labels_and_blind_to_the_true_ones():
    net, objective = mlp.build((1, 8, 8), (4,), width=8, depth=1), OBJECTIVES["cross_entropy"]
    x = torch.randn(16, 1, 8, 8)
    ours = LabelShuffled().learn(net, x, torch.zeros(16, dtype=torch.long), objective)
    theirs = differentiate(net, x, shuffled(x, 4), objective)
    for name, gradient in theirs.grads.items():
        assert torch.equal(ours.grads[name], gradient)
    other = LabelShuffled().learn(net, x, torch.full((16,), 3), objective)
    assert torch.equal(ours.loss, other.loss)
    assert "only class labels" in LabelShuffled().supports(net, OBJECTIVES["mean_squared_error"])


def test_categories_of_a_benchmark_s_own_loss_are_left_alone():
    net, x = mlp.build((1, 8, 8), (10,), width=8, depth=1), torch.randn(6, 1, 8, 8)
    objective = CategoryCrossEntropy(torch.randn(10, 2))  # two categories, ten classes
    target = torch.tensor([0, 1, 1, 0, 1, 0])
    ours, theirs = LabelShuffled().learn(net, x, target, objective), differentiate(net, x, target, objective)
    for stage, signal in theirs.signals.items():
        assert torch.equal(ours.signals[stage], signal)
