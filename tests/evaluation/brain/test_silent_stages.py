"""Stages that give no pattern: said with the reason, never zero, and no run fails."""

import dataclasses
import json

import pytest

from rules.untrained import Untrained
from tests.evaluation.brain.examined import OnData, by_name, silent


@pytest.mark.parametrize(
    "stages", [("conv2",), ("conv1", "hidden"), ("conv1", "conv2", "conv3", "hidden"), ("conv1", "conv2", "conv3", "hidden", "readout")]
)  # fmt: skip
def test_silent_stages_are_said_and_fail_nothing(few, stages, tmp_path):
    """No pattern, no row: with the reason; what can be compared is, and the rest of the run goes on."""
    bench = OnData()
    bench.data = few
    scores = bench.measure(silent(*stages))
    json.dumps([dataclasses.asdict(s) for s in scores], allow_nan=False)
    for stage in stages:
        (score,) = by_name(scores, "activation", stage=stage)
        assert score.raw is None and "no pattern" in score.reason
        assert not by_name(scores, "signal_label_given_activation", stage=stage)
    left = {s.stage for s in by_name(scores, "activation") if s.raw is not None}
    assert left == {"conv1", "conv2", "conv3", "hidden", "readout"} - set(stages)
    for s in by_name(scores, "activation_best"):
        assert (s.raw is not None) == (len(left) > 1) and (s.raw is not None or "none to choose" in s.reason)
    assert all(s.raw is not None for s in by_name(scores, "signal_label_best"))  # signals go on
    paths = bench.draw(tmp_path, {"silent": None})
    assert {p.name for p in paths} >= {"brain_on_data_matrix.png"} and all(p.exists() for p in paths)


def test_nothing_is_drawn_where_nothing_can_be_compared(few, tmp_path):
    """All stages silent and a rule that does not learn: no row is left but those of the controls."""
    bench = OnData()
    bench.data = few
    scores = bench.measure(silent("conv1", "conv2", "conv3", "hidden", "readout", rule=Untrained()))
    assert not [s for s in by_name(scores, "activation") if s.raw is not None]
    assert all("none to choose" in s.reason for s in by_name(scores, "activation_best"))
    assert by_name(scores, "control_pixels")
    assert bench.draw(tmp_path, {"x": None}) == [] and list(tmp_path.iterdir()) == []
