"""What is written of every score: the number, where it belongs, and the versions of what computed it."""

import datetime
import functools
import importlib.metadata
import subprocess
from collections.abc import Sequence
from typing import Any

from evaluation.base import Benchmark, Score
from training.catalogue import ROOT
from training.config import SCHEMA_VERSION, RunConfig


def to_wandb(logger: Any, bench: Benchmark, scores: Sequence[Score], figures: Sequence[Any]) -> None:
    """Put scores into a run's summary in Weights & Biases, and log its figures."""
    import wandb

    run = logger.experiment
    summary = {}
    for s in scores:
        name = "/".join(part for part in ("score", bench.name, s.metric, s.stage, s.target) if part)
        summary[name] = s.value if s.gate == "pass" else f"n/a ({s.reason})"
    run.summary.update(summary)
    if figures:
        run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in figures})


def record(
    config: RunConfig, bench: Benchmark, score: Score, seconds: float, study: str, rule_version: int
) -> dict[str, Any]:
    """Return one line of ``scores.jsonl``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run_key": config.key,
        "study": study,
        "rule": config.rule_name,
        "rule_version": rule_version,
        "model": config.model,
        "task": config.task,
        "seed": config.seed,
        "benchmark": bench.name,
        "benchmark_version": bench.version,
        "stage": score.stage,
        "target": score.target,
        "metric": score.metric,
        "higher_is_better": score.higher_is_better,
        "raw": score.raw,
        "ceiling_low": score.ceiling_low,
        "ceiling_high": score.ceiling_high,
        "value": score.value,
        "ci_low": score.ci_low,
        "ci_high": score.ci_high,
        "n_stimuli": score.n_stimuli,
        "gate": score.gate,
        "reason": score.reason,
        "seconds": round(seconds, 3),
        "git_sha": git_sha(),
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of what computes the numbers."""
    names = ("plasticbench", "torch", "torchvision", "pytorch-lightning", "numpy", "scikit-learn", "himalaya")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


@functools.cache
def git_sha() -> str:
    """Return the commit of the code, with ``+`` where it was changed since; empty outside a git checkout."""
    try:
        ask = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
        sha = ask(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        return sha + ("+" if ask(["git", "status", "--porcelain", "-uno"]).stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return ""
