"""experiments/snakes.yaml: every cell on natural, shuffled and static frames, paired by seed."""

import itertools

import yaml

from experiments.runner import execute
from experiments.study import expand
from training.catalogue import ROOT
from training.config import Execution, run_config
from training.directory import RunDirectory


def test_every_cell_is_trained_on_motion_and_on_both_controls_from_the_same_start():
    path = ROOT / "experiments" / "snakes.yaml"
    study = expand(yaml.safe_load(path.read_text()), "snakes", default_name="x", folder=path.parent)
    cells = {(c.rule, c.model, c.task_params["order"], c.seed) for c in study.configs if not c.is_null}
    rules = {"backprop", "feedback_alignment", "predictive_coding", "stdp", "untrained", "readout_only"}
    seeds = {c.seed for c in study.configs}
    orders = ("natural", "shuffled", "static")
    assert len(seeds) >= 3
    assert set(itertools.product(rules, ("cnn", "prednet"), orders, seeds)) <= cells
    for rule, model in itertools.product(rules, ("cnn", "prednet")):
        same = [c for c in study.configs if (c.rule, c.model, c.seed) == (rule, model, 0)]
        options = [{k: v for k, v in c.task_params.items() if k != "order"} for c in same]
        assert len(same) == 3 and options[0] == options[1] == options[2]
        assert len({(c.lr, c.epochs, c.batch_size, c.inputs) for c in same}) == 1


def test_an_observer_that_names_images_says_that_it_cannot_watch_clips(tmp_path):
    options = {"train": 8, "test": 4, "size": 16, "frames": 2}
    config = run_config({"rule": "null:pixels", "model": "none", "task": "next_frame", "task_params": options}, "test")
    execution = Execution(runs=tmp_path, data=tmp_path, wandb="off")
    assert execute(config, execution) == "unsupported"
    assert "no classes" in RunDirectory(tmp_path / config.directory).status()["reason"]
