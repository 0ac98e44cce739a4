"""The gap read-out: receptive fields against arithmetic and gradients; 0 for feed-forward networks, not for leaks."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from evaluation.base import TrainedObserver
from evaluation.illusions import kanizsa_gap
from evaluation.illusions.kanizsa_gap import Gaps, KanizsaGap, gap_pixels
from evaluation.illusions.kanizsa_stimuli import CONDITIONS, CONTROLS, SUPPORT_RATIOS, layouts, render
from evaluation.illusions.receptive_fields import global_modules, units_touching, units_within
from evaluation.illusions.time_course import time_course
from models import cnn, resnet
from rules._encoding import difference_of_gaussians
from rules.backprop import Backprop
from rules.base import OBJECTIVES
from rules.predictive_coding import PredictiveCoding
from rules.stdp import STDP
from rules.surrogate_gradient import SurrogateGradient
from training.data import shapes
from training.data.base import Source

TASK = shapes.build(Source(None), size=32, train=64, test=64)


def observer(rule, net=None):
    torch.manual_seed(0)
    net = net or cnn.build((1, 32, 32), (4,), width=4, hidden=16)
    net.eval()
    objective = OBJECTIVES["cross_entropy"]
    assert rule.supports(net, objective) is None
    rule.attach(net)
    return TrainedObserver(
        "examined", net, rule, copy.deepcopy(net), copy.deepcopy(rule), objective, TASK.preprocess(), TASK.classes,
        TASK.test,
    )  # fmt: skip


def scores_of(rule, net=None, per_cell=1):
    return KanizsaGap(per_cell=per_cell).measure(observer(rule, net))


def values(scores, metric):
    return {(s.stage, s.target): s.raw for s in scores if s.metric == metric and s.gate == "pass"}


def arithmetic(stages):
    """Return, per conv stage of a chain of (kernel, pool), left edge, right edge and step of receptive fields."""
    left, right, jump, found = 0, 0, 1, []  # of unit 0, in pixels
    for kernel, pool in stages:
        left, right = left - (kernel // 2) * jump, right + (kernel // 2) * jump
        right += (pool - 1) * jump
        jump *= pool
        found.append((left, right, jump))
    return found


@pytest.mark.parametrize("kernel", [3, 5])
def test_receptive_fields_are_those_of_arithmetic(kernel):
    net = cnn.build((1, 32, 32), (4,), width=2, hidden=4, kernel=kernel)
    rng = torch.Generator().manual_seed(0)
    region = torch.zeros(3, 32, 32, dtype=torch.bool)
    for mask in region:
        top, left, height, width = torch.randint(4, 20, (4,), generator=rng).tolist()
        mask[top : top + height + 4, left : left + width + 4] = True
    within, touching = units_within(net, region), units_touching(net, region)
    for i, (first, last, jump) in enumerate(arithmetic([(kernel, 2)] * 3)):
        name, side = f"conv{i + 1}", 32 // 2 ** (i + 1)
        shape = (3, 2 * 2**i, side, side)
        for row in range(side):
            for column in range(side):
                rows = slice(max(0, first + jump * row), last + jump * row + 1)
                columns = slice(max(0, first + jump * column), last + jump * column + 1)
                patch = region[:, rows, columns].flatten(1)
                expected_in, expected_touch = patch.all(1), patch.any(1)
                assert torch.equal(within[name].view(shape)[:, 0, row, column], expected_in)
                assert torch.equal(touching[name].view(shape)[:, -1, row, column], expected_touch)
    assert not within["hidden"].any() and within["conv1"].any()


def test_receptive_fields_are_those_of_the_gradient_in_a_residual_network():
    net = resnet.build((1, 16, 16), (4,), width=2, activation="softplus").double().eval()
    pixel = torch.zeros(1, 16, 16, dtype=torch.bool)
    pixel[0, 5, 9] = True
    touching = units_touching(net, pixel)
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    (column,) = torch.autograd.functional.jacobian(lambda v: net.trace(v)["block3"].flatten(), x).unsqueeze(0)
    assert torch.equal(column[:, 0, 0, 5, 9] != 0, touching["block3"][0])


def test_gap_pixels_lie_between_the_discs_and_are_blank_in_every_condition():
    shared = layouts(48, 1)
    pixels = gap_pixels(shared, 48)
    blank = render(shared, "BLANK", 48)
    for c in ("IN", "ROT", "OUT", "DISC", "OUTL", "CLOSED"):
        drawn = (render(shared, c, 48) != blank)[:, 0]
        assert (drawn & pixels).sum() < 0.2 * pixels.sum()  # the rims of the discs
    real = (render(shared, "REAL", 48) - blank).abs()[:, 0]
    edge = (real > 0.02) & (real < shared.contrast.abs()[:, None, None] * 0.98)
    assert (edge & pixels).sum() > 0.5 * pixels.sum()  # half covered: the contour of the real polygon runs there
    counts = [pixels[(shared.support_ratio - r).abs() < 1e-3].sum().item() for r in SUPPORT_RATIOS]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("rule", [Backprop, STDP, SurrogateGradient])
def test_the_gap_of_feed_forward_inference_is_exactly_zero(rule):
    """To the last bit: also for spikes over time, whose input gain is held by the same spot in every image."""
    scores = scores_of(rule())
    assert {s.stage for s in scores if s.metric == "gap_units"} >= {"conv1"}
    for metric in ("gap_vs", "gap_in", "gap_unsigned", "gap_over_time"):
        assert set(values(scores, metric).values()) <= {0.0}, metric
    assert len(values(scores, "gap_vs")) >= len(CONTROLS)
    (reconstruction,) = (s for s in scores if s.metric == "reconstruction")
    assert reconstruction.gate == "n/a"
    assert bool(values(scores, "gap_over_time")) == rule().tags.spiking


def test_the_spot_is_the_strongest_contrast_of_every_image():
    """Against the input filter of spiking rules; without it the gain depends on what the inducers look like."""
    for condition in ("IN", "DISC", "OUTL"):
        images = kanizsa_gap.anchored(render(layouts(32, 2), condition, 32))
        filtered = F.conv2d(F.pad(images, (3,) * 4, mode="replicate"), difference_of_gaussians(images)[None, None])
        strongest = filtered.abs().flatten(1)
        assert (strongest.argmax(1) == 3 * 32 + 3).all() and strongest.amax(1).std() < 1e-6


class Feedback(Backprop):
    """Planted: the decision is added to the first stage."""

    def activations(self, net, x):
        found = net.trace(x)
        found["conv1"] = found["conv1"] + 0.1 * found["readout"].std(1)[:, None, None, None]
        return found


def test_planted_feedback_is_found():
    scores = scores_of(Feedback())
    assert values(scores, "gap_unsigned")
    assert all(v > 1e-3 for (stage, _), v in values(scores, "gap_unsigned").items() if stage == "conv1")
    assert all(v == 0.0 for (stage, _), v in values(scores, "gap_unsigned").items() if stage != "conv1")


class Completes(Backprop):
    """Planted: in its first stage, and for IN alone, a contour grows in the gap, half as strong as a real one."""

    images = None

    def activations(self, net, x):
        found = net.trace(x)
        shown = {c: TASK.preprocess().stimulus(image) for c, image in self.images.items()}
        if x.shape == shown["IN"].shape and torch.equal(x, shown["IN"]):
            real, blank = (net.trace(shown[c])["conv1"] for c in ("REAL", "BLANK"))
            found["conv1"] = found["conv1"] + 0.5 * (real - blank)
        return found


def test_planted_completion_has_its_size_in_units_of_a_real_contour():
    rule, shared = Completes(), layouts(32, 1, seed=1)
    rule.images = {c: render(shared, c, 32) for c in ("IN", "REAL", "BLANK")}
    scores = scores_of(rule)
    assert values(scores, "gap_in")["conv1", ""] == pytest.approx(0.5, abs=1e-5)
    assert all(v == pytest.approx(0.5, abs=1e-5) for (s, _), v in values(scores, "gap_vs").items() if s == "conv1")


def test_a_normalisation_over_the_whole_image_leaks_and_is_named():
    net = cnn.build((1, 32, 32), (4,), width=4, hidden=16)
    net.stages["conv1"].norm = nn.GroupNorm(1, 4)
    assert global_modules(net) == ["stages.conv1.norm (GroupNorm)"]
    scores = scores_of(Backprop(), net)
    unsigned = values(scores, "gap_unsigned")
    assert unsigned and all(v > 1e-4 for v in unsigned.values())
    assert all("GroupNorm" in s.reason for s in scores if s.metric == "gap_unsigned")


def test_batch_statistics_in_evaluation_do_not_leak():
    net = cnn.build((1, 32, 32), (4,), width=4, hidden=16, norm="batch")
    assert global_modules(net) == [] and set(values(scores_of(Backprop(), net), "gap_unsigned").values()) == {0.0}


def test_predictive_coding_reaches_the_gap_over_its_iterations_from_the_top_down():
    rule = PredictiveCoding(steps=6, step_size=0.2)
    scores = scores_of(rule)
    course = values(scores, "gap_over_time")
    assert course["conv1", "iteration=0"] == 0.0  # the feed-forward pass
    # Five stages: the error at the output needs four steps to move conv1.
    assert [course["conv1", f"iteration={t}"] for t in range(4)] == [0.0] * 4
    assert course["conv1", "iteration=6"] != 0.0 and values(scores, "gap_unsigned")
    (reconstruction,) = (s for s in scores if s.metric == "reconstruction")
    assert reconstruction.raw is not None and abs(reconstruction.raw) < 1.0
    assert {s.target for s in scores if s.metric == "reconstruction_vs"} == set(CONTROLS)
    sent_back = values(scores, "reconstruction_over_time")
    assert [sent_back["", f"iteration={t}"] for t in range(4)] == [
        0.0
    ] * 4  # states that predict themselves send nothing
    assert sent_back["", "iteration=6"] == reconstruction.raw != 0.0


def test_reconstruction_is_the_gradient_of_the_energy_at_the_pixels():
    """Against automatic differentiation of ½ ‖f₁(x) − v₁‖² with respect to the image."""
    examined = observer(PredictiveCoding(steps=5, step_size=0.2))
    shared = layouts(32, 1)
    images = {c: render(shared, c, 32) for c in (*CONDITIONS, "BLANK")}
    gaps = Gaps(examined, shared, images)
    stage = examined.net.stages["conv1"]
    x = examined.preprocess.stimulus(images["OUT"]).requires_grad_()
    state = gaps.courses["OUT"]["conv1"][-1]
    energy = 0.5 * (stage(x).flatten(1) - state).square().sum()
    (slope,) = torch.autograd.grad(energy, x)
    expected = (slope.square()[:, 0] * gaps.pixels).sum((1, 2))
    assert torch.allclose(
        torch.from_numpy(gaps._sent_back("conv1", "OUT")[-1]).float(), expected, rtol=1e-3, atol=1e-12
    )


def test_time_courses_end_with_what_the_rule_ends_with():
    images = render(layouts(32, 1), "IN", 32)[:10]
    for rule in (Backprop(), STDP(), PredictiveCoding(steps=3)):
        examined = observer(rule)
        course = time_course(examined, images)
        assert course.unit == {"Backprop": "", "STDP": "step", "PredictiveCoding": "iteration"}[type(rule).__name__]
        if course.unit != "iteration":
            expected = examined.activations(images)["conv1"].flatten(1)
            scale = 1.0 if course.unit == "" else None
            if scale:
                assert torch.allclose(course["conv1"][-1], expected)
            else:
                assert course["conv1"].shape[0] == rule.steps and (course["conv1"].diff(dim=0) >= 0).all()
        else:
            assert torch.equal(course["conv1"][0], examined.activations(images)["conv1"].flatten(1))


def test_an_incompetent_network_keeps_its_parts_and_gets_no_headline(tmp_path):
    bench, examined = KanizsaGap(per_cell=1), observer(Backprop())
    scores = bench.measure(examined)
    assert scores[-1].metric == "gap" and scores[-1].gate == "n/a" and "cannot name" in scores[-1].reason
    (path,) = bench.draw(tmp_path, {"examined": examined})
    assert path.stat().st_size > 1000
    images, rows, _ = kanizsa_gap.sheet(32)
    assert images.shape == (9, 4, 1, 32, 32) and set(rows) > {"IN", *CONTROLS}


class Silent(Backprop):
    """Planted: no unit of the first stage responds to anything."""

    def activations(self, net, x):
        return {n: torch.zeros_like(a) if n == "conv1" else a for n, a in net.trace(x).items()}


def test_units_that_real_contours_leave_silent_are_not_asked_for_illusory_ones():
    scores = scores_of(Silent())
    assert not [s for s in values(scores, "gap_in") if s[0] == "conv1"]
    (score,) = (s for s in scores if s.metric == "gap" and s.stage == "conv1")
    assert score.gate == "n/a" and "do not respond to real contours" in score.reason
