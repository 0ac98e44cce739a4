"""One number of the leaderboard over seeds, from the score records of runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evaluation.statistics import iqm, iqm_interval


@dataclass(frozen=True)
class Estimate:
    """One number over seeds.

    Attributes:
        value: Interquartile mean, ``None`` where no seed has the number.
        low: Lower end of its bootstrap 95 % interval; ``None`` for fewer than two seeds.
        high: Upper end.
        per_seed: The number of every seed that has it.
        reason: Why seeds lack it.
        said: What its scores say of themselves.
        at: Stages or targets that they name, each once.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    per_seed: dict[int, float] = field(default_factory=dict)
    reason: str = ""
    said: str = ""
    at: str = ""


def over(per_seed: Mapping[int, Sequence[Mapping[str, Any]]], wanted: str = "value") -> Estimate:
    """Return the estimate of one number from the score records of every seed.

    What a benchmark says of the network has no stage and counts, also where it is n/a; a stage's number stands for the
    network's only where there is none of the whole.

    Args:
        per_seed: Seed → records of that number.
        wanted: Field of the records that is taken.
    """
    found: dict[int, float] = {}
    at: dict[str, None] = {}
    said, lacking = "", dict[str, list[int]]()
    for seed, every in per_seed.items():
        own = [s for s in every if not s["stage"]] or every
        passed = [s for s in own if s["gate"] == "pass" and s[wanted] is not None]
        if not passed:
            lacking.setdefault(own[-1]["reason"], []).append(seed)
            continue
        s = passed[-1]
        found[seed], said = s[wanted], s["reason"] or said
        at[s["stage"] or s["target"]] = None
    return dataclasses.replace(estimate(found, _reasons(lacking)), said=said, at=", ".join(filter(None, at)))


def _reasons(lacking: Mapping[str, Sequence[int]]) -> str:
    """Return why seeds lack a number: one reason as it is, several behind the seeds that they hold for."""
    given = {reason: seeds for reason, seeds in lacking.items() if reason}
    if len(given) < 2:
        return next(iter(given), "")
    return "; ".join(f"{', '.join(f's{n}' for n in sorted(seeds))}: {reason}" for reason, seeds in given.items())


def estimate(per_seed: Mapping[int, float], reason: str = "") -> Estimate:
    """Return the interquartile mean over seeds with its interval.

    Args:
        per_seed: Seed → number.
        reason: Why some seed has none.
    """
    if not per_seed:
        return Estimate(reason=reason)
    values = [per_seed[s] for s in sorted(per_seed)]
    low, high = iqm_interval(values) or (None, None)
    return Estimate(float(iqm(np.array(values))), low, high, dict(sorted(per_seed.items())), reason)
