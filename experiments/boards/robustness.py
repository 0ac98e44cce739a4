"""Robustness below the leaderboard, the converse of an illusion: who is fooled where we are not?

Where derivatives are masked in any seed the vulnerability is what attacks without them still found: a lower bound, and
it is marked as one. Imports no torch.
"""

from collections.abc import Sequence
from typing import Any

from experiments.cells import Mark, Table, Where, always, asked, cell, named

BOARD, BENCHMARK = "robustness", "robustness"
# Name of a number → benchmark, metric, target.
NUMBERS: dict[str, Where] = {
    name: (BENCHMARK, name, None) for name in ("accuracy_clean", "area_noise", "vulnerability", "flipped", "masked")
} | {"transfer": (BENCHMARK, "data", "transfer")}
HEADER = ["robustness", "clean", "under noise", "vulnerability", "upside down", "derivatives"]
NOTES = (
    "clean: accuracy on the images that are attacked; under noise: mean over ε of .5 … 16 / 255 (octaves). "
    "vulnerability: share of the area under noise that the worst attack takes, per image and ε; 0 = attacks do no more "
    "than noise, 1 = they break everything. upside down: the same for the perturbation turned over, a control that "
    "should be near 0. Compare rules of like accuracy.",
    "≥: derivatives mislead (masked) in some seed, so that attacks may be weaker than they could be: never read it as "
    "robust. No human curve: at these ε people name what they named before, but none was measured here.",
)
numbers = always(NUMBERS)


def table(rows: Sequence[Any], mark: Mark) -> Table:
    """Return header, cells and lines below; nothing where nobody was attacked.

    Args:
        rows: Of one setting.
        mark: Turns a reason into a mark.
    """
    shown = asked(rows, BOARD, ["vulnerability"])
    return (HEADER, [_line(r, mark) for r in shown], list(NOTES)) if shown else ([], [], [])


def _line(row: Any, mark: Mark) -> list[str]:
    own = row.pillars[BOARD]
    worst = own["vulnerability"]
    hidden = [seed for seed, value in own["masked"].per_seed.items() if value > 0 and seed in worst.per_seed]
    bound = "≥ " if worst.value is not None and hidden else ""
    return [
        named(row),
        cell(own["accuracy_clean"], mark, "{:.1%}", "{:.0%}"),
        cell(own["area_noise"], mark, "{:.1%}", "{:.0%}"),
        bound + cell(worst, mark, "{:+.2f}") + (mark(own["transfer"].reason) if worst.value is not None else ""),
        cell(own["flipped"], mark, "{:+.2f}"),
        f"masked in {len(hidden)} of {len(worst.per_seed)}{mark(own['masked'].said)}" if hidden else "",
    ]
