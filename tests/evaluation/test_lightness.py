"""Lightness: targets are bitwise equal, the read-out is exact where theory says so, filters get the known verdicts."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.illusions import lightness
from evaluation.illusions.lightness import CONTRAST, HUMAN, Lightness
from evaluation.illusions.lightness_stimuli import (
    CONTEXTS,
    DISPLAYS,
    GRATINGS,
    TARGETS,
    any_display,
    bar_width,
    pairs,
    ramp,
    target_shape,
)
from evaluation.illusions.surface import at_target, blurred, effects, fit, gaussian, unresolved
from evaluation.observers import blur, difference_of_gaussians, pixel_map
from training.data import shapes
from training.data.base import Source


def task(size):
    return shapes.build(Source(None), size=size, train=64, test=8)


@pytest.fixture(scope="module")
def filters():
    """Scores of every filter at 64 pixels, by name of the filter."""
    bench = Lightness(num=16, training=240)
    return {
        m.__name__.rsplit(".", 1)[-1]: bench.measure(m.build(task(64)))
        for m in (pixel_map, blur, difference_of_gaussians)
    }


def of(scores, metric, stage=None, target=None):
    return next(s for s in scores if s.metric == metric and stage in (None, s.stage) and target in (None, s.target))


@settings(max_examples=25, deadline=None)
@given(
    display=st.sampled_from(sorted(DISPLAYS)),
    size=st.sampled_from([16, 24, 32, 48, 64]),
    seed=st.integers(0, 1000),
    change=st.sampled_from([-0.05, 0.0, 0.05]),
)
def test_the_two_targets_of_a_pair_are_equal_to_the_last_bit_and_contexts_are_not(display, size, seed, change):
    two = pairs(display, size, 4, seed, change)
    mask = two.mask[:, None]
    assert torch.equal(two.first[mask], two.second[mask])
    for first, m in zip(two.first, mask, strict=True):
        (value,) = first[m].unique().tolist()
        assert any(value == pytest.approx(t + change) for t in TARGETS)
    assert (two.first != two.second)[~mask].float().mean() > 0.9
    height, width = target_shape(display, size)
    assert mask.sum((1, 2, 3)).tolist() == [height * width] * 4
    assert mask.any(3).sum(2).flatten().tolist() in [[a, b, c, d] for a in (height, width) for b in (height, width)
                                                     for c in (height, width) for d in (height, width)]  # fmt: skip
    again = pairs(display, size, 4, seed, change)
    assert torch.equal(two.first, again.first) and torch.equal(two.second, again.second)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("display", GRATINGS)
def test_the_first_target_lies_on_a_dark_bar_with_light_flanks(display, size):
    bar = bar_width(display, size)
    two = pairs(display, size, 12, 3)
    for first, second, mask, stratum in zip(two.first[:, 0], two.second[:, 0], two.mask, two.stratum, strict=True):
        dark, light = CONTEXTS[int(stratum)]
        if int(mask.any(0).sum()) != bar:  # lying: turn it upright
            first, second, mask = first.t(), second.t(), mask.t()
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
        for image, own, other in ((first, dark, light), (second, light, dark)):
            assert (image[top : bottom + 1, left - bar : left] == other).all()  # one whole bar to the left
            assert (image[top : bottom + 1, right + 1 : right + 1 + bar] == other).all()
            assert (image[:top, left : right + 1] == own).all() and (image[bottom + 1 :, left : right + 1] == own).all()
            beyond = image[top : bottom + 1, left - bar - 1]  # White: the next bar; Howe: the stripe goes on
            assert (beyond == (other if display == "howe" else own)).all()
            assert set(image.unique().tolist()) <= {dark, light, *image[mask].tolist()}


@pytest.mark.parametrize("display", CONTRAST)
def test_the_first_surround_is_dark_and_uniform(display):
    two = pairs(display, 32, 6, 1)
    for first, second, mask, stratum in zip(two.first[:, 0], two.second[:, 0], two.mask, two.stratum, strict=True):
        assert first[~mask].unique().tolist() == [CONTEXTS[int(stratum)][0]]
        assert second[~mask].unique().tolist() == [CONTEXTS[int(stratum)][1]]


def test_mean_luminance_of_both_contexts_together_is_that_of_their_values():
    """Swapping dark and light mirrors the image about the mean of the two, outside the target."""
    for display in DISPLAYS:
        two = pairs(display, 32, 6, 2)
        outside = ~two.mask[:, None]
        assert torch.allclose((two.first + two.second)[outside], torch.tensor(1.0))


def test_places_do_not_depend_on_the_physical_change():
    a, b = pairs("white_thin", 32, 8, 5), pairs("white_thin", 32, 8, 5, 0.05)
    assert torch.equal(a.mask, b.mask)
    outside = ~a.mask[:, None]
    assert torch.equal(a.first[outside], b.first[outside])
    assert torch.allclose(b.first[~outside] - a.first[~outside], torch.tensor(0.05))


def test_unknown_displays_and_images_too_small_for_one():
    with pytest.raises(ValueError, match="white_thick"):
        pairs("whyte", 32, 1)
    with pytest.raises(ValueError, match="at least 16"):
        pairs("howe", 8, 1)


def test_a_ramp_holds_the_values_that_it_says():
    for mondrian in (False, True):
        shown = ramp(32, 20, 4, any_display(32), channels=3, mondrian=mondrian)
        for image, mask, value in zip(shown.images, shown.mask, shown.values, strict=True):
            assert torch.equal(image[:, mask], value[:, None].expand(-1, int(mask.sum())))
            colours = image[:, ~mask].t().unique(dim=0)
            assert (len(colours) > 4) == mondrian and (mondrian or len(colours) == 1)


def test_a_gaussian_has_its_sigma_and_keeps_a_uniform_field():
    """An impulse's second moment, and the error function behind an edge."""
    image = torch.zeros(1, 1, 41, 41, dtype=torch.double)
    image[..., 20, 20] = 1
    out = gaussian(image, 2.0)[0, 0]
    offset = torch.arange(41, dtype=torch.double) - 20
    assert out.sum() == pytest.approx(1.0) and (out.sum(0) * offset**2).sum() == pytest.approx(4.0, rel=0.01)
    edge = (torch.arange(64) >= 32).double().expand(1, 1, 64, 64)
    profile = gaussian(edge, 3.0)[0, 0, 32]
    exact = stats.norm.cdf((torch.arange(64) - 31.5).numpy() / 3.0)
    assert np.abs(profile.numpy() - exact).max() < 0.01
    assert torch.allclose(blurred(torch.full((1, 1, 32, 32), 0.3), 4, (8, 8)), torch.tensor(0.3))


def test_a_target_is_read_from_whole_cells_only():
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 2:6, 1:6] = True  # columns 2…5 are whole cells 1 and 2; column 1 is half a cell
    assert at_target(maps, mask).item() == pytest.approx((5 + 6 + 9 + 10) / 4)
    mask[:] = False
    mask[:, 3:5, 3:5] = True
    assert math.isnan(at_target(maps, mask).item())


def test_pixels_are_subject_to_no_illusion_exactly(filters):
    effects = [s for s in filters["pixel_map"] if s.metric == "effect"]
    assert len(effects) == len(DISPLAYS) and all(s.raw == 0.0 for s in effects)
    assert of(filters["pixel_map"], "readout_r2").raw == pytest.approx(1.0)
    assert of(filters["pixel_map"], "index", "").raw <= 0


def test_blur_gives_whites_effect_and_reverses_contrast_and_does_not_exceed_itself(filters):
    scores = filters["blur"]
    for stage in ("blur2", "blur4"):
        for display in ("white_thick", "white_thin"):
            assert of(scores, "effect", stage, display).raw > 0.5
            assert of(scores, "excess", stage, display).raw == pytest.approx(0.0, abs=1e-6)
        assert all(of(scores, "effect", stage, d).raw < -1 for d in CONTRAST)
        assert of(scores, "effect", stage, "howe").raw > 0.5  # where we see nothing
        assert of(scores, "index", stage).raw <= 0
    assert of(scores, "effect", "blur8", "white_thick").raw > 0.5  # and bars of 16 px are not wider than two cells of 8
    assert of(scores, "excess", "blur8", "white_thick").gate == "n/a"
    assert "two of its cells" in of(scores, "index", "blur8").reason


def test_the_effect_of_a_blur_is_what_the_error_function_says():
    """What stays of the target in every whole cell, by the error function along both axes; the rest is surround."""
    size, stride, num = 64, 4, 8
    sigma = math.sqrt((stride / 2) ** 2 + 1 / 4)  # a cell's centre lies between pixels
    observer = blur.build(task(size))
    spots = any_display(size)
    fitted = fit(observer, ramp(size, 60, 0, spots), ramp(size, 60, 1, spots), lambda v: v[:, 0])
    found = effects(observer, fitted, lambda change: pairs("contrast_large", size, num, 0, change), 0.05)["blur4"]
    shown = pairs("contrast_large", size, num, 0)
    centres = np.arange(stride / 2, size, stride)
    kept, expected = [], []
    for mask, stratum in zip(shown.mask, shown.stratum, strict=True):
        held = []
        for axis in (0, 1):
            along = mask.any(axis).nonzero()[:, 0]
            low, high = int(along[0]), int(along[-1]) + 1
            inside = centres[(centres - stride / 2 >= low) & (centres + stride / 2 <= high)]
            held.append(stats.norm.cdf((high - inside) / sigma) - stats.norm.cdf((low - inside) / sigma))
        dark, light = CONTEXTS[int(stratum)]
        kept.append(np.outer(*held).mean())
        expected.append(-(light - dark) * (1 - kept[-1]))
    assert found.size == pytest.approx(np.mean(expected) / np.mean(kept), rel=0.03)


def test_a_contrast_cell_gives_contrast_and_reverses_whites_effect(filters):
    scores = filters["difference_of_gaussians"]
    assert all(of(scores, "effect", None, d).raw > 1 for d in CONTRAST)
    assert all(of(scores, "effect", None, d).raw < -1 for d in ("white_thick", "white_thin", "howe"))
    assert of(scores, "index", "").raw < 0


def test_ranks_alone_do_not_tell_a_contrast_cell_from_us(filters):
    """Known trap: its ranks are ours although White's effect is reversed; scipy's coefficient is the oracle."""
    scores = filters["difference_of_gaussians"]
    own = [of(scores, "effect", None, d).raw for d in HUMAN]
    assert of(scores, "spearman").raw == pytest.approx(stats.spearmanr(list(HUMAN.values()), own).statistic)
    assert of(scores, "spearman").raw > 0.8 and of(scores, "index", "").raw < 0
    network = of(scores, "network_spearman")  # of the stage whose index is the network's
    assert (network.raw, network.stage) == (of(scores, "spearman").raw, "")
    assert network.target == of(scores, "index", "").target == "difference_of_gaussians"
    assert of(filters["pixel_map"], "network_spearman").gate == "n/a"  # its effects are all equal


class Illuded:
    """Sees what it is told to: the target, plus a shift that depends on the bar or surround that the target is put on."""

    classes, name, in_shape = (), "illuded", (1, 32, 32)

    def __init__(self, shift, gain=3.0):
        self.shift, self.gain = shift, gain

    def activations(self, stimuli):
        """One stage of a single map: a gain on the image, minus the shift times the mean luminance of the image."""
        mean = stimuli.mean((2, 3), keepdim=True)
        return {"stage": self.gain * (stimuli - self.shift * (mean - 0.5))}


def test_effects_are_in_physical_units_whatever_the_gain():
    """d = g (T − s (mean − ½)): the contrast effect is s × the difference of mean luminances, over 1 − s × the target's share."""
    size, side = 32, 12
    share = side**2 / size**2
    for gain in (0.2, 5.0):
        scores = Lightness(num=16, training=300).measure(Illuded(0.1, gain))
        expected = np.mean([0.1 * (light - dark) * (1 - share) / (1 - 0.1 * share) for dark, light in CONTEXTS])
        assert of(scores, "effect", "stage", "contrast_large").raw == pytest.approx(100 * expected, rel=1e-3)


def test_a_stage_that_does_not_know_the_target_is_not_judged():
    class Blind(Illuded):
        def activations(self, stimuli):
            generator = torch.Generator().manual_seed(0)
            return {
                "noise": torch.randn(len(stimuli), 4, 16, 16, generator=generator),
                "dead": torch.zeros(len(stimuli), 3),
            }

    scores = Lightness(num=4, training=100).measure(Blind(0))
    assert "uniform surrounds" in of(scores, "index", "noise").reason and "silent" in of(scores, "index", "dead").reason
    assert all(s.gate == "n/a" for s in scores if s.metric in ("effect", "index", "spearman"))
    assert "noise: " in of(scores, "index", "").reason


def test_an_observer_without_stages_or_with_tiny_images_is_not_judged():
    class Small(Illuded):
        in_shape = (1, 8, 8)

    assert "too small" in Lightness().measure(Small(0))[0].reason

    class Flat(Illuded):
        def activations(self, stimuli):
            return {}

    (score,) = Lightness(num=2, training=20).measure(Flat(0))
    assert score.gate == "n/a" and "no stages" in score.reason


def test_dense_stages_can_show_contrast_and_cannot_claim_whites_effect():
    class Dense(Illuded):
        def activations(self, stimuli):
            return {"dense": stimuli.flatten(1)[:, 15 * 32 + 15 : 15 * 32 + 17]}

    scores = Lightness(num=6, training=200).measure(Dense(0))
    assert of(scores, "effect", "dense", "contrast_small").raw == pytest.approx(0, abs=1e-9)
    assert "not wider" in of(scores, "index", "dense").reason


def test_the_stride_rule():
    assert unresolved(8, 4) and unresolved(5, 2.5) and not unresolved(9, 4) and not unresolved(0, 32)


def test_two_measurements_are_equal():
    a, b = (Lightness(num=4, training=60).measure(difference_of_gaussians.build(task(32))) for _ in range(2))
    assert a == b


def test_human_values_are_those_of_the_reference_and_howe_is_zero():
    assert HUMAN == {
        "white_thick": 4.18,
        "white_thin": 4.6,
        "contrast_large": 11.35,
        "contrast_small": 19.78,
        "howe": 0.0,
    }
    assert set(HUMAN) == set(DISPLAYS)


def test_the_figure_and_the_sheet_are_drawn(tmp_path):
    observer = blur.build(task(32))
    bench = Lightness(num=4, training=100)
    bench.measure(observer)
    (path,) = bench.draw(tmp_path, {"blur": observer})
    assert path.stat().st_size > 5000
    images, rows, columns = lightness.sheet(32)
    assert images.shape == (len(DISPLAYS), 6, 1, 32, 32) and rows == list(DISPLAYS) and len(columns) == 6
    shown = [tuple(images[i, k].unique().tolist()) for i in range(len(DISPLAYS)) for k in (0, 3)]
    for dark, light in CONTEXTS:  # of every display and in both strengths
        assert sum(dark in values or light in values for values in shown) >= len(DISPLAYS)
