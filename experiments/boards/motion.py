"""Rotating Snakes below the leaderboard: speed with its controls, and what of it is owed to learned motion.

Only the difference to the same network, from the same initial weights, trained on shuffled or still frames is evidence
that *learned motion* makes the snakes turn: maps without any memory pass reversal and symmetric patterns too.
Imports no torch.
"""

import re
from collections.abc import Sequence
from typing import Any

from evaluation.statistics import holm, sign_flip_test
from experiments.cells import Mark, Table, Where, always, behind, cell, laid_out
from experiments.estimates import estimate

BENCHMARK, READOUT = "rotating_snakes", "motion_readout"
# Name of a number → benchmark, metric, target.
NUMBERS: dict[str, Where] = {
    "error": (BENCHMARK, "error_to_copy", ""),
    "real": (BENCHMARK, "real_correlation", ""),
    "index": (BENCHMARK, "index", None),
    "reversal": (BENCHMARK, "reversal", None),
    "left": (BENCHMARK, "index_left", None),
    "speed": (BENCHMARK, "speed", "S1"),
    "grey": (BENCHMARK, "speed", "G1"),
    "lightness": (BENCHMARK, "speed", "G2"),
    "symmetric": (BENCHMARK, "speed", "C1"),
    "two_levels": (BENCHMARK, "speed", "C2"),
    "photographs": (BENCHMARK, "turn_as_much", "photographs"),
    "readout": (READOUT, "index", None),
}
COLUMNS = {
    "error / copy": "error",
    "real motion r": "real",
    "index": "index",
    "reversed": "reversal",
    "beyond static map": "left",
    "grey": "grey",
    "grey by L*": "lightness",
    "symmetric": "symmetric",
    "two-level": "two_levels",
    "photographs": "photographs",
    "two-frame": "readout",
}
NOTES = (
    "Rotating Snakes, deg/frame, + as humans see it. error / copy: of the next frame, relative to the last frame in "
    "its place. reversed: the index with the order of colours reversed, its sign turned back. beyond static map: minus "
    "the speed of the memoryless map that imitates the network best. symmetric, two-level: controls, expected at 0; "
    "they and the greys are shown also where the index is n/a. photographs: share that turn as much as the snake.",
)
READOUT_NOTES = (
    "two-frame: deg by which the features of a network that names images turn when a snake's contrast rises, at the "
    "stage that sees real rotation best; a still image, a blink and eye movements are zero by theory (motion_readout).",
)
CONTRAST_NOTES = (
    "learned motion: index minus the speed of the same rule, network and seed trained on shuffled or still frames, "
    "[bootstrap 95 % interval over seeds], exact sign-flip p, Holm-corrected over the table.",
)
ORDERS = ("shuffled", "static")
ENDS = "{:+.3f}"  # of intervals: effects are hundredths of a degree
numbers = always(NUMBERS)


def table(rows: Sequence[Any], mark: Mark) -> Table:
    """Return header, cells and lines below; nothing where no row was asked.

    Args:
        rows: Of one setting.
        mark: Turns a reason into a mark.
    """
    predicts = any(_number(r, "error").value is not None for r in rows)
    columns = {c: name for c, name in COLUMNS.items() if (name == "readout") != predicts}
    notes = NOTES if predicts else READOUT_NOTES
    return laid_out(rows, "motion", "motion", columns, notes, lambda _, number: cell(number, mark, ends=ENDS))


def across(rows: Sequence[Any], mark: Mark) -> Table:
    """Return header, cells and lines below of what compares settings: the same training on frames in other orders.

    Args:
        rows: Of all settings.
        mark: Turns a reason into a mark.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        rest, order = order_of(row.task)
        found.setdefault((row.rule, row.model, rest), {})[order] = row
    pairs: list[tuple[tuple[str, str, str], str, dict[int, float]]] = []
    for key, by_order in found.items():
        for order in ORDERS:
            if "natural" in by_order and order in by_order:
                pairs.append((key, order, contrast(by_order["natural"], by_order[order])))
    tested = {n: p for n, (_, _, d) in enumerate(pairs) if (p := sign_flip_test(list(d.values()))) is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    lines = []
    for key in dict.fromkeys(k for k, _, _ in pairs):
        natural = found[key]["natural"]
        cells = []
        for order in ORDERS:
            at = next((n for n, (k, o, _) in enumerate(pairs) if (k, o) == (key, order)), None)
            cells.append("" if at is None else _difference(pairs[at][2], corrected.get(at), natural, mark))
        rule, model, task = key
        lines.append([rule, f"{task} × {model}", cell(_number(natural, "index"), mark, ends=ENDS), *cells])
    header = ["learned motion", "setting", "index", *(f"− {order}" for order in ORDERS)]
    return (header, lines, list(CONTRAST_NOTES)) if lines else ([], [], [])


def order_of(task: str) -> tuple[str, str]:
    """Return a task's label without the order of its training frames, and that order; natural is the default."""
    match = re.search(r"order=(\w+)", task)
    rest = re.sub(r"order=\w+(, )?", "", task).replace(", )", ")").replace("()", "")
    return rest, match.group(1) if match else "natural"


def contrast(natural: Any, other: Any) -> dict[int, float]:
    """Return seed → index after natural training minus speed after the other one, where both are known.

    The other network need not see real motion, which it was kept from learning: its speed counts as measured.
    """
    index, speed = _number(natural, "index").per_seed, _number(other, "speed").per_seed
    return {seed: index[seed] - speed[seed] for seed in index if seed in speed}


def _number(row: Any, name: str) -> Any:
    return row.pillars["motion"][name]


def _difference(per_seed: dict[int, float], p: float | None, natural: Any, mark: Mark) -> str:
    if not per_seed:
        reason = _number(natural, "index").reason or "no seed in common, or the other network loses the pattern"
        return f"n/a{mark(reason)}"
    text = cell(estimate(per_seed), mark, ends=ENDS)
    if len(per_seed) < len(natural.seeds):
        text += behind(len(per_seed), mark(_number(natural, "index").reason))
    return text if p is None else f"{text} p = {p:.2g}"
