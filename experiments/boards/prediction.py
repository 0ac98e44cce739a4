"""Prediction of the next frame, below the leaderboard: error over that of repeating the last frame."""

from collections.abc import Sequence
from typing import Any

from experiments.cells import Mark, Table, Where, cell, laid_out

NOTES = (
    "next frame: squared error on held-out clips over that of a copy of the last frame; below 1 = something of the "
    "motion is predicted. Held-out clips are in natural order also where training was on shuffled or static frames. "
    "skill: 1 − ratio, n/a unless the interval over clips lies below 1 in a seed.",
)
COLUMNS = {"error / copy": "error_ratio", "clips better": "clips_better", "skill": "skill"}
FORMS = {"error_ratio": "{:.3f}", "clips_better": "{:.0%}", "skill": "{:+.1%}"}


def numbers(seen: Sequence[tuple[str, str, str]]) -> dict[str, Where]:
    """Return what the benchmark ``prediction`` measured, if it could be measured at all."""
    measured = any(bench == "prediction" and metric == "clips_better" for bench, metric, _ in seen)
    return {n: ("prediction", n, None) for n in FORMS} if measured else {}


def table(rows: Sequence[Any], mark: Mark) -> Table:
    """Return header, cells and the line below for the networks of one setting; nothing where no frames are predicted.

    Args:
        rows: Of one setting.
        mark: Turns a reason into a mark.
    """
    asked = [r for r in rows if r.kind != "null" and "error_ratio" in r.pillars.get("prediction", {})]
    return laid_out(asked, "prediction", "next frame", COLUMNS, NOTES, lambda n, x: cell(x, mark, FORMS[n], FORMS[n]))
