"""Lightness: are equal greys different to a stage as to us, in White's effect and simultaneous contrast?

    effect = physical change of the target that would undo the illusion (``surface.py``), positive where it is ours
    index  = least of: contrast (large, small), White (thick, thin) beyond a blur of the stage's coarseness

The two kinds have opposite local signs: a contrast cell makes simultaneous contrast and the reverse of White's effect,
a blur makes White's effect and the reverse of contrast. So the index takes the least of them. It is ``n/a`` where a
stage's read-out does not know the target on uniform surrounds, or where bars are not wider than two of the stage's
cells. A stage is judged by itself; numbers without a stage are those of the deepest stage that can be judged.

Human strengths: Robinson, Hammon & de Sa 2007 (high certainty; on a scale of their own, so that only ranks are
compared). Ranks alone prove nothing: a difference of Gaussians has our ranks, with White's effect reversed.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.base import Observer, Score, not_available
from evaluation.illusions._drawn import DrawnFromScores
from evaluation.illusions.lightness_stimuli import CONTEXTS, DISPLAYS, any_display, joined, pairs, ramp
from evaluation.illusions.stage_effects import (
    Seen,
    StageEffects,
    deepest,
    in_percent,
    index_title,
    looked_at,
    of_stage,
    plot_stages,
)
from evaluation.illusions.surface import Readout
from evaluation.statistics import spearman

HUMAN = {
    "white_thick": 4.18,
    "white_thin": 4.60,
    "contrast_large": 11.35,
    "contrast_small": 19.78,
    "howe": 0.0,
}
SOURCE = "Robinson, Hammon & de Sa 2007, ranks"
ASSIMILATION = ("white_thick", "white_thin")
CONTRAST = ("contrast_large", "contrast_small")


class Lightness(DrawnFromScores):
    """White's effect, simultaneous contrast and Howe's figure in every stage, in percent of white.

    Args:
        num: Pairs per display.
        training: Targets that a read-out is fitted to, half on uniform surrounds, half on Mondrians.
        seed: Of the stimuli.
    """

    name = "lightness"
    pillar = "illusion"
    headline = "index"
    reference = "White 1979, Perception 8:413; Robinson, Hammon & de Sa 2007, 10.1016/j.visres.2007.02.017"
    on_request = True  # it shows some thousand images

    def __init__(self, *, num: int = 48, training: int = 1200, seed: int = 0) -> None:
        self.num, self.training, self.seed = num, training, seed

    def scores(self, observer: Observer) -> list[Score]:
        """Return per stage the read-out's R², every effect, its excess over the blur, ranks against ours, the index."""
        size = observer.in_shape[1]
        if size < 16:
            return [not_available("index", f"its images of {size} pixels are too small for a display")]
        spots = any_display(size)
        half = self.training // 2
        seeds = [self.seed * 7 + k for k in (101, 102, 103)]
        fitted_to = [ramp(size, half, s, spots, mondrian=m) for s, m in zip(seeds, (False, True), strict=False)]
        shown = {d: partial(pairs, d, size, self.num, self.seed) for d in DISPLAYS}
        readouts, seen = looked_at(
            observer, joined(*fitted_to), ramp(size, half, seeds[2], spots), lambda v: v[:, 0], shown
        )
        if not readouts:
            return [not_available("index", "it has no stages")]
        bars = {d: pairs(d, size, 1).bar for d in DISPLAYS}
        stratum = pairs("howe", size, self.num, self.seed).stratum.numpy()
        scores = [s for stage in readouts for s in judge(stage, readouts[stage], seen[stage], bars, stratum)]
        index = deepest(scores)
        ranks = next((s for s in scores if s.metric == "spearman" and s.stage == index.target), None)
        if ranks is None:
            return [*scores, not_available("network_spearman", index.reason), index]
        return [*scores, replace(ranks, metric="network_spearman", stage="", target=ranks.stage), index]

    def plot(self, path: Path, name: str, scores: list[Score]) -> Path | None:
        """Draw every stage's effects beside the blur's, in the order of human strength, with the human ranks."""
        return plot(path, name, scores)


def judge(stage: str, readout: Readout, seen: Seen, bars: Mapping[str, int], stratum: NDArray[np.int64]) -> list[Score]:
    """Return the scores of one stage.

    Args:
        stage: Its name.
        readout: Its read-out.
        seen: Display → its effect and that of its blur (a dense stage has none).
        bars: Display → width of its bars.
        stratum: Stratum of every pair.
    """
    r2 = Score("readout_r2", readout.r2, stage=stage, target="uniform", reason=readout.reason)
    if readout.reason:
        names = [("effect", d) for d in DISPLAYS] + [("spearman", ""), ("index", "")]
        return [r2, *(not_available(m, readout.reason, stage=stage, target=t) for m, t in names)]
    unfollowed = "its read-out does not follow the target in this display, or no cell lies within it"
    found = of_stage(stage, readout, seen, bars, stratum, assimilating=ASSIMILATION, unfollowed=unfollowed)
    return [r2, *found.scores, _ranks(stage, found), _index(stage, found, seen, stratum)]


def _ranks(stage: str, found: StageEffects) -> Score:
    if found.why:
        return not_available("spearman", next(iter(found.why.values())), stage=stage)
    rho = spearman(list(HUMAN.values()), [found.size[d] for d in HUMAN])
    if not np.isfinite(rho):
        return not_available("spearman", "its effects are all equal", stage=stage)
    return Score("spearman", rho, None, None, stage=stage, n_stimuli=len(HUMAN), reason=SOURCE)


def _index(stage: str, found: StageEffects, seen: Seen, stratum: NDArray[np.int64]) -> Score:
    missing = [found.why[d] for d in (*ASSIMILATION, *CONTRAST) if d in found.why]
    if missing:
        return not_available("index", missing[0], stage=stage)
    parts = {d: found.size[d] for d in CONTRAST}
    for d in ASSIMILATION:
        own, blur = seen[d]
        parts[d] = own.size - (blur.size if blur is not None else 0.0)
    least = min(parts, key=lambda d: parts[d])
    own, blur = seen[least]
    terms = [(own, 1.0)] if least in CONTRAST or blur is None else [(own, 1.0), (blur, -1.0)]
    where: dict[str, Any] = {"stage": stage, "target": least, "n_stimuli": len(stratum)}
    return in_percent("index", parts[least], terms, stratum, **where)


def plot(path: Path, name: str, scores: list[Score]) -> Path | None:
    """Write effects against human strengths, one line per stage; nothing where no stage can be judged."""
    from evaluation.figures import figure

    order = sorted(HUMAN, key=lambda d: HUMAN[d])
    if not any(s.metric == "effect" and s.raw is not None for s in scores):
        return None
    with figure(path, 7.2, 4.2) as axes:
        axes.axhline(0, color="0.6", lw=0.8)
        plot_stages(axes, order, scores, 0.07)
        axes.plot(order.index("howe"), 0, marker="*", ms=15, color="k", ls="", label="human zero (Howe)", zorder=5)
        axes.set_xticks(range(len(order)), [f"{d}\nhuman rank {i + 1}: {HUMAN[d]:g}" for i, d in enumerate(order)])
        axes.tick_params(axis="x", labelsize=7)
        axes.set(
            ylabel="effect in % of white\n(change that undoes it)", title=f"Lightness: {name}{index_title(scores)}"
        )
        axes.set_xlabel(f"{SOURCE}; high certainty", fontsize=7)
        axes.legend(frameon=False, fontsize=7, ncol=2)
    return path


def sheet(size: int = 64) -> tuple[Tensor, list[str], list[str]]:
    """Return both contexts and the target's mask (columns), of strong and of weak ones, of every display (rows)."""
    rows = []
    for display in DISPLAYS:
        two = pairs(display, size, len(CONTEXTS), seed=4)
        each = [(two.first[i], two.second[i], two.mask[i][None].float()) for i in range(len(CONTEXTS))]
        rows.append(torch.stack([image for images in each for image in images]))
    labels = ["seen lighter", "seen darker", "target"]
    return torch.stack(rows), list(DISPLAYS), labels * len(CONTEXTS)
