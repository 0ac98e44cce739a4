"""The answer to the question of the project, from runs: who is fooled more, less or as much as backprop?

    python -m experiments.kanizsa_report RUNS

Per setting (task and model): every rule's Kanizsa index over seeds, its difference to backprop paired by seed, a test
for a difference and one for its absence, and why a rule may not be judged. A rule that fails the gates has no answer.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.boards.illusion import MARGIN, Difference, difference_text, differences
from experiments.leaderboard import read_rows
from experiments.render import settings
from training.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Print the report; return 2 where the runs cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, help="folder of run directories")
    try:
        rows = read_rows(parser.parse_args(arguments).runs, [])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for (task, model), members in settings(rows).items():
        print(f"\n{task} × {model}")
        print("\n".join(report(members)))
    return 0


def report(rows: Sequence[Any]) -> list[str]:
    """Return the lines of one setting: each rule's index, its difference to backprop, and the answer."""
    compared = differences(rows)
    lines, answers = [], []
    for row in rows:
        index = row.pillars["illusion"]["index"]
        judged = f"{len(index.per_seed)} of {len(row.seeds)} seeds"
        if index.value is None:
            lines.append(f"  {row.rule:<36} n/a ({index.reason or 'not measured'})")
        else:
            between = f" [{index.low:+.3f}, {index.high:+.3f}]" if index.low is not None else ""
            told = f"; Δ {difference_text(compared[row.rule])}" if row.rule in compared else ""
            lines.append(f"  {row.rule:<36} {index.value:+.3f}{between}, {judged}{told}")
        if row.kind == "rule" and row.rule in compared:
            answers.append(f"{row.rule} {answer(compared[row.rule], index)}")
    lines.append(
        f"  Fooled more, less, or the same as backprop (within ±{MARGIN})? " + "; ".join(answers or ["no rule"])
    )
    return lines


def answer(difference: Difference, index: Any) -> str:
    """Return the verdict on one rule in words."""
    return "cannot be asked" if index.value is None else difference.verdict


if __name__ == "__main__":
    sys.exit(main())
