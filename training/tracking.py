"""Where curves go: ``metrics.csv`` in the run directory, and Weights & Biases."""

import csv
import dataclasses
import io
import os
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import Logger

from training.config import Execution, RunConfig
from training.directory import write_whole
from training.errors import UserError


class CurveLogger(Logger):
    """Writes one row per epoch to ``metrics.csv``.

    Lightning's own CSV logger deletes the file when a run resumes. Here the rows of the epochs
    before stay; an epoch that is repeated replaces its row with the same numbers.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.rows: dict[int, dict[str, Any]] = {}
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    self.rows[int(row["epoch"])] = {k: v for k, v in row.items() if v not in ("", None)}

    @property
    def name(self) -> str:
        """Name that Lightning asks for."""
        return "curves"

    @property
    def version(self) -> str:
        """Version that Lightning asks for."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``config.json`` has them."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add metrics to the row of their epoch and write the file; without a step the row keeps its own."""
        row = self.rows.setdefault(int(metrics["epoch"]), {})
        row.update({k: v for k, v in metrics.items() if k != "epoch"})
        if step is not None:
            row["step"] = step
        columns = sorted({name for r in self.rows.values() for name in r} - {"epoch", "step"})
        text = io.StringIO()
        writer = csv.DictWriter(text, ["epoch", "step", *columns], lineterminator="\n")
        writer.writeheader()
        for epoch, values in sorted(self.rows.items()):
            writer.writerow({**values, "epoch": epoch})
        write_whole(self.path, text.getvalue())


def wandb_logger(config: RunConfig, directory: Path, execution: Execution, study: str = "") -> WandbLogger | None:
    """Return a W&B logger for a run, or ``None`` where W&B is off.

    Args:
        config: Becomes the W&B run's config.
        directory: Folder for the W&B files.
        execution: Online, offline or off.
        study: Group of the W&B run.
    """
    if execution.wandb == "off":
        return None
    _quiet()
    directory.mkdir(parents=True, exist_ok=True)
    run = _init(
        project="plasticbench", name=config.directory, id=config.key, dir=str(directory), mode=execution.wandb,
        group=study or None, resume="allow", tags=[config.rule_name, config.model, config.task],
        config=dataclasses.asdict(config) | {"key": config.key}, reinit="finish_previous",
    )  # fmt: skip
    return WandbLogger(experiment=run)


def log_table(name: str, columns: list[str], records: list[list[Any]], execution: Execution) -> None:
    """Log a table as a W&B run of its own, next to the run directories.

    Args:
        name: Name of the W&B run.
        columns: Names of the columns.
        records: One list of cells per row.
        execution: Online or offline, and the folder of runs.
    """
    import wandb

    _quiet()
    cells = [["" if c is None else str(c) for c in r] for r in records]
    with _init(
        project="plasticbench", name=name, job_type="leaderboard", dir=str(execution.runs),
        mode="online" if execution.wandb == "online" else "offline",
        reinit="finish_previous",
    ) as run:  # fmt: skip
        run.log({"leaderboard": wandb.Table(columns=list[str | int](columns), data=cells)})


def _init(**settings: Any) -> Any:
    """Start a W&B run.

    Raises:
        UserError: If W&B refuses, as it does online without a login.
    """
    import wandb

    try:
        return wandb.init(**settings)
    except wandb.errors.Error as error:
        raise UserError(f"Weights & Biases: {' '.join(str(error).split())[:200]}; or use --wandb offline") from error


def _quiet() -> None:
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")
