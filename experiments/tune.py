"""``plasticbench tune``: random search over hyper-parameters, the same number of trials for every rule.

Trial 0 is the study's configuration as it stands. Every later trial draws the learning rate and each entry of the
rule's ``search_space``, log-uniform or as the rule says, from a stream of its own: draws depend on the trial and
the name alone. Learning rates, on which everything depends, are not independent: a few of those may leave most of the
range untried. Their places in the logarithmic range are u_k = frac(u_0 + k (√5 − 1)/2), of which any few successive
ones lie apart (Kronecker's sequence with the golden ratio). So trial k has one learning rate for all rules of an
optimiser, other rules and more trials change nothing, and a rule without a search space gets the same number of
trials. What is compared is performance on a share of the training set; the test set is not touched. A trial is an
ordinary run, and resumes like one.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.leaderboard import label, short
from experiments.study import Study, is_control
from experiments.tuned import Entries, Entry, optimizer_of, read_tuned
from rules.base import loguniform
from training.catalogue import MODELS, ROOT, RULES, TASKS, describe
from training.config import RunConfig, canonical_json, run_config, stream
from training.directory import RunDirectory
from training.errors import UserError

VALIDATION = 0.2  # share of the training set, where the study does not say
LR = {"adam": (3e-4, 1e-2), "adamw": (3e-4, 1e-2), "sgd": (1e-3, 0.3)}  # log-uniform, by optimiser
GOLDEN = (math.sqrt(5) - 1) / 2
HIGHER_IS_BETTER = {"accuracy": True, "mean_squared_error": False}
COLUMNS = ("rank", "trial", "lr", "hyper-parameters", "validation", "state")


@dataclass(frozen=True)
class Search:
    """One rule on one model and task: the configurations of trial 0, one per seed."""

    configs: tuple[RunConfig, ...]

    @property
    def base(self) -> RunConfig:
        """The configuration of trial 0 at the first seed."""
        return self.configs[0]

    @property
    def title(self) -> str:
        """Rule, model and task with their options."""
        b = self.base
        rule = label(b.rule_name, short(RULES, b.rule, b.rule_params))
        return f"{rule}: {model_label(b)} × {task_label(b)}, validation {b.validation:g}"

    def trial(self, number: int) -> list[RunConfig]:
        """Return the runs of a trial, one per seed."""
        return [trial_config(c, number) for c in self.configs]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        trial: Its number.
        config: Its run at the first seed.
        score: Mean over seeds, ``None`` unless every seed has it.
        metric: What the score is.
        state: ``done``, ``failed``, ``unsupported`` …
        reason: Why there is no score.
        still: Hidden stages that did not move, in words; empty if all did.
    """

    trial: int
    config: RunConfig
    score: float | None
    metric: str
    state: str
    reason: str = ""
    still: str = ""


def searches(study: Study) -> list[Search]:
    """Return what is searched in a study: every rule that learns, on every model and task."""
    groups: dict[str, list[RunConfig]] = {}
    for config in study.configs:
        if not config.is_null and RULES.load(config.rule).tags.learns:
            base = dataclasses.replace(config, validation=config.validation or VALIDATION, trials=0)
            fields = {k: v for k, v in dataclasses.asdict(base).items() if k != "seed"}
            groups.setdefault(canonical_json(fields), []).append(base)
    return [Search(tuple(configs)) for configs in groups.values()]


def trial_config(base: RunConfig, trial: int) -> RunConfig:
    """Return the run of a trial: ``base`` itself for 0, else ``base`` with drawn values.

    Raises:
        UserError: If the rule's search space is broken or names no option of the rule.
    """
    if trial == 0:
        return base
    drawn = draw(base, trial)
    fields = dataclasses.asdict(base)
    fields |= {"lr": drawn.pop("lr"), "rule_params": base.rule_params | drawn}
    return run_config(fields, f"rule {base.rule_name}: search_space")


def draw(base: RunConfig, trial: int) -> dict[str, Any]:
    """Return the learning rate and the rule's searched options of a trial, at three significant digits.

    Raises:
        UserError: If the rule's search space is broken.
    """
    space: Mapping[str, Callable[[Any], Any]] = RULES.load(base.rule).search_space
    samplers = {"lr": loguniform(*LR[optimizer_of(base)]), **space}  # a rule may know its own range of rates
    values: dict[str, Any] = {}
    for name, sampler in samplers.items():
        try:
            spread = _Spread(trial) if name == "lr" else None
            value = sampler(spread or np.random.default_rng(stream(0, "tune", trial, name)))
        except Exception as error:
            raise UserError(f"rule {base.rule_name}: search_space[{name!r}]: {describe(error)}") from error
        value = value.item() if isinstance(value, np.generic) else value
        values[name] = float(f"{value:.3g}") if isinstance(value, float) else value
    return values


class _Spread(np.random.Generator):
    """A generator whose ``random`` is the trial's place in a sequence that spreads over the unit interval."""

    def __init__(self, trial: int) -> None:
        super().__init__(np.random.PCG64(stream(0, "tune", trial, "lr")))
        first = np.random.default_rng(stream(0, "tune", "lr")).random()
        self.place = (first + trial * GOLDEN) % 1.0

    def random(self, *args: Any, **kwargs: Any) -> Any:
        """Return the place; an array of independent numbers where one is asked for."""
        return super().random(*args, **kwargs) if args or kwargs else self.place


def outcome(search: Search, trial: int, runs: Path) -> Outcome:
    """Return how a trial ended, from its run directories.

    A run that diverged, or that answers the same to everything, has failed: it must not be chosen for a lucky share.
    """
    configs = search.trial(trial)
    scores, still, metric = [], "", "accuracy"
    for config in configs:
        directory = RunDirectory(runs / config.directory)
        try:
            status, records = directory.status(), directory.scores()
        except UserError as error:
            return Outcome(trial, configs[0], None, metric, "broken", str(error))
        if status["state"] != "done":
            return Outcome(trial, configs[0], None, metric, status["state"] or "not run", status["reason"])
        found = _newest(records, "accuracy")
        metric = next((m for m in HIGHER_IS_BETTER if m in found), "accuracy")
        value, reason = _judge(found, metric)
        if value is None:
            return Outcome(trial, configs[0], None, metric, "failed", reason)
        scores.append(value)
        moved = _newest(records, "learned").get("hidden_change", {})
        still = still or (moved.get("reason", "") if moved.get("gate") != "pass" else "")
    return Outcome(trial, configs[0], float(np.mean(scores)), metric, "done", "", still)


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes, best first: an equal score goes to the lower trial, one without score to the end."""

    def key(o: Outcome) -> tuple[bool, float, int]:
        score = 0.0 if o.score is None else -o.score if HIGHER_IS_BETTER[o.metric] else o.score
        return (o.score is None, score, o.trial)

    return sorted(outcomes, key=key)


def chosen(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the best outcome, or ``None`` where no trial has a score."""
    best = ranked(outcomes)[0]
    return best if best.score is not None else None


def print_report(search: Search, outcomes: Sequence[Outcome]) -> None:
    """Print the trials of a search, best first, the chosen one marked."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    table = Table(title=search.title, title_justify="left", title_style="bold", pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("hyper-parameters", "state") else "right")
    best = chosen(outcomes)
    for rank, o in enumerate(ranked(outcomes), 1):
        state = o.state + (f": {o.reason}" if o.reason else "") + (" ◀ chosen" if o is best else "")
        place = str(rank) if o.score is not None else ""
        options = ", ".join(f"{n}={v}" for n, v in _options(o.config).items()) or "–"
        cells = (place, str(o.trial), f"{o.config.lr:g}", options, _score(o), state)
        table.add_row(*(Text(c) for c in cells))
    console.print(table)
    if best is None:
        console.print(Text("  nothing to choose from: no trial has a score"))
    elif best.still and not is_control(best.config.rule):
        console.print(Text(f"  the chosen trial taught its hidden stages nothing: {best.still}"))


def check_write(found: Sequence[Search], path: Path) -> None:
    """Make sure, before anything is trained, that the winners can be written.

    Raises:
        UserError: If there are several tasks or several entries for a rule on a model, or the file is another's.
    """
    tasks = sorted({f"{task_label(s.base)}, validation {s.base.validation:g}" for s in found})
    if len(tasks) > 1:
        raise UserError(f"--write keeps one entry per rule and model, the study has several tasks: {'; '.join(tasks)}")
    seen: set[tuple[str, str]] = set()
    for s in found:
        cell = (s.base.rule_name, s.base.model)
        if cell in seen:
            raise UserError(f"--write keeps one entry per rule and model, the study has several {cell[0]} × {cell[1]}")
        seen.add(cell)
    if path.exists():
        read_tuned(path)


def entries_of(winners: Sequence[tuple[Search, Outcome]], trials: int, file: Path, path: Path) -> Entries:
    """Return what ``--write`` writes: the winners but for rules by path, which are not looked up.

    Args:
        winners: Searches with the trial that each chose.
        trials: Number of trials.
        file: The study.
        path: Where it is written, for the command.
    """
    command = f"plasticbench tune {_from_root(file)} --trials {trials} --write {_from_root(path)}"
    entries: Entries = {}
    for search, won in winners:
        c = won.config
        if c.rule_source or won.score is None:
            continue
        entries.setdefault(c.model, {})[c.rule] = Entry(
            lr=c.lr, options=_options(c), trials=trials,
            metric=won.metric, score=round(won.score, 6), validation=c.validation,
            seeds=[s.seed for s in search.configs], task=task_label(c), model=model_label(c), epochs=c.epochs,
            batch_size=c.batch_size, optimizer=optimizer_of(c), weight_decay=c.weight_decay,
            rule_version=c.rule_version, command=command,
        )  # fmt: skip
    return entries


def model_label(config: RunConfig) -> str:
    """Return the model with its options."""
    return label(config.model, short(MODELS, config.model, config.model_params))


def task_label(config: RunConfig) -> str:
    """Return the task with its options."""
    return label(config.task, short(TASKS, config.task, config.task_params))


def _newest(records: Sequence[Mapping[str, Any]], benchmark: str) -> dict[str, Mapping[str, Any]]:
    """Return metric → record of the newest version of a benchmark."""
    own = [r for r in records if r["benchmark"] == benchmark]
    newest = max((r.get("benchmark_version", 1) for r in own), default=1)
    return {r["metric"]: r for r in own if r.get("benchmark_version", 1) == newest}


def _judge(found: Mapping[str, Mapping[str, Any]], metric: str) -> tuple[float | None, str]:
    record = found.get(metric, {"gate": "n/a", "reason": "not measured"})
    if record["gate"] != "pass" or record["value"] is None:
        return None, str(record["reason"])
    if found.get("most_frequent_answer", {}).get("value") == 1.0:
        return None, "collapsed: it answers the same to every image"
    return float(record["value"]), ""


def _options(config: RunConfig) -> dict[str, Any]:
    """Return the rule's options that were searched, and those that the search held away from their defaults."""
    searched, other = RULES.load(config.rule).search_space, short(RULES, config.rule, config.rule_params)
    return {n: v for n, v in config.rule_params.items() if n in searched or n in other}


def _score(o: Outcome) -> str:
    if o.score is None:
        return "n/a"
    return f"{o.score:.2%}" if o.metric == "accuracy" else f"{o.metric} {o.score:.4g}"


def _from_root(path: Path) -> Path:
    """Return a path relative to the project where it lies in it, so that the command works in every checkout."""
    whole = path.resolve()
    return whole.relative_to(ROOT) if whole.is_relative_to(ROOT) else path
