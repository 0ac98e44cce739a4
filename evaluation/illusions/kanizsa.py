"""Kanizsa, tier 1 (behaviour): does a network trained on real polygons name the polygon that is not there?

    index = min over controls c of mean_i [p_IN(i) − p_c(i)]

p_c(i) is the probability of layout i's polygon in condition c. Accuracy on Kanizsa figures is no score: a
detector of where the discs are gets two thirds right without completing a contour, and it gets the
controls right too. So the index takes the strongest control, layout by layout, and is ``n/a`` for a
network that cannot name real polygons or that answers the same to everything.

Tier 1 cannot show completion on its own: a plain feed-forward network can have a positive index that
grows with the support ratio, which is also the share of the contour that is physically there.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.accuracy import wilson
from evaluation.base import Benchmark, Observer, Score, not_available
from evaluation.illusions.kanizsa_stimuli import CONDITIONS, CONTROLS, CORNERS, SUPPORT_RATIOS, layouts, render
from evaluation.statistics import Array, spearman, stratified_bootstrap

COLLAPSE = 0.6  # least entropy of the answers, as a share of that of answers spread over the polygons
INDICES = ("index", "index_normalised", "index_log_odds", "index_hard", "dose_response")
EPSILON = 1e-4  # probabilities are kept this far from 0 and 1 before taking log-odds


class Kanizsa(Benchmark):
    """Kanizsa index against six controls, its dose–response to the support ratio, and its gates.

    Args:
        per_cell: Layouts for every number of corners and support ratio.
        seed: Of the layouts.
    """

    name = "kanizsa"
    version = 2  # SHEAR displaces every side alike
    pillar = "illusion"
    headline = "index"
    reference = "Kanizsa 1955; Ringach & Shapley 1996, Vision Res. 36:3037"

    def __init__(self, *, per_cell: int = 15, seed: int = 0) -> None:
        self.per_cell, self.seed = per_cell, seed

    def measure(self, observer: Observer) -> list[Score]:
        """Return probabilities per condition, contrasts per control, and the index with its variants."""
        missing = [name for name in CORNERS.values() if name not in observer.classes]
        if missing:
            return [not_available("index", f"its task has no class {missing[0]!r}")]
        p, answers, truth = self._answers(observer)
        num = len(truth)
        if not all(np.isfinite(v).all() for v in p.values()):
            return [not_available(n, "its output is not finite") for n in INDICES]
        scores = [
            Score("p_polygon", float(p[c].mean()), higher_is_better=None, target=c, n_stimuli=num) for c in CONDITIONS
        ]
        scores.append(Score("accuracy_real", float((answers["REAL"] == truth).mean()), target="REAL", n_stimuli=num))
        reason = competence_gate(answers["REAL"], truth, observer.classes) or collapse_gate(
            np.concatenate([answers[c] for c in CONDITIONS if c != "REAL"])
        )
        if reason:
            return [*scores, *(not_available(n, reason) for n in INDICES)]
        return [*scores, *self._indices(p, answers, truth)]

    def _answers(self, observer: Observer) -> tuple[dict[str, Array], dict[str, Array], Array]:
        """Return per condition the probability of the polygon and the answer, and the true class."""
        shared = layouts(observer.in_shape[1], self.per_cell, self.seed)
        truth = torch.tensor([observer.classes.index(CORNERS[n]) for n in shared.corners.tolist()])
        p, answers = {}, {}
        for condition in CONDITIONS:
            output = observer.predict(render(shared, condition, observer.in_shape[1])).double()
            p[condition] = output.gather(1, truth[:, None])[:, 0].numpy()
            answers[condition] = output.argmax(1).numpy()
        return p, answers, truth.numpy()

    def _indices(self, p: dict[str, Array], answers: dict[str, Array], truth: Array) -> list[Score]:
        num = len(truth)
        contrast = np.stack([p["IN"] - p[c] for c in CONTROLS], 1)
        cell = np.repeat(np.arange(num // self.per_cell), self.per_cell)
        scores = []
        for k, control in enumerate(CONTROLS):
            low, high = stratified_bootstrap(lambda m: m[:, 0], contrast[:, [k]], cell)
            scores.append(
                Score(
                    "index_vs", float(contrast[:, k].mean()), higher_is_better=None, target=control, ci_low=low,
                    ci_high=high, n_stimuli=num,
                )
            )  # fmt: skip
        strongest = int(contrast.mean(0).argmin())
        index = float(contrast.mean(0)[strongest])
        low, high = stratified_bootstrap(lambda m: m.min(1), contrast, cell)
        shared: dict[str, Any] = {"higher_is_better": None, "n_stimuli": num, "target": CONTROLS[strongest]}
        room = float((p["REAL"] - p[CONTROLS[strongest]]).mean())
        odds = {c: _log_odds(v) for c, v in p.items()}
        hard = {c: (a == truth).astype(float) for c, a in answers.items()}
        ratio = np.tile(np.repeat(SUPPORT_RATIOS, self.per_cell), len(CORNERS))
        dose = [float(contrast[ratio == r].mean(0).min()) for r in SUPPORT_RATIOS]
        scores += [
            Score("index_at", d, higher_is_better=None, target=f"support_ratio={r}", n_stimuli=num // len(dose))
            for r, d in zip(SUPPORT_RATIOS, dose, strict=True)
        ]
        rho = spearman(SUPPORT_RATIOS, dose)
        return [
            *scores,
            Score("index", index, ci_low=low, ci_high=high, **shared),
            Score("index_normalised", index / room, **shared)
            if room > 0
            else not_available("index_normalised", "real polygons are named no better than the control"),
            Score("index_log_odds", _least(odds), higher_is_better=None, n_stimuli=num),
            Score("index_hard", _least(hard), higher_is_better=None, n_stimuli=num),
            Score("dose_response", rho, higher_is_better=None, n_stimuli=num, reason="Spearman with support ratio")
            if math.isfinite(rho)
            else not_available("dose_response", "the index is the same at every support ratio"),
        ]

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Draw, per observer, the probability of the polygon against the support ratio in every condition."""
        from evaluation.figures import figure

        paths = []
        for name, observer in observers.items():
            if any(c not in observer.classes for c in CORNERS.values()):
                continue
            p, _, _ = self._answers(observer)
            ratio = np.tile(np.repeat(SUPPORT_RATIOS, self.per_cell), len(CORNERS))
            with figure(folder / "kanizsa.png", 6.4, 4.2) as axes:
                for condition, values in p.items():
                    curve = [values[ratio == r].mean() for r in SUPPORT_RATIOS]
                    bold = condition in ("IN", "REAL")
                    axes.plot(
                        SUPPORT_RATIOS, curve, marker="o", ms=3 if not bold else 5, lw=2.2 if bold else 1,
                        ls="-" if bold else "--", label=condition,
                    )  # fmt: skip
                axes.axhline(1 / len(observer.classes), color="0.7", lw=0.8)
                axes.set(
                    xlabel="support ratio (disc diameter / side length)",
                    ylabel="mean probability of the polygon",
                    ylim=(0, 1.02),
                    title=f"Kanizsa: {name}",
                )
                axes.legend(frameon=False, fontsize=8, ncol=2)
            paths.append(folder / "kanizsa.png")
        return paths


def sheet(size: int = 64) -> tuple[Tensor, list[str], list[str]]:
    """Return one image per condition (rows) and polygon (columns) at support ratio 0.6, with labels."""
    shared = layouts(size, 1, seed=2)
    index = (shared.support_ratio.sub(0.6).abs() < 1e-3).nonzero()[:, 0]
    chosen = shared.select(index)
    images = torch.stack([render(chosen, condition, size) for condition in CONDITIONS])
    return images, list(CONDITIONS), list(CORNERS.values())


def competence_gate(answers: Array, truth: Array, names: Sequence[str]) -> str | None:
    """Return why a network may not be judged: every class of real polygon must be named well above chance.

    The lower 95 % bound of each class's accuracy must exceed chance + half of what is left above it.
    """
    classes = np.unique(truth)
    needed = 1 / len(classes) + 0.5 * (1 - 1 / len(classes))
    for c in classes:
        own = answers[truth == c]
        low, _ = wilson(float((own == c).mean()), len(own))
        if low <= needed:
            return f"cannot name real polygons: {names[int(c)]} {np.mean(own == c):.0%}"
    return None


def collapse_gate(answers: Array) -> str | None:
    """Return why a network may not be judged: it must not answer the same to everything."""
    share = np.bincount(answers.astype(int)) / len(answers)
    entropy = float(-(share[share > 0] * np.log(share[share > 0])).sum() / math.log(len(CORNERS)))
    return f"answers nearly the same to everything (entropy {entropy:.2f})" if entropy < COLLAPSE else None


def _log_odds(p: Array) -> Array:
    p = np.clip(p, EPSILON, 1 - EPSILON)
    return np.log(p / (1 - p))


def _least(values: dict[str, Array]) -> float:
    """Return the smallest mean contrast of IN against the controls."""
    return float(min((values["IN"] - values[c]).mean() for c in CONTROLS))
