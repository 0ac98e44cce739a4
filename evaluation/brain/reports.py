"""From matrices to score records, part by part."""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.base import Observer, Score, TrainedObserver, not_available
from evaluation.brain import encoding as enc
from evaluation.brain import hierarchy
from evaluation.brain.data import BrainData
from evaluation.brain.features import (
    Spec,
    activations_of,
    at_resolution,
    patterns,
    reducer_for,
    signals_of,
    stage_rdms,
)  # fmt: skip
from evaluation.brain.inference import Alignment, align, draws, half_width
from evaluation.brain.losses import probe
from evaluation.brain.models import Rows, useless
from evaluation.brain.rdm import Array, Method, compare, square

LATENCY_RESAMPLES = 200


def matrix(rows: Rows, found: Alignment, num: int) -> list[Score]:
    """Return every row × target with ceilings and intervals, and the raw ones against the mean RDM."""
    scores = []
    for i, entry in enumerate(rows.entries):
        partial = bool(entry.row.given)
        for t, target in enumerate(found.targets):
            ceiling = found.ceilings[target] if not partial else None
            where: dict[str, Any] = {"stage": entry.stage, "target": target, "n_stimuli": num}
            scores.append(
                Score(
                    entry.metric, _number(found.score[i, t]), ci_low=_number(found.low[i, t]),
                    ci_high=_number(found.high[i, t]), ceiling_low=ceiling[0] if ceiling else None,
                    ceiling_high=ceiling[1] if ceiling else None, **where,
                )
                if math.isfinite(found.score[i, t])
                else not_available(entry.metric, "nothing is left of it", **where)
            )  # fmt: skip
            if not partial and found.subjects[target] > 1 and math.isfinite(found.of_mean[i, t]):
                scores.append(Score(f"{entry.metric}_of_mean", float(found.of_mean[i, t]), **where))
    return scores


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def families(rows: Rows) -> list[str]:
    """Return the families with at least two stages, the trained network's before the untrained one's."""
    return [f for f in rows.families if len(rows.of(f)) > 1]


def best(rows: Rows, targets: Mapping[str, Array], method: Method, num: int) -> list[Score]:
    """Return per family and target the score at the stage that other images chose, raw and held against others."""
    scores = []
    for family in rows.families:
        stages = list(rows.of(family))
        if len(stages) < 2:
            why = f"{len(stages)} of its stages can be compared: there is none to choose"
            scores += [not_available(f"{family}_best", why, target=t, n_stimuli=num) for t in targets]
            continue
        place = {(e.metric, e.stage): i for i, e in enumerate(rows.entries)}
        kinds = list(dict.fromkeys(m for m, _ in place if m == family or m.startswith(f"{family}_given")))
        there = np.array([[(k, s) in place for s in stages] for k in kinds])
        picked = [rows.entries[place[k, s]] for k in kinds for s in stages if (k, s) in place]
        needed = list(dict.fromkeys(n for e in picked for n in (e.row.model, *e.row.given)))

        def of(
            index: NDArray[np.int64],
            needed: Sequence[str] = needed,
            picked: Sequence[Any] = picked,
            there: NDArray[np.bool_] = there,
        ) -> Array:
            i, j = np.triu_indices(len(index), 1)
            models = {n: square(rows.rdms[n])[index[i], index[j]] for n in needed}
            data = {t: square(v)[:, index[i], index[j]] for t, v in targets.items()}
            found = np.full((*there.shape, len(targets)), np.nan)
            found[there] = align(
                models, data, [e.row for e in picked], method=method, resamples=0, ceilings=False
            ).score
            return found

        chosen = _chosen(of, there, num)
        for k, kind in enumerate(kinds):
            for t, target in enumerate(targets):
                values = chosen[:, k, t]
                lost = int((~np.isfinite(values)).sum())
                where: dict[str, Any] = {"target": target, "n_stimuli": num}
                scores.append(
                    not_available(f"{kind}_best", f"nothing is left of it in {lost} of {len(values)} halves", **where)
                    if lost
                    else Score(f"{kind}_best", float(values.mean()), **where)
                )
    return scores


def _chosen(of: Callable[[NDArray[np.int64]], Array], there: NDArray[np.bool_], num: int, splits: int = 6) -> Array:
    """Return scores on one half of the images at the stage whose raw row won on the other, ``(halves, kinds, T)``.

    Args:
        of: From images to scores ``(kinds, stages, T)``, the raw ones first.
        there: ``(kinds, stages)``, whether there is such a row: a stage without one cannot be chosen for its kind.
        num: Number of images.
        splits: Into halves; each half chooses once.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(splits):
        order = rng.permutation(num)
        halves = [of(np.sort(h)) for h in (order[: num // 2], order[num // 2 :])]
        for choosing, scored in (halves, halves[::-1]):
            usable = there[:, :, None] & np.isfinite(choosing[0])
            stage = np.where(usable, choosing[0], -np.inf).argmax(1)
            found.append(np.take_along_axis(scored, stage[:, None], 1)[:, 0])
    return np.array(found)


def space(rows: Rows, found: Alignment, data: BrainData) -> list[Score]:
    """Return the hierarchy scores over ROIs of every family; slopes where there are two ROIs."""
    card = data.card
    columns = [found.targets.index(r) for r in card.rois if r in found.targets]
    scores: list[Score] = []
    for family in families(rows):
        where = rows.where(family)
        s = found.score[np.ix_(where, columns)]
        kept = found.resampled[0][:, where][:, :, columns]
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
            scores += _with_p(metric, result, again, len(data), "all ROIs are best matched by one stage")
    return scores


def _with_p(metric: str, result: hierarchy.Hierarchical, again: Array, num: int, why: str) -> list[Score]:
    if not math.isfinite(result.value):
        return [not_available(metric, why)]
    again = again[np.isfinite(again)]
    low, high = np.quantile(again, (0.025, 0.975)).tolist() if len(again) > 20 else (None, None)
    return [
        Score(metric, result.value, ci_low=low, ci_high=high, n_stimuli=num, ceiling_low=-1.0, ceiling_high=1.0),
        Score(f"{metric}_p", result.p_value, higher_is_better=None, n_stimuli=num),
    ]


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


def resolutions(
    observer: Observer,
    data: BrainData,
    targets: Mapping[str, Array],
    spec: Spec,
    method: Method,
    scales: Sequence[float],
) -> list[Score]:
    """Return activations' scores at further resolutions, in float32; nothing for observers that are no network."""
    scores = []
    for scale in scales:
        if not isinstance(observer, TrainedObserver):
            continue
        side = round(scale * observer.in_shape[1])
        metric = f"activation_at_{side}px"
        try:
            other = at_resolution(observer, side)
            source = activations_of(other, data.stimuli)
            found = stage_rdms(source, len(data), reducer_for(other, spec, signals=False))
        except (ValueError, RuntimeError) as error:
            scores.append(not_available(metric, " ".join(str(error).split())[:150]))
            continue
        for stage, vector in found.items():
            if why := useless(vector):
                scores.append(not_available(metric, why, stage=stage))
                continue
            for target, people in targets.items():
                value = float(compare(vector[None], people, method).mean())
                scores.append(Score(metric, value, stage=stage, target=target, n_stimuli=len(data)))
    return scores


def time(rows: Rows, data: BrainData, method: Method) -> list[Score]:
    """Return latencies of every stage and the temporal scores, for activations and signals."""
    if data.movie is None or data.times is None:
        return []
    scores: list[Score] = []
    peaks: dict[str, Array] = {}
    for family, curves in stage_time(rows, data, families(rows), method).items():
        stages = list(curves)
        stack = np.stack(list(curves.values()))
        mean = stack.mean(1)
        peak = np.array([hierarchy.peak_latency(c, data.times) for c in mean])
        onset = np.array([hierarchy.onset_latency(c, data.times) for c in stack])
        again = _peaks_again(stack, data.times)
        peaks[family] = peak
        for i, stage in enumerate(stages):
            low, high = np.quantile(again[:, i], (0.025, 0.975)) if len(again) else (math.nan, math.nan)
            where: dict[str, Any] = {"stage": stage, "n_stimuli": len(data), "higher_is_better": None}
            scores.append(
                Score(f"{family}_peak_ms", _number(peak[i]), ci_low=_number(low), ci_high=_number(high), **where)
            )
            if math.isfinite(onset[i]):
                scores.append(Score(f"{family}_onset_ms", float(onset[i]), **where))
            scores.append(Score(f"{family}_peak", float(mean[i].max()), stage=stage, n_stimuli=len(data)))
        for name, latency in (("temporal", peak), ("temporal_onset", onset)):
            result = hierarchy.with_null(hierarchy.latency_score, latency)
            boot = hierarchy.latency_score(again) if name == "temporal" else np.array([])
            scores += _with_p(f"{family}_{name}", result, boot, len(data), "latencies are the same or not defined")
    for family, peak in peaks.items():
        if family.startswith("signal") and len(peak) == len(peaks.get("activation", [])):
            late = float(np.nanmean(peak - peaks["activation"]))
            scores.append(Score(f"{family}_after_activation_ms", late, higher_is_better=None, n_stimuli=len(data)))
    return scores


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


def encoding(observer: Observer, data: BrainData, spec: Spec, losses: Sequence[str], *, banded: bool) -> list[Score]:
    """Return encoding of responses by every stage, CKA, the BH score; with ``banded`` the signals' own share."""
    if not data.responses:
        return []
    num = len(data)
    source = activations_of(observer, data.stimuli)
    stages = patterns(source, num, reducer_for(observer, spec, signals=False))
    voxels = {roi: np.concatenate(data.responses[roi], 1) for roi in data.card.rois if roi in data.responses}
    joined, edges = np.concatenate(list(voxels.values()), 1), np.cumsum([0, *(v.shape[1] for v in voxels.values())])
    parts = dict(zip(voxels, itertools.pairwise(edges), strict=True))
    scores, table = [], []
    for stage, x in stages.items():
        r, explained = enc.encode(x, joined)
        table.append([float(r[a:b].mean()) for a, b in parts.values()])
        for roi, (a, b) in parts.items():
            where: dict[str, Any] = {"stage": stage, "target": roi, "n_stimuli": num}
            share = data.explainable.get(roi)
            top = float(np.sqrt(share).mean()) if share is not None else None
            scores += [
                Score("encoding_r", float(r[a:b].mean()), ceiling_high=top, **where),
                Score("encoding_r2", float(explained[a:b].mean()), ceiling_high=None if top is None or share is None
                      else float(share.mean()), **where),
                Score("cka", enc.cka(x, voxels[roi]), **where),
            ]  # fmt: skip
    if len(voxels) >= hierarchy.FEWEST and len(stages) > 1:
        s = np.array(table)
        position = list(range(len(voxels)))
        result = hierarchy.with_null(lambda v: hierarchy.spatial(v, position), s)
        scores += _with_p("encoding_spatial", result, np.array([]), num, "all ROIs are best encoded by one stage")
        value, units = enc.bh_score(stages, voxels)
        scores.append(
            Score("bh_score", value, n_stimuli=num, reason=f"{units} units decoded")
            if math.isfinite(value)
            else not_available("bh_score", f"{units} units can be decoded from any ROI, or all from one")
        )
    return scores + (_unique(observer, data, spec, losses, stages, joined, parts) if banded else [])


def _unique(
    observer: Observer, data: BrainData, spec: Spec, losses: Sequence[str], stages: Mapping[str, Array],
    joined: Array, parts: Mapping[str, tuple[int, int]],
) -> list[Score]:  # fmt: skip
    """Return the variance that every stage's signals explain beyond its activations and the categories."""
    labels = [np.eye(v.max() + 1)[v] for v in data.labels.values()]
    scores: list[Score] = []
    for loss in losses:
        try:
            ready = probe(loss, observer, data)
        except ValueError as reason:
            scores.append(not_available(f"encoding_unique_signal_{loss}", str(reason)))
            continue
        found = patterns(
            signals_of(observer, data.stimuli, ready), len(data), reducer_for(observer, spec, signals=True)
        )
        for stage, x in found.items():
            gain, whole = enc.unique([stages[stage], *labels], x, joined)
            for roi, (a, b) in parts.items():
                where: dict[str, Any] = {"stage": stage, "target": roi, "n_stimuli": len(data)}
                scores += [
                    Score(f"encoding_unique_signal_{loss}", float(gain[a:b].mean()), **where),
                    Score(f"encoding_all_signal_{loss}", float(whole[a:b].mean()), **where),
                ]
    return scores
