"""Kanizsa: the stimuli are what they are called, and observers that see no contour get the verdict theory gives them."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from evaluation.illusions import kanizsa, kanizsa_stimuli
from evaluation.illusions.kanizsa import Kanizsa, collapse_gate, competence_gate
from evaluation.illusions.kanizsa_stimuli import CONDITIONS, CONTROLS, CORNERS, SUPPORT_RATIOS, layouts, render
from evaluation.observers import pixels
from training.data import shapes
from training.data.base import Source
from training.data.drawing import Canvas, disc, polygon

SIZE = 64
CLASSES = tuple(CORNERS.values())


@pytest.fixture(scope="module")
def shared():
    return layouts(SIZE, 2, seed=5)


@pytest.fixture
def noiseless(monkeypatch):
    monkeypatch.setattr(kanizsa_stimuli, "NOISE", 0.0)


def ink(images, layout):
    """Painted area in pixels."""
    share = (images[:, 0] - layout.background[:, None, None]) / (layout.inducer - layout.background)[:, None, None]
    return share.sum((1, 2))


def test_there_are_seven_support_ratios_six_controls_and_equal_cells(shared):
    assert len(SUPPORT_RATIOS) >= 6 and len(CONTROLS) == 6
    assert len(shared) == len(CORNERS) * len(SUPPORT_RATIOS) * 2


def test_support_ratio_is_disc_diameter_over_side_length_exactly(shared):
    side = 2 * shared.radius * torch.sin(math.pi / shared.corners)
    assert torch.allclose(2 * shared.disc_radius / side, shared.support_ratio)


def test_in_is_the_polygon_in_background_luminance_painted_over_the_discs(shared, noiseless):
    """The textbook construction, drawn independently of the wedges."""
    canvas = Canvas(SIZE, kanizsa_stimuli.SUPERSAMPLE)
    images = render(shared, "IN", SIZE)
    for i in range(0, len(shared), 5):
        one = shared.select(torch.tensor([i]))
        x, y = canvas.frame(one.centre, one.angle)
        figure = torch.full_like(x, math.inf)
        for k in range(int(one.corners)):
            turn = one.angle + 2 * math.pi * k / one.corners
            corner = one.centre + one.radius[:, None] * torch.stack([turn.cos(), turn.sin()], 1)
            figure = torch.minimum(figure, disc(*canvas.frame(corner, one.angle), one.disc_radius))
        figure = torch.maximum(figure, -polygon(x, y, one.corners, one.radius))
        expected = one.background + canvas.coverage(figure) * (one.inducer - one.background)
        assert torch.allclose(images[i, 0], expected[0], atol=0.02)


def test_ink_is_equal_where_it_must_be_and_follows_the_closed_form(shared, noiseless):
    area = {c: ink(render(shared, c, SIZE), shared) for c in CONDITIONS}
    discs = shared.corners * math.pi * shared.disc_radius**2
    mouths = (shared.corners - 2) / (2 * shared.corners)  # share of a disc that its mouth takes
    big = shared.disc_radius > 2
    assert torch.allclose(area["DISC"][big], discs[big], rtol=0.02)
    assert torch.allclose(area["IN"][big], (discs * (1 - mouths))[big], rtol=0.03)
    for control in ("ROT", "OUT", "SHEAR"):
        assert torch.allclose(area[control][big], area["IN"][big], rtol=0.03)
    assert (area["OUTL"] < area["IN"] + 1e-3).all() and (area["CLOSED"] > area["IN"] - 1e-3).all()
    assert (area["CLOSED"] < area["DISC"] + 1e-3).all()
    real = 0.5 * shared.corners * shared.radius**2 * torch.sin(2 * math.pi / shared.corners)
    assert torch.allclose(area["REAL"], real, rtol=0.01)


def test_conditions_of_a_layout_share_everything_but_the_condition(shared):
    """Far from every inducer the images are bitwise equal: background and noise are shared."""
    images = {c: render(shared, c, SIZE) for c in CONDITIONS if c != "REAL"}
    canvas = Canvas(SIZE)
    x, y = canvas.frame(shared.centre, shared.angle)
    far = torch.hypot(x, y) > (shared.radius + 1.8 * shared.disc_radius)[:, None, None] + 2
    inner = torch.hypot(x, y) < (shared.radius - 1.8 * shared.disc_radius)[:, None, None] - 2
    assert far.any() and inner.any()
    for image in images.values():
        assert torch.equal(image[:, 0][far | inner], images["IN"][:, 0][far | inner])


def test_nothing_is_drawn_in_the_gap_of_an_illusory_figure(shared, noiseless):
    """Along each side between the discs, and in the middle, there is background and nothing else."""
    images = render(shared, "IN", SIZE)
    for i in range(len(shared)):
        turn = shared.angle[i] + 2 * math.pi * torch.arange(2) / shared.corners[i]
        ends = shared.centre[i] + shared.radius[i] * torch.stack([turn.cos(), turn.sin()], 1)
        middle = ends.mean(0) + SIZE / 2
        gap = (1 - shared.support_ratio[i]) * (ends[0] - ends[1]).norm() / 2
        if gap > 2:
            row, column = int(middle[1]), int(middle[0])
            assert abs(images[i, 0, row, column] - shared.background[i]) < 1e-5


def test_rotated_mouths_are_away_from_the_aligned_angle(shared):
    turn = torch.rad2deg(shared.turn)
    assert turn.min() >= 60 and turn.max() <= 300 and turn.std() > 50


def test_all_figures_fit_into_the_image(noiseless):
    for size in (32, 64):
        shared = layouts(size, 3)
        for condition in CONDITIONS:
            border = torch.ones(size, size, dtype=torch.bool)
            border[1:-1, 1:-1] = False
            image = render(shared, condition, size)[:, 0]
            contrast = (shared.inducer - shared.background)[:, None, None]
            covered = ((image - shared.background[:, None, None]) / contrast)[:, border]
            assert covered.max() < 0.6, condition  # at most a grazed pixel


def test_real_polygons_are_of_sizes_that_the_task_trains_on():
    for size in (32, 48, 64):
        radius = layouts(size, 5).radius / size
        assert radius.min() >= shapes.SMALLEST_FIGURE and radius.max() <= shapes.LARGEST_FIGURE


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), condition=st.sampled_from(sorted(CONDITIONS)))
def test_a_seed_decides_every_pixel(seed, condition):
    a, b = (render(layouts(32, 1, seed), condition, 32) for _ in range(2))
    assert torch.equal(a, b) and a.min() >= 0 and a.max() <= 1
    assert not torch.equal(a, render(layouts(32, 1, seed + 1), condition, 32))


def test_unknown_condition():
    with pytest.raises(ValueError, match="ROT"):
        render(layouts(32, 1), "ROTATED", 32)


class Scripted:
    """An observer that knows the condition of every image it is shown and answers as told."""

    classes = CLASSES
    in_shape = (1, 32, 32)
    name = "scripted"

    def __init__(self, p):
        self.p, self.shown = p, 0
        self.truth = [list(CORNERS).index(n) for n in layouts(32, 15).corners.tolist()]

    def predict(self, stimuli):
        condition = list(CONDITIONS)[self.shown]
        self.shown += 1
        p = self.p[condition]
        output = torch.full((len(stimuli), 4), (1 - p) / 3)
        output[range(len(stimuli)), self.truth] = p
        return output


def named(scores, metric, target=None):
    return next(s for s in scores if s.metric == metric and target in (None, s.target))


def test_index_is_the_contrast_with_the_strongest_control():
    p = {"REAL": 0.95, "IN": 0.8, "ROT": 0.3, "OUT": 0.4, "DISC": 0.5, "OUTL": 0.45, "CLOSED": 0.2, "SHEAR": 0.1}
    scores = Kanizsa().measure(Scripted(p))
    index = named(scores, "index")
    assert index.raw == pytest.approx(0.3, abs=1e-6) and index.target == "DISC"
    assert index.ci_low == pytest.approx(0.3, abs=1e-6)  # no spread, no interval
    assert named(scores, "index_normalised").raw == pytest.approx(0.3 / 0.45, abs=1e-5)
    odds = math.log(0.8 / 0.2) - math.log(0.5 / 0.5)
    assert named(scores, "index_log_odds").raw == pytest.approx(odds, abs=1e-5)
    for control in CONTROLS:
        assert named(scores, "index_vs", control).raw == pytest.approx(p["IN"] - p[control], abs=1e-6)


def test_one_control_that_is_not_beaten_is_enough_to_deny_the_illusion():
    p = dict.fromkeys(CONDITIONS, 0.3) | {"REAL": 0.95, "IN": 0.9, "OUT": 0.95}
    assert named(Kanizsa().measure(Scripted(p)), "index").raw < 0


def test_a_network_that_cannot_name_real_polygons_is_not_judged():
    scores = Kanizsa().measure(Scripted(dict.fromkeys(CONDITIONS, 0.9) | {"REAL": 0.1}))
    index = named(scores, "index")
    assert index.raw is None and index.gate == "n/a" and "cannot name real polygons" in index.reason
    assert named(scores, "p_polygon", "IN").raw == pytest.approx(0.9, abs=1e-6)  # what was measured stays


def test_a_network_of_another_task_is_not_judged():
    class Digits(Scripted):
        classes = tuple("0123456789")

    (score,) = Kanizsa().measure(Digits({}))
    assert score.gate == "n/a" and "no class 'triangle'" in score.reason


def test_gates():
    truth = np.repeat(np.arange(4), 100)
    assert competence_gate(truth, truth, CLASSES) is None
    one_class_at_chance = np.where(truth == 2, 0, truth)
    assert "pentagon 0%" in competence_gate(one_class_at_chance, truth, CLASSES)
    alphabetical = tuple(sorted(CLASSES))  # hexagon, pentagon, square, triangle
    assert "square 0%" in competence_gate(one_class_at_chance, truth, alphabetical)
    few = np.repeat(np.arange(4), 3)
    assert competence_gate(few, few, CLASSES) is not None  # three images per class prove nothing
    assert collapse_gate(truth) is None
    assert "the same to everything" in collapse_gate(np.zeros(400))
    assert collapse_gate(np.where(np.arange(400) < 8, 1, 0)) is not None


class LayoutDetector:
    """Sees where the ink is and no contour: logistic regression on the polar spectrum of the image's energy."""

    classes, in_shape, name = CLASSES, (1, 32, 32), "layout"

    def __init__(self, num=6000):
        data = shapes.draw(num, 32, clutter=0, noise=0.0, seed=1)
        self.model = LogisticRegression(C=10.0, max_iter=1000).fit(self.features(data.images), data.targets.numpy())

    def features(self, images):
        x = images[:, 0] - images[:, 0].flatten(1).median(1).values[:, None, None]
        energy = x.abs() + 1e-6
        axis = torch.arange(32) - 15.5
        mass = energy.sum((1, 2))
        cy, cx = ((energy * a).sum((1, 2)) / mass for a in (axis[:, None], axis[None, :]))
        turns = torch.arange(64) * 2 * math.pi / 64
        rings = []
        for radius in torch.arange(2.0, 14.0, 1.0):
            gx = (cx[:, None] + radius * turns.cos()) / 16
            gy = (cy[:, None] + radius * turns.sin()) / 16
            grid = torch.stack([gx, gy], -1)[:, None]
            ring = F.grid_sample(energy[:, None], grid, align_corners=False)[:, 0, 0]
            spectrum = torch.fft.rfft(ring).abs()[:, 1:9]
            rings.append(spectrum / (ring.mean(1, keepdim=True) * 64 + 1e-3))
        return torch.cat(rings, 1).numpy()

    def predict(self, stimuli):
        return torch.from_numpy(self.model.predict_proba(self.features(stimuli)))


def test_a_layout_detector_names_kanizsa_figures_above_chance_and_gets_no_index():
    """The known trap: accuracy well above chance without completing any contour."""
    detector = LayoutDetector()
    bench = Kanizsa(per_cell=20)
    p, answers, truth = bench._answers(detector)
    assert (answers["IN"] == truth).mean() > 0.4  # chance is 0.25
    scores = bench._indices(p, answers, truth)
    assert named(scores, "index").raw <= 0.0


def test_the_pixel_observer_is_not_judged():
    """A linear read-out of pixels cannot name polygons that move, turn and change polarity."""
    observer = pixels.build(shapes.build(Source(None), train=3000, test=10))
    assert named(Kanizsa(per_cell=5).measure(observer), "index").gate == "n/a"
    assert observer.activations(None) == {} and observer.signals(None, None) == {}


def test_the_sheet_shows_every_condition_and_polygon():
    images, rows, columns = kanizsa.sheet(32)
    assert images.shape == (8, 4, 1, 32, 32) and rows == list(CONDITIONS) and columns == list(CLASSES)


@pytest.mark.parametrize("corners", sorted(CORNERS))
def test_shear_displaces_the_two_pacmen_of_every_side_by_the_same_amount(corners):
    """Measured along each side's normal, from the displacements of its two ends."""
    turns = 2 * np.pi * np.arange(corners) / corners
    step = kanizsa_stimuli.shear(corners, 3.0)
    moved = step * np.stack([-np.sin(turns), np.cos(turns)], 1)
    normals = turns + np.pi / corners
    normals = np.stack([np.cos(normals), np.sin(normals)], 1)
    difference = ((moved - np.roll(moved, -1, 0)) * normals).sum(1)
    assert np.abs(difference) == pytest.approx(np.full(corners, kanizsa_stimuli.SHEAR * 3.0))


def test_closed_mouths_have_their_arc_where_the_mouth_was_and_outlines_are_hollow(noiseless):
    shared = layouts(128, 1, seed=3)
    big = shared.select((shared.support_ratio > 0.65).nonzero()[:, 0])
    images = {c: render(big, c, 128)[:, 0] for c in ("IN", "CLOSED", "OUTL")}
    line = max(1.0, 0.03 * 128)
    for i in range(len(big)):
        r, share = big.disc_radius[i], {}
        corner = big.centre[i] + big.radius[i] * torch.stack([big.angle[i].cos(), big.angle[i].sin()])
        inwards = -torch.stack([big.angle[i].cos(), big.angle[i].sin()])
        spots = {"rim of the mouth": r - line / 2, "inside the mouth": r / 2, "body": -r / 2}
        for name, distance in spots.items():
            column, row = (corner + distance * inwards + 64).long().tolist()
            for c, image in images.items():
                share[c, name] = (image[i, row, column] - big.background[i]) / (big.inducer[i] - big.background[i])
        assert share["IN", "rim of the mouth"] < 0.1 and share["CLOSED", "rim of the mouth"] > 0.9
        assert share["CLOSED", "inside the mouth"] < 0.1 and share["IN", "body"] > 0.9 and share["CLOSED", "body"] > 0.9
        assert share["OUTL", "inside the mouth"] < 0.1 and share["OUTL", "body"] < 0.1


def test_a_network_whose_output_is_not_finite_is_not_judged():
    class Diverged(Scripted):
        def predict(self, stimuli):
            return super().predict(stimuli) * float("nan")

    index = named(Kanizsa().measure(Diverged(dict.fromkeys(CONDITIONS, 0.9))), "index")
    assert index.gate == "n/a" and "not finite" in index.reason


def test_more_classes_than_polygons_do_not_count_as_collapse():
    truth = np.repeat(np.arange(4), 100)
    assert collapse_gate(truth + 8) is None
