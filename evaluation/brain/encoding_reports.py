"""From responses to encoding scores: how well every stage predicts voxels, CKA, BH score, the signals' own share."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.base import Observer, Score, not_available
from evaluation.brain import encoding as enc
from evaluation.brain import hierarchy
from evaluation.brain.data import BrainData
from evaluation.brain.features import Spec, activations_of, patterns, reducer_for, signals_of
from evaluation.brain.hierarchy_reports import with_p
from evaluation.brain.losses import probe
from evaluation.brain.rdm import Array


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
        scores += with_p("encoding_spatial", result, None, num, "all ROIs are best encoded by one stage")
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
