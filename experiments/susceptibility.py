"""Susceptibility over training: the Kanizsa index on a small set of figures, every few epochs, beside the curves.

Written to ``metrics.csv`` and Weights & Biases as ``kanizsa/index`` (IN minus the strongest control), ``kanizsa/p_IN``,
``kanizsa/p_REAL`` and ``kanizsa/judged``: 1 where the network passes the gates, 0 where the index means nothing yet. It
sees the network as a benchmark does and leaves its random streams alone: training is bit-identical without it.
"""

from typing import Any

import pytorch_lightning as pl
import torch

from evaluation.base import TrainedObserver
from evaluation.illusions.gates import missing_class
from evaluation.illusions.kanizsa import Kanizsa, gate
from evaluation.illusions.kanizsa_index import index_of
from training.data.base import Task

PER_CELL = 2  # layouts for every set, number of corners and support ratio


class Susceptibility(pl.Callback):
    """Measures before training, after every ``every`` epochs and after the last one.

    Args:
        task: The run's task.
        every: Epochs between measurements.
    """

    def __init__(self, task: Task, every: int) -> None:
        self.task, self.every = task, every
        self.preprocess = task.preprocess()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Record the untrained network as epoch −1."""
        if trainer.current_epoch == 0 and not missing_class(self.task.classes):
            for logger in trainer.loggers:
                logger.log_metrics(self.measure(pl_module) | {"epoch": -1}, step=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Record the epoch, if it is one of those that are measured."""
        done = trainer.current_epoch + 1
        if not missing_class(self.task.classes) and (done % self.every == 0 or done == trainer.max_epochs):
            pl_module.log_dict(self.measure(pl_module))

    def measure(self, module: Any) -> dict[str, float]:
        """Return the numbers of a training module's network as it is now."""
        observer = TrainedObserver(
            name="in training",
            net=module.net,
            rule=module.rule,
            initial=module.net,
            initial_rule=module.rule,
            objective=module.objective,
            preprocess=self.preprocess,
            classes=self.task.classes,
            held_out=self.task.test,
        )
        with torch.random.fork_rng(devices=[]):
            found = Kanizsa(per_cell=PER_CELL).answers(observer)
        return {
            "kanizsa/index": index_of(found.contrasts()),
            "kanizsa/p_IN": float(found.p["IN"].mean()),
            "kanizsa/p_REAL": float(found.p["REAL"].mean()),
            "kanizsa/judged": float(found.finite and gate(found, observer.classes) is None),
        }
