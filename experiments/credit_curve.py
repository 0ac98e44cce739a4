"""How well a rule's updates point where backprop's do, over training."""

from typing import Any

import pytorch_lightning as pl

from evaluation.credit import angle, compare
from training.data.base import Task

PROBE = 256  # held-out images behind the curve


class CreditCurve(pl.Callback):
    """Logs, before training and after every epoch, each stage's angle and cosine to backprop on held-out images."""

    def __init__(self, task: Task) -> None:
        preprocess = task.preprocess()
        self.x = preprocess(task.test.images[:PROBE])
        self.target = preprocess.target(task.test.targets[:PROBE])

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Record the untrained network as epoch −1."""
        if trainer.current_epoch == 0:
            for logger in trainer.loggers:
                logger.log_metrics(self._measure(pl_module) | {"epoch": -1}, step=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Record the epoch."""
        pl_module.log_dict(self._measure(pl_module))

    def _measure(self, module: Any) -> dict[str, float]:
        weight = next(module.net.parameters())
        x, target = self.x.to(weight.device, weight.dtype), self.target.to(weight.device)
        found = compare(module.net, module.rule, module.objective, x, target)
        return {f"credit/cosine/{s}": c for s, (c, _) in found.items()} | {
            f"credit/angle/{s}": angle(c) for s, (c, _) in found.items()
        }
