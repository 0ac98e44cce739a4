"""Receptive fields over training: the first stage's filters at nine moments, drawn at the end for rules that spike.

Written to ``figures/receptive_fields_over_training.png`` and to Weights & Biases. What is kept is in the checkpoint, so
that a run that was interrupted draws all of its training.
"""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from evaluation.spikes import SHOWN_FILTERS, first_filters, receptive_fields

MOMENTS = 8  # besides the start, equally far apart
NAME = "receptive_fields_over_training"


class FiltersOverTraining(pl.Callback):
    """Keeps filters before training and after every eighth of it, and draws them.

    Args:
        folder: Where the figure goes.
        title: Name of the rule.
    """

    def __init__(self, folder: Path, title: str) -> None:
        self.folder, self.title = folder, title
        self.kept: dict[int, Tensor] = {}  # optimiser steps → filters
        self.moments: set[int] = set()  # steps after which filters are kept

    def state_dict(self) -> dict[str, Any]:
        """Return what was kept."""
        return {"kept": self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what was kept."""
        self.kept = dict(state_dict["kept"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Keep the initial filters."""
        total = int(trainer.estimated_stepping_batches)
        self.moments = {round(total * k / MOMENTS) for k in range(1, MOMENTS + 1)}
        if trainer.global_step == 0:
            self._keep(0, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Keep the filters if this step ends an eighth of training."""
        del args
        if trainer.global_step in self.moments:
            self._keep(trainer.global_step, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw, unless the first stage has no filters."""
        del pl_module
        if not self.kept:
            return
        title = f"Receptive fields of the first stage over training: {self.title}"
        moments = {f"step {step}": filters for step, filters in sorted(self.kept.items())}
        path = receptive_fields(self.folder / f"{NAME}.png", title, moments)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"figures/{NAME}", [str(path)])

    def _keep(self, step: int, module: Any) -> None:
        filters = first_filters(module.net)
        if filters is not None:
            self.kept[step] = filters[:SHOWN_FILTERS].detach().cpu().clone()
