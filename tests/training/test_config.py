"""Configuration: identity of a run, seed streams, and one clear line for everything that is wrong."""

import dataclasses
import json
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.config import Execution, RunConfig, canonical_json, run_config, stream
from training.errors import UserError, unknown

BASE = {"rule": "backprop", "model": "cnn", "task": "shapes"}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.text(), json_values, max_size=6), st.randoms(use_true_random=False))
def test_canonical_json_does_not_depend_on_order_and_loses_nothing(value, rng: random.Random):
    items = list(value.items())
    rng.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


@given(st.integers(0, 2**31), st.integers(0, 2**31), st.text(), st.text())
def test_streams_are_63_bit_and_differ_by_name_and_seed(seed, other, name, name2):
    assert 0 <= stream(seed, name) < 2**63
    if (seed, name) != (other, name2):
        assert stream(seed, name) != stream(other, name2) or f"{seed}:{name}" == f"{other}:{name2}"


def test_the_key_follows_every_scientific_field_and_nothing_else():
    config = RunConfig(**BASE)
    changed = {
        "rule": "feedback_alignment", "model": "mlp", "task": "digits", "seed": 1, "rule_params": {"scale": 2.0},
        "model_params": {"width": 8}, "task_params": {"size": 48}, "rule_source": "abc", "rule_version": 2, "epochs": 6, "batch_size": 32,
        "optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "weight_decay": 0.1, "schedule": "constant", "clip": 1.0,
        "accumulate": 2, "precision": "bf16-mixed", "objective": "squared_error", "inputs": "unit", "validation": 0.2, "trials": 10,
    }  # fmt: skip
    assert set(changed) == {f.name for f in dataclasses.fields(RunConfig)}
    keys = {dataclasses.replace(config, **{name: value}).key for name, value in changed.items()}
    assert len(keys | {config.key}) == len(changed) + 1
    assert RunConfig(**BASE).key == config.key


def test_the_key_is_stable_between_versions_of_the_code():
    """Written down once: if it changes, every finished run is orphaned."""
    assert RunConfig(**BASE).key == STABLE_KEY


STABLE_KEY = "72021e165cb6"


def test_options_given_as_text_or_integer_are_the_same_run():
    a = run_config(BASE | {"rule": "feedback_alignment", "rule_params": {"scale": 1}, "lr": "1e-2"})
    b = run_config(BASE | {"rule": "feedback_alignment", "rule_params": {"scale": 1.0}, "lr": 0.01})
    assert a.key == b.key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "back_prop"}, "unknown rule 'back_prop'; did you mean 'backprop'?"),
        ({"model": "cnnn"}, "unknown model 'cnnn'; did you mean 'cnn'?"),
        ({"task": "shape"}, "unknown task 'shape'; did you mean 'shapes'?"),
        ({"learning_rate": 1}, "unknown key 'learning_rate'"),
        ({"epoch": 1}, "did you mean 'epochs'?"),
        ({"lr": "fast"}, "lr: expected float, got 'fast'"),
        ({"lr": -1}, "lr must be positive"),
        ({"lr": float("inf")}, "lr: expected float"),
        ({"epochs": 2.5}, "epochs: expected int, got 2.5"),
        ({"epochs": True}, "epochs: expected int"),
        ({"epochs": -1}, "epochs must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"optimizer": "adem"}, "unknown value 'adem'; did you mean 'adam'?"),
        ({"precision": "16-mixed"}, "precision: unknown value"),
        ({"model_params": {"widht": 3}}, "unknown option of model cnn 'widht'; did you mean 'width'?"),
        ({"model_params": {"width": "wide"}}, "model.width: expected int, got 'wide'"),
        ({"model_params": {"norm": "layer"}}, "model.norm: unknown value 'layer'"),
        ({"rule_params": {"scale": 1}}, "unknown option of rule backprop 'scale'"),
        ({"task_params": [1]}, "task_params: expected dict"),
        ({"rule": ""}, "rule is missing"),
        ({"momentum": -1}, "momentum must be at least 0 and below 1"),
        ({"validation": 1.0}, "validation must be at least 0 and below 1, got 1.0"),
        ({"validation": -0.1}, "validation must be at least 0 and below 1"),
        ({"trials": -1}, "trials must be at least 0"),
        ({"batch_size": 10, "accumulate": 4}, "batch_size must be a multiple of accumulate"),
        ({"model": "my_model.py"}, "only rules come by path"),
        ({"task": "image_folder"}, "task image_folder needs the option 'path'"),
        ({"rule": "nowhere/rule.py"}, "cannot be read"),
    ],
)
def test_everything_wrong_is_one_clear_line(change, message):
    with pytest.raises(UserError) as caught:
        run_config(BASE | change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", "line 1"),
        ("x = 1\n", "holds no class derived from Rule"),
        ("from rules.base import Rule\nimport nothing_of_that_name\nclass A(Rule): pass\n", "does not import"),
        ("from rules.base import Rule\n1/0\nclass A(Rule): pass\n", "ZeroDivisionError"),
    ],
)
def test_a_broken_rule_file_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        run_config(BASE | {"rule": str(path)})
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_changed_rule_file_is_another_run(tmp_path):
    path = tmp_path / "mine.py"
    text = '"""A rule."""\nfrom rules.backprop import Backprop\nclass Mine(Backprop): pass\n'
    path.write_text(text)
    first = run_config(BASE | {"rule": str(path)})
    path.write_text(text + "# a change\n")
    assert run_config(BASE | {"rule": str(path)}).key != first.key
    assert first.rule_name == "mine"


@pytest.mark.parametrize("name", ["../../etc/evil.py", "/abs/olute/..py", "a b;c.py"])
def test_the_directory_of_a_run_is_one_safe_path_component(name):
    directory = RunConfig(rule=name, model="../m", task="t/../..").directory
    assert "/" not in directory and "\\" not in directory and not directory.startswith(".")
    assert directory.endswith(RunConfig(rule=name, model="../m", task="t/../..").key)


def test_giving_a_default_changes_nothing_and_defaults_are_written_out():
    plain = run_config(BASE | {"rule": "feedback_alignment"})
    assert plain.rule_params == {"scale": 1.0} and plain.model_params["width"] == 32
    assert run_config(BASE | {"rule": "feedback_alignment", "rule_params": {"scale": 1.0}}).key == plain.key


def test_lists_are_options_too_and_annotations_for_type_checkers_do_no_harm(tmp_path):
    path = tmp_path / "lists.py"
    path.write_text(
        '"""A rule."""\nfrom __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom rules.base import Rule\n'
        "if TYPE_CHECKING:\n    from nowhere import Nothing\n\n\nclass Lists(Rule):\n"
        "    def __init__(self, *, scales: list[float] = [1.0], other: Nothing = None):\n        super().__init__()\n"
    )
    config = run_config(BASE | {"rule": str(path), "rule_params": {"scales": [1, 2.5]}})
    assert config.rule_params == {"scales": [1, 2.5], "other": None}


def test_a_moved_rule_file_is_the_same_run(tmp_path):
    keys = set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "mine.py"
        path.write_text('"""A rule."""\nfrom rules.base import Rule\n\n\nclass Mine(Rule):\n    pass\n')
        keys.add(run_config(BASE | {"rule": str(path)}).key)
    assert len(keys) == 1


@pytest.mark.parametrize(
    "text",
    [
        "from rules.base import Rule as R\n\n\nclass Mine(R):\n    pass\n",
        "from rules.base import Rule\n\n\nclass _Common(Rule):\n    pass\n\n\nclass Mine(_Common):\n    pass\n",
        "from rules.feedback_alignment import FeedbackAlignment\n\n\nclass Mine(FeedbackAlignment):\n    pass\n",
    ],
)
def test_a_rule_is_found_however_it_derives(tmp_path, text):
    from training.catalogue import RULES

    (tmp_path / "mine.py").write_text(text)
    assert RULES.load(str(tmp_path / "mine.py")).__name__ == "Mine"


def test_a_version_that_is_no_number_is_named(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text('from rules.base import Rule\n\n\nclass Mine(Rule):\n    version = "2"\n')
    with pytest.raises(UserError, match="version must be a whole number"):
        run_config(BASE | {"rule": str(path)})


def test_the_loss_and_the_scale_of_inputs_are_the_runs_to_choose(tmp_path):
    from training.run import build, load_task

    values = {"rule": "backprop", "model": "mlp", "task": "digits"}
    usual = run_config(values)
    assert run_config(values | {"objective": "task", "inputs": "standardised"}).key == usual.key
    other = run_config(values | {"objective": "squared_error", "inputs": "unit"})
    assert other.key != usual.key
    trained = build(other, Execution(data=tmp_path))
    assert trained.objective.name == "squared_error"
    images = load_task(other, Execution(data=tmp_path)).train.images
    assert torch.equal(trained.preprocess(images), images.float() / (255 if images.dtype == torch.uint8 else 1))
    with pytest.raises(UserError, match=r"class indices.*mean_squared_error"):
        build(run_config(values | {"objective": "mean_squared_error"}), Execution(data=tmp_path))


def test_a_part_of_a_name_is_recognised_before_a_similar_name():
    known = ["rotating_snakes", "shapes", "shapes_familiar"]
    for given_name, meant in (("snakes", "rotating_snakes"), ("familiar", "shapes_familiar"), ("shape", "shapes")):
        assert f"did you mean {meant!r}?" in str(unknown("task", given_name, known))
    assert "known: rotating_snakes" in str(unknown("task", "x", known))
