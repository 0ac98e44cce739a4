"""Effects of displays in one stage as scores: their size, that of a blur as coarse, and what they exceed it by.

Shared by ``lightness`` and ``munker``; effects are those of ``surface.py``, in percent of the target's range.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.base import Observer, Score, not_available
from evaluation.illusions.gates import stage_reasons
from evaluation.illusions.lightness_stimuli import Pairs, Ramp
from evaluation.illusions.surface import FEWEST, NULL, Effect, Readout, effects, fit, unresolved
from evaluation.statistics import Array, stratified_bootstrap

PERCENT = 100.0
STEP = 0.05  # physical change of targets for the slope
Seen = Mapping[
    str, tuple[Effect, Effect | None]
]  # display → the stage's effect and its blur's (a dense stage has none)


@dataclass
class StageEffects:
    """What one stage shows in every display.

    Attributes:
        scores: Of all displays, in their order.
        size: Display → effect, in units of the target's value.
        excess: Display → score of what the effect exceeds its blur by.
        why: Display → why its effect, or its excess, cannot be judged.
    """

    scores: list[Score] = field(default_factory=list)
    size: dict[str, float] = field(default_factory=dict)
    excess: dict[str, Score] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)


def looked_at(
    observer: Observer,
    fitted_to: Ramp,
    tested_on: Ramp,
    value: Callable[[Any], Any],
    displays: Mapping[str, Callable[[float], Pairs]],
) -> tuple[dict[str, Readout], dict[str, Seen]]:
    """Return every stage's read-out, and stage → display → its effect and that of its blur.

    Args:
        observer: Who looks.
        fitted_to: Targets that read-outs are fitted to.
        tested_on: Targets on uniform surrounds, for R².
        value: From a target's channels ``(B, C)`` to what is read out, ``(B,)``.
        displays: Display → from a physical change of the target to its pairs.
    """
    readouts = fit(observer, fitted_to, tested_on, value)
    seen = {d: effects(observer, readouts, pairs, STEP) for d, pairs in displays.items()}
    stages = [n for n in readouts if not n.startswith(NULL)]
    return {s: readouts[s] for s in stages}, {
        s: {d: (found[s], found.get(NULL + s)) for d, found in seen.items()} for s in stages
    }


def of_stage(
    stage: str,
    readout: Readout,
    seen: Seen,
    bars: Mapping[str, int],
    stratum: NDArray[np.int64],
    *,
    assimilating: Collection[str],
    unfollowed: str,
    more: Callable[[float], list[tuple[str, float]]] = lambda effect: [],
) -> StageEffects:
    """Return effects, those of the blur, and their differences, of one stage.

    Args:
        stage: Its name.
        readout: Its read-out.
        seen: Display → its effect and that of its blur.
        bars: Display → width of its bars; 0 where it has none.
        stratum: Stratum of every pair.
        assimilating: Displays whose effect counts by what it exceeds the blur's.
        unfollowed: Why a display cannot be judged whose target the read-out does not follow.
        more: From an effect to further numbers of it, with their names.
    """
    found = StageEffects()
    for display, (own, blur) in seen.items():
        where: dict[str, Any] = {"stage": stage, "target": display}
        if own.seen.mean() < FEWEST or not own.slope[own.seen].mean() > 0:
            found.why[display] = unfollowed
            found.scores.append(not_available("effect", unfollowed, **where))
            continue
        found.size[display] = own.size
        where["n_stimuli"] = int(own.seen.sum())
        found.scores.append(in_percent("effect", own.size, [(own, 1.0)], stratum, **where))
        found.scores += [Score(name, number, None, None, **where) for name, number in more(own.size)]
        if not bars[display]:
            continue
        if blur is not None and blur.seen.any():
            found.scores.append(Score("effect_of_blur", PERCENT * blur.size, None, None, **where))
        coarse = unresolved(bars[display], readout.stride)
        if coarse or blur is None:
            found.why[display] = coarse
            if display in assimilating:
                found.scores.append(not_available("excess", coarse, stage=stage, target=display))
        elif display in assimilating:
            terms = [(own, 1.0), (blur, -1.0)]
            found.excess[display] = in_percent("excess", own.size - blur.size, terms, stratum, **where)
            found.scores.append(found.excess[display])
    return found


def in_percent(
    metric: str, size: float, terms: list[tuple[Effect, float]], stratum: NDArray[np.int64], **where: Any
) -> Score:
    """Return the score, in percent, of a weighted sum of effects with its interval over pairs."""
    low, high = interval(terms, stratum)
    return Score(metric, PERCENT * size, None, None, ci_low=PERCENT * low, ci_high=PERCENT * high, **where)


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
    """Return the index of the deepest stage that can be judged, as that of the network; its target is the stage."""
    own = [s for s in scores if s.metric == "index"]
    judged = [s for s in own if s.raw is not None]
    if not judged:
        return not_available("index", stage_reasons(own))
    return replace(judged[-1], stage="", target=judged[-1].stage)


def index_title(scores: list[Score]) -> str:
    """Return the network's index as the end of a title, with the stage that it is of."""
    index = next(s for s in scores if s.metric == "index" and not s.stage)
    return ", index n/a" if index.raw is None else f", index {index.raw:+.1f} % ({index.target})"


def plot_stages(axes: Any, order: list[str], scores: list[Score], offset: float) -> None:
    """Draw the effect of every stage with its interval, and that of its blur.

    Args:
        axes: Of matplotlib.
        order: Displays from left to right.
        scores: Of all stages.
        offset: Between stages, so that intervals do not lie over each other.
    """
    found = {(s.stage, s.target): s for s in scores if s.metric == "effect" and s.raw is not None}
    blur = {(s.stage, s.target): s.raw for s in scores if s.metric == "effect_of_blur"}
    stages = list(dict.fromkeys(stage for stage, _ in found))
    for k, stage in enumerate(stages):
        shown = [(i, found[stage, d]) for i, d in enumerate(order) if (stage, d) in found]
        x = np.array([i for i, _ in shown]) + offset * (k - (len(stages) - 1) / 2)
        y = np.array([s.raw for _, s in shown], dtype=float)
        ends = np.array([[s.ci_low, s.ci_high] for _, s in shown], dtype=float).T
        bars = np.maximum(0.0, [y - ends[0], ends[1] - y])
        (line,) = axes.plot(x, y, marker="o", ms=5, lw=1.2, label=stage)
        axes.errorbar(x, y, bars, fmt="none", ecolor=line.get_color(), lw=0.9)
        nulls = [(i, blur[stage, d]) for i, d in enumerate(order) if (stage, d) in blur]
        axes.plot(
            [i for i, _ in nulls], [v for _, v in nulls], ls="", marker="x", ms=7, color=line.get_color(),
            label=f"{stage}: blur alone",
        )  # fmt: skip
