"""Kanizsa, tier 1 (behaviour): does a network trained on real polygons name the polygon that is not there?

Accuracy on Kanizsa figures is no score: a detector of where the discs are gets two thirds right without
completing a contour, and it gets the controls right too. So the index takes the strongest control, layout by
layout, and is ``n/a`` for a network that cannot name real polygons or that answers the same to everything.

Tier 1 cannot show completion on its own: a plain feed-forward network can have a positive index that
grows with the support ratio, which is also the share of the contour that is physically there. What feedback adds
is asked by ``kanizsa_gap``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Benchmark, Observer, Score, not_available
from evaluation.figures import panels
from evaluation.illusions.gates import collapse_gate, competence_gate, missing_class
from evaluation.illusions.kanizsa_index import (
    Answers,
    ask,
    dose_scores,
    index_of,
    index_scores,
    signature_scores,
    stimuli,
)
from evaluation.illusions.kanizsa_stimuli import CONDITIONS, CONTROLS, CORNERS, SETS, SUPPORT_RATIOS, layouts, render

JUDGED = (
    "index", "index_normalised", "index_log_odds", "index_hard", "dose_response", "dose_response_partial", "signatures",
)  # fmt: skip
HUMAN = "people: clearer with every step of the ratio\n(Shipley & Kellman 1992; rank reference only)"
STYLE = {
    "REAL": ("k", "-", 2.2), "IN": ("C3", "-", 2.2), "FRAG": ("C0", "-", 1.4), "MIX": ("C1", "-", 1.4),
    "OCCL": ("C4", "-", 1.4), "ROT": ("0.45", "-", 0.9), "OUT": ("0.45", "--", 0.9), "DISC": ("0.45", ":", 1.2),
    "OUTL": ("C2", "-", 0.9), "CLOSED": ("C2", "--", 0.9), "SHEAR": ("C2", ":", 1.2),
}  # fmt: skip


class Kanizsa(Benchmark):
    """Kanizsa index against six controls, its dose–response to the support ratio, human signatures, and its gates.

    Args:
        per_cell: Layouts for every set, number of corners and support ratio.
        seed: Of the layouts.
    """

    name = "kanizsa"
    version = 6  # outlines of small discs are thinner, and no longer filled pacmen
    pillar = "illusion"
    headline = "index"
    reference = "Kanizsa 1955; Ringach & Shapley 1996, Vision Res. 36:3037"

    def __init__(self, *, per_cell: int = 10, seed: int = 0) -> None:
        self.per_cell, self.seed = per_cell, seed
        self._asked: tuple[Observer, Answers] | None = None

    def measure(self, observer: Observer) -> list[Score]:
        """Return probabilities per condition, contrasts per control, and the index with its variants."""
        if reason := missing_class(observer.classes):
            return [not_available("index", reason)]
        return scores_of(self.answers(observer), observer.classes)

    def answers(self, observer: Observer) -> Answers:
        """Return the observer's answers; the last ones are kept, since they are also drawn."""
        if self._asked is None or self._asked[0] is not observer:
            self._asked = observer, ask(observer, *stimuli(observer.in_shape[1], self.per_cell, self.seed))
        return self._asked[1]

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Draw, per observer, the probability of the polygon and the index against the support ratio."""
        path, drawn = folder / "kanizsa.png", []
        for name, observer in observers.items():
            if missing_class(observer.classes):
                continue
            found = self.answers(observer)
            if not found.finite:
                continue
            with panels(path, 9.6, 4.2, 2) as (left, right):
                for condition, values in found.p.items():
                    if condition in STYLE:
                        colour, line, width = STYLE[condition]
                        curve = [values[found.where(r)].mean() for r in SUPPORT_RATIOS]
                        left.plot(
                            SUPPORT_RATIOS, curve, line, marker="o", ms=3, lw=width, color=colour, label=condition
                        )
                left.axhline(1 / len(observer.classes), color="0.85", lw=0.8, label="guessing")
                left.set(
                    xlabel="support ratio (disc diameter / side length)",
                    ylabel="mean probability of the polygon", ylim=(0, 1.02), title=f"Kanizsa: {name}",
                )  # fmt: skip
                left.legend(frameon=False, fontsize=7, ncol=3)
                _index_panel(right, found, gate(found, observer.classes))
            drawn = [path]
        return drawn


def _index_panel(axes: Any, found: Answers, reason: str | None) -> None:
    contrast = found.contrasts()
    dose = np.array([index_of(contrast[found.where(r)]) for r in SUPPORT_RATIOS])
    axes.plot([], [], ":", color="0.5", label=HUMAN)
    ranks = axes.twinx()  # an axis of their own: people's order is known, and no size that the index could be held to
    ranks.plot(SUPPORT_RATIOS, np.arange(1, len(SUPPORT_RATIOS) + 1), ":", color="0.5")
    ranks.set_ylabel("human rank of clarity", color="0.5")
    axes.plot(SUPPORT_RATIOS, dose, "-o", color="C3", ms=4, label="index: IN − strongest control at that ratio")
    axes.axhline(0, color="0.85", lw=0.8)
    strongest = CONTROLS[int(contrast.mean(0).argmin())]
    title = f"n/a: {reason}" if reason else f"index {index_of(contrast):+.3f}, strongest control {strongest}"
    axes.set(xlabel="support ratio", ylabel="index (probability)", title=title)
    axes.title.set_fontsize(9)
    axes.legend(frameon=False, fontsize=7)


def scores_of(found: Answers, classes: Sequence[str]) -> list[Score]:
    """Return every score of an observer's answers; those of a network that may not be judged are ``n/a``."""
    num = len(found.truth)
    if not found.finite:
        return [not_available(n, "its output is not finite") for n in JUDGED]
    hits = float((found.answer["REAL"] == found.truth).mean())
    scores = [
        *(
            Score("p_polygon", float(v.mean()), higher_is_better=None, target=c, n_stimuli=num)
            for c, v in found.p.items()
        ),
        Score("accuracy_real", hits, target="REAL", n_stimuli=num),
    ]
    if reason := gate(found, classes):
        return [*scores, *(not_available(n, reason) for n in JUDGED)]
    indices = index_scores(found)
    index = next(s for s in indices if s.metric == "index")
    fooled = index.ci_low is not None and index.ci_low > 0
    return [*scores, *indices, *dose_scores(found), *signature_scores(found, fooled)]


def gate(found: Answers, classes: Sequence[str]) -> str | None:
    """Return why an observer may not be judged by its answers, or nothing."""
    shown = {c: found.answer[c] for c in ("IN", *CONTROLS)}
    return competence_gate(found.answer["REAL"], found.truth, classes) or collapse_gate(shown)


def sheet(size: int = 64) -> tuple[Tensor, list[str], list[str]]:
    """Return every polygon (columns) in every condition at support ratio 0.6, then IN in both sets at every ratio."""
    shared = layouts(size, 1, seed=2)
    cells = [(c, 0, 0.6) for c in CONDITIONS] + [("IN", m, r) for m in range(len(SETS)) for r in SUPPORT_RATIOS]
    rows = []
    for condition, matching, ratio in cells:
        index = ((shared.support_ratio - ratio).abs() < 1e-3) & (shared.matching == matching)
        rows.append(render(shared.select(index.nonzero()[:, 0]), condition, size))
    labels = [f"{c} {r}, {SETS[m]}" for c, m, r in cells[len(CONDITIONS) :]]
    return torch.stack(rows), [*CONDITIONS, *labels], list(CORNERS.values())
