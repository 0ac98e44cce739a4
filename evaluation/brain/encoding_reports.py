"""From responses to encoding scores: how well every stage predicts voxels, CKA, BH score, the signals' own share."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.base import Observer, Score, TrainedObserver, not_available
from evaluation.brain import encoding as enc
from evaluation.brain import hierarchy
from evaluation.brain.controls import control_features
from evaluation.brain.data import BrainData
from evaluation.brain.features import Spec, activations_of, patterns, reducer_for, signals_of, untrained
from evaluation.brain.hierarchy_reports import with_p
from evaluation.brain.losses import probe
from evaluation.brain.models import UNTRAINED
from evaluation.brain.rdm import Array


@dataclass(frozen=True)
class Voxels:
    """Responses to be encoded, all regions side by side.

    Attributes:
        joined: ``(N, V)``.
        parts: ROI → first voxel and the one after the last.
        ceilings: ROI → explainable share of the variance of its voxels ``(v,)``, where it is known.
        said: ROI → what was left out.
    """

    joined: Array
    parts: Mapping[str, tuple[int, int]]
    ceilings: Mapping[str, Array]
    said: Mapping[str, str]

    def of(self, roi: str) -> Array:
        """Return a region's responses ``(N, v)``."""
        a, b = self.parts[roi]
        return self.joined[:, a:b]


def voxels_of(data: BrainData) -> tuple[Voxels, dict[str, str]]:
    """Return the responses of the hierarchy without dead voxels, and the regions of which nothing remains, with why.

    A voxel that is constant over the images that are held out, or over those that are not, has no variance to explain.
    """
    kept, ceilings, said, none = {}, {}, {}, {}
    for roi in (r for r in data.card.rois if r in data.responses):
        whole = np.concatenate(data.responses[roi], 1)
        varies = np.all([(np.ptp(whole[i], 0) > 0) for split in enc.folds(len(data)) for i in split], 0)
        if not varies.any():
            none[roi] = "no voxel varies over images"
            continue
        kept[roi] = whole[:, varies]
        if dead := int((~varies).sum()):
            said[roi] = f"{dead} of {len(varies)} voxels constant: left out"
        share = np.ravel(data.explainable.get(roi, np.empty(0)))  # one subject's voxels after the other's
        if len(share) == len(varies):
            ceilings[roi] = share[varies]
    edges = np.cumsum([0, *(v.shape[1] for v in kept.values())])
    joined = np.concatenate([np.empty((len(data), 0)), *kept.values()], 1)
    return Voxels(joined, dict(zip(kept, itertools.pairwise(edges.tolist()), strict=True)), ceilings, said), none


def encoding(observer: Observer, data: BrainData, spec: Spec, losses: Sequence[str], *, banded: bool) -> list[Score]:
    """Return encoding of responses by every stage, before training too, and by every control; CKA, the BH score.

    With ``banded`` also the signals' own share.
    """
    if not data.responses:
        return []
    voxels, none = voxels_of(data)
    scores = [not_available("encoding_r", why, target=roi, n_stimuli=len(data)) for roi, why in none.items()]
    if not voxels.parts:
        return scores
    networks = {"": observer}
    if isinstance(observer, TrainedObserver):
        networks[UNTRAINED] = untrained(observer)
    for prefix, network in networks.items():
        source = activations_of(network, data.stimuli)
        stages = patterns(source, len(data), reducer_for(network, spec, signals=False))
        silent = [s for s, x in stages.items() if not np.ptp(x, 0).any()]
        for stage in silent:
            why = "the same for all images"
            scores.append(not_available(f"{prefix}encoding_r", why, stage=stage, n_stimuli=len(data)))
            del stages[stage]
        scores += _by_stage(prefix, stages, voxels)
        if banded and not prefix:
            scores += _unique(network, data, spec, losses, stages, voxels)
    for name, features in control_features(data).items():
        scores += _encoded(f"control_{name}_", "", features, voxels)[0]
    return scores


def _encoded(prefix: str, stage: str, features: Array, voxels: Voxels) -> tuple[list[Score], list[float]]:
    """Return the scores of one set of features for every region, and r alone."""
    r, explained = enc.encode(features, voxels.joined)
    scores, means = [], []
    for roi, (a, b) in voxels.parts.items():
        where: dict[str, Any] = {
            "stage": stage, "target": roi, "n_stimuli": len(features), "reason": voxels.said.get(roi, ""),
        }  # fmt: skip
        share = voxels.ceilings.get(roi)
        tops = (None, None) if share is None else (float(np.sqrt(share).mean()), float(share.mean()))
        means.append(float(r[a:b].mean()))
        scores += [
            Score(f"{prefix}encoding_r", means[-1], ceiling_high=tops[0], **where),
            Score(f"{prefix}encoding_r2", float(explained[a:b].mean()), ceiling_high=tops[1], **where),
            Score(f"{prefix}cka", enc.cka(features, voxels.of(roi)), **where),
        ]
    return scores, means


def _by_stage(prefix: str, stages: Mapping[str, Array], voxels: Voxels) -> list[Score]:
    """Return every stage's scores, and over stages the hierarchy and BH scores."""
    scores, table = [], []
    for stage, x in stages.items():
        found, means = _encoded(prefix, stage, x, voxels)
        scores += found
        table.append(means)
    if len(voxels.parts) < hierarchy.FEWEST or len(stages) < 2:
        return scores
    num = len(voxels.joined)
    position = list(range(len(voxels.parts)))
    result = hierarchy.with_null(lambda v: hierarchy.spatial(v, position), np.array(table))
    scores += with_p(f"{prefix}encoding_spatial", result, None, num, "all ROIs are best encoded by one stage")
    value, units = enc.bh_score(stages, {roi: voxels.of(roi) for roi in voxels.parts})
    scores.append(
        Score(f"{prefix}bh_score", value, n_stimuli=num, reason=f"{units} units decoded")
        if math.isfinite(value)
        else not_available(f"{prefix}bh_score", f"{units} units can be decoded from any ROI, or all from one")
    )
    return scores


def _unique(
    observer: Observer, data: BrainData, spec: Spec, losses: Sequence[str], stages: Mapping[str, Array],
    voxels: Voxels,
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
            if stage not in stages or not np.ptp(x, 0).any():
                why = "activations or signals are the same for all images"
                scores.append(not_available(f"encoding_unique_signal_{loss}", why, stage=stage))
                continue
            gain, whole = enc.unique([stages[stage], *labels], x, voxels.joined)
            for roi, (a, b) in voxels.parts.items():
                where: dict[str, Any] = {"stage": stage, "target": roi, "n_stimuli": len(data)}
                scores += [
                    Score(f"encoding_unique_signal_{loss}", float(gain[a:b].mean()), **where),
                    Score(f"encoding_all_signal_{loss}", float(whole[a:b].mean()), **where),
                ]
    return scores
