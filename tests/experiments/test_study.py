"""Studies: the grid they say, strict keys, paired seeds."""

import pytest
import yaml

from experiments.study import expand, read_study
from experiments.tuned import TUNED
from tests.conftest import ROOT
from training.errors import UserError

GRID = {"name": "g", "rules": ["backprop", "untrained"], "models": ["mlp"], "tasks": ["digits"], "seeds": 2}


def grid(**changes):
    return expand({**GRID, **changes}, "here", default_name="g")


def test_every_cell_once_and_null_observers_beside():
    study = grid()
    cells = [(c.rule, c.model, c.task, c.seed) for c in study.configs]
    assert len(set(cells)) == len(cells) == 2 * 3 + 2  # readout_only joins unasked
    assert cells.count(("null:pixels", "none", "digits", 0)) == 1
    assert grid(rules=["backprop", "backprop"]).configs == grid(rules=["backprop"]).configs


def test_entries_set_training_fields_and_options_and_the_rule_wins():
    config, *controls = grid(
        seeds=[7], observers=[], training={"lr": 0.1, "epochs": 9, "batch_size": 8},
        rules=[{"name": "feedback_alignment", "scale": 2, "lr": 0.3}],
        models=[{"name": "mlp", "width": 5}], tasks=[{"name": "digits", "lr": 0.2, "epochs": 4, "test": 0.5}],
    ).configs  # fmt: skip
    assert [c.rule for c in controls] == ["untrained", "readout_only"]
    assert (config.seed, config.lr, config.epochs, config.batch_size) == (7, 0.3, 4, 8)
    assert (config.rule_params, config.model_params, config.task_params) == (
        {"scale": 2.0},
        {"width": 5, "depth": 2, "widths": None, "activation": "tanh"},
        {"test": 0.5},
    )


def test_a_rules_own_baseline_joins_with_what_the_two_share():
    rules = [{"name": "stdp", "target": 0.2, "potentiation": 0.01, "lr": 0.003}, {"name": "stdp"}, "trace_stdp"]
    found = [c for c in grid(seeds=[0], observers=[], rules=rules).configs if c.rule.endswith("_readout_only")]
    assert [(c.rule, c.rule_params["target"], c.lr) for c in found] == [
        ("spiking_readout_only", 0.2, 0.003), ("spiking_readout_only", 0.4, 0.001), ("trace_readout_only", 0.9, 0.001),
    ]  # fmt: skip
    named = [*rules, {"name": "spiking_readout_only", "target": 0.3}]
    found = [c for c in grid(seeds=[0], observers=[], rules=named).configs if c.rule == "spiking_readout_only"]
    assert [c.rule_params["target"] for c in found] == [0.3]  # what a study names itself, it has in no other form


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": ["backprop"]}, "unknown key 'rule'; did you mean 'rules'?"),
        ({"rules": []}, "rules is missing or empty"),
        ({"rules": ["bakprop"]}, "unknown rule 'bakprop'; did you mean 'backprop'?"),
        ({"models": [{"name": "mlp", "widht": 5}]}, "unknown option of model mlp 'widht'"),
        ({"tasks": [["digits"]]}, "expected a name"),
        ({"seeds": 0}, "seeds must be a positive number"),
        ({"seeds": [-1]}, "seeds must be"),
        ({"seeds": "three"}, "seeds must be"),
        ({"training": {"learning": 1}}, "unknown training field 'learning'"),
        ({"training": [1]}, "training must be a mapping"),
        ({"name": "../escape"}, "name must be"),
        ({"name": "a/b"}, "name must be"),
        ({"observers": ["pixel"]}, "unknown observer 'pixel'; did you mean 'pixels'?"),
    ],
)
def test_mistakes_are_one_clear_line(changes, message):
    with pytest.raises(UserError) as caught:
        grid(**changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not readable as YAML"), ("- 1", "expected keys"), ("", "expected keys")]
)
def test_files_that_are_no_study(tmp_path, text, message):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_study(path)
    with pytest.raises(UserError, match="no such study file"):
        read_study(tmp_path / "absent.yaml")


@pytest.mark.parametrize("path", sorted(set((ROOT / "experiments").rglob("*.yaml")) - {TUNED}), ids=lambda p: p.stem)
def test_shipped_studies_are_valid_and_have_both_controls(path):
    study = read_study(path)
    rules = {c.rule for c in study.configs}
    assert {"backprop", "untrained", "readout_only"} <= rules
    assert yaml.safe_load(path.read_text())["name"] == path.stem
    by_cell = {(c.task, c.rule): set() for c in study.configs}
    for c in study.configs:
        by_cell[c.task, c.rule].add(c.seed)
    assert len({frozenset(s) for s in by_cell.values()}) == 1  # the same seeds everywhere: comparisons are paired


def test_rule_files_are_found_beside_the_study(tmp_path):
    (tmp_path / "mine.py").write_text(
        '"""Mine."""\nfrom rules.backprop import Backprop\n\n\nclass Mine(Backprop):\n    pass\n'
    )
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump({**GRID, "rules": ["mine.py"], "observers": []}))
    config = read_study(path).configs[0]
    assert config.rule == str(tmp_path / "mine.py") and config.rule_source
