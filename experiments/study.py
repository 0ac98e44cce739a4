"""A study: a grid of rules × models × tasks × seeds, written as YAML with strict keys.

    name: quick
    seeds: 3                                   # 0, 1, 2; or a list
    rules: [backprop, {name: feedback_alignment, scale: 1.0}, path/to/my_rule.py]
    models: [{name: cnn, width: 16}]
    tasks: [{name: shapes, epochs: 4}, digits]
    observers: [pixels]                        # null observers
    benchmarks: [objects92]                    # beside those that every run is examined with
    training: {lr: 0.001}                      # any field of a run, for all; entries may override it
    tuned: true                                # start from the tuned learning rates and options of every rule

What stands beside ``name`` in an entry is a training field (``epochs``, ``lr``, …) or an option of the entry. The
controls ``untrained`` and ``readout_only`` are in every study, named or not; so is the baseline that a rule names as
its own (frozen features under the same inference), with the options and training fields that the two share.
``tuned`` (``false`` by default; a file in place of ``experiments/tuned.yaml``) puts what a search chose for a rule on a
model beneath what the rule's own entry says, and above the learning rate that ``training``, the task or the model
gives to all rules.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.catalogues import CATALOGUES, OBSERVERS
from experiments.tuned import TUNED, Entries, read_tuned, tuned_config
from training.catalogue import RULES, options_of
from training.config import NULL, TRAINING_FIELDS, RunConfig, run_config
from training.errors import UserError, unknown

CONTROLS = ("untrained", "readout_only")  # in every study, asked for or not
KEYS = ("name", "seeds", "rules", "models", "tasks", "observers", "benchmarks", "training", "tuned", "description")


@dataclass(frozen=True)
class Study:
    """A named grid of runs.

    Attributes:
        name: Safe as a file name.
        configs: Every cell once, all rules of a seed together.
        benchmarks: Wanted beside those that every run is examined with.
    """

    name: str
    configs: tuple[RunConfig, ...]
    benchmarks: tuple[str, ...] = ()


def read_study(path: Path) -> Study:
    """Return the study in a YAML file, every cell checked.

    Raises:
        UserError: If the file or anything in it is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such study file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected keys {', '.join(KEYS)}, got {type(content).__name__}")
    return expand(content, str(path), default_name=path.stem, folder=path.parent)


def expand(content: Mapping[str, Any], where: str, *, default_name: str, folder: Path = Path()) -> Study:
    """Return the study of a mapping.

    Args:
        content: As read from YAML.
        where: Where it stands, for the messages.
        default_name: Used where the content has no name.
        folder: Relative paths of rule files start here, or in the working directory.

    Raises:
        UserError: If anything is wrong.
    """
    for key in content:
        if key not in KEYS:
            raise unknown("key", key, KEYS, where)
    name = content.get("name", default_name)
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UserError(f"{where}: name must be letters, digits, - and _ only, got {name!r}")
    tuned = _tuned(content.get("tuned", False), folder, where)
    seeds = _seeds(content.get("seeds", 5), where)
    common = content.get("training") or {}
    if not isinstance(common, Mapping):
        raise UserError(f"{where}: training must be a mapping, got {common!r}")
    for key in common:
        if key not in TRAINING_FIELDS:
            raise unknown("training field", key, TRAINING_FIELDS, f"{where}: training")
    rules, models, tasks = (_entries(content, kind, where) for kind in ("rules", "models", "tasks"))
    rules += [{"name": c} for c in CONTROLS if c not in [r["name"] for r in rules]]
    rules += _own_baselines(rules)
    observers = [e["name"] for e in _entries({"observers": content.get("observers", ["pixels"])}, "observers", where)]
    for observer in observers:
        if observer not in OBSERVERS.entries():
            raise unknown("observer", observer, OBSERVERS.entries(), where)
    benchmarks = [e["name"] for e in _entries({"benchmarks": content.get("benchmarks", [])}, "benchmarks", where)]
    configs: dict[str, RunConfig] = {}
    for task in tasks:
        for seed in seeds:
            cells = [_cell(common, task, seed, rule, model, tuned, folder, where) for model in models for rule in rules]
            if not task.get("validation", common.get("validation")):  # a search does not ask null observers
                cells += [_null(observer, task, seed, where) for observer in observers]
            configs.update({c.key: c for c in cells})
    return Study(name, tuple(configs.values()), tuple(benchmarks))


def baseline_of(rule: str) -> str:
    """Return the control that a rule names as its baseline; ``readout_only`` where the rule is gone."""
    return str(getattr(_loaded(rule), "baseline", CONTROLS[1]))


def is_control(rule: str) -> bool:
    """Return whether a rule is a control, by its own tags."""
    return rule in CONTROLS or bool(getattr(getattr(_loaded(rule), "tags", None), "control", False))


@functools.cache
def _loaded(rule: str) -> Any:
    try:
        return RULES.load(rule)
    except UserError:  # a rule file that is gone, or a null observer
        return None


def _own_baselines(rules: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the baselines that rules need and the study does not name, each with what it shares with its rule."""
    named = {r["name"] for r in rules}
    found: list[Mapping[str, Any]] = []
    for rule in rules:
        baseline = baseline_of(rule["name"])
        if baseline in named or baseline not in RULES.entries():
            continue
        shared = {*TRAINING_FIELDS, *options_of(RULES.load(baseline))}
        entry = {"name": baseline, **{k: v for k, v in rule.items() if k in shared}}
        if entry not in found:
            found.append(entry)
    return found


def _cell(
    common: Mapping[str, Any],
    task: Mapping[str, Any],
    seed: int,
    rule: Mapping[str, Any],
    model: Mapping[str, Any],
    tuned: Entries,
    folder: Path,
    where: str,
) -> RunConfig:
    """Return one cell; a rule's own training fields win over the task's, those over the model's, those over all."""
    values: dict[str, Any] = dict(common)
    for kind, entry in (("model", model), ("task", task), ("rule", rule)):
        options = {k: v for k, v in entry.items() if k != "name" and k not in TRAINING_FIELDS}
        values.update({k: v for k, v in entry.items() if k in TRAINING_FIELDS})
        values |= {kind: entry["name"], f"{kind}_params": options}
    if values["rule"].endswith(".py") and not Path(values["rule"]).exists():
        values["rule"] = str(folder / values["rule"])
    return tuned_config(values | {"seed": seed}, rule, tuned, where)


def _tuned(given: Any, folder: Path, where: str) -> Entries:
    """Return the tuned values that a study starts from."""
    if isinstance(given, Mapping):
        raise UserError(f"{where}: holds tuned hyper-parameters, not a study; a study uses them with `tuned: true`")
    if isinstance(given, str):
        return read_tuned(Path(given) if Path(given).exists() else folder / given)
    if not isinstance(given, bool):
        raise UserError(f"{where}: tuned must be true, false or a file of tuned hyper-parameters, got {given!r}")
    return read_tuned(TUNED) if given else {}


def _null(observer: str, task: Mapping[str, Any], seed: int, where: str) -> RunConfig:
    options = {k: v for k, v in task.items() if k != "name" and k not in TRAINING_FIELDS}
    values = {"rule": NULL + observer, "model": "none", "task": task["name"], "task_params": options, "seed": seed}
    return run_config(values, where)


def _entries(content: Mapping[str, Any], kind: str, where: str) -> list[Mapping[str, Any]]:
    """Return a list of mappings that each have a name."""
    given = content.get(kind)
    if not given and kind not in ("observers", "benchmarks"):
        raise UserError(f"{where}: {kind} is missing or empty")
    catalogue = CATALOGUES[kind]
    entries = []
    for item in given if isinstance(given, list) else [given] if given else []:
        entry = {"name": item} if isinstance(item, str) else item
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise UserError(f"{where}: {kind}: expected a name or {{name: …, option: …}}, got {item!r}")
        if not entry["name"].endswith(".py") and entry["name"] not in catalogue.entries():
            raise unknown(catalogue.kind, entry["name"], catalogue.entries(), where)
        entries.append(entry)
    return entries


def _seeds(given: Any, where: str) -> list[int]:
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return list(range(given))
    if isinstance(given, list) and given and all(isinstance(s, int) and s >= 0 for s in given):
        return list(dict.fromkeys(given))
    raise UserError(f"{where}: seeds must be a positive number or a list of non-negative integers, got {given!r}")
