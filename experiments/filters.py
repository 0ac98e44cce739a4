"""Receptive fields over training: the first stage's filters at nine moments, drawn at the end for rules that spike.

Written to ``figures/receptive_fields_over_training.png`` and to Weights & Biases. What is kept is in the checkpoint, so
that a run that was interrupted draws all of its training.
"""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from evaluation.spikes import first_filters

MOMENTS = 8  # besides the start, equally far apart
FILTERS = 24
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

    def state_dict(self) -> dict[str, Any]:
        """Return what was kept."""
        return {"kept": self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what was kept."""
        self.kept = dict(state_dict["kept"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Keep the initial filters."""
        if trainer.global_step == 0:
            self._keep(0, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Keep the filters if this step ends an eighth of training."""
        del args
        total = int(trainer.estimated_stepping_batches)
        if trainer.global_step in {round(total * k / MOMENTS) for k in range(1, MOMENTS + 1)}:
            self._keep(trainer.global_step, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draw, unless the first stage has no filters."""
        del pl_module
        if not self.kept:
            return
        path = draw(self.folder, self.title, self.kept)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"figures/{NAME}", [str(path)])

    def _keep(self, step: int, module: Any) -> None:
        filters = first_filters(module.net)
        if filters is not None:
            self.kept[step] = filters[:FILTERS].detach().cpu().clone()


def draw(folder: Path, title: str, kept: dict[int, Tensor]) -> Path:
    """Draw one row of filters per moment, each filter on its own scale, and return the path."""
    from matplotlib.figure import Figure

    num = len(next(iter(kept.values())))
    drawing = Figure(figsize=(0.55 * num + 1.0, 0.55 * len(kept) + 0.6), layout="constrained")
    grid = drawing.subplots(len(kept), num, squeeze=False)
    for row, (step, filters) in zip(grid, sorted(kept.items()), strict=True):
        for axes, f in zip(row, filters.mean(1), strict=True):
            largest = f.abs().max().clamp(min=1e-9).item()
            axes.imshow(f.numpy(), cmap="gray", vmin=-largest, vmax=largest)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"step {step}", fontsize=7, rotation=0, ha="right", va="center")
    drawing.suptitle(f"Receptive fields of the first stage over training: {title}", fontsize=9)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}.png"
    drawing.savefig(path, dpi=130)
    return path
