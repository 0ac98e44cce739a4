"""Kanizsa: the stimuli are what they are called, and observers that see no contour get the verdict theory gives them."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from evaluation.base import TrainedObserver
from evaluation.illusions import kanizsa, kanizsa_stimuli
from evaluation.illusions.gates import collapse_gate, competence_gate
from evaluation.illusions.kanizsa import Kanizsa, scores_of
from evaluation.illusions.kanizsa_index import SIGNATURES, Answers, index_of
from evaluation.illusions.kanizsa_stimuli import (
    CONDITIONS,
    CONTROLS,
    CORNERS,
    SETS,
    SUPPORT_RATIOS,
    layouts,
    polygon_radii,
    render,
)
from evaluation.observers import blurred_pixels, hog, pixels, polar_spectrum
from models import cnn
from rules.base import OBJECTIVES
from rules.label_shuffled import LabelShuffled
from rules.untrained import Untrained
from training.data import shapes
from training.data.base import Source
from training.data.drawing import Canvas, disc, polygon

SIZE = 64
CLASSES = tuple(CORNERS.values())


@pytest.fixture(scope="module")
def shared():
    return layouts(SIZE, 1, seed=5)


@pytest.fixture
def noiseless(monkeypatch):
    monkeypatch.setattr(kanizsa_stimuli, "NOISE", 0.0)


def ink(images, layout):
    """Painted area in pixels."""
    share = (images[:, 0] - layout.background[:, None, None]) / (layout.inducer - layout.background)[:, None, None]
    return share.sum((1, 2))


def test_there_are_seven_support_ratios_six_controls_and_equal_cells(shared):
    assert len(SUPPORT_RATIOS) >= 6 and len(CONTROLS) == 6
    assert len(shared) == len(SETS) * len(CORNERS) * len(SUPPORT_RATIOS)


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
    area = {c: ink(render(shared, c, SIZE), shared) for c in (*CONTROLS, "IN", "REAL", "FRAG")}
    discs = shared.corners * math.pi * shared.disc_radius**2
    mouths = (shared.corners - 2) / (2 * shared.corners)  # share of a disc that its mouth takes
    big = shared.disc_radius > 2
    assert torch.allclose(area["DISC"][big], discs[big], rtol=0.02)
    assert torch.allclose(area["IN"][big], (discs * (1 - mouths))[big], rtol=0.03)
    for control in ("ROT", "OUT", "SHEAR"):
        assert torch.allclose(area[control][big], area["IN"][big], rtol=0.03)
    assert (area["OUTL"] < area["IN"] + 1e-3).all() and (area["CLOSED"] > area["IN"] - 1e-3).all()
    assert (area["CLOSED"] < area["DISC"] + 1e-3).all()
    line = max(1.0, kanizsa_stimuli.LINE * SIZE)
    r = shared.disc_radius.clamp(min=line)
    arm = (line / 2) * (r**2 - line**2).sqrt() + r**2 / 2 * torch.asin(line / r)  # of a line that ends at the rim
    shared_corner = line**2 / torch.tan(mouths * math.pi)  # where the two lines of a corner overlap
    lines = shared.corners * (2 * arm - shared_corner)
    crossed = shared.disc_radius > line / torch.sin(mouths * math.pi)  # the two lines meet inside the disc
    assert crossed.sum() > 20 and torch.allclose(area["FRAG"][crossed], lines[crossed], rtol=0.03)
    real = 0.5 * shared.corners * shared.radius**2 * torch.sin(2 * math.pi / shared.corners)
    assert torch.allclose(area["REAL"], real, rtol=0.01)


@pytest.mark.parametrize("size", [32, 64])
def test_every_control_differs_from_the_illusory_figure_in_every_layout(noiseless, size):
    """By a twentieth of its ink at least (thin arcs over sharp mouths): the smallest outlines are hollow, too."""
    shared = layouts(size, 1, seed=0)
    illusory = render(shared, "IN", size)
    drawn = (illusory - shared.background[:, None, None, None]).abs().sum((1, 2, 3))
    for control in CONTROLS:
        differs = (render(shared, control, size) - illusory).abs().sum((1, 2, 3))
        assert (differs / drawn).min() > 0.05, control


def test_conditions_of_a_layout_share_everything_but_the_condition(shared):
    """Far from every inducer the images are bitwise equal: background and noise are shared."""
    images = {c: render(shared, c, SIZE) for c in (*CONTROLS, "IN", "MIX", "FRAG")}
    canvas = Canvas(SIZE)
    x, y = canvas.frame(shared.centre, shared.angle)
    far = torch.hypot(x, y) > (shared.radius + 1.8 * shared.disc_radius)[:, None, None] + 2
    inner = torch.hypot(x, y) < (shared.radius - 1.8 * shared.disc_radius)[:, None, None] - 2
    assert far.any() and inner.any()
    for image in images.values():
        assert torch.equal(image[:, 0][far | inner], images["IN"][:, 0][far | inner])


@pytest.mark.parametrize("size", [32, 48, 96])
def test_polygons_cannot_be_told_by_ink(size):
    """Inducer area in one set, physical edge length in the other, from the shapes alone; as large as fits."""
    radii = polygon_radii(size)
    for ratio in SUPPORT_RATIOS:
        areas, edges = [], []
        for n in CORNERS:
            r = ratio * radii["equal_area"][n] * math.sin(math.pi / n)
            areas.append(n * math.pi * r**2 * (1 - (n - 2) / (2 * n)))
            edges.append(n * 2 * ratio * radii["equal_edge"][n] * math.sin(math.pi / n))
        assert areas == pytest.approx([areas[0]] * 4) and edges == pytest.approx([edges[0]] * 4)


def test_equal_area_holds_in_the_pixels(noiseless):
    shared = layouts(SIZE, 3, seed=1)
    area = ink(render(shared, "IN", SIZE), shared)
    chosen = (shared.matching == 0) & (shared.support_ratio > 0.45)
    for ratio in (0.5, 0.6, 0.7, 0.8):
        per_polygon = [
            area[chosen & (shared.corners == n) & ((shared.support_ratio - ratio).abs() < 1e-3)].mean() for n in CORNERS
        ]
        assert max(per_polygon) / min(per_polygon) < 1.03


def test_controls_that_only_turn_or_move_inducers_have_the_same_luminance_histogram(shared, noiseless):
    big = shared.select((shared.disc_radius > 3).nonzero()[:, 0])
    sorted_pixels = {c: render(big, c, SIZE).flatten(1).sort().values for c in ("IN", "ROT", "OUT", "SHEAR")}
    for c in ("ROT", "OUT", "SHEAR"):
        assert (sorted_pixels[c] - sorted_pixels["IN"]).abs().mean() < 1e-3  # Wasserstein distance, in luminance


def test_mixed_polarity_changes_the_sign_of_half_of_the_inducers_and_nothing_else(shared, noiseless):
    images = {c: render(shared, c, SIZE)[:, 0] - shared.background[:, None, None] for c in ("IN", "MIX")}
    assert torch.allclose(images["MIX"].abs(), images["IN"].abs(), atol=1e-6)
    positive = (images["MIX"] * shared.contrast.sign()[:, None, None]).clamp(min=0).sum((1, 2))
    share = positive / images["IN"].abs().sum((1, 2))
    expected = 1 - (shared.corners // 2) / shared.corners
    big = shared.disc_radius > 2
    assert torch.allclose(share[big], expected[big], atol=0.02)


def test_occluders_and_lines_are_laid_over_the_gaps_and_the_inducers_stay(shared, noiseless):
    plain = {c: render(shared, c, SIZE)[:, 0] for c in ("IN", "OUT")}
    for covered, condition in (("OCCL", "IN"), ("IN_LINES", "IN"), ("OUT_LINES", "OUT")):
        image = render(shared, covered, SIZE)[:, 0]
        contrast = shared.contrast.abs()[:, None, None]
        differs = (image - plain[condition]).abs() > 0.05 * contrast  # a bar's end grazes the rim of the disc
        inked = (plain[condition] - shared.background[:, None, None]).abs() > 0.99 * contrast
        assert not (differs & inked).any()
        for i in range(0, len(shared), 3):
            _, middle = shared.select(torch.tensor([i])).gap(0)
            column, row = (middle[0] + SIZE / 2).long().tolist()
            assert differs[i, row, column]


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1000), corners=st.sampled_from(sorted(CORNERS)), condition=st.sampled_from(["IN", "ROT"]))
def test_rotation_does_not_alias(seed, corners, condition):
    """At any angle the pixels are those of a drawing with sixteen times as many samples, and ink is kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kanizsa_stimuli, "NOISE", 0.0)
        shared = layouts(SIZE, 1, seed)
        one = shared.select(((shared.corners == corners) & (shared.support_ratio == 0.8)).nonzero()[:1, 0])
        turned = torch.linspace(0, 2 * math.pi, 8)
        many = dataclasses.replace(one.select(torch.zeros(8, dtype=torch.long)), angle=turned, centre=torch.zeros(8, 2))
        images = render(many, condition, SIZE)
        patch.setattr(kanizsa_stimuli, "SUPERSAMPLE", 16)
        dense = render(many, condition, SIZE)
    assert ((images - dense).abs() / one.contrast.abs()).max() < 0.08
    assert torch.allclose(images[0], images[-1], atol=1e-3)
    area = ink(images, many)
    assert area.std() / area.mean() < 0.005


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


def test_all_discs_lie_in_the_image_also_displaced_ones():
    for size in (32, 64):
        shared = layouts(size, 5)
        for k in range(max(CORNERS)):
            has = k < shared.corners
            direction, place = shared.corner(k)
            tangent = torch.stack([-direction.sin(), direction.cos()], 1)
            step = torch.tensor(list(map(kanizsa_stimuli.shear, shared.corners.tolist(), shared.disc_radius.tolist())))
            for at in (place, place + step[:, None] * tangent):
                reach = at.abs().amax(1) + shared.disc_radius
                assert (reach[has] <= size / 2 + 1e-3).all()


def test_real_polygons_are_of_sizes_that_the_task_trains_on():
    for size in (32, 48, 64):
        radius = layouts(size, 5).radius / size
        assert radius.min() >= shapes.SMALLEST_FIGURE and radius.max() <= shapes.LARGEST_FIGURE


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), condition=st.sampled_from(sorted(CONDITIONS)))
def test_a_seed_decides_every_pixel(seed, condition):
    a, b = (render(layouts(32, 1, seed), condition, 32) for _ in range(2))
    assert torch.equal(a, b) and a.min() >= 0 and a.max() <= 1
    assert not torch.equal(a, render(layouts(32, 1, seed + 1), condition, 32))


def test_unknown_condition():
    with pytest.raises(ValueError, match="ROT"):
        render(layouts(32, 1), "ROTATED", 32)


LAYOUTS = layouts(32)
TRUTH = np.array([list(CORNERS).index(n) for n in LAYOUTS.corners.tolist()])
WRONG = (TRUTH + 1 + np.arange(len(TRUTH)) % 3) % 4  # every other polygon equally often


def scripted(p):
    """Answers of an observer that gives the polygon a set probability, a number or one per layout, in each condition."""
    p = {c: np.broadcast_to(np.asarray(p[c], dtype=float), TRUTH.shape) for c in CONDITIONS}
    return Answers(p, {c: np.where(v > 0.5, TRUTH, WRONG) for c, v in p.items()}, TRUTH, LAYOUTS)


class Constant:
    """An observer that answers the same to everything."""

    classes, in_shape, name = CLASSES, (1, 32, 32), "constant"

    def __init__(self, p):
        self.p = torch.tensor(p)

    def predict(self, stimuli):
        return self.p.expand(len(stimuli), -1)


def named(scores, metric, target=None):
    return next(s for s in scores if s.metric == metric and target in (None, s.target))


def test_index_is_the_contrast_with_the_strongest_control():
    p = dict.fromkeys(CONDITIONS, 0.2) | {"REAL": 0.95, "IN": 0.8, "ROT": 0.3, "OUT": 0.4, "DISC": 0.5, "OUTL": 0.45}
    scores = scores_of(scripted(p), CLASSES)
    index = named(scores, "index")
    assert index.raw == pytest.approx(0.3, abs=1e-6) and index.target == "DISC"
    assert index.ci_low == pytest.approx(0.3, abs=1e-6)  # no spread, no interval
    assert index.n_stimuli == len(LAYOUTS) and named(scores, "index_in", "equal_edge").raw == pytest.approx(0.3)
    assert named(scores, "index_normalised").raw == pytest.approx(0.3 / 0.45, abs=1e-5)
    odds = math.log(0.8 / 0.2) - math.log(0.5 / 0.5)
    assert named(scores, "index_log_odds").raw == pytest.approx(odds, abs=1e-5)
    for control in CONTROLS:
        assert named(scores, "index_vs", control).raw == pytest.approx(p["IN"] - p[control], abs=1e-6)


def test_the_index_is_not_normalised_by_next_to_nothing():
    p = dict.fromkeys(CONDITIONS, 0.2) | {"REAL": 0.84, "IN": 0.9, "DISC": 0.8}
    found = named(scores_of(scripted(p), CLASSES), "index_normalised")
    assert found.gate == "n/a" and "hardly more probable than DISC" in found.reason
    found = named(scores_of(scripted(p | {"REAL": 0.95}), CLASSES), "index_normalised")
    assert found.raw == pytest.approx(0.1 / 0.15, abs=1e-5)


def test_a_human_like_observer_has_all_signatures_and_one_without_the_illusion_is_not_asked():
    p = dict.fromkeys(CONDITIONS, 0.25) | {"REAL": 0.95, "IN": 0.8, "MIX": 0.85, "IN_LINES": 0.4}
    scores = scores_of(scripted(p), CLASSES)
    assert named(scores, "signatures").raw == 1.0
    assert named(scores, "signature", "distractor_lines").raw == pytest.approx(0.4, abs=1e-6)
    assert named(scores, "signature", "mixed_polarity").raw == pytest.approx(0.05, abs=1e-6)
    assert {s.target for s in scores if s.metric == "signature"} == set(SIGNATURES)
    weaker = p | {"MIX": 0.5, "OUTL": 0.5}  # polarity matters to it, and outlines serve as well
    assert named(scores_of(scripted(weaker), CLASSES), "signatures").raw == 0.5
    flat = p | {"ROT": 0.8}
    assert named(scores_of(scripted(flat), CLASSES), "signatures").gate == "n/a"


def test_the_index_has_a_standard_error_of_at_most_3_percent_at_the_default_size():
    """Answers with certainty, by the toss of a coin in every condition but REAL: the widest spread there is."""
    rng = np.random.default_rng(0)
    p = {c: np.ones(len(TRUTH)) if c == "REAL" else rng.integers(0, 2, len(TRUTH)) for c in CONDITIONS}
    scores = scores_of(scripted(p), CLASSES)
    assert 0.01 < named(scores, "index_error").raw <= 0.03
    assert named(scores, "index_p").raw > 0.01  # nothing there to find


def test_a_dose_response_that_is_all_in_the_bare_corners_is_not_counted():
    """Corners only: IN and FRAG alike, in proportion to the support ratio and to each layout's own noise."""
    ratio, own = LAYOUTS.support_ratio.numpy(), np.random.default_rng(0).random(len(TRUTH))
    corners = 0.3 + 0.4 * ratio + 0.1 * own
    p = dict.fromkeys(CONDITIONS, 0.2) | {"REAL": 0.95, "IN": corners, "FRAG": corners}
    only = scores_of(scripted(p), CLASSES)
    assert named(only, "dose_response").raw == pytest.approx(1.0)
    assert named(only, "dose_response_partial").gate == "n/a"  # IN is FRAG: nothing is left
    more = scores_of(scripted(p | {"IN": corners + 0.3 * ratio}), CLASSES)
    assert named(more, "dose_response_partial").raw > 0.9


def test_an_ideal_observer_with_one_answer_to_whatever_is_no_figure_is_judged():
    """It sees what we see, and says hexagon where there is nothing to be seen."""
    p = {c: np.where(TRUTH == 3, 0.97, 0.01) for c in CONDITIONS}
    p |= dict.fromkeys(("REAL", "IN"), np.full(len(TRUTH), 0.97))
    answers = {c: np.full(len(TRUTH), 3) for c in CONDITIONS} | {"REAL": TRUTH, "IN": TRUTH}
    index = named(scores_of(Answers(p, answers, TRUTH, LAYOUTS), CLASSES), "index")
    assert index.raw == pytest.approx(0.75 * 0.96)
    blind = answers | {"IN": np.full(len(TRUTH), 3)}  # to it an illusory figure is no figure either: no way to tell
    index = named(scores_of(Answers(p, blind, TRUTH, LAYOUTS), CLASSES), "index")
    assert index.gate == "n/a" and "nearly the same to everything" in index.reason


def test_one_control_that_is_not_beaten_is_enough_to_deny_the_illusion():
    p = dict.fromkeys(CONDITIONS, 0.3) | {"REAL": 0.95, "IN": 0.9, "OUT": 0.95}
    assert named(scores_of(scripted(p), CLASSES), "index").raw < 0


def test_a_network_that_cannot_name_real_polygons_is_not_judged():
    scores = scores_of(scripted(dict.fromkeys(CONDITIONS, 0.9) | {"REAL": 0.1}), CLASSES)
    index = named(scores, "index")
    assert index.raw is None and index.gate == "n/a" and "cannot name real polygons" in index.reason
    assert named(scores, "p_polygon", "IN").raw == pytest.approx(0.9, abs=1e-6)  # what was measured stays


def test_a_network_of_another_task_is_not_judged():
    observer = Constant([0.1] * 10)
    observer.classes = tuple("0123456789")
    (score,) = Kanizsa().measure(observer)
    assert score.gate == "n/a" and "no class 'triangle'" in score.reason


def test_a_collapsed_network_is_not_judged_and_its_classes_may_come_in_any_order():
    observer = Constant([0.05, 0.05, 0.8, 0.05, 0.05])
    observer.classes = ("hexagon", "star", "triangle", "square", "pentagon")
    scores = Kanizsa(per_cell=1).measure(observer)
    assert named(scores, "index").gate == "n/a" and "hexagon 0%" in named(scores, "index").reason
    assert named(scores, "p_polygon", "IN").raw == pytest.approx((0.8 + 3 * 0.05) / 4)


def test_gates():
    truth = np.repeat(np.arange(4), 100)
    assert competence_gate(truth, truth, CLASSES) is None
    one_class_at_chance = np.where(truth == 2, 0, truth)
    assert "pentagon 0%" in competence_gate(one_class_at_chance, truth, CLASSES)
    alphabetical = tuple(sorted(CLASSES))  # hexagon, pentagon, square, triangle
    assert "square 0%" in competence_gate(one_class_at_chance, truth, alphabetical)
    few = np.repeat(np.arange(4), 3)
    assert competence_gate(few, few, CLASSES) is not None  # three images per class prove nothing
    assert collapse_gate({"IN": truth, "OUT": truth}) is None
    assert "the same to everything" in collapse_gate({"IN": np.zeros(400), "OUT": np.zeros(400)})
    assert collapse_gate({"IN": np.where(np.arange(400) < 8, 1, 0)}) is not None
    # Another single answer to each condition says as little, though answers to all conditions together vary.
    assert collapse_gate({c: np.full(400, k) for k, c in enumerate(("IN", "ROT", "OUT", "DISC"))}) is not None


@pytest.fixture(scope="module")
def clean_task():
    return shapes.build(Source(None), train=1500, test=100, clutter=0)


def test_a_layout_detector_names_kanizsa_figures_above_chance_and_gets_no_index(clean_task):
    """The known trap: real polygons nearly all right, illusory ones far above chance, no contour completed."""
    detector = polar_spectrum.build(clean_task)
    found = Kanizsa(per_cell=3).answers(detector)
    assert (found.answer["REAL"] == found.truth).mean() > 0.85
    assert (found.answer["IN"] == found.truth).mean() > 0.6  # chance is 0.25
    assert index_of(found.contrasts()) <= 0.0


class Ideal:
    """Knows every figure without its noise, and names the polygon where what it is shown is nearest to REAL or IN."""

    classes, in_shape, name = CLASSES, (1, 32, 32), "ideal"

    def __init__(self, layout):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kanizsa_stimuli, "NOISE", 0.0)
            self.known = torch.stack([render(layout, c, 32) for c in ("REAL", "IN", *CONTROLS)])
        self.truth = layout.corners - min(CORNERS)

    def predict(self, stimuli):
        nearest = (self.known - stimuli).square().sum((2, 3, 4)).argmin(0)
        p = torch.full((len(stimuli), 4), 0.25)
        p[nearest < 2] = torch.nn.functional.one_hot(self.truth, 4).float()[nearest < 2]
        return p


def test_an_ideal_observer_of_the_smallest_images_has_the_index_in_full():
    """Also small discs, and pacmen displaced by half a pixel, can be told from aligned ones at 32 pixels in this noise."""
    shared = layouts(32, 1, seed=0)
    index = named(Kanizsa(per_cell=1).measure(Ideal(shared)), "index")
    assert index.gate == "pass" and index.raw == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("null", [pixels, blurred_pixels, hog])
def test_observers_that_cannot_name_moving_turning_polygons_are_not_judged(clean_task, null):
    observer = null.build(clean_task)
    assert named(Kanizsa(per_cell=3).measure(observer), "index").gate == "n/a"
    assert observer.activations(None) == {} and observer.signals(None, None) == {}


def test_the_sheet_shows_every_condition_polygon_set_and_support_ratio():
    images, rows, columns = kanizsa.sheet(32)
    cells = len(SETS) * len(SUPPORT_RATIOS)
    assert images.shape == (len(CONDITIONS) + cells, 4, 1, 32, 32) and columns == list(CLASSES)
    assert rows[: len(CONDITIONS)] == list(CONDITIONS) and rows[-1] == "IN 0.8, equal_edge"
    assert torch.equal(images[rows.index("IN")], images[rows.index("IN 0.6, equal_area")])


def test_human_clarity_is_drawn_as_ranks_on_an_axis_of_its_own():
    """Only people's order is known: no size of the index may be read off it."""
    axes = Figure().subplots()
    p = dict.fromkeys(CONDITIONS, 0.2) | {"REAL": 0.95, "IN": 0.3 + 0.6 * LAYOUTS.support_ratio.numpy()}
    kanizsa._index_panel(axes, scripted(p), None)
    _, ranks = axes.figure.axes
    assert ranks.lines[0].get_ydata().tolist() == [1, 2, 3, 4, 5, 6, 7] and "rank" in ranks.get_ylabel()
    (human,) = (t.get_text() for t in axes.get_legend().get_texts() if "people" in t.get_text())
    assert "Shipley & Kellman 1992" in human and "rank reference only" in human


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
    index = named(Kanizsa(per_cell=1).measure(Constant([float("nan")] * 4)), "index")
    assert index.gate == "n/a" and "not finite" in index.reason


def test_more_classes_than_polygons_do_not_count_as_collapse():
    truth = np.repeat(np.arange(4), 100)
    assert collapse_gate({"IN": truth + 8}) is None


@pytest.mark.parametrize("rule", [Untrained, LabelShuffled])
def test_untrained_and_label_shuffled_networks_are_null_observers_that_are_not_judged(clean_task, rule):
    """Neither can name real polygons, whatever its index; the second after sixteen steps on labels that say nothing."""
    net, rule, loss = cnn.build((1, 32, 32), (4,), width=4, hidden=16), rule(), OBJECTIVES["cross_entropy"]
    rule.attach(net)
    x, y = clean_task.preprocess()(clean_task.train.images[:512]), clean_task.train.targets[:512]
    for part in torch.arange(512).split(32):
        grads = rule.learn(net, x[part], y[part], loss).grads
        with torch.no_grad():
            for name, weight in net.named_parameters():
                weight -= 0.1 * grads.get(name, torch.zeros(()))
    shown = TrainedObserver("null", net, rule, net, rule, loss, clean_task.preprocess(), CLASSES, clean_task.test)
    index = named(Kanizsa(per_cell=1).measure(shown), "index")
    assert index.gate == "n/a" and "cannot name real polygons" in index.reason
