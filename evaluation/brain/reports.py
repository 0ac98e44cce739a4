"""From matrices to score records: every row and target, the best stages, further resolutions."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.base import Observer, Score, TrainedObserver, not_available
from evaluation.brain.data import BrainData
from evaluation.brain.features import (
    Spec,
    activations_of,
    at_resolution,
    precise,
    reducer_for,
    signals_of,
    stage_rdms,
    untrained,
)  # fmt: skip
from evaluation.brain.inference import Alignment, on_images
from evaluation.brain.losses import probe
from evaluation.brain.models import UNTRAINED, Rows, useless
from evaluation.brain.rdm import Array, Method, compare

SIGNAL = "signal_pseudo_label"  # whose scores are also taken at further resolutions
SPLITS = 50  # of the images into halves, each of which chooses a stage once


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


def null(rows: Rows, targets: Mapping[str, Array], method: Method, num: int) -> list[Score]:
    """Return, per stage and target, the mean and the 95 % range over shuffles of the categories of label signals."""
    scores = []
    for stage, vectors in rows.null.items():
        usable = vectors[np.isfinite(vectors).all(1)]
        for target, people in targets.items():
            metric = "signal_shuffled_label_null"
            where: dict[str, Any] = {"stage": stage, "target": target}
            if not len(usable):
                scores.append(not_available(metric, "no shuffle gives a pattern", **where))
                continue
            values = compare(usable, people, method).mean(1)
            low, high = np.quantile(values, (0.025, 0.975)).tolist()
            said = f"mean and 95 % range over {len(values)} of {len(vectors)} shuffles"
            scores.append(
                Score(
                    metric, float(values.mean()), higher_is_better=None, ci_low=low, ci_high=high, n_stimuli=num,
                    reason=said, **where,
                )
            )  # fmt: skip
    return scores


def number(value: float) -> float | None:
    """Return a number, or nothing where it is none."""
    return float(value) if math.isfinite(value) else None


def families(rows: Rows) -> list[str]:
    """Return the families with at least two stages, the trained network's before the untrained one's."""
    return [f for f in rows.families if len(rows.of(f)) > 1]


def best(rows: Rows, targets: Mapping[str, Array], method: Method, num: int) -> list[Score]:
    """Return per family and target the score at the stage that other images chose, raw and held against others."""
    scores: list[Score] = []
    for family in rows.families:
        if len(own := rows.of(family)) < 2:
            why = f"{len(own)} of its stages can be compared: there is none to choose"
            scores += [not_available(f"{family}_best", why, target=t, n_stimuli=num) for t in targets]
    kinds = {
        f: list(dict.fromkeys(e.metric for e in rows.entries if e.metric == f or e.metric.startswith(f"{f}_given")))
        for f in families(rows)
    }
    picked = [e for e in rows.entries if any(e.metric in own for own in kinds.values())]
    if not picked:
        return scores
    place = {(e.metric, e.stage): i for i, e in enumerate(picked)}
    needed = dict.fromkeys(n for e in picked for n in (e.row.model, *e.row.given))
    similarity = on_images({n: rows.rdms[n] for n in needed}, targets, [e.row for e in picked], method)
    scored = np.array([[similarity(half) for half in split] for split in halves(num)])
    for family, own_kinds in kinds.items():
        stages = list(rows.of(family))
        there = np.array([[(k, s) in place for s in stages] for k in own_kinds])
        values = np.full((*scored.shape[:2], *there.shape, len(targets)), np.nan)
        values[:, :, there] = scored[:, :, [place[k, s] for k in own_kinds for s in stages if (k, s) in place]]
        chosen = _chosen(values, there)
        for k, kind in enumerate(own_kinds):
            for t, target in enumerate(targets):
                lost = int((~np.isfinite(chosen[:, k, t])).sum())
                where: dict[str, Any] = {"target": target, "n_stimuli": num}
                scores.append(
                    not_available(f"{kind}_best", f"nothing is left of it in {lost} of {len(chosen)} halves", **where)
                    if lost
                    else Score(f"{kind}_best", float(chosen[:, k, t].mean()), **where)
                )
    return scores


def halves(num: int, splits: int = SPLITS) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield random halves of the images' indices."""
    rng = np.random.default_rng(0)
    for _ in range(splits):
        order = rng.permutation(num)
        yield np.sort(order[: num // 2]), np.sort(order[num // 2 :])


def _chosen(scores: Array, there: NDArray[np.bool_]) -> Array:
    """Return scores on one half of the images at the stage whose raw row won on the other, ``(halves, kinds, T)``.

    Args:
        scores: ``(splits, 2, kinds, stages, T)``, the raw kind first.
        there: ``(kinds, stages)``, whether there is such a row: a stage without one cannot be chosen for its kind.
    """
    choosing = scores[:, ::-1, :1]
    stage = np.where(there[:, :, None] & np.isfinite(choosing), choosing, -np.inf).argmax(3)
    found = np.take_along_axis(scores, stage[:, :, :, None], 3)[:, :, :, 0]
    return found.reshape(-1, *found.shape[2:])


def resolutions(
    observer: Observer,
    data: BrainData,
    targets: Mapping[str, Array],
    spec: Spec,
    method: Method,
    scales: Sequence[float],
) -> list[Score]:
    """Return scores of activations and of the own answer's signals at further resolutions, before training too.

    Nothing for what is no network. Activations in float32. The controls need no row of their own here: they see the
    images at one size, whatever the network does.
    """
    scores: list[Score] = []
    if not isinstance(observer, TrainedObserver):
        return scores
    networks = (("", observer), (UNTRAINED, untrained(observer)))
    for (prefix, network), scale, family in itertools.product(networks, scales, ("activation", SIGNAL)):
        side = round(scale * observer.in_shape[1])
        metric = f"{prefix}{family}_at_{side}px"
        try:
            other = at_resolution(network, side)
            if family == "activation":
                source = activations_of(other, data.stimuli)
            else:
                exact = precise(other)  # as at the training resolution: the signals of sure networks are small
                source = signals_of(exact, data.stimuli, probe(SIGNAL.removeprefix("signal_"), exact, data))
            found = stage_rdms(source, len(data), reducer_for(other, spec, signals=family == SIGNAL))
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
