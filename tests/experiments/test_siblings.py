"""A benchmark may ask for the run beside it under another rule: found by model, task and seed, and measured again once there."""

import pytest

from experiments.cli import main
from experiments.runner import sibling
from training.config import Execution
from training.directory import run_directories

SMALL = ["--model", "mlp", "--task", "digits", "model.width=8", "epochs=1", "--wandb", "off", "--no-progress"]


def scores(directory, metric, target=None):
    return [
        s for s in directory.scores() if s["benchmark"] == "robustness" and s["metric"] == metric
        and target in (None, s["target"])
    ]  # fmt: skip


@pytest.mark.slow
def test_attacks_are_transferred_from_the_backprop_run_of_the_same_seed_once_it_is_there(tmp_path, capsys):
    runs = str(tmp_path / "runs")
    evaluate = ["evaluate", runs, "--benchmark", "robustness", "--wandb", "off"]
    assert main(["run", "--rule", "feedback_alignment", *SMALL, "--seed", "1", "--runs", runs]) == 0
    assert main(["run", "--rule", "backprop", *SMALL, "--seed", "0", "--runs", runs]) == 0  # of another seed: no twin
    assert main(evaluate) == 0
    (own,) = [d for d in run_directories(tmp_path / "runs") if d.config().rule == "feedback_alignment"]
    execution = Execution(runs=tmp_path / "runs", wandb="off")
    assert sibling(own, execution, "backprop") is None
    assert "no finished backprop run" in scores(own, "data")[0]["reason"]
    assert not scores(own, "accuracy_under", "transfer 16/255")
    assert main(["run", "--rule", "backprop", *SMALL, "--seed", "1", "lr=0.002", "--runs", runs]) == 0
    twin = sibling(own, execution, "backprop")
    assert twin is not None and twin.name == "backprop" and twin.in_shape == (1, 8, 8)
    assert main(evaluate) == 0
    assert scores(own, "accuracy_under", "transfer 16/255")
    capsys.readouterr()
    assert main(evaluate) == 0 and "0 benchmarks measured" in capsys.readouterr().out
