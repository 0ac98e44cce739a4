"""Fat and thin: stimuli by geometry, thresholds against scipy, and the verdicts on observers of known mechanism."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from evaluation.illusions import (
    classification_image,
    fat_thin_figures,
    fat_thin_stimuli,
    kanizsa_fat_thin,
    psychometric,
)
from evaluation.illusions.classification_image import (
    half_gaps,
    pixels_asked,
    pixels_drawn,
    shown_in_noise,
    taught,
    templates,
)
from evaluation.illusions.fat_thin_answers import DEGREES, LARGEST, RATIO, Answers
from evaluation.illusions.fat_thin_stimuli import CONDITIONS, CONTROLS, figures, fixed, noise, painted, render
from evaluation.illusions.kanizsa_fat_thin import KanizsaFatThin
from evaluation.illusions.receptive_fields import seen_apart
from evaluation.observers import hog, pixels
from models import cnn
from rules.backprop import Backprop
from tests.evaluation.test_kanizsa_gap import observer
from training.data import shapes
from training.data.base import Source

SIZE = 32
ILLUSORY = tuple(c for c in CONDITIONS if c != "REAL")


def pair(degrees, ratio=0.5, size=SIZE, **changed):
    """A thin and a fat figure that share everything else."""
    both = figures(size, torch.tensor([-degrees, degrees]), ratio, seed=2)
    shared = {
        n: getattr(both, n)[:1].expand_as(getattr(both, n)) for n in ("centre", "background", "contrast", "outlined")
    }
    return dataclasses.replace(both, **(shared | changed))


@settings(deadline=None, max_examples=8)
@given(
    degrees=st.floats(0.5, 12), ratio=st.sampled_from((0.25, 0.5, 0.75)), condition=st.sampled_from(list(CONDITIONS))
)
def test_a_fat_figure_is_a_thin_one_turned_by_a_quarter(degrees, ratio, condition):
    thin, fat = painted(pair(degrees, ratio, centre=torch.zeros(2, 2)), condition, SIZE)
    turned = thin.rot90()
    if condition == "DOWN":  # its mouths turn with it
        assert torch.allclose(thin.fliplr(), thin, atol=1e-4)
    else:
        assert torch.allclose(turned, fat, atol=2e-4)


@settings(deadline=None, max_examples=8)
@given(degrees=st.floats(0.5, 12), ratio=st.sampled_from((0.25, 0.5, 0.75)))
def test_ink_tells_nothing_and_follows_the_closed_form(degrees, ratio):
    figure = pair(degrees, ratio, outlined=torch.zeros(2, dtype=torch.bool))
    ink = {c: painted(figure, c, SIZE).sum((1, 2)) / figure.contrast for c in CONDITIONS}
    for c in CONDITIONS:
        assert torch.allclose(ink[c][0], ink[c][1], rtol=0.01), c
    three_quarters = 4 * 0.75 * math.pi * figure.disc_radius**2
    for c in ("IN", "OUT", "DOWN"):
        assert torch.allclose(ink[c], three_quarters, rtol=0.02)
    assert torch.allclose(ink["REAL"], figure.side**2, rtol=0.005)  # what is bowed out is bowed in elsewhere
    assert (ink["OUTL"] < ink["IN"]).all() and (ink["CLOSED"] > ink["IN"]).all() and (ink["FRAG"] < ink["OUTL"]).all()


def test_support_ratio_is_disc_diameter_over_side_exactly():
    for ratio in fat_thin_stimuli.SUPPORT_RATIOS:
        figure = figures(SIZE, torch.tensor([-4.0, 4.0]), ratio, 0)
        assert torch.equal(2 * figure.disc_radius / figure.side, torch.full((2,), ratio))
        reach = figure.side / 2 + figure.disc_radius + figure.centre.abs().amax(1)
        assert (reach < SIZE / 2).all()


def test_the_gap_tells_nothing_to_the_last_bit():
    """Under the templates of gap and mirror image nothing is drawn in any condition without luminance contours."""
    for size in (32, 48, 64):
        weights = np.abs(np.concatenate(list(templates(size).values()))).reshape(-1, 8, size * size)
        under = torch.from_numpy(weights.sum((0, 1)).reshape(size, size) > 0)
        assert under.any()
        figure = fixed(size, torch.tensor([-12.0, 12.0]), 0.1, 3)
        blank = render(figure, "BLANK", size)
        for c in ("IN", "DOWN", "OUTL", "CLOSED", "FRAG", "OUT"):
            assert torch.equal(render(figure, c, size)[..., under], blank[..., under]), c


def test_conditions_share_background_and_noise_and_seeds_decide():
    figure = figures(SIZE, torch.tensor([-6.0, 6.0]), 0.5, 7)
    images = {c: render(figure, c, SIZE) for c in ILLUSORY}
    for image in images.values():
        assert torch.equal(image[..., 14:18, 14:18], images["IN"][..., 14:18, 14:18])
    again = render(figures(SIZE, torch.tensor([-6.0, 6.0]), 0.5, 7), "IN", SIZE)
    assert torch.equal(again, images["IN"])
    assert not torch.equal(render(figures(SIZE, torch.tensor([-6.0, 6.0]), 0.5, 8), "IN", SIZE), again)
    with pytest.raises(ValueError, match="unknown condition 'IM'"):
        render(figure, "IM", SIZE)


def test_without_rotation_there_is_nothing_to_tell():
    figure = pair(0.0)
    for c in CONDITIONS:
        thin, fat = painted(figure, c, SIZE)
        assert torch.equal(thin, fat)


@pytest.mark.parametrize("degrees", [4.0, 12.0])
def test_real_sides_have_the_tangent_of_the_mouths_at_the_corners(degrees):
    """Halfway along a mouth's edge the side is where the parabola with that tangent is; in the middle at s tan α / 4."""
    figure = pair(degrees, size=256, centre=torch.zeros(2, 2), outlined=torch.zeros(2, dtype=torch.bool))
    _, fat = painted(figure, "REAL", 256) / figure.contrast[:, None, None]
    side, slope = float(figure.side[0]), math.tan(math.radians(degrees))

    def right_edge(along):
        return float(fat[int(128 + along), 128:].sum())

    assert right_edge(0) == pytest.approx(side / 2 + slope * side / 4, abs=0.1)
    measured = (right_edge(side / 2 - 24) - right_edge(side / 2 - 16)) / 8
    assert measured == pytest.approx(
        slope * (1 - 2 * 20 / side), abs=0.02
    )  # of the parabola, 20 pixels from the corner
    mouth = (painted(figure, "IN", 256) / figure.contrast[:, None, None])[1]
    row = int(128 + side / 2 - 8)  # where the edge of the lower right mouth is
    start = int(128 + side / 2 - figure.disc_radius[0] / 2)
    inside = start + float((mouth[row, start : start + 40] < 0.5).sum())
    assert inside == pytest.approx(128 + side / 2 + slope * 8, abs=1.1)


def test_mirrored_strips_are_as_far_from_the_disc_and_hold_the_same_weights():
    for size in (32, 33, 48):
        for weights in templates(size).values():
            for (mask, corner), own, beyond in zip(half_gaps(size), *weights, strict=True):
                axis = np.arange(size) + 0.5
                away = np.hypot(axis[None] - corner[0], axis[:, None] - corner[1]).ravel()
                assert mask.any() and np.abs(own).sum() > 0
                held = [
                    sorted((round(a, 4), round(v, 5)) for a, v in zip(away[w != 0], w[w != 0], strict=True))
                    for w in (own, beyond)
                ]
                assert held[0] == held[1]
                assert not (own * beyond).any()


def test_thresholds_are_those_of_an_optimiser():
    rng = np.random.default_rng(0)
    asked = np.full(len(DEGREES), 60.0)
    for threshold, bias in ((1.5, 0.2), (4.0, -0.5), (8.0, 0.5)):
        said = rng.binomial(60, psychometric.probability(DEGREES, threshold, bias)).astype(float)

        def loss(v, said=said):
            p = psychometric.probability(DEGREES, math.exp(v[0]), v[1])
            return -(said * np.log(p) + (60 - said) * np.log(1 - p)).sum()

        best = scipy.optimize.minimize(loss, [1.0, 0.0], method="Nelder-Mead").x
        (found,), (shift,) = psychometric.fit(DEGREES, said[None], asked)
        assert np.log2(found) == pytest.approx(best[0] / math.log(2), abs=0.1) and abs(shift - best[1]) < 0.15


def test_the_threshold_is_three_quarters_right_and_chance_and_reversed_answers_reach_none():
    assert psychometric.probability(np.array([3.0, -3.0]), 3.0, 0.0) == pytest.approx([0.75, 0.25])
    asked = np.full(len(DEGREES), 40.0)
    chance, reversed_, perfect = np.full(len(DEGREES), 20.0), 40.0 * (DEGREES < 0), 40.0 * (DEGREES > 0)
    found, _ = psychometric.fit(DEGREES, np.stack([chance, reversed_, perfect]), asked)
    assert found[0] == found[1] == LARGEST and found[2] < 1


def test_intervals_of_thresholds_cover():
    rng = np.random.default_rng(1)
    asked, covered = np.full(len(DEGREES), 40.0), 0
    for trial in range(60):
        fat = (rng.random((len(DEGREES), 40)) < psychometric.probability(DEGREES, 3.0, 0.1)[:, None]).astype(float)
        drawn, _ = psychometric.fit(DEGREES, psychometric.resampled(fat, 300, trial), asked)
        covered += np.quantile(drawn, 0.025) <= 3.0 <= np.quantile(drawn, 0.975)
    assert covered >= 50  # 57 expected; below 50 with p < .001


def test_resampled_thresholds_are_paired_as_the_answers_are():
    """Uncorrelated where two conditions err on figures of their own; one and the same where they err on the same."""
    rng = np.random.default_rng(2)
    p = psychometric.probability(DEGREES, 3.0, 0.1)[:, None]
    together = []
    for _ in range(6):
        first, second = ((rng.random((len(DEGREES), 40)) < p).astype(float) for _ in range(2))
        found = Answers({("IN", RATIO): first, ("OUT", RATIO): second, ("DOWN", RATIO): first.copy()})
        theta = {c: found.resampled(c) for c in ("IN", "OUT", "DOWN")}
        assert np.array_equal(theta["IN"], theta["DOWN"])
        together.append(np.corrcoef(theta["IN"][1:], theta["OUT"][1:])[0, 1])
    assert abs(np.mean(together)) < 0.1  # standard error about .02


BENCH = KanizsaFatThin(train=300, per_cell=8, fields=1500)


@pytest.fixture(autouse=True, scope="module")
def one_support_ratio():
    """The one of the headline: less to draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kanizsa_fat_thin, "SUPPORT_RATIOS", (RATIO,))
        yield


class Looks:
    """Sees how far the pixels of the gaps differ from the background, and nothing else.

    Where it ``completes``, it sees the real figure in place of figures in those conditions: a contour across the gaps.
    """

    name, classes, in_shape = "looks", (), (1, SIZE, SIZE)

    def __init__(self, completes):
        known = [*BENCH.shown(SIZE).values(), taught(SIZE, BENCH.train, LARGEST, BENCH.seed + 1)]
        known += shown_in_noise(SIZE, BENCH.fields, BENCH.seed)
        self.seen = {}
        for figure in known:
            filled = dataclasses.replace(figure, outlined=torch.zeros(len(figure), dtype=torch.bool))
            for c in completes:
                completed = painted(filled, "REAL", SIZE)
                for image, change in zip(render(figure, c, SIZE), completed, strict=True):
                    self.seen[image.numpy().tobytes()] = change
        near = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        near[SIZE // 2 - 3 : SIZE // 2 + 3] = near[:, SIZE // 2 - 3 : SIZE // 2 + 3] = True  # far from every disc
        self.near = near

    def features(self, stimuli):
        background = stimuli[..., 0, :].mean((1, 2))[:, None]
        nothing = torch.zeros(SIZE, SIZE)
        changed = torch.stack([self.seen.get(x.numpy().tobytes(), nothing) for x in stimuli])
        return ((stimuli[:, 0] + changed)[:, self.near] - background).abs()

    def activations(self, stimuli):
        return {}


def by(scores):
    return {(s.metric, s.target if s.stage else "whole"): s for s in scores}


@pytest.fixture(scope="module")
def completes(one_support_ratio):
    looks = Looks(("IN",))
    return looks, by(BENCH.measure(looks))


def test_an_observer_that_completes_contours_passes_thresholds_and_classification_image(completes):
    _, completes = completes
    ratio = completes["threshold_ratio", "whole"]
    assert ratio.raw > 1 and ratio.ci_low > 0.5
    assert completes["illusory_over_real", ""].raw == pytest.approx(1, abs=0.5)
    assert abs(completes["classification_image", "whole"].raw) > 1
    best = completes["classification_image", "whole"].target.split()[-1]
    assert completes["classification_image_p", best].raw == pytest.approx(2 * 2 / 2**8)


def test_sheet_and_figure(tmp_path, completes):
    images, rows, columns = kanizsa_fat_thin.sheet(48)
    assert images.shape == (len(CONDITIONS), 4, 1, 48, 48) and rows == list(CONDITIONS) and columns[0] == "thin 12°"
    assert set(CONTROLS) < set(rows)
    looks, _ = completes
    (path,) = BENCH.draw(tmp_path, {"looks": looks})
    assert path.stat().st_size > 10_000
    axes = Figure().subplots()
    found = BENCH._last[-1]
    fat_thin_figures._map(axes, "features", found["features"], [])
    assert "Gold et al. 2000" in axes.get_xlabel() and "high certainty" in axes.get_xlabel()


@pytest.mark.slow
def test_an_observer_of_the_gap_that_completes_nothing_is_at_chance_and_says_so():
    scores = by(BENCH.measure(Looks(())))
    assert scores["accuracy", "IN"].raw == pytest.approx(0.5, abs=0.1) and scores["accuracy", "REAL"].raw > 0.8
    for metric in ("threshold_ratio", "classification_image"):
        assert scores[metric, "whole"].raw is None and scores[metric, "whole"].reason


@pytest.mark.slow
def test_an_observer_that_completes_a_control_too_has_no_ratio():
    found = BENCH.answers(looks := Looks(("IN", "OUTL")), kanizsa_fat_thin._fitted(
        looks, *kanizsa_fat_thin.real_figures(SIZE, BENCH.train, BENCH.seed)), SIZE)  # fmt: skip
    scores = by(kanizsa_fat_thin.threshold_scores("features", found["features"]))
    assert scores["threshold_ratio_vs", "OUT"].raw > 1 and abs(scores["threshold_ratio", "OUTL"].raw) < 0.3


@pytest.fixture(scope="module")
def task():
    return shapes.build(Source(None), size=SIZE, train=200, test=16)


@pytest.mark.slow
def test_oriented_gradients_pass_accuracy_but_neither_thresholds_nor_classification_image(task):
    """First order in the noise they are blind in the gap: contrast there is counted without its sign."""
    scores = by(KanizsaFatThin(train=500, per_cell=8, fields=1000).measure(hog.build(task)))
    assert scores["accuracy", "IN"].raw > 0.65
    assert scores["threshold_ratio", "whole"].ci_low <= 0
    image = scores["classification_image", "whole"]
    assert image.raw is None or scores["classification_image_p", image.target.split()[-1]].raw > 0.05


@pytest.mark.slow
def test_pixels_do_not_know_real_figures_and_are_not_asked(task):
    scores = by(BENCH.measure(pixels.build(task)))
    assert (
        scores["threshold_ratio", "whole"].raw is None
        and "cannot name real figures" in scores["threshold_ratio", "whole"].reason
    )
    image = scores["classification_image", "whole"]
    assert scores["classification_image_p", image.target.split()[-1]].raw > 0.05


def test_a_linear_observer_s_classification_image_is_its_weights():
    """z of a strip is √n cos(template, weights); of the gap it is planted."""
    size, num = 32, 4000
    gap, _ = templates(size)["edge"].sum(1) / 8
    weights = gap + 0.2 * np.random.default_rng(0).normal(size=gap.shape) * np.abs(gap).max()

    def decide(stimuli):
        return {"": stimuli.flatten(1).double().numpy() @ weights}

    image = classification_image.measured(decide, size, num, 0)[""]
    for k in range(8):
        template = templates(size)["edge"][0, k]
        expected = math.sqrt(num) * template @ weights / np.linalg.norm(template) / np.linalg.norm(weights)
        assert image.gap["edge"][k] == pytest.approx(expected, abs=4)
    own = np.corrcoef(image.map.ravel(), weights)[0, 1]
    assert own > 0.8 and image.difference("edge").mean() > 8


def test_constant_and_stageless_observers_are_not_available():
    class Constant:
        name, classes, in_shape = "constant", (), (1, 32, 32)

        def activations(self, stimuli):
            return {"stage": torch.ones(len(stimuli), 3)}

    scores = by(KanizsaFatThin(train=100, per_cell=4, fields=200).measure(Constant()))
    assert (
        scores["threshold_ratio", "whole"].gate == "n/a"
        and "cannot name real" in scores["threshold_ratio", "whole"].reason
    )

    class Nothing(Constant):
        def activations(self, stimuli):
            return {}

    (score,) = KanizsaFatThin().measure(Nothing())
    assert score.gate == "n/a" and score.reason == "it has no stages"


@pytest.mark.parametrize(("size", "stages"), [(32, {"conv1"}), (64, {"conv1", "conv2"})])
def test_pixels_that_count_are_seen_by_no_unit_that_sees_an_inducer_by_arithmetic(size, stages):
    """Fields of 3 × 3 kernels behind pools of 2 are 4, 10 and 22 pixels wide, and step by 2, 4 and 8."""
    net = cnn.build((1, size, size), (4,), width=1, hidden=2)
    drawn, asked = pixels_drawn(size), pixels_asked(size)
    found = seen_apart(net, torch.from_numpy(drawn), torch.from_numpy(asked))
    for stage, (left, width, jump) in {"conv1": (1, 4, 2), "conv2": (3, 10, 4), "conv3": (7, 22, 8)}.items():
        expected = np.zeros_like(asked)
        for row, column in np.argwhere(asked):
            windows = [
                (slice(max(0, t), t + width), slice(max(0, u), u + width))
                for t in range(-left, size, jump) for u in range(-left, size, jump)
                if t <= row < t + width and u <= column < u + width
            ]  # fmt: skip
            expected[row, column] = not any(drawn[w].any() for w in windows)
        assert np.array_equal(found[stage].numpy(), expected), stage
        enough = all(np.abs(w).sum(-1).all() for w in templates(size, expected).values())
        assert enough == (stage in stages), stage
    assert not found["hidden"].any()


def test_a_stage_whose_fields_hold_mouth_and_gap_is_not_asked_and_the_first_one_finds_nothing(tmp_path):
    """Of a feed-forward network: its first stage sees pixels of the gap alone, where there is nothing to see."""
    bench, network = KanizsaFatThin(train=300, per_cell=4, fields=1500), observer(Backprop())
    scores = {(s.metric, s.stage): s for s in bench.measure(network)}
    for stage in ("conv2", "conv3", "hidden"):
        image = scores["classification_image", stage]
        assert image.gate == "n/a" and ("see inducers too" in image.reason or "in noise" in image.reason)
    first = scores["classification_image_p", "conv1"]
    assert first.raw > 0.05 and scores["classification_image", ""].target.startswith("conv1 ")
    assert bench.draw(tmp_path, {"network": network})[0].stat().st_size > 10_000


def test_noise_has_its_size():
    assert noise(fixed(48, torch.ones(3), 0.1, 0), 48).std() == pytest.approx(0.1, rel=0.05)
