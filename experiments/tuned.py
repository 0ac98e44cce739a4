"""Tuned hyper-parameters: what ``plasticbench tune --write`` records and ``tuned: true`` starts from.

One entry per model and rule, in a file that says with which command it was made. An entry is applied where the
rule is of the version that was searched and trained by the same optimiser with the same weight decay: a learning
rate found under other conditions says nothing. The board shows its trials, or – where it was not applied.
"""

import dataclasses
import functools
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from training.catalogue import RULES
from training.config import RunConfig, coerce, run_config
from training.directory import write_whole
from training.errors import UserError

TUNED = Path(__file__).with_name("tuned.yaml")
HEADER = """\
# Learning rates and rule options that `plasticbench tune` chose on validation data, the same number of trials for
# every rule; used by `tuned: true` in a study and by `plasticbench run --tuned`. This is not a study. Made by:
"""


@dataclass(frozen=True)
class Entry:
    """What a search chose for one rule on one model.

    Attributes:
        lr: Learning rate.
        options: Options of the rule: those searched, and those that the search held away from their defaults.
        trials: Trials of the search.
        metric: What the trials were compared by.
        score: Its mean over seeds on the validation share, for the chosen trial.
        validation: Share of the training set that was held out.
        seeds: Seeds of the search.
        task: The task with its options.
        model: The model with its options.
        epochs: Passes over the training set per trial.
        batch_size: Images per optimiser step.
        optimizer: That trained the rule.
        weight_decay: Of the optimiser.
        rule_version: Version of the rule that was searched.
        command: That made the entry.
    """

    lr: float
    options: dict[str, Any]
    trials: int
    metric: str
    score: float
    validation: float
    seeds: list[int]
    task: str
    model: str
    epochs: int
    batch_size: int
    optimizer: str
    weight_decay: float
    rule_version: int
    command: str


Entries = dict[str, dict[str, Entry]]  # model → rule → entry


def read_tuned(path: Path) -> Entries:
    """Return the entries of a file.

    Raises:
        UserError: If it is missing, is not a file of tuned hyper-parameters, or an entry is broken.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file of tuned hyper-parameters; `plasticbench tune --write` makes it"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, Mapping) or list(content) != ["tuned"] or not isinstance(content["tuned"], Mapping):
        raise UserError(f"{path}: is not a file of tuned hyper-parameters (one key `tuned`: model → rule → values)")
    entries: Entries = {}
    for model, rules in content["tuned"].items():
        if not isinstance(rules, Mapping):
            raise UserError(f"{path}: {model}: expected rule → values, got {rules!r}")
        entries[model] = {rule: _entry(values, f"{path}: {model}: {rule}") for rule, values in rules.items()}
    return entries


def write_tuned(path: Path, new: Entries) -> None:
    """Write entries into a file, replacing those of the same model and rule and keeping all others."""
    entries = read_tuned(path) if path.exists() else {}
    for model, rules in new.items():
        entries[model] = entries.get(model, {}) | rules
    commands = sorted({e.command for rules in entries.values() for e in rules.values()})
    made_by = "".join(f"#     {c}\n" for c in commands) or "#     (no search yet)\n"
    data = {m: {r: dataclasses.asdict(e) for r, e in sorted(rules.items())} for m, rules in sorted(entries.items())}
    write_whole(path, HEADER + made_by + yaml.safe_dump({"tuned": data}, sort_keys=False, width=120))


def tuned_config(values: Mapping[str, Any], explicit: Mapping[str, Any], entries: Entries, where: str) -> RunConfig:
    """Return the configuration of a cell, with tuned values beneath what its rule's own entry says.

    The tuned learning rate wins over one that is given for all rules (by ``training``, the task or the model): that
    is a general default, the tuned one is the rule's. ``trials`` is set where every searched value is in force.

    Args:
        values: Fields of the run without tuned values.
        explicit: Training fields that were given for this rule itself; they win.
        entries: Tuned values.
        where: Where the values stand, for the messages.

    Raises:
        UserError: If anything is unknown or out of range.
    """
    plain = run_config(values, where)
    entry = entries.get(plain.model, {}).get(plain.rule)
    if entry is None or not _applies(entry, plain):
        return plain
    options = entry.options | dict(values.get("rule_params", {}))
    changed: dict[str, Any] = {"rule_params": options} | ({} if "lr" in explicit else {"lr": entry.lr})
    config = run_config(dict(values) | changed, where)
    return dataclasses.replace(config, trials=entry.trials) if _in_force(entry, config) else config


def optimizer_of(config: RunConfig) -> str:
    """Return the optimiser that trains a run: the one that its rule insists on, or its own."""
    return str(getattr(RULES.load(config.rule), "optimizer", None) or config.optimizer)


def searched_elsewhere(config: RunConfig, task: str, model: str) -> str:
    """Return on what the values of a tuned run were searched, where that is not what it is trained on.

    Args:
        config: Of the run.
        task: Its task with its options.
        model: Its model with its options.
    """
    if not config.trials:
        return ""
    entry = _shipped().get(config.model, {}).get(config.rule)
    if entry is None or entry.trials != config.trials or not _in_force(entry, config):
        return "its hyper-parameters come from a search that is not in the shipped tuned.yaml"
    if (entry.task, entry.model, entry.epochs) == (task, model, config.epochs):
        return ""
    return f"its hyper-parameters were searched on {entry.task} × {entry.model}, {entry.epochs} epochs"


@functools.cache
def _shipped() -> Entries:
    return read_tuned(TUNED)


def _in_force(entry: Entry, config: RunConfig) -> bool:
    return config.lr == entry.lr and all(config.rule_params.get(n) == v for n, v in entry.options.items())


def listing() -> list[str]:
    """Return one line per entry of the shipped file."""
    lines = []
    for model, rules in read_tuned(TUNED).items():
        for rule, e in rules.items():
            options = "".join(f" {n}={v}" for n, v in e.options.items())
            lines.append(
                f"{model}  {rule}  lr={e.lr:g}{options}  ({e.trials} trials on {e.task}: {e.metric} {e.score:.4g})"
            )
    return lines or ["nothing is tuned yet; `plasticbench tune STUDY.yaml --write FILE` does it"]


def _applies(entry: Entry, config: RunConfig) -> bool:
    found = (entry.rule_version, entry.optimizer, entry.weight_decay)
    return found == (config.rule_version, optimizer_of(config), config.weight_decay)


def _entry(values: Any, where: str) -> Entry:
    hints = typing.get_type_hints(Entry)
    if not isinstance(values, Mapping) or set(values) != set(hints):
        raise UserError(f"{where}: expected the keys {', '.join(hints)}")
    return Entry(**{name: coerce(value, hints[name], f"{where}: {name}") for name, value in values.items()})
