"""Tuned values: written whole, kept for others, applied beneath what is explicit, and claimed only where in force."""

import dataclasses
import json

import pytest
import yaml

from experiments import tuned
from experiments.cli import main
from experiments.leaderboard import read_rows
from experiments.study import expand, read_study
from experiments.tuned import TUNED, Entry, read_tuned, write_tuned
from tests.conftest import ROOT
from training.catalogue import RULES
from training.config import run_config
from training.directory import run_directories
from training.errors import UserError

ENTRY = Entry(
    lr=0.004, options={"scale": 0.5}, trials=10, metric="accuracy", score=0.9, validation=0.2, seeds=[0], task="digits",
    model="mlp", epochs=30, batch_size=64, optimizer="adam", weight_decay=0.0, rule_version=1,
    command="plasticbench tune a.yaml --trials 10 --write b.yaml",
)  # fmt: skip
PLAIN = dataclasses.replace(ENTRY, options={}, lr=0.002, trials=10)
GRID = {
    "name": "g", "seeds": 1, "models": ["mlp"], "tasks": [{"name": "digits", "lr": 0.03}], "observers": [],
    "rules": ["backprop", "feedback_alignment", "sign_symmetry"], "training": {"lr": 0.02},
}  # fmt: skip
QUIET = ["--wandb", "off", "--no-progress"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.yaml"
    write_tuned(path, {"mlp": {"feedback_alignment": ENTRY, "backprop": PLAIN, "readout_only": PLAIN}})
    return path


def cells(file, **changes):
    study = expand({**GRID, "tuned": file.name, **changes}, "here", default_name="g", folder=file.parent)
    return {c.rule: c for c in study.configs}


def test_what_is_written_is_read_again_and_other_entries_are_kept(tmp_path, file):
    before = read_tuned(file)
    assert before["mlp"]["feedback_alignment"] == ENTRY
    other = dataclasses.replace(ENTRY, lr=1e-5, command="plasticbench tune c.yaml --trials 3 --write b.yaml")
    write_tuned(file, {"cnn": {"feedback_alignment": other}, "mlp": {"backprop": other}})
    after = read_tuned(file)
    assert after["cnn"] == {"feedback_alignment": other} and after["mlp"]["backprop"] == other
    assert {r: e for r, e in after["mlp"].items() if r != "backprop"} == {
        r: e for r, e in before["mlp"].items() if r != "backprop"
    }
    comments = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert f"#     {ENTRY.command}" in comments and f"#     {other.command}" in comments


def test_tuned_values_win_over_what_is_given_for_all_rules(file):
    found = cells(file)
    fa, bp, other = found["feedback_alignment"], found["backprop"], found["sign_symmetry"]
    assert (fa.lr, fa.rule_params, fa.trials) == (0.004, {"scale": 0.5}, 10)
    assert (bp.lr, bp.trials) == (0.002, 10)
    assert (found["readout_only"].lr, found["readout_only"].trials) == (0.002, 10)  # the control has had the same
    assert (other.lr, other.trials) == (0.03, 0) and found["untrained"].trials == 0


def test_a_search_on_another_task_width_or_length_is_named_on_the_board(file, monkeypatch):
    monkeypatch.setattr(tuned, "TUNED", file)
    tuned._shipped.cache_clear()
    config = cells(file)["feedback_alignment"]
    plain = tuned.searched_elsewhere(dataclasses.replace(config, epochs=30), "digits", "mlp")
    assert plain == ""
    searched = "its hyper-parameters were searched on digits × mlp, 30 epochs"
    assert tuned.searched_elsewhere(dataclasses.replace(config, epochs=5), "digits", "mlp") == searched
    config = dataclasses.replace(config, epochs=30)
    assert tuned.searched_elsewhere(config, "mnist", "mlp") == searched
    assert tuned.searched_elsewhere(config, "digits", "mlp(width=8)") == searched
    other = dataclasses.replace(config, rule_params={"scale": 3.0})
    assert "not in the shipped" in tuned.searched_elsewhere(other, "digits", "mlp")
    assert tuned.searched_elsewhere(dataclasses.replace(config, trials=0), "mnist", "mlp") == ""
    tuned._shipped.cache_clear()


def test_without_tuned_nothing_is_looked_up(file):
    assert cells(file, tuned=False) == cells(file, tuned=False, description="x")
    assert {c.trials for c in cells(file, tuned=False).values()} == {0}


@pytest.mark.parametrize(
    ("own", "lr", "scale", "trials"),
    [
        ({"lr": 0.1}, 0.1, 0.5, 0),
        ({"scale": 2}, 0.004, 2.0, 0),
        ({"lr": 0.004, "scale": 0.5}, 0.004, 0.5, 10),  # said again is not overridden
        ({"epochs": 3}, 0.004, 0.5, 10),
        ({"optimizer": "sgd"}, 0.03, 1.0, 0),  # searched under adam: says nothing about sgd
        ({"weight_decay": 0.1}, 0.03, 1.0, 0),
    ],
)
def test_what_the_rules_own_entry_says_wins_and_trials_are_claimed_only_where_all_is_in_force(
    file, own, lr, scale, trials
):
    config = cells(file, rules=[{"name": "feedback_alignment", **own}])["feedback_alignment"]
    assert (config.lr, config.rule_params["scale"], config.trials) == (lr, scale, trials)


def test_other_models_other_versions_and_rules_by_path_are_not_looked_up(tmp_path, file):
    assert cells(file, models=[{"name": "cnn", "width": 4}])["feedback_alignment"].trials == 0
    write_tuned(file, {"mlp": {"feedback_alignment": dataclasses.replace(ENTRY, rule_version=2)}})
    assert cells(file)["feedback_alignment"].trials == 0
    path = tmp_path / "backprop.py"
    path.write_text('"""Mine."""\nfrom rules.backprop import Backprop\n\n\nclass Mine(Backprop):\n    pass\n')
    (config,) = [c for c in cells(file, rules=["backprop.py"]).values() if c.rule_source]
    assert (config.lr, config.trials) == (0.03, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tuned: [", "not readable as YAML"),
        ("", "is not a file of tuned hyper-parameters"),
        ("name: x\nrules: [backprop]\n", "is not a file of tuned hyper-parameters"),
        ("tuned: {mlp: [1]}", "mlp: expected rule → values"),
        ("tuned: {mlp: {backprop: {lr: 1}}}", "mlp: backprop: expected the keys lr, options"),
    ],
)
def test_broken_files_are_one_clear_line(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_tuned(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        read_tuned(tmp_path / "absent.yaml")


def test_values_of_the_wrong_type_are_named(file):
    content = yaml.safe_load(file.read_text())
    content["tuned"]["mlp"]["backprop"]["lr"] = "fast"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="mlp: backprop: lr: expected float, got 'fast'"):
        read_tuned(file)


@pytest.mark.parametrize("given", [1, None, [True]])
def test_the_key_is_strict(given):
    with pytest.raises(UserError, match="tuned must be true, false or a file"):
        expand({**GRID, "tuned": given}, "here", default_name="g")


def test_the_shipped_file_is_no_study_and_fits_the_rules_that_are_there(capsys):
    assert main(["study", str(TUNED), *QUIET]) == 2
    error = capsys.readouterr().err
    assert "holds tuned hyper-parameters, not a study" in error and error.count("\n") == 1
    assert main(["list", "tuned"]) == 0
    listed = capsys.readouterr().out
    for model, rules in read_tuned(TUNED).items():
        for rule, entry in rules.items():
            assert entry.rule_version == RULES.load(rule).version, f"{rule}: search again"
            run_config({"rule": rule, "model": model, "task": "digits", "rule_params": entry.options, "lr": entry.lr})
            assert rule in listed
            study = ROOT / entry.command.split()[2]
            assert rule in {c.rule for c in read_study(study).configs}, f"{entry.command} does not make {rule}"


def test_a_search_writes_what_a_study_and_a_run_then_start_from(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    grid = {
        **GRID, "rules": ["feedback_alignment"], "models": [{"name": "mlp", "width": 8}],
        "tasks": [{"name": "digits", "epochs": 1}], "training": {},
    }  # fmt: skip
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(grid))
    assert main(["tune", "g.yaml", "--trials", "3", "-j", "1", "--write", "mine.yaml", *QUIET]) == 0
    out = capsys.readouterr().out
    assert "mine.yaml: 2 of 2 searches written" in out
    entry = read_tuned(tmp_path / "mine.yaml")["mlp"]["feedback_alignment"]
    assert entry.command == "plasticbench tune g.yaml --trials 3 --write mine.yaml" and entry.trials == 3
    # By pencil: the most accurate of the trials on disk.
    accuracy = {}
    for d in run_directories(tmp_path / "runs"):
        if d.config().rule == "feedback_alignment":
            (value,) = [s["value"] for s in d.scores() if s["metric"] == "accuracy"]
            accuracy[d.config().lr, d.config().rule_params["scale"]] = value
    assert len(accuracy) == 3 and entry.score == pytest.approx(max(accuracy.values()), abs=1e-6)
    assert accuracy[entry.lr, entry.options["scale"]] == max(accuracy.values())
    # A study and a single run start from it.
    assert expand({**grid, "tuned": "mine.yaml"}, "x", default_name="x").configs[0].lr == entry.lr
    monkeypatch.setattr(tuned, "TUNED", tmp_path / "mine.yaml")
    arguments = ["run", "--tuned", "--rule", "feedback_alignment", "--model", "mlp", "--task", "digits", *QUIET]
    small = ["model.width=8", "epochs=1", "--runs", "r"]
    assert main([*arguments, *small]) == 0
    assert main([*arguments, *small, "rule.scale=2.5"]) == 0
    assert "no tuned values of feedback_alignment × mlp are in force" in capsys.readouterr().err
    configs = {c.trials: c for c in (d.config() for d in run_directories(tmp_path / "r"))}
    assert (configs[3].lr, configs[3].rule_params) == (entry.lr, entry.options)
    assert (configs[0].lr, configs[0].rule_params) == (entry.lr, {"scale": 2.5})
    # Board: the run that was searched says so, in every form.
    main(["leaderboard", "r", "--json"])
    assert {r["trials"] for r in json.loads(capsys.readouterr().out)["rows"]} == {0, 3}
    assert sorted(r.trials for r in read_rows(tmp_path / "r")) == [0, 3]
