"""One cell from start to finish: train what is not trained, measure what is not measured, record it all."""

import functools
import time
import traceback
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from evaluation.base import Benchmark, Observer, TrainedObserver
from experiments.catalogues import BENCHMARKS, OBSERVERS
from experiments.credit_curve import CreditCurve
from experiments.filters import FiltersOverTraining
from experiments.records import record, to_wandb
from experiments.susceptibility import Susceptibility
from training.catalogue import RULES, describe
from training.config import TRAINING_FIELDS, Execution, RunConfig
from training.data.base import Source
from training.directory import RunDirectory, run_directories
from training.errors import UserError
from training.module import optimiser_of
from training.run import Interrupted, Trained, Unsupported, build, load_task, restore, train
from training.tracking import wandb_logger


class BenchmarkFailed(Exception):
    """Benchmarks raised; every other one is measured and recorded."""


def execute(config: RunConfig, execution: Execution, study: str = "") -> str:
    """Bring one run to its end and return ``done``, ``unsupported``, ``failed`` or ``invalid`` (a mistake).

    A failure stays in the run's directory with its reason; it never stops a study.

    Args:
        config: The run.
        execution: Where and how.
        study: Name of the study, for the records.

    Raises:
        Interrupted: If a signal stopped it; the same call continues it.
        UserError: If the run's directory is broken.
    """
    directory = RunDirectory(execution.runs / config.directory)
    if (directory.path / "config.json").exists():
        directory.config()
    directory.scores()
    if state := finished(directory, execution):
        return state
    torch.set_num_threads(execution.threads)
    with directory.lock():
        return _execute(config, directory, execution, study)


def _execute(config: RunConfig, directory: RunDirectory, execution: Execution, study: str) -> str:
    directory.write_config(config)
    directory.set_status("running")
    try:
        _train_and_measure(config, directory, execution, study)
    except Unsupported as reason:
        directory.set_status("unsupported", str(reason))
        return "unsupported"
    except Interrupted as reason:
        directory.set_status("interrupted", str(reason))
        raise
    except KeyboardInterrupt:
        directory.set_status("interrupted", "interrupted by the user")
        raise
    except UserError as error:
        directory.set_status("failed", str(error))
        return "invalid"
    except BenchmarkFailed as error:
        directory.set_status("failed", f"{error} (see {directory.path / 'error.txt'})")
        return "failed"
    except Exception as error:
        (directory.path / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        directory.set_status("failed", f"{describe(error)} (see {directory.path / 'error.txt'})")
        return "failed"
    directory.set_status("done")
    return "done"


def finished(directory: RunDirectory, execution: Execution) -> str | None:
    """Return ``done`` or ``unsupported`` where nothing is left to do, else ``None``."""
    if not (directory.path / "config.json").exists():
        return None
    state = directory.status()["state"]
    if state == "unsupported" or (state == "done" and not missing(directory, execution)):
        return str(state)
    return None


def missing(directory: RunDirectory, execution: Execution, only: Sequence[str] = ()) -> list[Benchmark]:
    """Return the benchmarks that have no score of their present version in a run.

    One whose data were not there when it was measured counts as missing once they are.

    Args:
        directory: The run.
        execution: Where data are, and which benchmarks are wanted beside those of every run.
        only: Names to restrict to. By default all; on a validation share those by which hyper-parameters are chosen.
    """
    have = directory.measured()
    wanted = [benchmark(name, execution) for name in only or BENCHMARKS.entries()]
    for bench in wanted:
        bench.siblings = functools.partial(sibling, directory, execution)
    if not only:
        wanted = [b for b in wanted if not b.on_request or b.name in execution.benchmarks]
        if directory.config().validation:
            wanted = [b for b in wanted if b.selects]
    without = {s["benchmark"] for s in directory.scores() if s["metric"] == "data" and s["gate"] != "pass"}
    return [b for b in wanted if (b.name, b.version) not in have or (b.name in without and not b.absent())]


def benchmark(name: str, execution: Execution) -> Benchmark:
    """Return the benchmark of that name at its default size."""
    bench: Benchmark = BENCHMARKS.load(name)()
    bench.source = Source(execution.data, execution.download)
    return bench


def sibling(directory: RunDirectory, execution: Execution, rule: str) -> Observer | None:
    """Return the finished run beside another that differs by its rule, and by as few training fields as there are.

    Args:
        directory: The run.
        execution: Where data are.
        rule: Name of the rule of the run that is looked for.

    Raises:
        UserError: If its checkpoint is broken.
    """
    own = directory.config()
    same = ("model", "model_params", "task", "task_params", "seed")
    found = []
    for other in run_directories(directory.path.parent):
        config = other.config()
        alike = config.rule == rule and all(getattr(config, name) == getattr(own, name) for name in same)
        if alike and other.path != directory.path and other.status()["state"] == "done":
            differ = sum(getattr(config, name) != getattr(own, name) for name in TRAINING_FIELDS)
            found.append((differ, other.path.name, other))
    if not found:
        return None
    nearest = min(found, key=lambda f: f[:2])[2]
    return observer_of(restore(nearest, execution), build(nearest.config(), execution))


def evaluate(directory: RunDirectory, execution: Execution, only: Sequence[str] = (), study: str = "") -> int:
    """Measure what is missing in a finished run and return the number of benchmarks measured.

    Raises:
        UserError: If the run is not finished or its checkpoint is broken.
    """
    config = directory.config()
    wanted = missing(directory, execution, only)
    if not wanted:
        return 0
    if directory.status()["state"] != "done":
        raise UserError(f"{directory.path}: not finished; run the same `plasticbench run` or `study` command again")
    torch.set_num_threads(execution.threads)
    with directory.lock():
        trained = None if config.is_null else restore(directory, execution)
        _measure(config, trained, directory, execution, wanted, study)
    return len(wanted)


def measure_with(directory: RunDirectory, execution: Execution, bench: Benchmark) -> int:
    """Measure a finished run with a benchmark of one's own making and return the number of scores.

    Raises:
        UserError: If its checkpoint is broken.
    """
    config = directory.config()
    torch.set_num_threads(execution.threads)
    bench.source = Source(execution.data, execution.download)
    with directory.lock():
        trained = None if config.is_null else restore(directory, execution)
        _measure(config, trained, directory, execution, [bench], "")
    return sum(s["benchmark"] == bench.name for s in directory.scores())


def cautions(configs: Sequence[RunConfig]) -> list[str]:
    """Return a line for every rule that, under the optimiser of a run, is not what its paper describes."""
    lines: dict[str, None] = {}
    for config in configs:
        try:
            rule = None if config.is_null else RULES.load(config.rule)(**config.rule_params)
        except (TypeError, ValueError, UserError):  # the run itself says what is wrong
            continue
        if rule is not None and config.epochs > 0:
            kind, momentum, weight_decay = optimiser_of(rule, config)
            caution = rule.caution(kind, momentum if kind == "sgd" else 0.0, weight_decay)
            if caution:
                lines[f"{config.rule_name}: {caution}"] = None
    return list(lines)


def observer_of(trained: Trained, initial: Trained) -> TrainedObserver:
    """Return the observer of a trained network.

    Args:
        trained: The network after training.
        initial: The same run before training.
    """
    return TrainedObserver(
        name=trained.config.rule_name,
        net=trained.net,
        rule=trained.rule,
        initial=initial.net.eval(),
        initial_rule=initial.rule,
        objective=trained.objective,
        preprocess=trained.preprocess,
        classes=trained.task.classes,
        held_out=trained.task.test,
        task=trained.config.task,
        task_params=trained.config.task_params,
    )


def _train_and_measure(config: RunConfig, directory: RunDirectory, execution: Execution, study: str) -> None:
    wandb = wandb_logger(config, directory.path, execution, study)
    try:
        trained = None
        if not config.is_null:
            # A trial of a search is compared by accuracy alone.
            curves: list[pl.Callback] = [] if config.validation else [CreditCurve(load_task(config, execution))]
            if execution.susceptibility and not config.validation:
                curves.append(Susceptibility(load_task(config, execution), execution.susceptibility))
            if (tags := RULES.load(config.rule).tags).spiking and not (tags.control or config.validation):
                curves.append(FiltersOverTraining(directory.figures, config.rule_name))
            trained = train(config, directory, execution, loggers=[wandb] if wandb else [], callbacks=curves)
        _measure(config, trained, directory, execution, missing(directory, execution), study, wandb)
    finally:
        if wandb:
            wandb.experiment.finish()


def _measure(
    config: RunConfig,
    trained: Trained | None,
    directory: RunDirectory,
    execution: Execution,
    benchmarks: Sequence[Benchmark],
    study: str,
    wandb: Any = None,
) -> None:
    """Measure benchmarks one by one, each recorded as soon as it is measured.

    Raises:
        BenchmarkFailed: If some raised, after all others were measured; ``error.txt`` holds where.
    """
    observer: Observer
    if trained is None:
        task = load_task(config, execution)
        try:
            observer = OBSERVERS.load(config.rule_name)(task)
        except ValueError as error:  # it was made for another kind of task
            raise Unsupported(describe(error)) from error
    else:
        observer = observer_of(trained, build(config, execution))
    own_wandb = None
    if wandb is None:
        wandb = own_wandb = wandb_logger(config, directory.path, execution, study)
    try:
        failures = {}
        for bench in benchmarks:
            try:
                start = time.perf_counter()
                scores = bench.measure(observer)
                seconds = time.perf_counter() - start
                version = trained.rule.version if trained else 1
                records = [record(config, bench, s, seconds, study, version) for s in scores]
                directory.add_scores([r | {"records": len(records)} for r in records])
                figures = bench.draw(directory.figures, {observer.name: observer})
                if wandb:
                    to_wandb(wandb, bench, scores, figures)
            except (Interrupted, UserError):
                raise
            except Exception as error:  # one benchmark's own bug, or a network that it cannot bear
                failures[bench.name] = describe(error)
                text = f"benchmark {bench.name}\n{traceback.format_exc()}\n"
                with (directory.path / "error.txt").open("w" if len(failures) == 1 else "a", encoding="utf-8") as file:
                    file.write(text)
        if failures:
            raise BenchmarkFailed("; ".join(f"benchmark {name}: {why}" for name, why in failures.items()))
    finally:
        if own_wandb:
            own_wandb.experiment.finish()
