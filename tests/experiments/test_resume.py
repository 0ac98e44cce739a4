"""A run that is killed and started again ends with the weights of one that was not, bit for bit."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from experiments.cli import main
from training.directory import RunDirectory, run_directories
from training.run import WholeCheckpoints

# Noise in the rule, mirrored images, momentum, a schedule and an accumulated batch: all of it must resume.
RULE = '''"""Backprop with noise (for this test)."""
import time
import torch
from rules.base import Learned, Rule, differentiate


class Noisy(Rule):
    def attach(self, net):
        self.register_buffer("steps", torch.zeros(()))

    def learn(self, net, x, target, objective):
        learned = differentiate(net, x, target, objective)
        grads = {n: g + 0.01 * torch.randn_like(g) for n, g in learned.grads.items()}
        time.sleep(0.004)
        return Learned(grads, learned.loss, learned.output, learned.signals)

    def after_step(self, net):
        self.steps += 1
'''


def command(tmp_path, runs, *extra):
    return [
        sys.executable, "-c", "import sys; from experiments.cli import main; sys.exit(main())",
        "run", "--rule", str(tmp_path / "noisy.py"), "--model", "mlp", "--task", "digits", "--wandb", "off",
        "--runs", str(runs), "epochs=12", "model.width=16", "accumulate=2", "batch_size=64", "clip=1.0", *extra,
    ]  # fmt: skip


def start(tmp_path, runs):
    return subprocess.Popen(command(tmp_path, runs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(tmp_path, runs):
    result = subprocess.run(command(tmp_path, runs), capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    (directory,) = run_directories(runs)
    return directory


def weights(directory):
    state = torch.load(directory.checkpoint, weights_only=True)
    return state["state_dict"], state["optimizer_states"][0]["state"], state["global_step"]


def wait_for_epochs(runs, num):
    """Wait until the run has ``num`` rows of curves."""
    for _ in range(1200):
        for path in runs.glob("*/metrics.csv"):
            if len(path.read_text().splitlines()) > num + 1:
                return
        time.sleep(0.05)
    raise AssertionError("the run did not start")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    (folder / "noisy.py").write_text(RULE)
    return folder, finish(folder, folder / "runs")


def test_an_epoch_whose_checkpoint_is_written_has_all_of_its_curves(tmp_path, monkeypatch):
    """The run ends at the very moment at which the checkpoint of its second epoch is there."""
    save, saved = WholeCheckpoints.save_checkpoint, []

    def save_and_die(self, checkpoint, path, storage_options=None):
        save(self, checkpoint, path, storage_options)
        saved.append(checkpoint["epoch"])
        if len(saved) == 2:
            raise KeyboardInterrupt

    arguments = [
        "run", "--rule", "feedback_alignment", "--model", "mlp", "--task", "digits", "--wandb", "off", "--no-progress",
        "--runs", str(tmp_path), "epochs=3", "model.width=16",
    ]  # fmt: skip
    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", save_and_die)
    assert main(arguments) != 0 and saved == [0, 1]
    (directory,) = run_directories(tmp_path)
    broken = list(csv.DictReader(directory.metrics.read_text().splitlines()))
    assert [row["epoch"] for row in broken] == ["-1", "0", "1"] and all(broken[-1].values())
    monkeypatch.setattr(WholeCheckpoints, "save_checkpoint", save)
    assert main(arguments) == 0
    whole = list(csv.DictReader(directory.metrics.read_text().splitlines()))
    assert whole[:3] == broken and len(whole) == 4 and all(whole[-1].values())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_resumes_bit_identically(reference, tmp_path, number):
    folder, unbroken = reference
    runs = tmp_path / "runs"
    process = start(folder, runs)
    wait_for_epochs(runs, 4)
    process.send_signal(number)
    code = process.wait(timeout=120)
    (directory,) = run_directories(runs)
    assert directory.status()["state"] in ("running", "interrupted")
    if number == signal.SIGTERM:
        assert code == 143
        assert directory.status()["state"] == "interrupted"
    assert directory.scores() == []
    resumed = finish(folder, runs)
    assert resumed.path.name == unbroken.path.name and resumed.status()["attempt"] == 2
    ours, theirs = weights(resumed), weights(unbroken)
    assert ours[2] == theirs[2] == 12 * 44 / 2
    assert ours[0].keys() == theirs[0].keys() and "rule.steps" in ours[0]
    assert all(torch.equal(ours[0][n], theirs[0][n]) for n in ours[0])
    for parameter, moments in ours[1].items():
        assert all(torch.equal(v, theirs[1][parameter][k]) for k, v in moments.items())
    assert resumed.metrics.read_text() == unbroken.metrics.read_text()
    numbers = [
        [(s["metric"], s["stage"], s["value"]) for s in d.scores() if s["metric"] != "time_ratio"]
        for d in (resumed, unbroken)
    ]
    assert numbers[0] == numbers[1]


@pytest.mark.slow
def test_a_truncated_checkpoint_is_one_clear_line_and_nothing_is_lost(reference, tmp_path):
    folder, _ = reference
    runs = tmp_path / "runs"
    process = start(folder, runs)
    wait_for_epochs(runs, 3)
    process.kill()
    process.wait()
    (directory,) = run_directories(runs)
    whole = directory.checkpoint.read_bytes()
    directory.checkpoint.write_bytes(whole[: len(whole) // 2])
    curves = directory.metrics.read_text()
    result = subprocess.run(command(folder, runs), capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and "delete it to train this run again" in result.stderr
    assert directory.metrics.read_text() == curves
    directory.checkpoint.write_bytes(whole)
    assert finish(folder, runs).status()["state"] == "done"


@pytest.mark.slow
def test_a_finished_run_is_left_alone(reference):
    folder, directory = reference
    before = {p: p.stat().st_mtime_ns for p in directory.path.rglob("*") if p.is_file()}
    finish(folder, folder / "runs")
    assert {p: p.stat().st_mtime_ns for p in directory.path.rglob("*") if p.is_file()} == before


def test_status_is_not_done_before_the_last_score(tmp_path):
    directory = RunDirectory(tmp_path)
    assert directory.status()["state"] == ""
    directory.set_status("running")
    directory.set_status("interrupted", "why")
    directory.set_status("running")
    assert directory.status() == {
        "state": "running", "reason": "", "attempt": 2, "host": os.uname().nodename, "pid": os.getpid(),
    }  # fmt: skip
    assert json.loads((tmp_path / "status.json").read_text())["attempt"] == 2
