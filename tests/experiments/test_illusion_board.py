"""The illusion table and the report: differences by seed against scipy, verdicts that follow from them."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from experiments import kanizsa_report
from experiments.boards import illusion
from experiments.leaderboard import Estimate, estimate

NAMES = tuple(illusion.NUMBERS)


def row(rule, index, kind="rule", reason="", **others):
    per_seed = dict(enumerate(index)) if index is not None else {}
    pillars = dict.fromkeys(NAMES, Estimate()) | {"index": estimate(per_seed, reason)}
    pillars |= {name: estimate(dict(enumerate(v))) for name, v in others.items()}
    return SimpleNamespace(rule=rule, kind=kind, seeds=list(range(5)), pillars={"illusion": pillars})


RNG = np.random.default_rng(0)
BACKPROP = RNG.normal(0.0, 0.02, 5)
ROWS = [
    row("backprop", BACKPROP, gap=[0.0] * 5),
    row("predictive_coding", BACKPROP + 0.2 + RNG.normal(0, 0.01, 5), gap=[0.1] * 5),
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
    found = illusion.differences([row("backprop", [0.0] * 4), row("other", [-0.3, 0.3, 0.2, -0.1])])
    assert found["other"].verdict == "undecided"


def test_the_table_shows_reasons_and_only_columns_that_were_measured():
    marks = []
    header, lines, notes = illusion.table(ROWS, lambda reason: marks.append(reason) or "¹")
    assert header == ["illusion", "index", "gap", "Δ backprop"] and len(lines) == len(ROWS)
    assert lines[3][1] == "n/a¹" and "hexagon 20%" in marks[0] and "TOST" in notes[1]
    assert lines[1][2].startswith("+0.100") and lines[0][3] == ""
    assert illusion.table([ROWS[3]], str) == ([], [], [])


def test_the_report_gives_the_answer_and_says_who_cannot_be_asked():
    text = "\n".join(kanizsa_report.report(ROWS))
    assert "predictive_coding more; surrogate_gradient the same; stdp cannot be asked" in text
    assert "n/a (cannot name real polygons: hexagon 20%)" in text and "5 of 5 seeds" in text


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path, capsys):
    assert kanizsa_report.main([str(tmp_path / "absent")]) == 2
    assert "absent" in capsys.readouterr().err
