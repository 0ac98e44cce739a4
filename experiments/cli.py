"""The command line. Nothing here imports torch: ``--help`` and ``list`` answer at once."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import brain
from experiments import commands as do
from training.catalogue import ROOT
from training.errors import UserError

PACKAGES = ("rules", "models", "training", "evaluation", "experiments")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, or 2 where the user must mend something."""
    try:
        guard_packages()
        options = parse(arguments)
        return int(options.command(options) or 0)
    except UserError as error:
        print(f"plasticbench: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"plasticbench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("plasticbench: interrupted; the same command continues", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the parsed command; ``key=value`` may stand before, between and after options."""
    top = parser()
    options, rest = top.parse_known_args(arguments)
    more = [text for text in rest if "=" in text and not text.startswith("-")]
    if len(more) < len(rest) or (more and not hasattr(options, "overrides")):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if more:
        options.overrides = [*options.overrides, *more]
    return options


def guard_packages() -> None:
    """Make sure that the five top-level packages are ours and not another distribution's.

    Raises:
        UserError: If one of them is shadowed.
    """
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        place = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if place != ROOT / name:
            raise UserError(
                f"the package {name!r} comes from {place}, not from {ROOT / name}: another installed package "
                "shadows it; use a virtual environment of its own (make leaderboard makes one)"
            )


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        prog="plasticbench",
        description="Train the same vision networks with different learning rules and compare them.",
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="train and evaluate one run",
        description="Train and evaluate one run. key=value sets a training field (lr=0.01) or an option of "
        "the rule, model or task (rule.scale=2 model.width=16 task.size=48).",
    )
    run.add_argument("--rule", required=True, help="name of a rule, or path of a rule file")
    run.add_argument("--model", default="cnn", help="name of an architecture (default: cnn)")
    run.add_argument("--task", default="shapes", help="name of a task (default: shapes)")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--tuned", action="store_true", help="start from the tuned learning rate and options of the rule")
    run.add_argument("overrides", nargs="*", metavar="key=value")
    _susceptibility(run)
    _execution(run)
    run.set_defaults(command=do.run)

    study = commands.add_parser("study", help="train and evaluate a grid of runs; the same command resumes")
    _grid(study)
    study.add_argument("--dry-run", action="store_true", help="show what would run")
    _susceptibility(study)
    _execution(study)
    study.set_defaults(command=do.study)

    tune = commands.add_parser(
        "tune",
        help="search the hyper-parameters of every rule of a study, on validation data",
        description="Random search over every rule's search_space and learning rate, the same number of trials for "
        "each, on a share of the training set. The same command resumes; more trials run only the new ones.",
    )
    _grid(tune)
    tune.add_argument("--trials", type=int, default=10, help="trials per rule, model and task (default: 10)")
    tune.add_argument("--write", type=Path, metavar="FILE", help="file of tuned hyper-parameters that gets the winners")
    _execution(tune)
    tune.set_defaults(command=do.tune)

    evaluate = commands.add_parser("evaluate", help="measure what is missing in finished runs")
    evaluate.add_argument("runs_given", nargs="+", type=Path, metavar="RUN", help="run directory, or a folder of them")
    evaluate.add_argument("--benchmark", action="append", default=[], metavar="NAME")
    _execution(evaluate)
    evaluate.set_defaults(command=do.evaluate)

    board = commands.add_parser("leaderboard", help="compare rules")
    board.add_argument("folder", nargs="?", type=Path, default=Path("runs"), metavar="RUNS")
    board.add_argument("--sort", default="accuracy", help="accuracy, kanizsa, hidden_cosine, flops_ratio or rule")
    form = board.add_mutually_exclusive_group()
    for name in ("json", "csv", "markdown"):
        form.add_argument(f"--{name}", dest="form", action="store_const", const=name)
    board.add_argument("--svg", type=Path, metavar="FILE", help="write the table as a picture too")
    board.set_defaults(command=do.leaderboard)

    listing = commands.add_parser("list", help="what there is")
    listing.add_argument("kind", metavar="rules|models|tasks|benchmarks|observers|brains|tuned")
    listing.set_defaults(command=do.listing)

    show = commands.add_parser("show", help="draw stimuli or training images to a PNG")
    show.add_argument("what", help="name of a task, or of a benchmark that has stimuli")
    show.add_argument("-o", "--output", type=Path, help="PNG to write (default: NAME.png)")
    show.add_argument("--size", type=int, help="side of the stimuli in pixels")
    show.add_argument("overrides", nargs="*", metavar="key=value", help="options of the task")
    _data(show)
    show.set_defaults(command=do.show)

    brain.add_parser(commands, _data, _execution)

    check = commands.add_parser("check", help="check a learning rule against the contract")
    check.add_argument("rule", help="name of a rule, or path of a rule file")
    check.add_argument("--fast", action="store_true", help="leave out the checks that train")
    check.set_defaults(command=do.check)

    new = commands.add_parser("new-rule", help="write a file for a new learning rule")
    new.add_argument("name", help="name of the rule, such as my_rule")
    new.set_defaults(command=do.new_rule)
    return top


def _grid(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="STUDY.yaml")
    command.add_argument("-j", "--jobs", type=int, default=0, help="processes (default: one per core)")


def _data(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", type=Path, help="folder of data sets (default: $PLASTICBENCH_DATA, or a cache)")
    command.add_argument("--download", action="store_true", help="download data sets that are missing")


def _susceptibility(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--susceptibility", type=int, default=0, metavar="N", help="measure the Kanizsa index every N epochs (0: never)"
    )


def _execution(command: argparse.ArgumentParser) -> None:
    command.add_argument("--runs", type=Path, default=Path("runs"), help="folder of run directories (default: runs)")
    _data(command)
    command.add_argument("--wandb", choices=("online", "offline", "off"), default="offline")
    command.add_argument("--device", default="cpu", help="Lightning's accelerator: cpu, gpu, auto (default: cpu)")
    command.add_argument("--threads", type=int, default=1, help="threads per process (default: 1, best for small nets)")
    command.add_argument("--no-progress", action="store_true")
