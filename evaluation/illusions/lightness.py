"""Lightness: are equal greys different to a stage as to us, in White's effect and simultaneous contrast?

    effect = physical change of the target that would undo the illusion (``surface.py``), positive where it is ours
    index  = least of: contrast (large, small), White (thick, thin) beyond a blur of the stage's coarseness

The two kinds have opposite local signs: a contrast cell makes simultaneous contrast and the reverse of White's effect,
a blur makes White's effect and the reverse of contrast. So the index takes the least of them. It is ``n/a`` where a
stage's read-out does not know the target on uniform surrounds, or where bars are not wider than two of the stage's
cells. A stage is judged by itself; the number without a stage is that of the deepest stage that can be judged.

Human strengths: Robinson, Hammon & de Sa 2007 (high certainty; on a scale of their own, so that only ranks are
compared). Ranks alone prove nothing: a difference of Gaussians has our ranks, with White's effect reversed.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.base import Benchmark, Observer, Score, not_available
from evaluation.illusions.lightness_stimuli import DISPLAYS, GRATINGS, any_display, joined, pairs, ramp
from evaluation.illusions.surface import NULL, Effect, Readout, effects, fit, unresolved
from evaluation.statistics import Array, spearman, stratified_bootstrap

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
STEP = 0.05  # luminance by which targets are changed for the slope
PERCENT = 100.0


class Lightness(Benchmark):
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
        self._seen: tuple[Observer, list[Score]] | None = None

    def measure(self, observer: Observer) -> list[Score]:
        """Return per stage the read-out's R², every effect, its excess over the blur, ranks against ours, the index."""
        size = observer.in_shape[1]
        if size < 16:
            return [not_available("index", f"its images of {size} pixels are too small for a display")]
        spots = any_display(size)
        half = self.training // 2
        seeds = [self.seed * 7 + k for k in (101, 102, 103)]
        fitted_to = [ramp(size, half, s, spots, mondrian=m) for s, m in zip(seeds, (False, True), strict=False)]
        readouts = fit(observer, joined(*fitted_to), ramp(size, half, seeds[2], spots), lambda v: v[:, 0])
        stages = [n for n in readouts if not n.startswith(NULL)]
        if not stages:
            return [not_available("index", "it has no stages")]
        seen = {}
        for display in DISPLAYS:
            seen[display] = effects(observer, readouts, partial(pairs, display, size, self.num, self.seed), STEP)
        bars = {d: pairs(d, size, 1).bar for d in DISPLAYS}
        stratum = pairs("howe", size, self.num, self.seed).stratum.numpy()
        scores: list[Score] = []
        for stage in stages:
            here = {d: (seen[d][stage], seen[d].get(NULL + stage)) for d in DISPLAYS}
            scores += judge(stage, readouts[stage], here, bars, stratum)
        scores.append(deepest(scores))
        self._seen = observer, scores
        return scores

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Draw every stage's effects beside the blur's, in the order of human strength, with the human ranks."""
        paths = []
        for name, observer in observers.items():
            known = self._seen is not None and self._seen[0] is observer
            scores = self._seen[1] if known and self._seen else self.measure(observer)
            if path := plot(folder / "lightness.png", name, scores):
                paths.append(path)
        return paths


def judge(
    stage: str,
    readout: Readout,
    seen: Mapping[str, tuple[Effect, Effect | None]],
    bars: Mapping[str, int],
    stratum: NDArray[np.int64],
) -> list[Score]:
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
    scores, size, why = [r2], {}, {}
    for display, (own, blur) in seen.items():
        where: dict[str, Any] = {"stage": stage, "target": display}
        if own.seen.mean() < 0.5 or not own.slope[own.seen].mean() > 0:
            why[display] = "its read-out does not follow the target in this display, or no cell lies within it"
            scores.append(not_available("effect", why[display], **where))
            continue
        size[display] = own.size
        low, high = interval([(own, 1.0)], stratum)
        num = int(own.seen.sum())
        scores.append(
            Score(
                "effect", PERCENT * own.size, None, None, ci_low=PERCENT * low, ci_high=PERCENT * high, n_stimuli=num,
                **where,
            )
        )  # fmt: skip
        if display not in GRATINGS:
            continue
        if blur is not None and blur.seen.any():
            scores.append(Score("effect_of_blur", PERCENT * blur.size, None, None, n_stimuli=num, **where))
        coarse = unresolved(bars[display], readout.stride)
        if coarse or blur is None:
            why[display] = coarse
            if display in ASSIMILATION:
                scores.append(not_available("excess", coarse, **where))
            continue
        if display not in ASSIMILATION:
            continue
        low, high = interval([(own, 1.0), (blur, -1.0)], stratum)
        size[display + " excess"] = own.size - blur.size
        scores.append(
            Score(
                "excess", PERCENT * (own.size - blur.size), None, None, ci_low=PERCENT * low, ci_high=PERCENT * high,
                n_stimuli=num, **where,
            )
        )  # fmt: skip
    return [*scores, _ranks(stage, size, why), _index(stage, size, why, seen, stratum)]


def _ranks(stage: str, size: Mapping[str, float], why: Mapping[str, str]) -> Score:
    if why:
        return not_available("spearman", next(iter(why.values())), stage=stage)
    rho = spearman(list(HUMAN.values()), [size[d] for d in HUMAN])
    if not np.isfinite(rho):
        return not_available("spearman", "its effects are all equal", stage=stage)
    return Score("spearman", rho, None, None, stage=stage, n_stimuli=len(HUMAN), reason=SOURCE)


def _index(
    stage: str,
    size: Mapping[str, float],
    why: Mapping[str, str],
    seen: Mapping[str, tuple[Effect, Effect | None]],
    stratum: NDArray[np.int64],
) -> Score:
    missing = [why[d] for d in (*ASSIMILATION, *CONTRAST) if d in why]
    if missing:
        return not_available("index", missing[0], stage=stage)
    parts = {d: size[d] for d in CONTRAST} | {d: size[d + " excess"] for d in ASSIMILATION}
    least = min(parts, key=lambda d: parts[d])
    own, blur = seen[least]
    terms = [(own, 1.0)] if least in CONTRAST or blur is None else [(own, 1.0), (blur, -1.0)]
    low, high = interval(terms, stratum)
    return Score(
        "index", PERCENT * parts[least], None, None, stage=stage, target=least, ci_low=PERCENT * low,
        ci_high=PERCENT * high, n_stimuli=len(stratum),
    )  # fmt: skip


def interval(terms: list[tuple[Effect, float]], stratum: NDArray[np.int64]) -> tuple[float, float]:
    """Return the bootstrap 95 % interval, over pairs, of a weighted sum of effects."""
    good = np.all([e.seen for e, _ in terms], axis=0)
    columns = np.stack([c[good] for e, _ in terms for c in (e.difference, e.slope)], 1)
    weights = [w for _, w in terms]

    def total(means: Array) -> Array:
        parts = [w * means[:, 2 * k] / means[:, 2 * k + 1] for k, w in enumerate(weights)]
        return np.asarray(np.sum(parts, axis=0))

    return stratified_bootstrap(total, columns, stratum[good])


def deepest(scores: list[Score]) -> Score:
    """Return the index of the deepest stage that can be judged, as that of the network."""
    judged = [s for s in scores if s.metric == "index" and s.raw is not None]
    if not judged:
        reasons = {s.stage: s.reason for s in scores if s.metric == "index"}
        return not_available("index", "; ".join(f"{k}: {v}" for k, v in reasons.items()))
    last = judged[-1]
    return Score(
        "index", last.raw, None, None, target=last.stage, ci_low=last.ci_low, ci_high=last.ci_high,
        n_stimuli=last.n_stimuli,
    )  # fmt: skip


def plot_stages(
    axes: Any,
    order: list[str],
    found: Mapping[tuple[str, str], Score],
    blur: Mapping[tuple[str, str], float | None],
    offset: float,
) -> None:
    """Draw the effect of every stage with its interval, and that of its blur.

    Args:
        axes: Of matplotlib.
        order: Displays from left to right.
        found: Stage and display → effect.
        blur: Stage and display → effect of the blur.
        offset: Between stages, so that intervals do not lie over each other.
    """
    stages = list(dict.fromkeys(stage for stage, _ in found))
    for k, stage in enumerate(stages):
        shown = [(i, found[stage, d]) for i, d in enumerate(order) if (stage, d) in found]
        x = np.array([i for i, _ in shown]) + offset * (k - (len(stages) - 1) / 2)
        y = np.array([s.raw for _, s in shown], dtype=float)
        bars = [[max(0.0, v - (s.ci_low or v)) for v, (_, s) in zip(y, shown, strict=True)],
                [max(0.0, (s.ci_high or v) - v) for v, (_, s) in zip(y, shown, strict=True)]]  # fmt: skip
        (line,) = axes.plot(x, y, marker="o", ms=5, lw=1.2, label=stage)
        axes.errorbar(x, y, bars, fmt="none", ecolor=line.get_color(), lw=0.9)
        nulls = [(i, blur[stage, d]) for i, d in enumerate(order) if (stage, d) in blur]
        axes.plot(
            [i for i, _ in nulls], [v for _, v in nulls], ls="", marker="x", ms=7, color=line.get_color(),
            label=f"{stage}: blur alone",
        )  # fmt: skip


def plot(path: Path, name: str, scores: list[Score]) -> Path | None:
    """Write effects against human strengths, one line per stage; nothing where no stage can be judged."""
    from evaluation.figures import figure

    order = sorted(HUMAN, key=lambda d: HUMAN[d])
    found = {(s.stage, s.target): s for s in scores if s.metric == "effect" and s.raw is not None}
    blur = {(s.stage, s.target): s.raw for s in scores if s.metric == "effect_of_blur"}
    if not found:
        return None
    with figure(path, 7.2, 4.2) as axes:
        axes.axhline(0, color="0.6", lw=0.8)
        plot_stages(axes, order, found, blur, 0.07)
        axes.plot(order.index("howe"), 0, marker="*", ms=15, color="k", ls="", label="human zero (Howe)", zorder=5)
        axes.set_xticks(range(len(order)), [f"{d}\nhuman rank {i + 1}: {HUMAN[d]:g}" for i, d in enumerate(order)])
        axes.tick_params(axis="x", labelsize=7)
        axes.set(ylabel="effect in % of white\n(change that undoes it)", title=f"Lightness: {name}")
        axes.set_xlabel(f"{SOURCE}; high certainty", fontsize=7)
        axes.legend(frameon=False, fontsize=7, ncol=2)
    return path


def sheet(size: int = 64) -> tuple[Tensor, list[str], list[str]]:
    """Return both contexts and the target's mask (columns) of every display (rows), with labels."""
    rows = []
    for display in DISPLAYS:
        two = pairs(display, size, 1, seed=4)
        rows.append(torch.stack([two.first[0], two.second[0], two.mask.float()]))
    return torch.stack(rows), list(DISPLAYS), ["seen lighter", "seen darker", "target"]
