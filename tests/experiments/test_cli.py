"""The command line as its three users meet it: launch, compare, add a rule."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.catalogues import BENCHMARKS
from experiments.cli import main
from experiments.leaderboard import read_rows
from tests.conftest import ROOT
from training.catalogue import RULES
from training.directory import RunDirectory, run_directories

SMALL = ["model.width=4", "model.hidden=16", "task.size=16", "task.train=64", "task.test=32", "epochs=1"]
TINY = """
name: tiny
seeds: 2
rules: [backprop, direct_feedback_alignment, untrained, readout_only]
models: [{name: cnn, width: 4, hidden: 16}]
tasks: [{name: shapes, size: 16, train: 128, test: 64, epochs: 1}]
"""
QUIET = ["--wandb", "off", "--no-progress"]


def run(tmp_path, *arguments):
    return main(["run", "--runs", str(tmp_path / "runs"), *QUIET, *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rule", "bacprop"], "unknown rule 'bacprop'; did you mean 'backprop'?"),
        (["--rule", "backprop", "--model", "cn"], "unknown model 'cn'; did you mean 'cnn'?"),
        (["--rule", "backprop", "--task", "minst"], "unknown task 'minst'; did you mean 'mnist'?"),
        (["--rule", "backprop", "learning_rate=1"], "unknown key 'learning_rate'"),
        (["--rule", "backprop", "lr"], "expected key=value"),
        (["--rule", "backprop", "lr=fast"], "expected float"),
        (["--rule", "backprop", "lr=[1"], "not readable"),
        (["--rule", "backprop", "model.size=3"], "unknown option of model cnn 'size'"),
        (["--rule", "backprop", "task.size=3"], "shapes needs size >= 16"),
        (["--rule", "backprop", "model.width=0"], "width >= 1"),
        (["--rule", "feedback_alignment", "rule.scale=-1"], "scale must be positive"),
        (["--rule", "absent.py"], "cannot be read"),
        (["--rule", "backprop", "--device", "tpu9"], "unknown device"),
        (["--rule", "backprop", "--threads", "0"], "--threads must be at least 1"),
        (["--rule", "backprop", "--task", "image_folder", "task.path=/absent"], "no such folder"),
        (["--rule", "backprop", "task.size=100000"], "more than 8 GiB"),
    ],
)
def test_mistakes_are_one_line_and_code_2(tmp_path, capsys, arguments, message):
    assert run(tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("plasticbench: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "rule"], "did you mean 'rules'?"),
        (["show", "kaniza"], "did you mean 'kanizsa'?"),
        (["show", "kanizsa", "-o", "x.jpg"], "end its name with .png"),
        (["check", "nothing"], "unknown rule"),
        (["new-rule", "my rule"], "Python name"),
        (["new-rule", "backprop"], "is a rule already"),
        (["new-rule", "learned"], "is a name of the contract"),
        (["evaluate", "/absent"], "no such folder"),
        (["evaluate", "/", "--benchmark", "kanisza"], "did you mean 'kanizsa'?"),
        (["study", "absent.yaml"], "no such study file"),
    ],
)
def test_mistakes_in_other_commands(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_one_run_from_command_to_score_and_again_is_nothing_to_do(tmp_path, capsys):
    arguments = ["--rule", "feedback_alignment", *SMALL]
    assert run(tmp_path, *arguments) == 0
    (directory,) = run_directories(tmp_path / "runs")
    assert directory.status()["state"] == "done" and directory.checkpoint.exists()
    measured = {s["benchmark"] for s in directory.scores()}
    assert measured == {
        "accuracy", "learned", "inference", "credit", "cost", "kanizsa", "prediction", "rotating_snakes",
        "simulated_ventral_stream", "spikes",
    }  # fmt: skip
    record = directory.scores()[0]
    assert {"schema_version", "run_key", "rule_version", "raw", "ceiling_high", "git_sha", "versions"} <= set(record)
    before = (directory.path / "scores.jsonl").stat().st_mtime_ns
    assert run(tmp_path, *arguments) == 0
    assert "1 of 1 runs are finished" in capsys.readouterr().out
    assert (directory.path / "scores.jsonl").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_rule_under_the_wrong_optimiser_says_so_once_and_trains(tmp_path, capsys):
    assert run(tmp_path, "--rule", "kolen_pollack", *SMALL) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "kolen_pollack" in line]
    assert len(lines) == 1 and lines[0].startswith("plasticbench: kolen_pollack: with weight_decay=0")
    assert run(tmp_path, "--rule", "kolen_pollack", *SMALL, "optimizer=adamw", "weight_decay=0.1") == 0
    assert "kolen_pollack:" not in capsys.readouterr().err
    assert run(tmp_path, "--rule", "kolen_pollack", *SMALL, "optimizer=sgd", "weight_decay=0.1") == 0
    assert "momentum=0.9" in capsys.readouterr().err


def test_evaluate_measures_only_what_is_missing_and_from_the_stored_weights(tmp_path, capsys):
    assert run(tmp_path, "--rule", "backprop", *SMALL) == 0
    (directory,) = run_directories(tmp_path / "runs")
    scores = directory.scores()
    path = directory.path / "scores.jsonl"
    path.write_text("".join(json.dumps(s) + "\n" for s in scores if s["benchmark"] != "kanizsa"))
    assert main(["evaluate", str(directory.path), *QUIET, "--runs", str(tmp_path / "runs")]) == 0
    assert "1 benchmarks measured" in capsys.readouterr().out

    def numbers(records):
        return {(s["metric"], s["target"]): s["value"] for s in records if s["benchmark"] == "kanizsa"}

    assert numbers(directory.scores()) == numbers(scores)


def test_evaluating_a_run_that_is_not_finished_says_so(tmp_path, capsys):
    assert run(tmp_path, "--rule", "backprop", *SMALL) == 0
    (directory,) = run_directories(tmp_path / "runs")
    directory.set_status("interrupted")
    (directory.path / "scores.jsonl").unlink()
    assert main(["evaluate", str(directory.path), *QUIET]) == 2
    assert "not finished" in capsys.readouterr().err


def test_an_unsupported_rule_and_a_crashing_one_stay_on_the_board_with_their_reasons(tmp_path, capsys):
    head = '"""A rule."""\nfrom rules.base import Rule, differentiate\n\n\nclass Mine(Rule):\n'
    (tmp_path / "picky.py").write_text(
        head + '    def supports(self, net, objective):\n        return "only on Sundays"\n'
    )
    (tmp_path / "crashes.py").write_text(
        head + "    def learn(self, net, x, target, objective):\n        return 1 / 0\n"
    )
    assert run(tmp_path, "--rule", str(tmp_path / "picky.py"), *SMALL) == 0
    assert run(tmp_path, "--rule", str(tmp_path / "crashes.py"), *SMALL) == 1
    rows = {r.rule: r for r in read_rows(tmp_path / "runs")}
    assert rows["picky"].reasons == ["s0 unsupported: only on Sundays"]
    assert "ZeroDivisionError" in rows["crashes"].reasons[0]
    main(["leaderboard", str(tmp_path / "runs")])
    out = capsys.readouterr().out
    assert "only on Sundays" in out and "ZeroDivisionError" in out


@pytest.mark.slow
def test_a_study_runs_in_a_pool_resumes_and_shows_a_rule_from_one_new_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    assert main(["study", "tiny.yaml", "-j", "2", *QUIET]) == 0
    rows = {r.rule: r for r in read_rows(tmp_path / "runs")}
    assert set(rows) == {"backprop", "direct_feedback_alignment", "untrained", "readout_only", "pixels"}
    assert all(r.seeds == [0, 1] and r.states == {"done": 2} for r in rows.values())
    assert {p.name for p in (tmp_path / "runs").glob("leaderboard.*")} == {
        f"leaderboard.{s}" for s in ("md", "csv", "json")
    }
    # A rule in one file outside the repository, and no edit elsewhere.
    assert main(["new-rule", "my_rule"]) == 0
    (tmp_path / "tiny.yaml").write_text(TINY.replace("[backprop,", "[backprop, my_rule.py,"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("scores.jsonl")}
    assert main(["study", "tiny.yaml", "-j", "2", *QUIET]) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    capsys.readouterr()
    assert main(["leaderboard", "runs", "--json"]) == 0
    data = {r["rule"]: r for r in json.loads(capsys.readouterr().out)["rows"]}
    assert data["my_rule"]["seeds"] == [0, 1] and data["my_rule"]["estimates"]["accuracy"]["value"] is not None
    assert data["my_rule"]["difference"]["per_seed"].keys() == {"0", "1"}


@pytest.mark.slow
def test_a_study_that_is_terminated_leaves_no_process_and_goes_on(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY.replace("train: 128", "train: 4096").replace("epochs: 1", "epochs: 3"))
    command = [
        sys.executable, "-c", "import sys; from experiments.cli import main; sys.exit(main())", "study", "tiny.yaml",
        "-j", "2", *QUIET,
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(3000):
        if list((tmp_path / "runs").glob("*/metrics.csv")):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 143
    time.sleep(3)
    working = [
        s["pid"] for d in run_directories(tmp_path / "runs") if (s := d.status())["state"] in ("running", "interrupted")
    ]
    assert working
    for pid in working:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=400, check=False)
    assert result.returncode == 0, result.stderr
    assert all(d.status()["state"] == "done" for d in run_directories(tmp_path / "runs"))


def test_a_benchmark_that_raises_costs_no_other_score_and_is_measured_again(tmp_path, capsys, monkeypatch):
    from evaluation.accuracy import Accuracy
    from evaluation.learned import Learned

    with monkeypatch.context() as broken:
        for bench in (Accuracy, Learned):
            broken.setattr(bench, "measure", lambda self, observer: 1 / 0)
        assert run(tmp_path, "--rule", "backprop", *SMALL) != 0
    (directory,) = run_directories(tmp_path / "runs")
    status = directory.status()
    assert status["state"] == "failed" and "benchmark accuracy: ZeroDivisionError" in status["reason"]
    assert "benchmark learned" in status["reason"]
    have = {s["benchmark"] for s in directory.scores()}
    assert {"cost", "credit", "kanizsa", "spikes"} <= have and not have & {"accuracy", "learned"}
    assert (directory.path / "error.txt").read_text().count("ZeroDivisionError: division by zero") == 2
    weights = (directory.path / "last.ckpt").stat().st_mtime_ns
    assert run(tmp_path, "--rule", "backprop", *SMALL) == 0
    assert directory.status()["state"] == "done" and {"accuracy", "learned"} <= {
        s["benchmark"] for s in directory.scores()
    }
    assert (directory.path / "last.ckpt").stat().st_mtime_ns == weights


@pytest.mark.slow
def test_a_worker_that_dies_fails_its_cell_and_not_the_study(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dies.py").write_text(
        '"""Dies."""\nimport os\nfrom rules.base import Rule\n\n\nclass Dies(Rule):\n'
        "    def learn(self, net, x, target, objective):\n        os._exit(9)\n"
    )
    (tmp_path / "s.yaml").write_text(
        "name: s\nseeds: 1\nrules: [dies.py, backprop, untrained]\nmodels: [{name: mlp, width: 8}]\n"
        "tasks: [{name: digits, epochs: 1}]\nobservers: []\n"
    )
    assert main(["study", "s.yaml", "-j", "2", *QUIET]) == 1
    states = {d.config().rule_name: d.status() for d in run_directories(tmp_path / "runs")}
    assert states["dies"]["state"] == "failed" and "worker process died" in states["dies"]["reason"]
    assert main(["study", "s.yaml", "-j", "2", *QUIET]) == 1  # what else was lost with the worker is made up for
    states = {d.config().rule_name: d.status()["state"] for d in run_directories(tmp_path / "runs")}
    assert states["backprop"] == states["untrained"] == "done"


def test_entry_points_of_other_distributions_are_rules(tmp_path, monkeypatch):
    """As pip leaves an installed distribution on disk: a module and a .dist-info with entry points."""
    (tmp_path / "their_rules.py").write_text(
        '"""Theirs."""\nfrom rules.backprop import Backprop\n\n\nclass Theirs(Backprop):\n    pass\n'
    )
    info = tmp_path / "their_dist-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[plasticbench.rules]\ntheirs = their_rules:Theirs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert RULES.entries()["theirs"].summary == "(from their-dist)"
    assert run(tmp_path, "--rule", "theirs", *SMALL) == 0
    assert read_rows(tmp_path / "runs")[0].rule == "theirs"


@pytest.mark.parametrize("what", ["kanizsa", "shapes", "digits", "next_frame"])
def test_show_writes_a_sheet(tmp_path, what):
    path = tmp_path / "deep" / "sheet.png"
    assert main(["show", what, "-o", str(path)]) == 0
    from PIL import Image

    with Image.open(path) as image:
        assert min(image.size) > 300


def test_check_reports_and_its_exit_code_is_the_verdict(tmp_path, capsys):
    assert main(["check", "readout_only", "--fast"]) == 0
    assert "0 failed" in capsys.readouterr().out
    (tmp_path / "bad.py").write_text(
        '"""Bad."""\nfrom rules.base import Learned, Rule, differentiate\n\n\nclass Bad(Rule):\n'
        "    def learn(self, net, x, target, objective):\n        d = differentiate(net, x, target, objective)\n"
        "        return Learned({n: g * len(x) for n, g in d.grads.items()}, d.loss, d.output)\n"
    )
    assert main(["check", str(tmp_path / "bad.py"), "--fast"]) == 1
    assert "divide by the batch once" in capsys.readouterr().out


def test_a_null_observer_has_scores_and_no_checkpoint(tmp_path):
    from experiments.runner import execute
    from training.config import Execution, run_config

    config = run_config({"rule": "null:pixels", "model": "none", "task": "shapes", "task_params": {
        "size": 16, "train": 64, "test": 8}})  # fmt: skip
    assert execute(config, Execution(runs=tmp_path, wandb="off")) == "done"
    directory = RunDirectory(tmp_path / config.directory)
    assert not directory.checkpoint.exists() and any(s["metric"] == "index" for s in directory.scores())


def test_two_processes_do_not_work_on_one_run(tmp_path, capsys):
    """The lock is the system's: a process that dies lets go of it."""
    assert run(tmp_path, "--rule", "backprop", *SMALL) == 0
    (directory,) = run_directories(tmp_path / "runs")
    (directory.path / "scores.jsonl").unlink()
    code = (
        "import sys, time; from pathlib import Path; from training.directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).lock():\n    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(directory.path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert other.stdout.readline() == "held\n"
    assert run(tmp_path, "--rule", "backprop", *SMALL) == 2
    assert "another process is at work on it" in capsys.readouterr().err
    other.kill()
    other.communicate()
    assert run(tmp_path, "--rule", "backprop", *SMALL) == 0


def test_overrides_may_stand_anywhere(tmp_path):
    arguments = ["--rule", "backprop", "--model", "mlp", "epochs=0", "--task", "digits", "model.width=8"]
    assert run(tmp_path, *arguments) == 0
    config = run_directories(tmp_path / "runs")[0].config()
    assert config.epochs == 0 and config.model_params["width"] == 8
    with pytest.raises(SystemExit) as caught:
        main(["list", "rules", "a=b"])
    assert caught.value.code == 2


def test_a_rule_that_changed_is_not_scored_with_the_old_weights(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text('"""Mine."""\nfrom rules.backprop import Backprop\n\n\nclass Mine(Backprop):\n    pass\n')
    assert run(tmp_path, "--rule", str(path), *SMALL) == 0
    (directory,) = run_directories(tmp_path / "runs")
    (directory.path / "scores.jsonl").unlink()
    path.write_text(path.read_text().replace("    pass", "    def predict(self, net, x):\n        return net(x) * 0"))
    assert main(["evaluate", str(directory.path), *QUIET]) == 2
    assert "the file changed since the run was made" in capsys.readouterr().err
    assert directory.scores() == []


def test_a_cut_score_file_is_measured_again_to_the_last_record(tmp_path, capsys):
    assert run(tmp_path, "--rule", "backprop", *SMALL) == 0
    (directory,) = run_directories(tmp_path / "runs")
    path = directory.path / "scores.jsonl"
    whole = directory.scores()
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")  # what is left after deleting the broken last line
    assert main(["evaluate", str(directory.path), *QUIET]) == 0
    assert "1 benchmarks measured" in capsys.readouterr().out

    def names(records):
        return sorted((s["benchmark"], s["metric"], s["stage"], s["target"]) for s in records)

    assert names(directory.scores()) == names(whole)


def test_one_broken_run_does_not_keep_the_others_from_being_run_or_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(
        "name: s\nseeds: 1\nrules: [backprop]\nmodels: [{name: mlp, width: 8}]\ntasks: [{name: digits, epochs: 1}]\nobservers: []\n"
    )
    assert run(tmp_path, "--rule", "backprop", "--model", "mlp", "--task", "digits", "epochs=1", "model.width=8") == 0
    (directory,) = run_directories(tmp_path / "runs")
    path = directory.path / "scores.jsonl"
    path.write_text(path.read_text()[:-30])
    assert main(["study", "s.yaml", "-j", "1", *QUIET]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "is not a whole record" in captured.err
    assert "readout_only" in captured.out and "untrained" in captured.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--rule", "backprop", "--runs", "/proc/nothing", *QUIET, *SMALL],
        ["run", "--rule", "backprop", "--runs", "/etc/passwd", *QUIET, *SMALL],
        ["show", "shapes", "-o", "/proc/nothing/x.png"],
        ["show", "kanizsa", "--size", "-1"],
        ["show", "kanizsa", "--size", "4"],
    ],
)
def test_places_that_cannot_be_written_and_sizes_that_cannot_be_drawn(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_checkpoint_of_something_else_is_named(tmp_path, capsys):
    import torch

    assert run(tmp_path, "--rule", "backprop", *SMALL) == 0
    (directory,) = run_directories(tmp_path / "runs")
    (directory.path / "scores.jsonl").unlink()
    for content in ({"a": 1}, {"state_dict": {"net.x": torch.zeros(2)}}):
        torch.save(content, directory.checkpoint)
        assert main(["evaluate", str(directory.path), *QUIET]) == 2
        error = capsys.readouterr().err
        assert str(directory.checkpoint) in error and error.count("\n") == 1


def test_wandb_online_without_a_login_is_one_line(tmp_path, capsys, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert main(["run", "--rule", "backprop", "--runs", str(tmp_path / "runs"), "--wandb", "online", *SMALL]) == 2
    assert "Weights & Biases" in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["backprop", "direct_feedback_alignment", "readout_only", "weight_mirror"])
def test_every_rule_starts_from_the_same_weights_and_sees_the_same_batches(rule):
    """What makes differences between rules paired: the seed decides both, and the rule neither."""
    import torch

    from training.config import Execution, run_config
    from training.data.base import training_loader
    from training.run import build

    def start(name):
        values = {"rule": name, "model": "cnn", "task": "digits", "seed": 3, "model_params": {"norm": "batch"}}
        config = run_config(values)
        trained = build(config, Execution())
        loader = training_loader(trained.task, config.batch_size, config.seed)
        return trained.net.state_dict(), next(iter(loader))

    weights, batch = start(rule)
    other_weights, other_batch = start("untrained")
    assert all(torch.equal(weights[n], other_weights[n]) for n in other_weights)
    assert torch.equal(batch[0], other_batch[0]) and torch.equal(batch[1], other_batch[1])


@pytest.mark.parametrize("rule", sorted(RULES.entries()))
def test_every_rule_goes_from_command_to_board_with_every_benchmark_measured(tmp_path, rule):
    assert run(tmp_path, "--rule", rule, "--model", "mlp", "--task", "digits", "epochs=1", "model.width=8") == 0
    (directory,) = run_directories(tmp_path / "runs")
    assert directory.status()["state"] == "done"
    cost = {s["metric"]: s["value"] for s in directory.scores() if s["benchmark"] == "cost"}
    assert cost["flops_ratio"] > 0
    every = {n for n in BENCHMARKS.entries() if not BENCHMARKS.load(n).on_request}
    assert {b for b, _ in directory.measured()} == every
