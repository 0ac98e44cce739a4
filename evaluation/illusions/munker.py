"""Munker: one church behind yellow or blue stripes. Does a stage see its colour drawn towards the stripes, as we do?

    effect = physical change of the church's yellow–blue that would undo the illusion (``surface.py``), > 0 as we see it
    index  = least, over the stripes that the stage resolves, of the effect beyond that of a blur as coarse as the stage

Blur alone makes Munker's illusion, so that a stage is judged only where stripes are wider than two of its cells, and by
what it exceeds the blur. The number without a stage is that of the deepest stage that can be judged.

We see it more strongly behind thinner stripes (Anstis; White's effect likewise: Robinson, Hammon & de Sa 2007), a sign
and no number: ``thin_minus_thick``. It is what blur predicts too.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.base import Observer, Score, not_available
from evaluation.illusions._drawn import DrawnFromScores
from evaluation.illusions.lightness_stimuli import joined, ramp
from evaluation.illusions.munker_stimuli import (
    DISPLAYS,
    STRIPES,
    TARGETS,
    any_church,
    lab,
    pairs,
    stripe_width,
    yellow_blue,
)
from evaluation.illusions.stage_effects import PERCENT, Seen, deepest, index_title, looked_at, of_stage, plot_stages
from evaluation.illusions.surface import Readout

THICK, THIN = DISPLAYS


class Munker(DrawnFromScores):
    """The church of one colour in every stage, in percent of the range from blue to yellow, and in b*.

    Args:
        num: Pairs per width of stripes.
        training: Targets that a read-out is fitted to, half on uniform surrounds, half on Mondrians.
        seed: Of the stimuli.
    """

    name = "munker"
    pillar = "illusion"
    headline = "index"
    reference = "Anstis (stronger at high spatial frequency); White 1979, Perception 8:413"
    on_request = True  # it shows some thousand images

    def __init__(self, *, num: int = 48, training: int = 1200, seed: int = 0) -> None:
        self.num, self.training, self.seed = num, training, seed

    def scores(self, observer: Observer) -> list[Score]:
        """Return per stage the read-out's R², the effects, their excess over the blur, and the index."""
        channels, size = observer.in_shape[:2]
        if channels != 3:
            return [not_available("index", "it sees no colour")]
        if size < 16:
            return [not_available("index", f"its images of {size} pixels are too small for a church behind stripes")]
        spots = any_church(size)
        half = self.training // 2
        a, b, c = (self.seed * 7 + k for k in (201, 202, 203))
        fitted_to = joined(
            ramp(size, half, a, spots, channels=3), ramp(size, half, b, spots, channels=3, mondrian=True)
        )
        shown = {d: partial(pairs, d, size, self.num, self.seed) for d in DISPLAYS}
        readouts, seen = looked_at(observer, fitted_to, ramp(size, half, c, spots, channels=3), yellow_blue, shown)
        if not readouts:
            return [not_available("index", "it has no stages")]
        bars = {d: stripe_width(d, size) for d in DISPLAYS}
        stratum = pairs(THICK, size, self.num, self.seed).stratum.numpy()
        scores = [s for stage in readouts for s in judge(stage, readouts[stage], seen[stage], bars, stratum)]
        return [*scores, deepest(scores)]

    def plot(self, path: Path, name: str, scores: list[Score]) -> Path | None:
        """Draw the effect of every stage behind thick and thin stripes beside the blur's, with the human sign."""
        return plot(path, name, scores)


def judge(stage: str, readout: Readout, seen: Seen, bars: Mapping[str, int], stratum: NDArray[np.int64]) -> list[Score]:
    """Return the scores of one stage.

    Args:
        stage: Its name.
        readout: Its read-out.
        seen: Display → its effect and that of its blur (a dense stage has none).
        bars: Display → width of its stripes.
        stratum: Stratum of every pair.
    """
    scores = [Score("readout_r2", readout.r2, stage=stage, target="uniform", reason=readout.reason)]
    if readout.reason:
        return [*scores, *(not_available(m, readout.reason, stage=stage) for m in ("effect", "index"))]
    found = of_stage(
        stage, readout, seen, bars, stratum,
        assimilating=tuple(DISPLAYS),
        more=lambda e: [("effect_b_star", b_star(e))],
        unfollowed="its read-out does not follow the church's colour, or no cell lies within it",
    )  # fmt: skip
    scores += found.scores
    if len(found.size) == len(DISPLAYS):
        difference = PERCENT * (found.size[THIN] - found.size[THICK])
        scores.append(Score("thin_minus_thick", difference, None, None, stage=stage, reason="human sign: + (Anstis)"))
    if not found.excess:
        return [*scores, not_available("index", list(found.why.values())[-1], stage=stage)]
    return [*scores, replace(min(found.excess.values(), key=lambda s: s.raw or 0.0), metric="index")]


def b_star(effect: float) -> float:
    """Return an effect in b*, averaged over the church's colours; the change is taken half on either side of each."""
    half = float(np.clip(effect / 2, -0.2, 0.2))  # the colours stay within the gamut
    steps = [lab(c, half)[2] - lab(c, -half)[2] for c in TARGETS.values()]
    return float(np.mean(steps)) * (effect / 2 / half if half else 1.0)


def plot(path: Path, name: str, scores: list[Score]) -> Path | None:
    """Write the effects of every stage; nothing where none can be judged."""
    from evaluation.figures import figure

    if not any(s.metric == "effect" and s.raw is not None for s in scores):
        return None
    with figure(path, 6.4, 4.2) as axes:
        axes.axhline(0, color="0.6", lw=0.8)
        order = [THICK, THIN]
        plot_stages(axes, order, scores, 0.05)
        axes.annotate(
            "human sign:\nup, and more\nfor thin stripes", (0.5, 0.97), xycoords="axes fraction", va="top", ha="center",
            fontsize=8, color="0.35",
        )  # fmt: skip
        axes.set_xticks(range(2), order)
        axes.set_xlim(-0.4, 1.4)
        axes.set(
            ylabel="effect in % of blue to yellow\n(change that undoes it)",
            title=f"Munker: {name}{index_title(scores)}",
        )
        axes.set_xlabel("sign after Anstis (from the abstract); Robinson, Hammon & de Sa 2007 for White", fontsize=7)
        axes.legend(frameon=False, fontsize=7, ncol=2, loc="best")
    return path


def sheet(size: int = 64) -> tuple[Tensor, list[str], list[str]]:
    """Return both pictures of a pair and where the colour is read, for strong and for weak stripes (columns)."""
    rows, labels, num = [], [], len(TARGETS)
    for display in DISPLAYS:
        two = pairs(display, size, num * len(STRIPES), seed=3)
        for i, colour in enumerate(TARGETS):
            each = [(two.first[k], two.second[k], two.mask[k].float().expand(3, -1, -1))
                    for k in range(i, num * len(STRIPES), num)]  # fmt: skip
            rows.append(torch.stack([image for images in each for image in images]))
            labels.append(f"{display}, {colour}")
    return torch.stack(rows), labels, ["yellow in front", "blue in front", "read here"] * len(STRIPES)
