"""experiments/spiking.yaml at the smallest size, by the real command, from training to board."""

import json

import pytest
import yaml

from experiments.cli import main
from training.catalogue import ROOT


@pytest.mark.slow
def test_the_spiking_study_goes_from_command_to_board(tmp_path, capsys):
    study = yaml.safe_load((ROOT / "experiments" / "spiking.yaml").read_text())
    names = [r if isinstance(r, str) else r["name"] for r in study["rules"]]
    assert {"stdp", "reward_stdp", "trace_stdp", "surrogate_gradient", "untrained", "readout_only"} <= set(names)
    assert [m["name"] for m in study["models"]] == ["cnn"]
    assert {t["name"] for t in study["tasks"]} == {"shapes", "mnist"}
    study["models"] = [{"name": "cnn", "width": 2, "hidden": 12}]
    study["tasks"] = [{"name": "shapes", "size": 16, "train": 64, "test": 32, "epochs": 1, "lr": 0.001}]
    study["seeds"] = 1
    path, runs = tmp_path / "spiking.yaml", tmp_path / "runs"
    path.write_text(yaml.safe_dump(study))
    assert main(["study", str(path), "--runs", str(runs), "--wandb", "off"]) == 0
    capsys.readouterr()
    assert main(["leaderboard", str(runs), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert set(names) <= {r["rule"].split("(")[0] for r in rows}
    controls = {r["rule"].split("(")[0] for r in rows if r["kind"] == "control"}
    assert {"spiking_readout_only", "trace_readout_only", "surrogate_readout_only"} <= controls
    for directory in runs.glob("stdp-*"):
        assert {p.name for p in (directory / "figures").glob("*.png")} >= {
            "receptive_fields.png", "weights.png", "raster.png", "wins.png",
        }  # fmt: skip
