"""Next-frame error against a copy of the last frame, with predictors whose error is known."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.base import TrainedObserver
from evaluation.prediction import Prediction, frames_of, interval
from experiments import render
from experiments.leaderboard import read_rows
from models.base import Stage, StagedNet
from rules.base import OBJECTIVES
from rules.untrained import Untrained
from tests.experiments.test_leaderboard import score
from training.config import RunConfig
from training.data.base import Images, Preprocess
from training.directory import RunDirectory


def observer(share, next_frames=None):
    """A network that goes on by ``share`` of the change between the last two of three frames."""
    keep = nn.Conv2d(9, 3, 1, bias=False)
    again = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        keep.weight.zero_()[:, 6:, 0, 0] = (1 + share) * torch.eye(3)
        keep.weight[:, 3:6, 0, 0] = -share * torch.eye(3)
        again.weight[:, :, 0, 0] = torch.eye(3)
    net = StagedNet({"keep": Stage(keep), "readout": Stage(again)}, (9, 8, 8), (3, 8, 8))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50, 9, 8, 8, generator=generator)
    target = 2 * x[:, 6:] - x[:, 3:6] if next_frames is None else next_frames(x)
    preprocess = Preprocess((9, 8, 8), (0.4, 0.5, 0.6) * 3, (0.2, 0.3, 0.4) * 3, "linear", 3)
    return TrainedObserver(
        "untrained", net, Untrained(), net, Untrained(), OBJECTIVES["mean_squared_error"], preprocess, (),
        Images(x, target), "next_frame", {},
    )  # fmt: skip


def measured(watched):
    return {s.metric: s for s in Prediction().measure(watched)}


def test_a_copy_of_the_last_frame_has_the_ratio_one_and_no_skill():
    scores = measured(observer(0.0))
    assert scores["error_ratio"].value == pytest.approx(1.0, abs=1e-6)
    assert scores["clips_better"].value == 0.0 or scores["error_ratio"].ci_low == pytest.approx(1.0, abs=1e-6)
    assert scores["skill"].gate == "n/a" and "copy of the last frame" in scores["skill"].reason
    assert scores["skill"].value is None


@pytest.mark.parametrize(("share", "ratio"), [(1.0, 0.0), (0.5, 0.25), (0.25, 0.5625), (-1.0, 4.0)])
def test_going_on_by_a_share_of_the_change_leaves_the_square_of_the_rest(share, ratio):
    """next − prediction = (1 − share) (next − last) where the motion goes on as it was."""
    scores = measured(observer(share))
    assert scores["error_ratio"].value == pytest.approx(ratio, abs=1e-5)
    assert scores["error_ratio"].ci_low == pytest.approx(ratio, abs=1e-5)
    assert scores["error"].value == pytest.approx(ratio * scores["copy_error"].value, abs=1e-4)
    if ratio < 1:
        assert scores["skill"].value == pytest.approx(1 - ratio, abs=1e-5) and scores["clips_better"].value == 1.0
    else:
        assert scores["skill"].gate == "n/a"


def test_where_nothing_moves_and_where_nothing_is_finite_there_is_no_ratio():
    still = measured(observer(0.0, lambda x: x[:, 6:].clone()))["error_ratio"]
    assert still.gate == "n/a" and "nothing moves" in still.reason
    assert "diverged" in measured(observer(float("nan")))["error_ratio"].reason
    classes = dataclasses.replace(observer(0.0), classes=("a", "b"))
    assert "no frame" in measured(classes)["error_ratio"].reason


def test_the_interval_is_that_of_resampled_clips():
    rng = np.random.default_rng(1)
    copied = rng.gamma(2.0, size=80)
    own = copied * rng.uniform(0.2, 1.2, 80)
    low, high = interval(torch.tensor(own), torch.tensor(copied))
    picks = rng.integers(0, 80, (4000, 80))
    expected = np.quantile(own[picks].sum(1) / copied[picks].sum(1), (0.025, 0.975))
    assert (low, high) == pytest.approx(tuple(expected), abs=0.01)


def test_the_figure_shows_what_was_seen_and_predicted(tmp_path):
    (path,) = Prediction().draw(tmp_path, {"untrained": observer(0.5)})
    from PIL import Image

    with Image.open(path) as image:
        assert image.width > 600 and image.height > 600
    assert Prediction().draw(tmp_path, {"x": dataclasses.replace(observer(0.5), classes=("a", "b"))}) == []


def test_the_board_compares_predictors_by_seed_and_never_shows_skill_for_a_failed_gate(tmp_path):
    ratios = {"backprop": [0.6, 0.5, 0.7], "feedback_alignment": [1.2, 1.1, 1.3], "readout_only": [1.5, 1.4, 1.6]}
    for rule, values in ratios.items():
        for seed, ratio in enumerate(values):
            config = RunConfig(rule=rule, model="cnn", task="next_frame", seed=seed)
            directory = RunDirectory(tmp_path / config.directory)
            directory.write_config(config)
            directory.set_status("done", "")
            skill = ("skill", 1 - ratio, "", "") if ratio < 1 else ("skill", None, "", "", "predicts no better")
            rows = [("error_ratio", ratio), ("clips_better", 0.5), skill]
            rows = [score(config, "prediction", *row) for row in rows]
            directory.add_scores([*rows, score(config, "learned", "hidden_change", 0.3)])
    rows = {r.rule: r for r in read_rows(tmp_path)}
    assert rows["feedback_alignment"].difference.per_seed == pytest.approx({0: -0.6, 1: -0.6, 2: -0.6})
    assert rows["feedback_alignment"].learned == "yes"  # above the trained readout on random features
    assert list(rows) == ["backprop", "feedback_alignment", "readout_only"]
    text = render.markdown(list(rows.values()))
    assert "skill +40.0%" in text and "predicts no better" in text
    (line,) = (one for one in text.splitlines() if one.startswith("| feedback_alignment | 1.200"))
    assert "n/a" in line


@pytest.mark.parametrize("share", [0.5, -1.0])
def test_a_network_that_puts_out_the_change_scores_as_one_that_puts_out_the_frame(share):
    framed = observer(share)
    keep = nn.Conv2d(9, 3, 1, bias=False)
    with torch.no_grad():
        keep.weight.copy_(framed.net.stages["keep"].synapse.weight)
        keep.weight[:, 6:, 0, 0] -= torch.eye(3)
    net = StagedNet({"keep": Stage(keep), "readout": framed.net.stages["readout"]}, (9, 8, 8), (3, 8, 8))
    x, target = framed.held_out.images, framed.held_out.targets
    changed = dataclasses.replace(
        framed, net=net, held_out=Images(x, target - x[:, 6:]),
        preprocess=dataclasses.replace(framed.preprocess, predicts="change"),
    )  # fmt: skip
    one, other = measured(framed), measured(changed)
    for metric in ("error_ratio", "error", "copy_error", "clips_better"):
        assert other[metric].value == pytest.approx(one[metric].value, abs=1e-5)
    assert torch.allclose(framed.predict(x), changed.predict(x), atol=1e-5)
    for a, b in zip(frames_of(framed, torch.arange(3)), frames_of(changed, torch.arange(3)), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
