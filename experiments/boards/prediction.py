"""Prediction of the next frame, below the leaderboard: error over that of repeating the last frame."""

from collections.abc import Callable, Sequence
from typing import Any

NOTE = (
    "next frame: squared error on held-out clips over that of a copy of the last frame; below 1 = something of the "
    "motion is predicted. Held-out clips are in natural order also where training was on shuffled or static frames. "
    "skill: 1 − ratio, n/a unless the interval over clips lies below 1 in a seed."
)
NUMBERS = ("error_ratio", "clips_better", "skill")


def numbers(seen: Sequence[tuple[str, str, str]]) -> dict[str, tuple[str | None, ...]]:
    """Return what the benchmark ``prediction`` measured, if it could be measured at all."""
    measured = any(bench == "prediction" and metric == "clips_better" for bench, metric, _ in seen)
    return {n: ("prediction", n, None) for n in NUMBERS} if measured else {}


def table(rows: Sequence[Any], mark: Callable[[str], str]) -> tuple[list[str], list[list[str]], list[str]]:
    """Return header, cells and the line below for the networks of one setting; nothing where no frames are predicted.

    Args:
        rows: Of one setting.
        mark: Turns a reason into a mark.
    """
    shown = [(r, r.pillars.get("prediction", {})) for r in rows if r.kind != "null"]
    lines = []
    for row, found in shown:
        ratio, better, skill = (found.get(n) for n in NUMBERS)
        if ratio is None or (ratio.value is None and not ratio.reason):
            continue
        kind = " (control)" if row.kind == "control" else ""
        lines.append([row.rule + kind, _cell(ratio, "{:.3f}", mark), _cell(better, "{:.0%}", mark),
                      _cell(skill, "{:+.1%}", mark)])  # fmt: skip
    return (["next frame", "error / copy", "clips better", "skill"], lines, [NOTE]) if lines else ([], [], [])


def _cell(number: Any, form: str, mark: Callable[[str], str]) -> str:
    if number.value is None:
        return f"n/a{mark(number.reason)}"
    text = form.format(number.value)
    if number.low is not None:
        text += f" [{form.format(number.low)}, {form.format(number.high)}]"
    return text
