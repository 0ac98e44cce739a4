"""Nulls of Rotating Snakes: a static map is caught, a true illusion is not; the human map; the flows of earlier studies."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score
from torchvision.transforms.functional import gaussian_blur

from evaluation.illusions import literature_flow, snakes_map, snakes_scores, static_null
from evaluation.illusions.extrapolation import motion, view
from evaluation.illusions.rotating_snakes import RotatingSnakes, imitate
from evaluation.illusions.snakes_conditions import phases
from evaluation.illusions.snakes_map import ISLAND, LEVELS
from evaluation.illusions.snakes_stimuli import Disc, fitting, grey, render, texture, variants
from tests.evaluation.test_rotating_snakes import Extrapolator, Predictor, blur_and_saturate, named, with_the_snake


def shown(seen):
    discs = [render(d, seen.size, phases(2, seen.disc.period)) for d in variants(seen.disc).values()]
    return torch.cat([*discs, *(texture(seen.size, torch.zeros(1), seed=n) for n in range(6))])


def left(observer, size):
    seen = view(observer, fitting(size))
    found = imitate(observer, seen, shown(seen))
    snakes = seen.still(render(seen.disc, size, phases(4, seen.disc.period)))
    ours, null = (motion(o, seen, snakes, 6) for o in (observer, found))
    scores = snakes_scores.beyond_null(ours, null, found.explained)
    return {s.metric: s.raw for s in scores} | {"index": ours.by_image.mean().item()}


def test_a_blurred_image_is_the_textbook_convolution():
    image = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0)).double()
    for sigma in (0.5, 2.0):
        ours = static_null.blur(image, sigma)
        theirs = ndimage.gaussian_filter(image.numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4)
        assert np.allclose(ours, theirs, atol=1e-3)


def test_the_imitation_finds_a_map_of_its_own_kind():
    """A blur of 1.5 pixels, then a curve that bends at knots: it is in the family, so it is found exactly."""
    image = texture(48, torch.arange(6) * 15.0)
    target = (static_null.blur(image.double(), 1.5) - 0.25).clamp(min=0) * 1.2
    found = static_null.fit(image, target, 2)
    assert found.sigma == 1.5 and found.explained > 0.9999
    again = found.predict(torch.cat([torch.rand(6, 1, 48, 48), image], 1))
    assert (again - target).abs().max() < 0.01


def test_the_index_of_blur_and_saturation_is_caught():
    scores = left(Predictor(blur_and_saturate, 128), 128)
    assert abs(scores["index"]) > 0.01
    assert scores["static_explained"] > 0.95
    assert abs(scores["index_left"]) < 0.2 * abs(scores["index"])


def test_a_predictor_that_turns_what_it_sees_is_not_caught():
    """It turns the snake by .2 deg and its mirror image by −.2, which no map of single pixels can do."""
    scores = left(Predictor(with_the_snake), 64)
    assert abs(scores["index"]) > 0.1
    assert scores["index_left"] == pytest.approx(scores["index"], rel=0.25)


def test_an_oracle_that_blurs_and_fades_too_scores_its_true_speed():
    """Contrast decays in extrapolations; what turns still turns by as much, and a linear blur adds nothing."""
    seen = view(Predictor(None, 96), fitting(96))
    still = seen.still(render(seen.disc, 96, torch.tensor([3.0, 13.0])))
    observer = Predictor(lambda x: 0.5 + 0.9 * (gaussian_blur(with_the_snake(x), 7, 0.6) - 0.5), 96)
    found = motion(observer, seen, still, 5)
    assert found.contrast[:, -1].max() < 0.6
    assert found.by_image.numpy() == pytest.approx([0.2, 0.2], rel=0.05)
    assert found.bias.abs().max() < 0.02


def test_controls_that_lose_their_pattern_are_not_called_without_motion():
    class Made:
        by_image = torch.tensor([0.001, float("nan")])

    scores = snakes_scores.equivalence(dict.fromkeys(snakes_scores.CONTROLS, Made()))
    assert [s.gate for s in scores] == ["n/a"] * 4 and "lost" in scores[0].reason


def test_the_human_map_is_signed_and_the_mirror_image_is_its_opposite():
    known = [(a, b) for a in LEVELS for b in LEVELS if snakes_map.human(a, b) is not None]
    assert (
        snakes_map.human(0.2, 0.55) == 1 and snakes_map.human(*ISLAND) == -0.5 and snakes_map.human(0.2, 0.95) is None
    )
    assert all(snakes_map.human(a, b) == -snakes_map.human(b, a) for a, b in known)


def test_the_mirror_image_of_two_grey_levels_is_the_levels_exchanged():
    """Mirrored, the order K a W b reads b W a K, which is K b W a from a black sector's width earlier on."""
    one, other = (replace(Disc(cycles=8), colours=grey((0.0, a, 1.0, b))) for a, b in ((0.2, 0.55), (0.55, 0.2)))
    mirrored = render(one, 96, torch.zeros(1)).flip(-1)
    exchanged = render(other, 96, torch.tensor([180 - 0.15 * one.period]))
    assert (mirrored - exchanged).abs().max() < 1e-3


def test_agreement_with_the_human_map():
    cells = {(a, b): snakes_map.human(a, b) or 0.01 for a in LEVELS for b in LEVELS if a < b}
    scores = snakes_map.scores(cells)
    assert [named(scores, m).raw for m in ("map_sign", "map_auc", "map_spearman")] == pytest.approx([1, 1, 1])
    everything = snakes_map.scores(dict.fromkeys(cells, 0.1))
    assert named(everything, "map_sign").raw == pytest.approx(7 / 8)  # blind to the island
    assert named(everything, "map_auc").raw == 0.5 and named(everything, "map_spearman").gate == "n/a"
    faded = snakes_map.scores(cells | {ISLAND: float("nan")})
    assert named(faded, "map_sign").gate == "n/a"
    values, positive = np.random.default_rng(0).integers(0, 4, 12).astype(float), np.arange(12) % 3 == 0
    assert snakes_map.auc(values, positive) == pytest.approx(roc_auc_score(positive, values))


def test_the_difference_to_the_null_is_paired_by_image():
    class Made:
        def __init__(self, speeds):
            self.by_image = torch.tensor(speeds, dtype=torch.float64)

    ours, null = np.array([0.05, 0.07, 0.06]), np.array([0.01, 0.04, 0.02])
    scores = snakes_scores.beyond_null(Made(ours), Made(null), 0.9)
    gained = named(scores, "index_left")
    low, high = stats.t.interval(0.95, 2, loc=(ours - null).mean(), scale=stats.sem(ours - null))
    assert (gained.raw, gained.ci_low, gained.ci_high) == pytest.approx(((ours - null).mean(), low, high))


@pytest.mark.parametrize("name", ["lucas_kanade", "farneback"])
def test_the_flows_of_earlier_studies_find_large_turns_and_their_sign(name):
    pytest.importorskip("cv2")
    flow, disc = getattr(literature_flow, name), Disc()
    for speed in (2.0, -0.5):
        before, after = (render(disc, 160, torch.tensor([3.0, 10.0]) + s) for s in (0, speed))
        found = [flow(a, b, 0.4, 0.98) for a, b in zip(before, after, strict=True)]
        assert np.mean(found) == pytest.approx(speed, rel=0.12)  # published: .490 to 2.00
    flat = torch.full((1, 64, 64), 0.5)
    assert np.isnan(flow(flat, flat, 0.4, 0.98)) or flow(flat, flat, 0.4, 0.98) == 0


@pytest.mark.slow
def test_the_whole_suite_judges_a_predictor_of_motion(tmp_path):
    """An ideal extrapolator of motion sees real rotation and none in still images."""
    observer, benchmark = Extrapolator(), RotatingSnakes(num=2)
    scores = benchmark.measure(observer)
    index = named(scores, "index")
    assert index.gate == "pass" and abs(index.raw) < 1e-6
    assert {"index_left", "static_null", "map_spearman", "lucas_kanade", "farneback"} <= {s.metric for s in scores}
    assert named(scores, "real_correlation").raw > 0.99
    assert tmp_path / "rotating_snakes_map.png" in benchmark.draw(tmp_path, {"oracle": observer})
