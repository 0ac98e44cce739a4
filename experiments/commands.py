"""What the commands do. Each imports what it needs when it runs, so that the others stay quick."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.brain import own_brains
from experiments.catalogues import BENCHMARKS, CATALOGUES
from training.catalogue import describe
from training.config import TRAINING_FIELDS, Execution, data_root, run_config
from training.errors import UserError, unknown


def execution_of(options: argparse.Namespace) -> Execution:
    """Return how to execute, from the options of a command.

    Raises:
        UserError: If a value is out of range.
    """
    if options.threads < 1:
        raise UserError(f"--threads must be at least 1, got {options.threads}")
    if options.device not in ("cpu", "gpu", "cuda", "mps", "auto"):
        raise unknown("device", options.device, ("cpu", "gpu", "cuda", "mps", "auto"))
    susceptibility = getattr(options, "susceptibility", 0)
    if susceptibility < 0:
        raise UserError(f"--susceptibility must be at least 0, got {susceptibility}")
    return Execution(
        runs=options.runs,
        data=_data(options),
        download=options.download,
        wandb=options.wandb,
        accelerator=options.device,
        progress=not options.no_progress and sys.stderr.isatty(),
        threads=options.threads,
        susceptibility=susceptibility,
    )


def _data(options: argparse.Namespace) -> Path:
    return options.data.expanduser().resolve() if options.data else data_root()


def parse_overrides(overrides: Sequence[str], parts: Sequence[str] = ("rule", "model", "task")) -> dict[str, Any]:
    """Return run fields from ``key=value`` arguments.

    Args:
        overrides: Such as ``lr=0.01`` or ``rule.scale=2``.
        parts: What may stand before a dot.

    Raises:
        UserError: If one is not of that form or its key is unknown.
    """
    import yaml

    values: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UserError(f"{text!r}: expected key=value")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"{text!r}: the value is not readable ({' '.join(str(error).split())})") from error
        part, dot, option = key.partition(".")
        if dot and part in parts:
            values.setdefault(f"{part}_params", {})[option] = parsed
        elif key in TRAINING_FIELDS and "rule" in parts:
            values[key] = parsed
        else:
            known = [*(TRAINING_FIELDS if "rule" in parts else ()), *(f"{p}.…" for p in parts)]
            raise unknown("key", key, known)
    return values


def run(options: argparse.Namespace) -> int:
    """Train and evaluate one run."""
    values: dict[str, Any] = {"rule": options.rule, "model": options.model, "task": options.task, "seed": options.seed}
    overrides = parse_overrides(options.overrides)
    config = run_config(values | overrides, "run")
    if options.tuned:
        from experiments.tuned import TUNED, read_tuned, tuned_config

        config = tuned_config(values | overrides, overrides, read_tuned(TUNED), "run")
        if not config.trials:
            print(f"plasticbench: no tuned values of {config.rule_name} × {config.model} are in force", file=sys.stderr)
    return _run_all([config], execution_of(options), "", 1)


def study(options: argparse.Namespace) -> int:
    """Train and evaluate what is missing of a study, then show the board."""
    from experiments.study import read_study

    plan = read_study(options.file)
    execution = dataclasses.replace(execution_of(options), benchmarks=plan.benchmarks)
    if options.dry_run:
        for config in plan.configs:
            print(execution.runs / config.directory)
        return 0
    code = _run_all(plan.configs, execution, plan.name, _jobs(options))
    from experiments.leaderboard import read_rows
    from experiments.render import print_table, table, write_all

    problems: list[str] = []
    rows = read_rows(execution.runs, problems)
    paths = write_all(rows, execution.runs)
    print_table(rows)
    print(f"written: {', '.join(str(p) for p in paths)}")
    own = [c.directory for c in plan.configs]
    for problem in problems:
        if not any(directory in problem for directory in own):  # those of this study have been named
            print(f"plasticbench: left out of the board: {problem}", file=sys.stderr)
    if execution.wandb != "off":
        from training.tracking import log_table

        log_table(f"leaderboard-{plan.name}", *table(rows), execution)
    return code


def tune(options: argparse.Namespace) -> int:
    """Search hyper-parameters, the same number of trials for every rule, and show what came out."""
    from experiments.study import read_study
    from experiments.tune import check_write, chosen, entries_of, outcome, print_report, searches
    from experiments.tuned import write_tuned

    if options.trials < 1:
        raise UserError(f"--trials must be at least 1, got {options.trials}")
    plan, execution, jobs = read_study(options.file), execution_of(options), _jobs(options)
    found = searches(plan)
    if options.write:
        check_write(found, options.write)
    # Trial by trial: wherever it is stopped, all rules have had about the same budget.
    configs = {c.key: c for number in range(options.trials) for s in found for c in s.trial(number)}
    code = _run_all(list(configs.values()), execution, plan.name, jobs)
    if code == 143:
        return code
    winners, empty = [], 0
    for search in found:
        outcomes = [outcome(search, number, execution.runs) for number in range(options.trials)]
        print_report(search, outcomes)
        best = chosen(outcomes)
        if best:
            winners.append((search, best))
        empty += not best and any(o.state != "unsupported" for o in outcomes)
    if options.write:
        entries = entries_of(winners, options.trials, options.file, options.write)
        write_tuned(options.write, entries)
        print(f"{options.write}: {sum(map(len, entries.values()))} of {len(found)} searches written")
    return 2 if code == 2 else 1 if empty else 0


def _jobs(options: argparse.Namespace) -> int:
    """Return the number of processes."""
    if options.jobs < 0:
        raise UserError(f"--jobs must be at least 1, got {options.jobs}")
    return options.jobs or _cores()


def _cores() -> int:
    """Return the cores that this process may use; macOS knows only how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_all(configs: Sequence[Any], execution: Execution, study: str, jobs: int) -> int:
    """Run what is missing, say how each run ended, and return 0, 1 (a run failed), 2 (a mistake) or 143."""
    from experiments.launch import run_local
    from experiments.runner import cautions, finished
    from training.directory import RunDirectory

    directories = {c.key: RunDirectory(execution.runs / c.directory) for c in configs}
    todo, states = [], []
    for config in configs:
        try:
            if not finished(directories[config.key], execution):
                todo.append(config)
        except UserError as error:
            if len(configs) == 1:
                raise
            print(f"plasticbench: {error}", file=sys.stderr)
            states.append("invalid")
    if len(todo) + len(states) < len(configs):
        print(f"{len(configs) - len(todo) - len(states)} of {len(configs)} runs are finished")
    broken = len(states)
    for line in cautions(todo):
        print(f"plasticbench: {line}", file=sys.stderr)

    def report(config: Any, state: str) -> None:
        name, _, reason = state.partition(": ")
        directory = directories[config.key]
        if not reason and name != "done":
            reason = directory.status()["reason"]
        states.append(name)
        if name == "invalid" and len(configs) == 1:
            raise UserError(reason)
        print(
            f"[{len(states) - broken}/{len(todo)}] {directory.path}  {name}{': ' if reason else ''}{reason}", flush=True
        )

    run_local(todo, execution, study, jobs, report)
    if "interrupted" in states:
        print("interrupted; the same command continues", file=sys.stderr)
        return 143
    return 2 if "invalid" in states else 1 if "failed" in states else 0


def evaluate(options: argparse.Namespace) -> int:
    """Measure what is missing in finished runs."""
    for name in options.benchmark:
        if name not in BENCHMARKS.entries():
            raise unknown("benchmark", name, BENCHMARKS.entries())
    from experiments.runner import evaluate as evaluate_run
    from training.directory import run_directories

    execution = execution_of(options)
    code = 0
    for root in options.runs_given:
        directories = run_directories(root)
        if not directories:
            raise UserError(f"{root}: holds no run directory")
        for directory in directories:
            try:
                if len(directories) > 1 and (state := directory.status()["state"]) != "done":
                    print(f"{directory.path}: skipped, {state or 'not started'}")
                    continue
                print(f"{directory.path}: {evaluate_run(directory, execution, options.benchmark)} benchmarks measured")
            except UserError as error:
                print(f"plasticbench: {error}", file=sys.stderr)
                code = 2
            except Exception as error:  # a benchmark's own bug; what is measured is on disk
                print(f"plasticbench: {directory.path}: {describe(error)}", file=sys.stderr)
                code = code or 1
    return code


def leaderboard(options: argparse.Namespace) -> int:
    """Show the board."""
    from experiments import render
    from experiments.leaderboard import read_rows

    problems: list[str] = []
    rows = read_rows(options.folder, problems)
    if options.sort != "accuracy":
        rows = render.ordered(rows, options.sort)
    if options.form and options.svg:
        raise UserError("--svg is a picture of the table; leave out --json, --csv and --markdown")
    if options.form:
        text = {"json": render.to_json, "csv": render.to_csv, "markdown": render.markdown}[options.form](rows)
        sys.stdout.write(text)
    elif not rows:
        print(f"{options.folder}: no runs yet")
    else:
        render.print_table(rows, options.svg)
    for problem in problems:
        print(f"plasticbench: {problem}", file=sys.stderr)
    return 2 if problems else 0


def listing(options: argparse.Namespace) -> int:
    """Show what there is of one kind."""
    if options.kind == "tuned":
        from experiments.tuned import listing

        print("\n".join(listing()))
        return 0
    if options.kind not in CATALOGUES:
        raise unknown("kind", options.kind, [*CATALOGUES, "tuned"])
    lines = {e.name: e.summary for e in CATALOGUES[options.kind].entries().values()}
    if options.kind == "brains":
        lines |= own_brains(data_root())
    width = max(map(len, lines), default=0)
    for name, summary in lines.items():
        print(f"{name:<{width}}  {summary}")
    return 0


def show(options: argparse.Namespace) -> int:
    """Draw a sheet."""
    from experiments.show import draw

    output = options.output or Path(f"{options.what}.png")
    overrides = parse_overrides(options.overrides, ("task",))
    draw(options.what, output, options.size, overrides, Execution(data=_data(options), download=options.download))
    print(output)
    return 0


def check(options: argparse.Namespace) -> int:
    """Check a rule against the contract."""
    from experiments.check import report

    return report(options.rule, behaviour=not options.fast)


def new_rule(options: argparse.Namespace) -> int:
    """Write the file of a new rule."""
    from experiments.new_rule import write_rule

    path = write_rule(options.name, Path())
    print(f"{path}\nnext: plasticbench check {path}\n      plasticbench run --rule {path} --task shapes")
    return 0
