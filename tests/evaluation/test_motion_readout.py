"""Two-frame read-out: theory gives the zeros, real turns are read, and only nonlinear features turn with contrast."""

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.base import TrainedObserver
from evaluation.illusions import readout_figure
from evaluation.illusions.correlator import fit
from evaluation.illusions.motion_readout import (
    CODES,
    MotionReadout,
    _thirds,
    _within,
    first_spikes,
    pairs,
    symmetric,
)
from evaluation.illusions.rotating_snakes import RotatingSnakes
from evaluation.illusions.snakes_stimuli import Disc, fitting, luminance, render
from evaluation.observers import blur
from models import cnn
from rules.base import CrossEntropy
from rules.surrogate_gradient import SurrogateGradient
from rules.untrained import Untrained
from tests.evaluation.test_rotating_snakes import named
from training.data import shapes
from training.data.base import Images, Preprocess, Source

DISC = fitting(64)


class Stages:
    """A network of which only the stages are asked."""

    name, classes = "stages", ("a", "b")

    def __init__(self, size=64, **stages):
        self.stages, self.in_shape = stages, (1, size, size)

    def activations(self, stimuli):
        return {name: stage(stimuli) for name, stage in self.stages.items()}


def readout(stage, size=64, num=10):
    before, after, speeds = pairs(DISC, size, range(num), 12, 0)
    base = torch.full((1, 1, size, size), DISC.background)
    return fit(*(stage(x).flatten(1) for x in (base, before, after)), speeds)


@pytest.fixture(scope="module")
def scores():
    """Of a linear stage, one that saturates, and one that sees brightness alone."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 1, 5, 5, generator=generator) / 5
    conv = lambda x: torch.nn.functional.conv2d(x - 0.5, weight, stride=2, padding=2)
    stages = {"linear": conv, "saturating": lambda x: torch.tanh(4 * conv(x)), "brightness": lambda x: x.mean((2, 3))}
    return MotionReadout(num=4).measure(Stages(**stages))


def at(scores, metric, stage, target=None):
    return next(s for s in scores if (s.metric, s.stage) == (metric, stage) and target in (None, s.target))


def test_real_rotation_is_read_from_stages_that_hold_it(scores):
    for stage in ("linear", "saturating"):
        assert at(scores, "real_sign_accuracy", stage).raw == 1.0
        assert at(scores, "real_correlation", stage).raw > 0.99
    missing = at(scores, "speed", "brightness")
    assert missing.gate == "n/a" and "sign right in" in missing.reason


def test_linear_features_do_not_turn_with_contrast(scores):
    """z(c) = c z(1), and z ∧ z = 0: nothing is left but the rounding of float32 images."""
    for code in ("S1", "S3", "C1", "C2"):
        assert abs(at(scores, "speed", "linear", f"rise {code}").raw) < 1e-4
        assert abs(at(scores, "null_speed", "pixels", f"rise {code}").raw) < 1e-4


def test_saturating_features_turn_with_a_snakes_contrast_and_back_in_its_reversal(scores):
    speed = {c: at(scores, "speed", "saturating", f"rise {c}").raw for c in ("S1", "S3_base", "S3", "C1", "C2")}
    assert abs(speed["S1"]) > 0.01 and speed["S1"] * speed["S3_base"] > 0 > speed["S3"] * speed["S3_base"]
    assert max(abs(speed["C1"]), abs(speed["C2"])) < 0.3 * abs(speed["S1"])


def test_a_network_without_memory_is_zero_by_theory_and_says_so(scores):
    zeros = {s.target: s for s in scores if s.metric == "speed" and not s.stage}
    assert set(zeros) == {"F", "J", "B", "O"}
    assert all(s.raw == 0.0 and "zero by theory" in s.reason for s in zeros.values())


def test_the_zeros_hold_for_any_features():
    """Identical frames, eye movements in pairs of opposite sign, a blink there and back, an onset from grey."""
    weight = torch.randn(6, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    stage = lambda x: torch.tanh(torch.nn.functional.conv2d(x - 0.5, weight, stride=2)).flatten(1)
    read = readout(stage)
    image = render(DISC, 64, torch.arange(4) * 9.0)
    moved = render(DISC, 64, torch.arange(4) * 9.0, centre=torch.full((4, 2), 0.4))
    grey = torch.full_like(image, DISC.background)
    f, m, g = stage(image), stage(moved), stage(grey)
    assert np.array_equal(read.turn(f, f), np.zeros(4))
    assert np.abs(read.turn(f, m) + read.turn(m, f)).max() < 1e-9 and np.abs(read.turn(f, m)).max() > 1e-3
    assert np.abs(read.turn(f, g) + read.turn(g, f)).max() < 1e-9
    assert np.abs(read.turn(g, f)).max() < 1e-9


def test_identical_frames_through_a_feed_forward_classifier_give_exactly_zero():
    net, rule = cnn.build((1, 64, 64), (4,), width=4, hidden=8), Untrained()
    preprocess = Preprocess((1, 64, 64), (0.5,), (0.25,), "linear")
    held_out = Images(torch.rand(2, 1, 64, 64), torch.zeros(2).long())
    objective, classes = CrossEntropy(), ("a",) * 4
    observer = TrainedObserver("untrained", net, rule, net, rule, objective, preprocess, classes, held_out)
    grey = torch.full((1, 1, 64, 64), DISC.background)
    before, after, speeds = pairs(DISC, 64, range(3), 6, 0)
    snakes = render(DISC, 64, torch.arange(4) * 9.0)
    seen = [observer.activations(x) for x in (grey, before, after, snakes, snakes.clone(), snakes.flip(-1))]
    for stage in net.stages:
        features = [s[stage].flatten(1) for s in seen]
        read = fit(*features[:3], speeds)
        assert np.array_equal(read.turn(features[3], features[4]), np.zeros(4))
        assert np.abs(read.turn(features[3], features[5])).max() > 0


def test_the_read_out_is_fitted_to_discs_without_a_direction():
    for seed in range(6):
        disc = symmetric(DISC, seed)
        levels, duty = [luminance(c) for c in disc.colours], disc.duty
        assert levels[1] == levels[3] and duty[1] == duty[3] and all(0 <= v <= 1 for v in levels)
        assert np.dot(levels, duty) == pytest.approx(disc.background)
        assert max(levels) - min(levels) > 0.2


def test_the_index_is_that_of_the_stage_that_sees_real_rotation_best(scores):
    index = named(scores, "index")
    best = max(("linear", "saturating"), key=lambda s: at(scores, "real_correlation", s).raw)
    assert index.stage == best and index.raw == at(scores, "speed", best, "rise S1").raw


def test_a_response_in_which_the_pattern_turns_is_read_within_the_trial():
    """Spikes whose pattern moves on by half a degree from third to third; grey does nothing."""
    read = readout(lambda x: x)
    turned = torch.stack([render(DISC, 64, torch.arange(4) * 9.0 + 0.5 * n).flatten(1) for n in range(3)], 1)
    back = torch.stack([render(DISC, 64, torch.arange(4) * 9.0 - 0.5 * n).flatten(1) for n in range(3)], 1)
    grey = torch.full((1, 3, 64 * 64), DISC.background)
    assert _within(read, [turned, back, grey]) == pytest.approx(np.full(4, 0.5), rel=0.1)


def test_a_spiking_networks_thirds_are_its_rates():
    net, rule = cnn.build((1, 16, 16), (4,), width=3, hidden=8), SurrogateGradient()
    rule.attach(net)
    shape = (1, 16, 16)
    held_out = Images(torch.rand(2, *shape), torch.zeros(2).long())
    observer = TrainedObserver(
        "spiking",
        net,
        rule,
        net,
        rule,
        CrossEntropy(),
        Preprocess(shape, (0.5,), (0.25,), "linear"),
        ("a",) * 4,
        held_out,
    )
    found, waits = _thirds(observer, torch.rand(2, *shape))
    records = observer.spikes(observer.preprocess.stimulus(torch.rand(2, *shape)))
    assert set(found) == set(records)
    for stage, thirds in found.items():
        assert thirds.shape[:2] == (2, 3) and thirds[0, 0].numel() == records[stage].rates[0].numel()
        assert thirds.min() >= 0
        assert waits[stage].shape == records[stage].latencies.shape and waits[stage].max() <= len(records[stage].spikes)


def test_first_spikes_are_ranked_by_the_luminance_of_their_place():
    images = render(DISC, 64, torch.arange(3) * 9.0)
    level = torch.nn.functional.avg_pool2d(images, 4).expand(-1, 5, -1, -1)
    assert first_spikes(10 * level, images, DISC.background, "v1").raw == pytest.approx(1.0, abs=1e-3)  # dark first
    assert first_spikes(3 - level, images, DISC.background, "v1").raw == pytest.approx(-1.0, abs=1e-3)
    unrelated = torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    assert abs(first_spikes(unrelated, images, DISC.background, "v1").raw) < 0.15
    assert first_spikes(level.flatten(1), images, DISC.background, "v1").gate == "n/a"


def test_filters_of_images_are_read_and_predict_no_frames():
    """A blur is linear: it turns with real rotation and not with contrast."""
    task = shapes.build(Source(Path("/nonexistent")), size=64, train=4, test=4)
    observer = blur.build(task)
    (score,) = RotatingSnakes(num=2).measure(observer)
    assert score.gate == "n/a" and "filters images" in score.reason
    index = named(MotionReadout(num=2).measure(observer), "index")
    assert index.gate == "pass" and abs(index.raw) < 1e-4


def test_networks_that_cannot_be_asked_say_why():
    class Predictor(Stages):
        classes, frames = (), 3

    (score,) = MotionReadout().measure(Predictor())
    assert "predicts frames" in score.reason
    (score,) = MotionReadout().measure(Stages(size=16))
    assert "16 pixels" in score.reason
    (score,) = MotionReadout().measure(Stages())
    assert "no stages" in score.reason
    assert MotionReadout.on_request and Disc(cycles=5, rings=2).rings == 2


def test_the_picture_has_every_stage_and_null(scores, tmp_path):
    path = readout_figure.speeds(tmp_path, "network", scores, CODES)
    assert path.stat().st_size > 10_000
