"""Receptive fields over training: what is kept is what the network had, from start to end and over an interruption."""

import pytest
import pytorch_lightning as pl
import torch

from evaluation.spikes import first_filters
from experiments.cli import main
from experiments.filters import NAME, FiltersOverTraining
from tests.experiments.test_tracking import read
from training.config import Execution
from training.directory import RunDirectory, run_directories
from training.run import Interrupted, build, restore, train


class Stop(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    options = ["epochs=2", "model.width=12", "model.depth=1"]
    assert main(["run", "--rule", "stdp", "--model", "mlp", "--task", "digits", "--runs", str(runs), *options]) == 0
    (found,) = run_directories(runs)
    return found


def kept_in(directory):
    states = torch.load(directory.checkpoint, weights_only=True)["callbacks"]
    (state,) = (s for name, s in states.items() if "FiltersOverTraining" in name)
    return state["kept"]


def test_a_spiking_run_draws_its_filters_from_the_initial_to_the_final_ones(directory):
    kept = kept_in(directory)
    config = directory.config()
    initial, final = build(config, Execution()).net, restore(directory, Execution()).net
    last = torch.load(directory.checkpoint, weights_only=True)["global_step"]
    assert len(kept) == 9 and min(kept) == 0 and max(kept) == last
    assert torch.equal(kept[0], first_filters(initial)) and torch.equal(kept[last], first_filters(final))
    assert not torch.equal(kept[0], kept[last])
    _, history, _, _ = read(directory.path)
    (entry,) = [h[f"figures/{NAME}"] for h in history if f"figures/{NAME}" in h]
    (stored,) = directory.path.rglob(entry["filenames"][0].rpartition("/")[2])
    assert stored.read_bytes() == (directory.figures / f"{NAME}.png").read_bytes()


def test_an_interrupted_run_keeps_the_moments_before(directory, tmp_path):
    whole, config = kept_in(directory), directory.config()

    again = RunDirectory(tmp_path / "again")
    with pytest.raises(Interrupted):
        train(config, again, Execution(), callbacks=[FiltersOverTraining(again.figures, "stdp"), Stop()])
    resumed = FiltersOverTraining(again.figures, "stdp")
    train(config, again, Execution(), callbacks=[resumed])
    assert resumed.kept.keys() == whole.keys()
    assert all(torch.equal(f, whole[step]) for step, f in resumed.kept.items())
