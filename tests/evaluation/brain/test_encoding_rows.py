"""Encoding through the benchmark: its mandatory rows, dead voxels, silent stages."""

import dataclasses

import numpy as np
import pytest
import torch

from models import cnn
from rules.backprop import Backprop
from rules.untrained import Untrained
from tests.evaluation.brain.conftest import observer_of
from tests.evaluation.brain.examined import by_name, examine, silent


@pytest.fixture(scope="module")
def encoded(stream):
    """Encoding with one voxel of V1 that is dead, and one that is dead on the images of a fold alone."""
    from evaluation.brain.encoding import folds

    part = stream.select(np.arange(0, 64, 2))
    responses = {r: v[:2] for r, v in part.responses.items()}
    spoilt = [v.copy() for v in responses["V1"]]
    spoilt[0][:, 3] = 1.5
    (_, held), *_ = folds(32)
    spoilt[1][held, 5] = 0.25
    whole = dataclasses.replace(part, responses=responses, movie=None, times=None, people={})
    torch.manual_seed(0)
    observer = observer_of(cnn.build((3, 16, 16), (4,), width=2, hidden=8), Backprop(), size=16)
    dead = dataclasses.replace(whole, responses={**responses, "V1": tuple(spoilt)})
    return examine(whole, observer), examine(dead, observer), spoilt


def test_dead_voxels_are_left_out_and_counted(encoded):
    whole, dead, spoilt = encoded
    num = sum(v.shape[1] for v in spoilt)
    for metric in ("encoding_r", "encoding_r2", "cka"):
        for s in by_name(dead, metric, target="V1"):
            assert s.raw is not None and f"2 of {num} voxels constant: left out" in s.reason
        for s in by_name(dead, metric, target="IT"):  # nothing changes elsewhere
            (same,) = by_name(whole, metric, target="IT", stage=s.stage)
            assert s.raw == pytest.approx(same.raw, abs=1e-9) and "constant" not in s.reason


def test_encoding_has_its_mandatory_rows(encoded):
    """The network before training, and what needs no network, voxel by voxel."""
    scores, _, _ = encoded
    for metric in ("encoding_r", "encoding_r2", "cka"):
        stages = {s.stage for s in by_name(scores, f"untrained_{metric}")}
        assert stages == {s.stage for s in by_name(scores, metric)} == {"conv1", "conv2", "conv3", "hidden", "readout"}
        for control in ("pixels", "gabor", "silhouette", "luminance", "label_shape"):
            found = by_name(scores, f"control_{control}_{metric}")
            assert {s.target for s in found} == {"V1", "V2", "V4", "IT"} and all(s.stage == "" for s in found)
    assert by_name(scores, "untrained_encoding_spatial") and by_name(scores, "untrained_bh_score")
    best = {c: by_name(scores, f"control_{c}_encoding_r", target="V1")[0].raw for c in ("gabor", "label_shape")}
    assert best["gabor"] > best["label_shape"]  # simulated V1 is Gabor energy


def test_a_silent_stage_is_not_encoded_as_zero(stream):
    part = stream.select(np.arange(0, 64, 4))
    card = dataclasses.replace(part.card, rois=("IT",))
    people = {"IT": ("one",)}
    data = dataclasses.replace(
        part, card=card, movie=None, times=None, responses={"IT": part.responses["IT"][:1]}, people=people
    )
    scores = examine(data, silent("conv2", rule=Untrained()))
    (said,) = by_name(scores, "encoding_r", stage="conv2")
    assert said.raw is None and said.reason == "the same for all images"
    assert by_name(scores, "encoding_r", stage="conv1")[0].raw is not None


@pytest.mark.slow
def test_signals_explain_variance_of_their_own_only_where_they_do(stream):
    """Banded ridge through the benchmark: an option, with its own rows."""
    import numpy as np

    part = stream.select(np.arange(0, 64, 2))
    card = dataclasses.replace(part.card, rois=("IT",))
    only = {"IT": part.responses["IT"][:1]}
    data = dataclasses.replace(part, card=card, movie=None, times=None, responses=only, people={})
    torch.manual_seed(0)
    observer = observer_of(cnn.build((3, 16, 16), (4,), width=2, hidden=8), Backprop(), size=16)
    scores = examine(data, observer, banded=True)
    assert len(by_name(scores, "encoding_unique_signal_label", target="IT")) == 5
    assert len(by_name(scores, "encoding_all_signal_pseudo_label", target="IT")) == 5
