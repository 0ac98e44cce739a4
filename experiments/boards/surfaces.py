"""Lightness and colour below the leaderboard: are equal surfaces different to a network as they are to us?

A stage is judged by itself, and rules need not be judged at the same one: the stage stands behind the number.
Imports no torch.
"""

from collections.abc import Sequence
from typing import Any

from experiments.cells import Mark, Table, Where, always, cell, laid_out

BOARD = "surfaces"
# Name of a number → benchmark, metric, target.
NUMBERS: dict[str, Where] = {
    "lightness": ("lightness", "index", None),
    "ranks": ("lightness", "network_spearman", None),
    "munker": ("munker", "index", None),
}
COLUMNS = {"lightness": "lightness", "human ranks": "ranks", "munker": "munker"}
NOTES = (
    "lightness: least of simultaneous contrast (two sizes) and White's effect (two widths of bars) beyond a blur as "
    "coarse as the stage, as the change of the target, in % of white, that would undo it; > 0 only if all go our way. "
    "Of the deepest stage that can be judged, which is named.",
    "human ranks: Spearman of that stage's five effects, Howe's zero among them, with people's (Robinson, Hammon & de "
    "Sa 2007; high certainty). A difference of Gaussians has our ranks with White's effect reversed: 1 proves nothing.",
    "munker: shift of the church's colour towards the stripes before it, in % of blue to yellow, beyond that blur; > 0 "
    "as we see it (a sign; no human number).",
)
numbers = always(NUMBERS)


def table(rows: Sequence[Any], mark: Mark) -> Table:
    """Return header, cells and lines below; nothing where nothing was asked for.

    Args:
        rows: Of one setting.
        mark: Turns a reason into a mark.
    """
    return laid_out(rows, BOARD, "surfaces", COLUMNS, NOTES, lambda name, number: _cell(name, number, mark))


def _cell(name: str, number: Any, mark: Mark) -> str:
    text = cell(number, mark, "{:+.2f}", "{:+.1f}")
    return f"{text} {number.at}" if number.value is not None and number.at and name != "ranks" else text
