"""Rotating Snakes: the stimulus has the published geometry, the flow finds true turns, known observers get their verdict."""

import functools
import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats
from skimage.transform import warp_polar
from torchvision.transforms.functional import gaussian_blur

from evaluation.illusions import rotating_snakes, snakes_scores
from evaluation.illusions.extrapolation import extrapolate, motion, view
from evaluation.illusions.polar_flow import likeness, rotation, spectra
from evaluation.illusions.rotating_snakes import UNGATED, RotatingSnakes
from evaluation.illusions.snakes_conditions import crops, jitter, phases, real, turning
from evaluation.illusions.snakes_stimuli import (
    GREY,
    ISOLUMINANT,
    KITAOKA,
    Disc,
    fitting,
    lightness,
    luminance,
    render,
    texture,
    variants,
)  # fmt: skip

PHASES = torch.tensor([0.0, 7.3, 11.1, 19.0])
FRAMES = 3


class Predictor:
    """A predictor of frames that makes the next one from the last one."""

    name, classes, frames = "map", (), FRAMES

    def __init__(self, function, size=64, channels=1):
        self.function, self.in_shape = function, (FRAMES * channels, size, size)

    def predict(self, stimuli):
        return self.function(stimuli[:, -self.in_shape[0] // FRAMES :])


def rotated(images, degrees):
    """Turned counter-clockwise by an independent implementation, quintic splines."""
    turned = ndimage.rotate(images.double().numpy(), degrees, axes=(2, 3), reshape=False, order=5, mode="nearest")
    return torch.from_numpy(turned).float()


def with_the_snake(images):
    """Turned by .2 deg towards where steep edges lead: one way for a snake, the other for its mirror image."""
    radius = round(0.9 * images.shape[-1] / 2)
    rings = [warp_polar(i[0].numpy(), radius=radius, output_shape=(1440, radius))[::-1, -1] for i in images]
    signs = [np.sign(((np.roll(ring, -1) - np.roll(ring, 1)) ** 3).sum()) for ring in rings]
    return torch.cat([rotated(i[None], 0.2 * s) for i, s in zip(images, signs, strict=True)])


def blur_and_saturate(images):
    return (0.5 + 1.6 * (gaussian_blur(images, 11, 1.5) - 0.5)).clamp(0, 1)


def jpeg(images, quality=70):
    out = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(file, "JPEG", quality=quality)
        out.append(torch.from_numpy(np.array(Image.open(file)))[None].float() / 255)
    return torch.stack(out)


# The stimulus


@functools.cache
def unrolled(disc, size):
    """The disc in polar coordinates (angle, radius in pixels), counter-clockwise from the right, by scikit-image."""
    image = render(disc, size, torch.zeros(1), supersample=4)[0].mean(0).numpy()
    polar = warp_polar(image, center=((size - 1) / 2,) * 2, radius=size / 2, output_shape=(1440, size // 2))
    return polar[::-1]  # scikit-image goes clockwise on the screen


def along(disc, ring, size=320):
    """Grey values along the middle of a ring."""
    inner, outer = disc.edges[ring]
    return unrolled(disc, size)[:, round((inner + outer) / 2 * size / 2)]


def steps(values, levels):
    """Levels in their order along a ring, one entry per sector; edges between sectors are left out."""
    nearest = np.abs(values[:, None] - np.asarray(levels)).argmin(1)
    sure = np.all([np.abs(np.roll(values, k) - np.asarray(levels)[nearest]) < 0.05 for k in (-2, 0, 2)], 0)
    nearest = nearest[sure]
    return nearest[np.concatenate([nearest[:-1] != nearest[1:], [nearest[-1] != nearest[0]]])]


@pytest.mark.parametrize("cycles", [8, 12, 20])
def test_every_ring_goes_black_dark_white_light_counter_clockwise(cycles):
    disc = Disc(cycles=cycles)
    for ring in range(4):
        order = steps(along(disc, ring), [c[0] for c in GREY])
        assert len(order) == 4 * cycles
        assert ((np.roll(order, -1) - order) % 4 == 1).all()


def test_duties_ring_edges_and_half_a_cycle_between_rings():
    disc = Disc(cycles=8)
    assert [round(r, 3) for edge in replace(disc, outer=0.799, rings=8).edges for r in edge][::2] == pytest.approx(
        [0.639, 0.511, 0.41, 0.328, 0.261, 0.209, 0.168, 0.133], abs=0.003
    )  # as measured from the published image
    rings = [along(disc, ring) for ring in range(4)]
    for level, duty in zip(GREY, disc.duty, strict=True):
        assert np.mean(np.abs(rings[0] - level[0]) < 0.1) == pytest.approx(duty, abs=0.02)
    half_a_cycle = 1440 // 8 // 2
    assert np.corrcoef(rings[0], np.roll(rings[1], half_a_cycle))[0, 1] > 0.9
    assert np.corrcoef(rings[0], rings[1])[0, 1] < 0.3


def test_ellipses_have_the_published_duties():
    """Dark and light .35 of the cycle in the middle of the ring and .21 at its edges; black and white .15 and .29."""
    disc = replace(Disc(cycles=8, outer=0.98), ellipse=True)
    size = 480
    polar = unrolled(disc, size)
    inner, outer = (round(r * size / 2) for r in disc.edges[0])
    for place, wide, narrow in ((0.5, 0.35, 0.15), (0.05, 0.23, 0.27), (0.95, 0.23, 0.27)):
        ring = polar[:, round(inner + place * (outer - inner))]
        for level, duty in zip(GREY, (narrow, wide, narrow, wide), strict=True):
            assert np.mean(np.abs(ring - level[0]) < 0.1) == pytest.approx(duty, abs=0.03)


def test_colours_have_the_published_luminances_and_isoluminant_ones_a_single_one():
    assert [luminance(c) for c in KITAOKA] == pytest.approx([0, 0.21, 1, 0.735], abs=0.01)
    assert [luminance(c) for c in ISOLUMINANT] == pytest.approx([0.3] * 4, abs=0.001)
    from skimage.color import rgb2lab

    for level in (0.001, 0.2, 0.735, 1.0):  # CIE L* of the grey of that luminance
        encoded = np.full((1, 1, 3), 12.92 * level if level <= 0.0031308 else 1.055 * level ** (1 / 2.4) - 0.055)
        assert 100 * lightness(level) == pytest.approx(rgb2lab(encoded)[0, 0, 0], abs=0.01)


def test_variants_change_what_they_say_and_nothing_else():
    found = variants(Disc(cycles=8))
    size, turn = 160, torch.zeros(1)

    def histogram(disc):
        image = render(disc, size, turn).flatten()
        return [float(((image - c[0]).abs() < 0.02).float().mean()) for c in GREY]

    for code in ("C1", "C4"):
        assert histogram(found[code]) == pytest.approx(histogram(found["S1"]), abs=0.04)
    order = steps(along(found["C1"], 0), [c[0] for c in GREY])
    assert any(np.array_equal(np.roll(order[::-1], k), order) for k in range(len(order)))  # reads the same both ways
    reversed_order = steps(along(found["S3"], 0), [c[0] for c in GREY])
    assert ((np.roll(reversed_order, -1) - reversed_order) % 4 == 3).all()
    assert set(steps(along(found["C2"], 0), [c[0] for c in GREY])) == {0, 2}
    shuffled = steps(along(found["C4"], 0), [c[0] for c in GREY])
    assert not ((np.roll(shuffled, -1) - shuffled) % 4 == 1).all()
    dim = render(found["D2=0.1"], size, turn) - 0.5
    assert torch.allclose(dim, 0.1 * (render(found["S1"], size, turn) - 0.5), atol=1e-3)


def test_the_mirror_image_is_the_snake_that_runs_the_other_way():
    disc = Disc(cycles=8)
    for alternate in (False, True):
        one = replace(disc, alternate_rings=alternate)
        other = replace(one, direction=-1)
        # Mirrored at the vertical axis, an angle θ becomes 180° − θ: half a turn more, and the other way.
        mirrored = render(one, 96, torch.zeros(1)).flip(-1)
        assert (mirrored - render(other, 96, torch.tensor([180.0]))).abs().max() < 1e-3


def test_neighbouring_rings_can_run_in_opposite_directions():
    disc = replace(Disc(cycles=8), alternate_rings=True)
    for ring in range(4):
        order = steps(along(disc, ring), [c[0] for c in GREY])
        assert ((np.roll(order, -1) - order) % 4 == (1, 3)[ring % 2]).all()


@settings(max_examples=15, deadline=None)
@given(phase=st.floats(-90, 90), code=st.sampled_from(sorted(variants(Disc()))))
def test_a_disc_repeats_after_its_period_and_stays_in_range(phase, code):
    disc = variants(Disc(cycles=8))[code]
    turn = disc.period if code != "C4" else 360.0
    a, b = (render(disc, 64, torch.tensor([p]), seed=3) for p in (phase, phase + turn))
    assert (a - b).abs().max() < 2e-3 and a.min() >= 0 and a.max() <= 1


def test_the_disc_that_fits_has_black_wedges_of_two_pixels():
    assert fitting(32) is None
    for size in (64, 96, 128, 160, 256):
        disc = fitting(size)
        middle = sum(disc.edges[-1]) / 2 * size / 2
        assert disc.duty[0] * 2 * math.pi * middle / disc.cycles >= 2
    assert fitting(256).cycles == 20 and fitting(64).cycles == 8


def test_bad_duties_and_directions_are_refused():
    with pytest.raises(ValueError, match="sum to 1"):
        Disc(duty=(0.2, 0.2, 0.2, 0.2))
    with pytest.raises(ValueError, match="direction"):
        Disc(direction=2)


# The flow: the published calibration


@pytest.mark.parametrize(("size", "cycles", "seen"), [(128, 12, 4), (160, 12, 4), (128, 20, 4), (96, 12, 4)])
@pytest.mark.parametrize("speed", [0.02, 0.1, 0.5, 2.0])
def test_true_turns_are_found_within_five_percent(size, cycles, seen, speed):
    disc = Disc(cycles=cycles, rings=seen)
    before, after = (render(disc, size, PHASES + s) for s in (0, speed))
    found = rotation(before, after, disc.edges, disc.period / 2)
    assert found.mean().item() == pytest.approx(speed, rel=0.05)


def test_turns_of_64_pixels_are_found_after_calibration():
    disc = fitting(64)
    seen = view(Predictor(None), disc)
    other = torch.arange(16) * 2.1
    for speed in (0.05, 0.5):
        found = seen.turn(*(render(disc, 64, other + s) for s in (0, speed)))
        assert found.mean().item() == pytest.approx(speed, rel=0.07)


@pytest.mark.parametrize(
    "change",
    [lambda x: gaussian_blur(x, 13, 2.0), lambda x: 0.5 + 0.8 * (x - 0.5), lambda x: x**0.8, jpeg],
    ids=["blur", "contrast", "gamma", "jpeg"],
)
def test_static_changes_are_no_turn(change):
    disc = Disc()
    image = render(disc, 160, PHASES)
    found = rotation(image, change(image), disc.edges, 15.0)
    assert found.abs().max() < 0.02 and found.mean().abs() < 0.012


def test_counter_rotating_rings_keep_their_signs():
    disc = Disc()
    discs = [render(replace(disc, direction=d), 160, torch.zeros(1)) for d in (1, 1)]
    turned = [render(disc, 160, torch.tensor([s])) for s in (0.5, -0.5)]
    axis = (torch.arange(160) + 0.5) / 80 - 1
    radius = torch.hypot(axis[:, None], axis[None, :])
    after = discs[0].clone()
    for ring, (inner, outer) in enumerate(disc.edges):
        after = torch.where((radius >= inner) & (radius < outer), turned[ring % 2], after)
    found = rotation(discs[0], after, disc.edges, 15.0)[0]
    assert found.numpy() == pytest.approx([0.5, -0.5, 0.5, -0.5], rel=0.12)


def test_photograph_like_turns_are_found_with_an_independent_rotation():
    image = texture(128, torch.zeros(1), seed=2)
    for degrees in (0.3, -1.0):
        found = rotation(image, rotated(image, degrees), Disc().edges, 15.0)
        assert found.numpy() == pytest.approx(np.full((1, 4), degrees), rel=0.03)
        difference = texture(128, torch.tensor([degrees]), seed=2) - rotated(image, degrees)
        assert difference[..., 20:-20, 20:-20].abs().mean() < 0.002


def test_noise_moves_the_flow_no_more_than_published():
    disc, generator = Disc(), torch.Generator().manual_seed(0)
    image = render(disc, 128, torch.zeros(1)).expand(24, -1, -1, -1)
    noisy = image + 0.02 * torch.randn(image.shape, generator=generator)
    found = rotation(image, noisy, disc.edges, 15.0) @ torch.tensor([0.4, 0.3, 0.2, 0.1]).double()
    assert found.std() < 0.004


def test_a_ring_without_contrast_has_no_turn():
    image = torch.full((1, 1, 64, 64), 0.5)
    assert rotation(image, image, Disc().edges, 15.0).isnan().all()


# The protocol: observers whose answer is known


def test_predictions_are_fed_back_oldest_first():
    class Sum(Predictor):
        def predict(self, stimuli):
            return (stimuli * torch.tensor([100.0, 10.0, 1.0])[:, None, None]).sum(1, keepdim=True)

    clip = torch.tensor([1.0, 2.0, 3.0])[None, :, None, None, None]
    predictions = extrapolate(Sum(None), clip, 2).flatten().tolist()
    assert predictions == [123.0, 200.0 + 30.0 + 123.0]


def test_an_oracle_that_turns_the_image_scores_its_true_speed():
    """It turns everything one way: all of it is bias, and none of it illusion; turned with the pattern, all illusion."""
    size, disc = 128, Disc()
    seen = view(Predictor(None, size), disc)
    still = seen.still(render(disc, size, torch.tensor([3.0, 13.0])))
    found = motion(Predictor(lambda x: rotated(x, 0.3), size), seen, still, 4)
    assert found.bias.mean().item() == pytest.approx(0.3, rel=0.05)
    assert found.by_image.abs().max() < 0.01
    found = motion(Predictor(with_the_snake, size), seen, still, 4)
    assert found.by_image.abs().mean().item() == pytest.approx(0.2, rel=0.05)
    assert found.bias.abs().max() < 0.02


def test_copying_the_last_frame_is_no_motion():
    """Identical images give a turn of zero, to the rounding of a Newton step in float64."""
    observer = Predictor(lambda x: x)
    seen = view(observer, fitting(64))
    for disc in variants(seen.disc).values():
        found = motion(observer, seen, seen.still(render(disc, 64, PHASES[:2])), 4)
        assert found.speed.abs().max() < 1e-9 and found.bias.abs().max() < 1e-9


def test_blur_and_saturation_pass_the_classical_controls():
    """No time, no learning: the snake turns, its mirror image turns back, controls without a direction do not."""
    size, disc = 128, Disc()
    observer = Predictor(blur_and_saturate, size)
    seen = view(observer, disc)
    turn = phases(4, disc.period)
    found = {
        c: motion(observer, seen, seen.still(render(d, size, turn)), 4)
        for c, d in variants(disc).items() if c in ("S1", "S3", "S3_base", "C1", "C2", "C3")
    }  # fmt: skip
    speed = {c: m.by_image.mean().item() for c, m in found.items()}
    assert abs(speed["S1"]) > 0.008
    assert speed["S3"] * speed["S3_base"] < 0 and speed["S1"] * speed["S3_base"] > 0
    for control in ("C1", "C2", "C3"):
        assert abs(speed[control]) < 0.004, control


def test_predictions_that_fade_are_not_read():
    """A ring whose contrast fell below a twentieth is left out from then on."""
    observer = Predictor(lambda x: 0.5 + 0.2 * (x - 0.5))
    seen = view(observer, fitting(64))
    found = motion(observer, seen, seen.still(render(seen.disc, 64, PHASES)), 5)
    assert found.contrast[0, :, 0].tolist() == pytest.approx([0.2, 0.04, 0.008, 0.0016, 0.00032], rel=0.02)
    assert found.speed.isnan().all() and found.by_image.isnan().all()


def test_predictions_of_something_else_are_not_read():
    """A texture in the place of the snake has contrast and turns, but nothing that it shows is the snake."""
    other = texture(64, torch.zeros(1))
    observer = Predictor(lambda x: other.expand(len(x), -1, -1, -1))
    seen = view(observer, fitting(64))
    found = motion(observer, seen, seen.still(render(seen.disc, 64, PHASES)), 3)
    assert found.speed.isnan().all() and (found.contrast > 0.1).all()


def test_likeness_is_the_largest_correlation_over_turns():
    disc = fitting(64)
    one, turned = (spectra(render(disc, 64, torch.tensor([p])), disc.edges) for p in (0.0, 4.0))
    first, other = (spectra(texture(64, torch.zeros(1), seed=n), disc.edges) for n in (0, 1))
    assert (likeness(one, turned, disc.period / 2) > 0.95).all()
    assert (likeness(first, other, 10.0) < 0.5).all() and (likeness(first, first, 1.0) > 0.9999).all()


def test_jitter_has_mean_zero_in_every_clip_and_comes_in_opposite_pairs():
    seen = view(Predictor(None), fitting(64))
    clips = jitter(seen, seen.disc, phases(8, 45.0), 0.5, seed=1)
    assert clips.shape == (8, FRAMES, 1, 64, 64)
    moves = torch.tensor([ndimage.center_of_mass(np.abs(f[0].numpy() - 0.5)) for c in clips for f in c]) - 31.5
    moves = moves.view(8, FRAMES, 2)
    rest = torch.tensor([ndimage.center_of_mass(np.abs(render(seen.disc, 64, p[None])[0, 0].numpy() - 0.5)) for p in phases(8, 45.0)[:4]]) - 31.5  # fmt: skip
    moves = moves - rest.repeat(2, 1)[:, None]
    assert moves.mean(1).abs().max() < 0.05
    assert (moves[:4] + moves[4:]).abs().max() < 0.05
    assert 0.3 < moves.square().mean().sqrt() < 0.7


def test_real_motion_ends_at_the_phase_and_has_the_speed_it_says():
    seen = view(Predictor(None), fitting(64))
    clip = turning(seen, "C1", torch.arange(8) * 3.1, -0.4, 3)
    assert torch.allclose(clip[:1, -1], render(variants(seen.disc)["C1"], 64, torch.zeros(1)), atol=1e-6)
    assert seen.turn(clip[:, 0], clip[:, 1]).mean().item() == pytest.approx(-0.4, rel=0.1)
    shown, speeds = real(seen)
    assert shown.shape[1] == FRAMES + 1 and sorted(set(speeds.tolist()))[-1] == 1.0


# Statistics and verdicts


def test_equivalence_is_two_one_sided_t_tests():
    values = np.random.default_rng(0).normal(0.004, 0.005, 8)
    for bound in (0.004, 0.008, 0.02):
        lower = stats.ttest_1samp(values, -bound, alternative="greater").pvalue
        upper = stats.ttest_1samp(values, bound, alternative="less").pvalue
        assert snakes_scores.equivalent(values, bound) == (max(lower, upper) < 0.05)


def test_a_steady_drift_is_linear_and_a_single_shift_is_not():
    assert snakes_scores.drift(np.full(7, 0.05)) == pytest.approx((1.0, 1.0))
    linearity, persistence = snakes_scores.drift(np.array([0.3, 0, 0, 0, 0, 0, 0]))
    assert linearity < 0.5 and persistence == 0


class Extrapolator(Predictor):
    """Predicts that the last turn goes on. Knows where its rings are."""

    def __init__(self):
        super().__init__(None)
        self.seen = view(Predictor(None), fitting(64))

    def predict(self, stimuli):
        turn = (
            self.seen.turn(stimuli[:, -2:-1], stimuli[:, -1:]) @ self.seen.radius / self.seen.radius.sum()
        ).nan_to_num()
        out = [rotated(i[None, -1:], float(t)) for i, t in zip(stimuli, turn, strict=True)]
        return torch.cat(out)


def named(scores, metric, target=None):
    return next(s for s in scores if s.metric == metric and target in (None, s.target))


def test_gates_let_a_predictor_of_motion_pass_and_others_not():
    observer = Extrapolator()
    scores, reason = snakes_scores.gates(observer, observer.seen)
    assert reason == "" and named(scores, "real_sign_accuracy").raw >= 0.95
    assert named(scores, "real_gain").raw == pytest.approx(1.0, abs=0.1)
    assert named(scores, "error_to_copy").raw < 0.5
    copy = Predictor(lambda x: x)
    assert "no better than the last frame" in snakes_scores.gates(copy, observer.seen)[1]

    diverged = Predictor(lambda x: x * float("nan"))
    assert "not finite" in snakes_scores.gates(diverged, observer.seen)[1]


def test_copying_the_last_frame_is_not_judged_and_its_speeds_are_zero():
    scores = RotatingSnakes(num=2).measure(Predictor(lambda x: x))
    index = named(scores, "index")
    assert index.gate == "n/a" and "no better than the last frame" in index.reason
    assert all(abs(s.raw) < 1e-9 for s in scores if s.metric == "speed")
    assert {s.target for s in scores if s.metric == "speed"} == set(UNGATED)  # the others have nothing to stand beside
    assert named(scores, "no_motion", "C1").raw == 1.0


def test_observers_that_cannot_be_asked_say_why():
    class Classifier(Predictor):
        classes = ("a", "b")

    (score,) = RotatingSnakes().measure(Classifier(None))
    assert score.gate == "n/a" and "predicts no frames" in score.reason
    (score,) = RotatingSnakes().measure(Predictor(None, size=32))
    assert score.gate == "n/a" and "32 pixels" in score.reason


@pytest.mark.slow
def test_pictures_and_a_film_show_what_was_measured(tmp_path):
    """Only what is shown of predictions is asked for again; a network that fails the gates has no map."""

    class Counted(Predictor):
        asked = 0

        def predict(self, stimuli):
            self.asked += len(stimuli)
            return super().predict(stimuli)

    observer, benchmark = Counted(blur_and_saturate, channels=3), RotatingSnakes(num=2)
    benchmark.measure(observer)
    observer.asked = 0
    paths = benchmark.draw(tmp_path, {"map": observer})
    assert len(paths) == 5 and all(p.exists() for p in paths) and not (tmp_path / "rotating_snakes_map.png").exists()
    assert observer.asked == 6 * 8  # six images, eight predictions of each
    with Image.open(tmp_path / "rotating_snakes.gif") as film:
        assert film.n_frames == 9 and film.size == (256, 256)
    assert RotatingSnakes().draw(tmp_path, {"small": Predictor(None, size=32)}) == []


def test_photographs_are_those_that_no_training_clip_shows():
    found = crops(64, True)
    assert found.shape == (60, 1, 64, 64) and found.min() >= 0 and found.max() <= 1
    assert len({f.sum().item() for f in found}) > 50


def test_the_sheet_shows_every_still_condition():
    images, rows, columns = rotating_snakes.sheet(64)
    assert images.shape == (len(rows), 4, 3, 64, 64) and len(columns) == 4
    assert {"S1", "S3", "C1", "C2", "C3", "C4", "C5", "C6", "G1", "G2", "G3", "published"} <= set(rows)
    assert torch.equal(
        images[rows.index("S1"), 2], render(Disc(cycles=8, rings=3, colours=KITAOKA), 64, torch.zeros(1))[0]
    )
