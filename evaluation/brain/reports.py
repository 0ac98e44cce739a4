"""From matrices to score records: every row and target, the best stages, further resolutions."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.base import Observer, Score, TrainedObserver, not_available
from evaluation.brain.data import BrainData
from evaluation.brain.features import (
    Spec,
    activations_of,
    at_resolution,
    reducer_for,
    stage_rdms,
)  # fmt: skip
from evaluation.brain.inference import Alignment, align
from evaluation.brain.models import Rows, useless
from evaluation.brain.rdm import Array, Method, compare, square


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
                    entry.metric, number(found.score[i, t]), ci_low=number(found.low[i, t]),
                    ci_high=number(found.high[i, t]), ceiling_low=ceiling[0] if ceiling else None,
                    ceiling_high=ceiling[1] if ceiling else None, **where,
                )
                if math.isfinite(found.score[i, t])
                else not_available(entry.metric, "nothing is left of it", **where)
            )  # fmt: skip
            if not partial and found.subjects[target] > 1 and math.isfinite(found.of_mean[i, t]):
                scores.append(Score(f"{entry.metric}_of_mean", float(found.of_mean[i, t]), **where))
    return scores


def number(value: float) -> float | None:
    """Return a number, or nothing where it is none."""
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
