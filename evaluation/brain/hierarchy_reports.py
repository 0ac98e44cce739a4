"""From matrices to hierarchy scores: over regions, over time, with intervals and permutation nulls."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.base import Score, not_available
from evaluation.brain import hierarchy
from evaluation.brain.data import BrainData
from evaluation.brain.inference import Alignment, draws, half_width
from evaluation.brain.models import Rows
from evaluation.brain.rdm import Array, Method, compare
from evaluation.brain.reports import families, number

LATENCY_RESAMPLES = 200
NO_EFFECT = "no effect above 0 after the stimulus is shown"
FEWEST_DEFINED = 20  # resamples in which a score must be defined for an interval


def space(rows: Rows, found: Alignment, data: BrainData) -> list[Score]:
    """Return the hierarchy scores over ROIs of every family; slopes where there are two ROIs."""
    card = data.card
    columns = [found.targets.index(r) for r in card.rois if r in found.targets]
    fewest = min((found.subjects[r] for r in card.rois if r in found.targets), default=0)
    scores = _too_few(rows, "slope" if len(columns) == 2 else "spatial")
    for family in families(rows):
        where = rows.where(family)
        s = found.score[np.ix_(where, columns)]
        kept = found.resampled[:, :, where][..., columns]
        if len(columns) == 2:
            scores += _slope(family, found, where, columns, card.rois, len(data))
        ranks = [float(k) for k in range(len(columns))]
        positions = {"spatial": (ranks, False), "spatial_soft": (ranks, True)}
        if card.distances:
            positions["spatial_distance"] = (list(card.distances), False)
        for name, (position, soft) in positions.items():
            metric = f"{family}_{name}"
            if len(columns) < hierarchy.FEWEST:
                if name == "spatial":
                    why = f"{len(columns)} ROIs in a hierarchy: a correlation needs 3; see {family}_slope"
                    scores.append(not_available(metric, why))
                continue
            result = hierarchy.with_null(functools.partial(hierarchy.spatial, position=position, soft=soft), s)
            again = hierarchy.spatial(kept, position, soft=soft)
            interval = around(result.value, again, fewest, len(data))
            scores += with_p(metric, result, interval, len(data), "all ROIs are best matched by one stage")
    return scores


def with_p(
    metric: str, result: hierarchy.Hierarchical, interval: tuple[float, float, str] | None, num: int, why: str
) -> list[Score]:
    """Return a hierarchy score and its p, or why it is not defined.

    Args:
        metric: Its name.
        result: Its value and null.
        interval: Low and high end, nan where there is none, and what is to be said about it.
        num: Images.
        why: Why it would not be defined.
    """
    if not math.isfinite(result.value):
        return [not_available(metric, why)]
    low, high, said = interval or (math.nan, math.nan, "")
    return [
        Score(
            metric, result.value, ci_low=number(low), ci_high=number(high), n_stimuli=num, ceiling_low=-1.0,
            ceiling_high=1.0, reason=said,
        ),
        Score(f"{metric}_p", result.p_value, higher_is_better=None, n_stimuli=num),
    ]  # fmt: skip


def around(value: float, again: Array, subjects: int, num: int) -> tuple[float, float, str]:
    """Return the 95 % interval of a correlation over subjects and images, and in how many resamples it is undefined.

    Not the quantiles of the resamples of both, which count the noise of each pair of images twice.

    Args:
        value: The score.
        again: The score under resampling of both, of subjects, and of images, ``(3, B)``; nan where undefined.
        subjects: S.
        num: N.
    """
    defined = np.asarray(np.isfinite(again).all(0))
    half = half_width(again[:, defined], subjects, num).item() if defined.sum() > FEWEST_DEFINED else math.nan
    low, high = np.clip([value - half, value + half], -1.0, 1.0).tolist()
    return low, high, _undefined(defined)


def _undefined(defined: NDArray[np.bool_]) -> str:
    share = 1 - defined.mean() if len(defined) else 0.0
    return f"undefined in {100 * share:.0f} % of the resamples" if share > 0 else ""


def _slope(
    family: str, found: Alignment, where: list[int], columns: list[int], rois: Sequence[str], num: int
) -> list[Score]:
    """Return the slope over stages of the higher minus the lower ROI, with the dual bootstrap's interval."""
    bounds = [found.ceilings[r] for r in rois]
    if any(b is None for b in bounds) or len(where) < hierarchy.FEWEST:
        return [not_available(f"{family}_slope", "needs three stages, and several subjects per ROI for ceilings")]
    ceilings = [b[1] for b in bounds if b]
    again = hierarchy.slopes(found.resampled[:, :, where][..., columns], ceilings)
    half = float(half_width(again[..., None], min(found.subjects[r] for r in rois), num)[0])
    null = hierarchy.with_null(lambda v: hierarchy.slopes(v, ceilings), found.score[np.ix_(where, columns)])
    value = null.value
    ends = (value - half, value + half) if math.isfinite(half) else (None, None)
    target = f"{rois[1]}-{rois[0]}"
    return [
        Score(f"{family}_slope", value, ci_low=ends[0], ci_high=ends[1], target=target, n_stimuli=num),
        Score(f"{family}_slope_p", null.p_value, higher_is_better=None, target=target, n_stimuli=num),
    ]


def time(rows: Rows, data: BrainData, method: Method) -> list[Score]:
    """Return latencies of every stage and the temporal scores, for activations and signals."""
    if data.movie is None or data.times is None:
        return []
    scores = _too_few(rows, "temporal")
    peaks: dict[str, dict[str, float]] = {}
    said = "" if len(data.movie) >= hierarchy.FEWEST_SUBJECTS else f"untested: {len(data.movie)} subjects"
    for family, curves in stage_time(rows, data, families(rows), method).items():
        stages = list(curves)
        stack = np.stack(list(curves.values()))
        peak = np.array([hierarchy.peak_of_effect(c, data.times) for c in stack])
        onset = np.array([hierarchy.onset_latency(c, data.times) for c in stack])
        again = np.where(np.isfinite(peak), _peaks_again(stack, data.times), np.nan)
        peaks[family] = dict(zip(stages, peak.tolist(), strict=True))
        for i, stage in enumerate(stages):
            where: dict[str, Any] = {"stage": stage, "n_stimuli": len(data), "higher_is_better": None}
            if math.isfinite(peak[i]):
                low, high = np.quantile(again[:, i], (0.025, 0.975)) if len(again) else (math.nan, math.nan)
                where |= {"ci_low": number(low), "ci_high": number(high)}
                scores.append(Score(f"{family}_peak_ms", float(peak[i]), reason=said, **where))
            else:
                scores.append(not_available(f"{family}_peak_ms", NO_EFFECT, stage=stage, n_stimuli=len(data)))
            if math.isfinite(onset[i]):
                start = float(onset[i])
                scores.append(
                    Score(f"{family}_onset_ms", start, higher_is_better=None, stage=stage, n_stimuli=len(data))
                )
            scores.append(Score(f"{family}_peak", float(stack[i].mean(0).max()), stage=stage, n_stimuli=len(data)))
        why = f"{int(np.isfinite(peak).sum())} stages with an effect, or all with the same latency"
        for name, latency in (("temporal", peak), ("temporal_onset", onset)):
            result = hierarchy.with_null(hierarchy.latency_score, latency)
            boot = _over_subjects(hierarchy.latency_score(again)) if name == "temporal" else None
            scores += with_p(f"{family}_{name}", result, boot, len(data), why)
    for family in peaks:
        if family.startswith("signal") and "activation" in peaks:
            scores.append(after_activation(family, peaks[family], peaks["activation"], len(data)))
    return scores


def after_activation(family: str, signal: Mapping[str, float], activation: Mapping[str, float], num: int) -> Score:
    """Return how much later than their stage's activation signals peak, over the stages where both have a peak."""
    late = [v - activation[s] for s, v in signal.items() if math.isfinite(v - activation.get(s, math.nan))]
    metric = f"{family}_after_activation_ms"
    if not late:
        return not_available(metric, "no stage at which both have an effect", n_stimuli=num)
    return Score(metric, float(np.mean(late)), higher_is_better=None, n_stimuli=num)


def _too_few(rows: Rows, name: str) -> list[Score]:
    """Return that families have no such score of which fewer than two stages can be compared."""
    enough = families(rows)
    return [
        not_available(f"{f}_{name}", f"{len(rows.of(f))} of its stages can be compared")
        for f in rows.families
        if f not in enough
    ]


def _over_subjects(again: Array) -> tuple[float, float, str]:
    """Return the 95 % interval of a score ``(B,)`` under resampling of subjects alone."""
    defined = np.isfinite(again)
    if defined.sum() <= FEWEST_DEFINED:
        return math.nan, math.nan, _undefined(defined)
    low, high = np.quantile(again[defined], (0.025, 0.975)).tolist()
    return low, high, _undefined(defined)


def stage_time(rows: Rows, data: BrainData, wanted: Sequence[str], method: Method) -> dict[str, dict[str, Array]]:
    """Return the similarity of every stage with every subject's RDM at every time, ``{family: {stage: (S, T)}}``."""
    assert data.movie is not None
    if not wanted:
        return {}
    num, many, _ = data.movie.shape
    names = [f"{f}/{s}" for f in wanted for s in rows.of(f)]
    similar = compare(np.stack([rows.rdms[n] for n in names]), data.movie.reshape(num * many, -1), method)
    by_name = dict(zip(names, similar.reshape(len(names), num, many), strict=True))
    return {f: {s: by_name[f"{f}/{s}"] for s in rows.of(f)} for f in wanted}


def _peaks_again(stack: Array, times: Array) -> Array:
    """Return peak latencies under resampling of subjects, ``(B, L)``; none for one subject."""
    num = stack.shape[1]
    if num < 2:
        return np.empty((0, len(stack)))
    counts = draws(num, LATENCY_RESAMPLES, np.random.default_rng(0)) / num
    curves = np.einsum("bs,lst->blt", counts, stack)
    return np.array([[hierarchy.peak_latency(c, times) for c in b] for b in curves])
