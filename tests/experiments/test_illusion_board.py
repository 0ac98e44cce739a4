"""The illusion table and the report: differences by seed against scipy, verdicts that follow from them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from experiments import illusion_speed, kanizsa_report
from experiments.boards import illusion, kanizsa_inside, robustness, surfaces
from experiments.estimates import Estimate, estimate

NAMES = tuple(illusion.NUMBERS)


def row(rule, index, kind="rule", reason="", **others):
    per_seed = dict(enumerate(index)) if index is not None else {}
    pillars = dict.fromkeys(NAMES, Estimate()) | {"index": estimate(per_seed, reason)}
    pillars |= {name: estimate(dict(enumerate(v))) for name, v in others.items()}
    return SimpleNamespace(rule=rule, kind=kind, seeds=list(range(5)), pillars={"illusion": pillars})


RNG = np.random.default_rng(0)
BACKPROP = RNG.normal(0.0, 0.02, 5)
ROWS = [
    row("backprop", BACKPROP, dose_partial=[0.0] * 5),
    row("predictive_coding", BACKPROP + 0.2 + RNG.normal(0, 0.01, 5), dose_partial=[0.1] * 5),
    row("surrogate_gradient", BACKPROP + RNG.normal(0, 0.004, 5)),
    row("stdp", None, reason="cannot name real polygons: hexagon 20%"),
    row("readout_only", None, kind="control", reason="cannot name real polygons: square 30%"),
    row("polar_spectrum", [-0.01], kind="null"),
]


def test_differences_are_paired_by_seed_and_tested_twice():
    found = illusion.differences(ROWS)
    assert set(found) == {"predictive_coding", "surrogate_gradient", "stdp", "readout_only"}
    more = found["predictive_coding"]
    own = ROWS[1].pillars["illusion"]["index"].per_seed
    assert list(more.per_seed.values()) == pytest.approx([own[s] - BACKPROP[s] for s in range(5)])
    assert more.p == pytest.approx(2 * 2 / 32)  # the least of five seeds, twice by Holm
    differences = list(found["surrogate_gradient"].per_seed.values())
    sides = [
        scipy.stats.ttest_1samp(differences, m, alternative=a).pvalue
        for m, a in ((-illusion.MARGIN, "greater"), (illusion.MARGIN, "less"))
    ]
    assert found["surrogate_gradient"].same == pytest.approx(2 * max(sides))
    assert more.verdict == "more" and found["surrogate_gradient"].verdict == "the same"
    assert found["stdp"].verdict == "not known" and found["stdp"].p is None
    assert illusion.differences(ROWS[1:]) == {}


def test_a_wide_interval_is_undecided():
    found = illusion.differences([row("backprop", [0.0] * 5), row("other", [-0.3, 0.3, 0.2, -0.1, 0.1])])
    assert found["other"].verdict == "undecided"


def test_the_table_shows_reasons_and_only_columns_that_were_measured():
    marks = []
    header, lines, notes = illusion.table(ROWS, lambda reason: marks.append(reason) or "¹")
    assert header == ["illusion", "index", "given corners", "Δ backprop"] and len(lines) == len(ROWS)
    assert lines[3][1] == "n/a¹" and "hexagon 20%" in marks[0] and "TOST" in notes[1]
    assert lines[1][2].startswith("+0.100") and lines[0][3] == ""
    assert illusion.table([ROWS[3]], str) == ([], [], [])


def test_too_few_seeds_say_neither_more_nor_less():
    found = illusion.differences([row("backprop", [0.0, 0.0, 0.0]), row("other", [0.3, 0.4, 0.35])])
    assert found["other"].low > 0 and found["other"].verdict == "undecided (3 of 5 seeds)"


def test_a_tuned_backprop_is_the_reference_too_and_of_two_settings_none():
    tuned = [row("backprop(lr=0.003)", [0.0] * 5), row("stdp(lr=0.001)", [0.2, 0.21, 0.2, 0.22, 0.2])]
    assert illusion.differences(tuned)["stdp(lr=0.001)"].verdict == "more"
    assert illusion.differences([row("backprop(lr=0.1)", [0.1] * 5), *tuned]) == {}


def numbers_of(board, rule, kind="rule", **values):
    pillar = dict.fromkeys(board.NUMBERS, Estimate()) | values
    return SimpleNamespace(rule=rule, kind=kind, pillars={board.BOARD: pillar})


@pytest.mark.parametrize("board", [kanizsa_inside, surfaces, robustness])
def test_boards_of_what_was_not_asked_for_are_empty(board):
    assert board.numbers([]) == board.NUMBERS
    assert board.table([numbers_of(board, "backprop")], str) == ([], [], [])


def test_what_is_inside_stands_also_where_the_index_is_not_judged_with_every_reason():
    marks = []
    rows = [
        numbers_of(kanizsa_inside, "backprop", fat_thin=estimate({0: 0.5, 1: 0.7}), gap=Estimate(reason="cannot name")),
        numbers_of(kanizsa_inside, "pixels", "null", fat_thin=Estimate(reason="cannot name real figures")),
        numbers_of(kanizsa_inside, "untrained", "control"),
    ]
    header, lines, _ = kanizsa_inside.table(rows, lambda reason: marks.append(reason) or "¹")
    assert header == ["inside", "fat/thin", "gap"] and len(lines) == 2  # nobody asked the third
    assert lines[0] == ["backprop", "+0.600 [+0.50, +0.70]", "n/a¹"]
    assert lines[1] == ["pixels (null observer)", "n/a¹", ""] and marks == ["cannot name", "cannot name real figures"]


def test_surfaces_name_the_stage_that_was_judged():
    judged = dataclasses.replace(estimate({0: 1.5}), at="conv1")
    grey = Estimate(reason="it sees no colour")
    rows = [numbers_of(surfaces, "backprop", lightness=judged, ranks=estimate({0: 0.9}), munker=grey)]
    header, ((_, *cells),), notes = surfaces.table(rows, lambda reason: "¹")
    assert header[1:] == ["lightness", "human ranks", "munker"] and cells == ["+1.50 conv1", "+0.90", "n/a¹"]
    assert "high certainty" in notes[1]


def test_a_masked_rule_s_vulnerability_is_a_lower_bound_and_says_why():
    plain = {"accuracy_clean": estimate({0: 0.9, 1: 0.8}), "vulnerability": estimate({0: 0.5, 1: 0.7})}
    masked = dataclasses.replace(estimate({0: 1.0, 1: 0.0}), said="the derivative vanishes at 80% of the images")
    marks = []
    _, lines, _ = robustness.table(
        [
            numbers_of(robustness, "backprop", **plain, masked=estimate({0: 0.0, 1: 0.0})),
            numbers_of(
                robustness, "stdp", **plain, masked=masked, transfer=Estimate(reason="no finished backprop run")
            ),
            numbers_of(robustness, "hog", "null", vulnerability=Estimate(reason="a null observer has no task")),
        ],
        lambda reason: (marks.append(reason) or "¹") if reason else "",
    )
    assert lines[0][3] == "+0.60 [+0.50, +0.70]" and lines[0][5] == ""
    assert lines[1][3] == "≥ +0.60 [+0.50, +0.70]¹" and lines[1][5] == "masked in 1 of 2¹"
    assert lines[2][0] == "hog (null observer)" and lines[2][3] == "n/a¹" and lines[2][5] == ""
    assert set(marks) == {"no finished backprop run", masked.said, "a null observer has no task"}


def test_the_report_gives_the_answer_and_says_who_cannot_be_asked():
    text = "\n".join(kanizsa_report.report(ROWS))
    assert "predictive_coding more; surrogate_gradient the same; stdp cannot be asked" in text
    assert "n/a (cannot name real polygons: hexagon 20%)" in text and "5 of 5 seeds" in text


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path, capsys):
    assert kanizsa_report.main([str(tmp_path / "absent")]) == 2
    assert "absent" in capsys.readouterr().err


@pytest.mark.parametrize(("more", "message"), [([], "no run is there"), (["--benchmark", "kanisza"], "did you mean")])
def test_mistakes_before_timing_are_one_clear_line(tmp_path, capsys, more, message):
    assert illusion_speed.main([str(tmp_path / "absent"), *more]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert set(illusion_speed.chosen([])) >= {"kanizsa", "kanizsa_fat_thin", "lightness", "munker"}
    assert not set(illusion_speed.chosen([])) & {"rotating_snakes", "accuracy"}
