"""Similarity, decoding and the contour probe: planted completion is found, and what sees no contour gets none."""

import matplotlib.image as mpimg
import numpy as np
import pytest
import sklearn.metrics
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluation.base import Score
from evaluation.illusions import kanizsa_contour_probe, kanizsa_representation
from evaluation.illusions.kanizsa_contour_probe import KanizsaContourProbe, auc, contours, placed, resampled_aucs
from evaluation.illusions.kanizsa_representation import KanizsaRepresentation, decoding, draws, similarity
from evaluation.illusions.kanizsa_stimuli import CONTROLS, CORNERS, render
from rules.backprop import Backprop
from rules.predictive_coding import PredictiveCoding
from tests.evaluation.test_kanizsa_gap import observer

SHOWN = ("REAL", "IN", *CONTROLS)
SHAPES = np.repeat(list(CORNERS), 10)
WHOLE = np.ones((1, len(SHAPES)))


def planted(shared_by, noise=0.1, seed=0):
    """Activity with a code for every polygon in the conditions that share it, and codes of their own in the others."""
    rng = np.random.default_rng(seed)
    code = {n: rng.normal(size=30) for n in CORNERS}
    found = {}
    for c in SHOWN:
        own = code if c in shared_by else {n: rng.normal(size=30) for n in CORNERS}
        found[c] = np.stack([own[n] for n in SHAPES]) + noise * rng.normal(size=(len(SHAPES), 30)) + rng.normal(size=30)
    return found


def test_similarity_and_decoding_find_planted_completion_and_nothing_where_a_control_has_it_too():
    completes, layout = planted(("REAL", "IN")), planted(("REAL", "IN", "DISC"))
    assert similarity(completes, SHAPES, WHOLE) > 0.5 and abs(similarity(layout, SHAPES, WHOLE)) < 0.1
    assert decoding(completes["REAL"], SHAPES, completes, SHAPES, WHOLE) > 0.4
    assert decoding(layout["REAL"], SHAPES, layout, SHAPES, WHOLE) <= 0.1


def test_similarity_is_the_cosine_by_hand_in_every_resample():
    found, drawn = planted(("REAL",), noise=0.5, seed=2), draws(SHAPES, resamples=5)

    def cosine(c, n, rows):
        shapes = SHAPES[rows]
        a, b = ([found[x][rows][m == shapes].mean(0) for m in CORNERS] for x in ("REAL", c))
        a, b = ([v - np.mean(s, 0) for v in s][n] for s in (a, b))
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    for value, times in zip(similarity(found, SHAPES, drawn), drawn, strict=True):
        rows = np.repeat(np.arange(len(SHAPES)), times.astype(int))
        expected = np.mean([cosine("IN", n, rows) - max(cosine(c, n, rows) for c in CONTROLS) for n in range(4)])
        assert value == pytest.approx(expected)


def test_a_resample_draws_as_many_layouts_of_every_polygon_and_the_first_row_is_the_sample():
    drawn = draws(SHAPES, resamples=50)
    assert (drawn[0] == 1).all() and (drawn[1:] > 1).any(1).all()
    for n in CORNERS:
        assert (drawn[:, n == SHAPES].sum(1) == (n == SHAPES).sum()).all()


def test_an_interval_holds_what_new_layouts_would_give():
    """The standard error of a decoding difference is that of the difference of two paired proportions."""
    found = planted(("REAL", "IN", "DISC"), noise=2.5, seed=4)
    values = decoding(found["REAL"], SHAPES, found, SHAPES, draws(SHAPES, resamples=2000))
    right = {c: _named(found, c) for c in ("IN", *CONTROLS)}
    rival = max(CONTROLS, key=lambda c: right[c].mean())
    margin = np.sort([right[c].mean() for c in CONTROLS])[-1] - np.sort([right[c].mean() for c in CONTROLS])[-2]
    paired = right["IN"] - right[rival]
    within = np.sqrt(sum(paired[n == SHAPES].var() * (n == SHAPES).sum() for n in CORNERS)) / len(SHAPES)
    assert margin > 4 * within and values[0] == pytest.approx(paired.mean())
    assert values[1:].std() == pytest.approx(within, rel=0.1)


def _named(found, condition):
    readout = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200)).fit(found["REAL"], SHAPES)
    return (readout.predict(found[condition]) == SHAPES).astype(float)


def test_what_cannot_tell_real_polygons_is_not_asked():
    flat = {c: np.ones((len(SHAPES), 5)) for c in SHOWN}
    assert similarity(flat, SHAPES, WHOLE) is None and decoding(flat["REAL"], SHAPES, flat, SHAPES, WHOLE) is None


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_scikit_learns(ties):
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 40), rng.normal(0, 1, 60)
    if ties:
        a, b = a.round(), b.round()
    theirs = sklearn.metrics.roc_auc_score(np.repeat([1, 0], [40, 60]), np.concatenate([a, b]))
    assert auc(a, b) == pytest.approx(theirs)


def test_resampled_aucs_are_those_of_resampled_figures_and_have_their_spread():
    """By drawing figures and asking scikit-learn; of no difference the standard error is √((2n + 1) / 12 n²)."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=80), rng.normal(size=80)
    found = resampled_aucs(a, [b, a - 9], 400)
    assert found.shape == (400, 2) and (found[:, 1] == 1).all()
    drawn = rng.integers(0, 80, (400, 80))
    theirs = [sklearn.metrics.roc_auc_score(np.repeat([1, 0], 80), np.concatenate([a[i], b[i]])) for i in drawn]
    assert found[:, 0].mean() == pytest.approx(np.mean(theirs), abs=0.01)
    assert found[:, 0].std() == pytest.approx(np.std(theirs), rel=0.15)
    assert found[:, 0].std() == pytest.approx((161 / (12 * 80**2)) ** 0.5, rel=0.2)


def test_open_squares_lack_one_side_s_gap_and_nothing_else():
    layout = placed(48, 12, 0)
    images, whole = contours(layout, 48)
    assert whole.tolist() == [1, 0] * 6 and len({round(float(r), 1) for r in layout.support_ratio}) == 3
    _, middle = layout.gap(0)
    column, row = (middle + 24).long().unbind(1)
    row = row - 1  # the outline lies inside the edge
    index = torch.arange(12)
    drawn = (images[index, 0, row, column] - layout.background).abs() > 0.15
    assert torch.equal(drawn, whole.bool())
    _, opposite = layout.gap(2)
    assert ((images[index, 0, (opposite[:, 1] + 24).long(), 24] - layout.background).abs() > 0.1).all()


class Sees:
    """Sees the middle of the lower side, and, where told, completes a contour there for IN."""

    name, classes, in_shape = "sees", tuple(CORNERS.values()), (1, 32, 32)

    def __init__(self, completes):
        self.completes = completes
        shown = placed(32, 30, 3)
        self.illusory = render(shown, "IN", 32)
        _, middle = shown.gap(0)
        self.row = int(middle[0, 1] + 16) - 1

    def activations(self, stimuli):
        strip = stimuli[:, 0, self.row - 2 : self.row + 3, 14:18] - stimuli[:, 0, :3, :].mean((1, 2))[:, None, None]
        if self.completes and stimuli.shape == self.illusory.shape and torch.equal(stimuli, self.illusory):
            strip = strip - 0.4 * (torch.arange(5) == 2)[:, None]
        return {"strip": strip, "nothing": torch.zeros(len(stimuli), 4) + 0.1 * torch.randn(len(stimuli), 4)}


@pytest.mark.parametrize("completes", [False, True])
def test_the_contour_probe_finds_a_planted_contour_and_none_where_nothing_is(completes, tmp_path):
    torch.manual_seed(0)
    bench, sees = KanizsaContourProbe(train=90, test=30), Sees(completes)
    scores = bench.measure(sees)
    by = {(s.metric, s.stage): s for s in scores if s.metric != "auc_vs"}
    assert by["auc_real", "strip"].raw > 0.9
    if completes:
        assert by["auc_in", "strip"].raw > 0.95
    else:
        assert by["auc_in", "strip"].raw <= 0.6
    assert by["auc_in", "nothing"].gate == "n/a" and by["auc", ""].raw == by["auc_in", "strip"].raw
    assert by["auc", ""].ci_low <= by["auc", ""].raw <= by["auc", ""].ci_high
    assert bench.draw(tmp_path, {"sees": sees})[0].stat().st_size > 5000


def test_the_contour_probe_is_asked_over_inference_from_the_feed_forward_pass_to_the_end():
    bench = KanizsaContourProbe(train=90, test=30)
    one_pass, iterating = (bench.scores(observer(rule)) for rule in (Backprop(), PredictiveCoding(steps=7)))
    course = {s.target: s.raw for s in iterating if s.metric == "auc_over_time" and s.stage == "conv1"}
    assert list(course) == [f"iteration={t}" for t in (0, 1, 3, 4, 6, 7)]
    (first,), (last,) = (
        [s.raw for s in scores if s.metric == "auc_in" and s.stage == "conv1"] for scores in (one_pass, iterating)
    )
    assert course["iteration=0"] == pytest.approx(first, abs=1e-6) and course["iteration=7"] == last
    assert not [s for s in one_pass if s.metric == "auc_over_time"]


def test_low_level_features_stand_beside_every_stage(tmp_path):
    bench, sees = KanizsaRepresentation(per_cell=1), Sees(False)
    scores = bench.measure(sees)
    assert bench.draw(tmp_path, {"sees": sees})[0].stat().st_size > 5000
    controls = {s.target for s in scores if s.metric == "control_similarity"}
    assert controls == {"pixels", "hog", "polar_spectrum"}
    assert any(s.metric == "similarity" and s.stage == "strip" for s in scores)
    value = next(s for s in scores if s.metric == "similarity_over_low_level").raw
    best = max(s.raw for s in scores if s.metric == "similarity" and s.gate == "pass")
    assert value == pytest.approx(best - max(s.raw for s in scores if s.metric == "control_similarity" and s.raw))


def test_where_no_hand_made_feature_knows_real_polygons_nothing_is_compared_with_them(monkeypatch):
    flat = {"flat": lambda x: torch.ones(len(x), 3)}
    monkeypatch.setattr(kanizsa_representation, "LOW_LEVEL", flat)
    whole = {s.metric: s for s in KanizsaRepresentation(per_cell=1).measure(Sees(False)) if not s.stage}
    for metric in ("similarity", "decoding"):
        assert whole[f"{metric}_over_low_level"].gate == "n/a"
    assert "hand-made feature" in whole["similarity_over_low_level"].reason


def test_similarity_over_inference_has_a_panel_of_its_own(tmp_path):
    whole = [Score("similarity", v, stage=s) for s, v in (("conv1", 0.1), ("conv2", 0.2))]
    course = [
        Score("similarity_over_time", 0.1 * t, stage=s, target=f"iteration={t}")
        for s in ("conv1", "conv2")
        for t in range(4)
    ]
    images = [
        mpimg.imread(kanizsa_representation.plot(tmp_path / f"{len(scores)}.png", "rule", scores))
        for scores in (whole, whole + course)
    ]
    assert images[1].shape[1] > 1.4 * images[0].shape[1]


def test_sheets():
    assert kanizsa_representation.sheet(32)[0].shape == (8, 4, 1, 32, 32)
    images, rows, columns = kanizsa_contour_probe.sheet(32)
    assert images.shape == (8, 6, 1, 32, 32) and set(rows) > {"IN", *CONTROLS}
    assert sorted(columns) == ["ratio 0.4"] * 2 + ["ratio 0.5"] * 2 + ["ratio 0.6"] * 2
