"""Susceptibility over training: measured when told, in the curves, and without a trace in the weights."""

import csv

import pytest
import torch

from experiments.cli import main
from training.directory import run_directories

SMALL = ["model.width=4", "model.hidden=16", "epochs=3", "task.train=64", "task.test=32", "task.size=16"]


def trained(folder, *arguments):
    assert (
        main(["run", "--rule", "backprop", "--runs", str(folder), "--wandb", "off", "--no-progress", *arguments]) == 0
    )
    (directory,) = run_directories(folder)
    return directory


@pytest.mark.slow
def test_the_index_is_in_the_curves_at_the_epochs_asked_for_and_training_is_bit_identical(tmp_path):
    with_, without = trained(tmp_path / "a", "--susceptibility", "2", *SMALL), trained(tmp_path / "b", *SMALL)
    assert with_.path.name == without.path.name  # it is no part of the configuration
    weights = [torch.load(d.checkpoint, weights_only=True)["state_dict"] for d in (with_, without)]
    assert all(torch.equal(weights[0][name], w) for name, w in weights[1].items())
    with with_.metrics.open() as file:
        rows = [r for r in csv.DictReader(file) if r.get("kanizsa/index")]
    assert [int(float(r["epoch"])) for r in rows] == [-1, 1, 2]  # untrained, every second, and the last
    assert all(0 <= float(r["kanizsa/p_IN"]) <= 1 and float(r["kanizsa/judged"]) in (0, 1) for r in rows)
    assert "kanizsa" not in without.metrics.read_text()


def test_bad_numbers_are_one_clear_line(tmp_path, capsys):
    assert main(["run", "--rule", "backprop", "--runs", str(tmp_path), "--susceptibility", "-1", *SMALL]) == 2
    assert "--susceptibility must be at least 0" in capsys.readouterr().err
