"""One run: build the network, attach the rule, train under Lightning, restore."""

import dataclasses
import functools
import json
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.utils.data import DataLoader

from models.base import StagedNet
from rules.base import OBJECTIVES, Objective, Rule, refusal
from training.catalogue import MODELS, RULES, TASKS, describe
from training.config import Execution, Inputs, RunConfig, canonical_json, source_hash, stream, version_of
from training.data.base import Images, Preprocess, Source, Task, training_loader
from training.directory import RunDirectory
from training.errors import UserError
from training.module import RuleModule
from training.tracking import CurveLogger

CURVE_IMAGES = 2048  # held-out images behind the accuracy curve
PREDICT_BATCH = 256


class Unsupported(Exception):
    """The rule says that it cannot train this network; the message is its reason."""


class Interrupted(Exception):
    """Training was told to stop; the same command continues it."""


@dataclass(frozen=True)
class Trained:
    """A network with its rule, before or after training, and what it was trained for."""

    config: RunConfig
    net: StagedNet
    rule: Rule
    objective: Objective
    task: Task
    preprocess: Preprocess


def load_task(config: RunConfig, execution: Execution) -> Task:
    """Return the run's task; the last one is kept, since the runs of a study share it."""
    source = Source(execution.data, execution.download, config.seed)
    return _task(
        config.task, canonical_json(config.task_params), source, config.validation, config.objective, config.inputs
    )


@functools.lru_cache(maxsize=2)
def _task(name: str, options: str, source: Source, validation: float, objective: str, inputs: Inputs) -> Task:
    try:
        task: Task = TASKS.load(name)(source, **json.loads(options))
        task = dataclasses.replace(task, objective=task.objective if objective == "task" else objective, inputs=inputs)
        if bool(task.classes) == (task.objective == "mean_squared_error"):
            what = "class indices" if task.classes else "images"
            raise ValueError(f"its targets are {what}, which the objective {task.objective} cannot compare")
        return task.for_validation(validation, source.seed) if validation else task
    except (TypeError, ValueError) as error:
        raise UserError(f"task {name}: {error}") from error


def build(config: RunConfig, execution: Execution) -> Trained:
    """Return the network at its initial weights with the rule attached.

    The initial weights come from the seed alone: they are the same for every rule.

    Raises:
        Unsupported: If the rule refuses the network or the objective.
        UserError: If an option is out of range.
    """
    check_rule_is_the_one(config)
    task = load_task(config, execution)
    objective = OBJECTIVES[task.objective]
    dtype = torch.float64 if config.precision == "64-true" else torch.float32
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(stream(config.seed, "init"))
            net = MODELS.load(config.model)(task.in_shape, task.out_shape, **config.model_params).to(dtype)
            rule = RULES.load(config.rule)(**config.rule_params)
        except (TypeError, ValueError) as error:
            raise UserError(f"{config.rule} × {config.model}: {error}") from error
        net.eval()  # a rule may run the network to see its shapes; statistics must not move
        reason = refusal(rule, net, objective)
        if reason is not None:
            raise Unsupported(reason)
        torch.manual_seed(stream(config.seed, "rule"))
        rule.attach(net)
        rule.to(dtype)
        net.train()
    return Trained(config, net, rule, objective, task, task.preprocess())


def check_rule_is_the_one(config: RunConfig) -> None:
    """Make sure that the rule is the one that the run was made for: weights of one must not be scored as another.

    Raises:
        UserError: If its file or its version changed.
    """
    version = version_of(config.rule)
    if version != config.rule_version:
        raise UserError(f"rule {config.rule}: is version {version}, the run was made with {config.rule_version}")
    if config.rule_source and source_hash(Path(config.rule)) != config.rule_source:
        raise UserError(
            f"rule {config.rule}: the file changed since the run was made; train it anew with `run` or `study`"
        )


def train(
    config: RunConfig,
    directory: RunDirectory,
    execution: Execution,
    *,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[pl.Callback] = (),
) -> Trained:
    """Train a run to its end, continuing from its last checkpoint if it has one.

    Args:
        config: What to train.
        directory: Where checkpoint and curves go.
        execution: Device and progress bar.
        loggers: Besides the curves in the run directory.
        callbacks: Measurements during training; they must not draw from the run's random streams.

    Raises:
        Interrupted: If a signal stopped it.
        UserError: If the checkpoint is broken.
    """
    trained = build(config, execution)
    if not trained.rule.tags.learns or config.epochs == 0:
        return trained
    module = _Watched(trained, config)
    loader = training_loader(trained.task, _images_per_batch(config), config.seed)
    trainer = _trainer(config, directory, execution, [CurveLogger(directory.metrics), *loggers], callbacks)
    resume = None
    if directory.checkpoint.exists():
        read_checkpoint(directory)
        resume = str(directory.checkpoint)
    try:
        trainer.fit(module, loader, _curve_loader(trained), ckpt_path=resume, weights_only=True)
    except (SIGTERMException, SystemExit, KeyboardInterrupt) as error:
        raise Interrupted(describe(error)) from error
    if trainer.current_epoch < config.epochs:
        raise Interrupted(f"stopped after epoch {trainer.current_epoch} of {config.epochs}")
    trained.net.eval()
    return trained


def restore(directory: RunDirectory, execution: Execution) -> Trained:
    """Return a finished run's network and rule from its directory.

    Raises:
        UserError: If there is no checkpoint, or it is broken.
    """
    config = directory.config()
    trained = build(config, execution)
    if trained.rule.tags.learns and config.epochs > 0:
        state = read_checkpoint(directory)["state_dict"]
        for part, module in (("net", trained.net), ("rule", trained.rule)):
            own = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
            try:
                module.load_state_dict(own)
            except RuntimeError as error:
                raise UserError(f"{directory.checkpoint}: is not of this run ({describe(error)[:160]})") from error
    trained.net.eval()
    return trained


def read_checkpoint(directory: RunDirectory) -> dict[str, Any]:
    """Return the checkpoint, read without executing anything in it.

    Raises:
        UserError: If it is missing or broken.
    """
    path = directory.checkpoint
    if not path.exists():
        raise UserError(f"{path}: not there; run the same `plasticbench run` or `study` command again")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["state_dict"]
        return checkpoint
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError, OSError
        raise UserError(
            f"{path}: broken or truncated ({describe(error)[:120]}); delete it to train this run again"
        ) from error


def _images_per_batch(config: RunConfig) -> int:
    return max(1, config.batch_size // config.accumulate)


class _Watched(RuleModule):
    """The rule module with the held-out curve."""

    def __init__(self, trained: Trained, config: RunConfig) -> None:
        super().__init__(trained.net, trained.rule, trained.objective, config)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the epoch's curves before its checkpoint.

        Lightning writes them after it; a run that was killed between the two would go on with the next epoch.
        """
        del checkpoint
        known = {name: value.item() for name, value in self.trainer.callback_metrics.items()}
        for logger in self.trainer.loggers:
            if isinstance(logger, CurveLogger):
                logger.log_metrics(known | {"epoch": self.current_epoch})

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy on held-out images, under the rule's own inference."""
        x, target = batch
        output = self.rule.predict(self.net, x)
        loss = self.objective.losses(output, target).mean()
        self.log("held_out_loss", loss, on_step=False, on_epoch=True, batch_size=len(x))
        if target.dim() == 1:
            hits = (output.argmax(1) == target).float().mean()
            self.log("held_out_accuracy", hits, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(x))


def _curve_loader(trained: Trained) -> DataLoader:
    held_out = trained.task.test
    few = Images(held_out.images[:CURVE_IMAGES], held_out.targets[:CURVE_IMAGES])
    batches = [
        tuple(
            prepare(part[i : i + PREDICT_BATCH])
            for prepare, part in ((trained.preprocess, few.images), (trained.preprocess.target, few.targets))
        )
        for i in range(0, len(few), PREDICT_BATCH)
    ]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def _trainer(
    config: RunConfig,
    directory: RunDirectory,
    execution: Execution,
    loggers: Sequence[Logger],
    callbacks: Sequence[pl.Callback],
) -> pl.Trainer:
    quiet_lightning()
    checkpoint = ModelCheckpoint(
        directory.path, filename="last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    return pl.Trainer(
        max_epochs=config.epochs,
        accelerator=execution.accelerator,
        devices=1,
        precision=config.precision,
        gradient_clip_val=config.clip or None,
        accumulate_grad_batches=config.accumulate,
        logger=list(loggers),
        callbacks=[checkpoint, *callbacks],
        enable_progress_bar=execution.progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        inference_mode=False,  # predictive coding takes gradients in evaluation too
        use_distributed_sampler=False,  # the batch order is ours: it depends on seed and epoch alone
        deterministic="warn",
        plugins=[WholeCheckpoints()],
        default_root_dir=str(directory.path),
    )


def quiet_lightning() -> None:
    """Silence what Lightning says about devices and data-loader workers in every run."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    for message in (".*does not have many workers.*", ".*Checkpoint directory.*", ".*treespec.*", ".*GPU available.*"):
        warnings.filterwarnings("ignore", message)


class WholeCheckpoints(TorchCheckpointIO):
    """Replaces a checkpoint whole or not at all, within its own folder.

    Lightning's own writer goes through the system's temporary folder, from where the last step is a copy where that
    is another file system: killed then, it would leave half of the only checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write next to the file, then rename."""
        del storage_options
        temporary = f"{path}.part"
        with open(temporary, "wb") as file:  # noqa: PTH123 - torch wants a file object
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
