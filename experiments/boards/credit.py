"""Cosines to backprop stage by stage, below the leaderboard: their mean hides stages that learn nothing."""

from collections.abc import Callable, Sequence
from typing import Any

NOTE = (
    "cos to BP, by stage: cosine between the rule's update of that stage and backprop's at the final weights; "
    "n/a = the stage is not trained, or a gradient vanished."
)


def numbers(seen: Sequence[tuple[str, str, str]]) -> dict[str, tuple[str | None, ...]]:
    """Return nothing: the rows themselves hold the cosines of their stages."""
    del seen
    return {}


def table(rows: Sequence[Any], mark: Callable[[str], str]) -> tuple[list[str], list[list[str]], list[str]]:
    """Return header, cells and the line below for the rules of one setting; nothing where no cosine was measured.

    Args:
        rows: Of one setting, which share their stages.
        mark: Turns a reason into a mark.
    """
    del mark
    shown = [r for r in rows if r.kind == "rule" and any(e.value is not None for e in r.cosines.values())]
    stages = list(dict.fromkeys(stage for r in shown for stage in r.cosines))
    lines = [[r.rule, *(_cell(r.cosines.get(stage)) for stage in stages)] for r in shown]
    return (["cos to BP", *stages], lines, [NOTE]) if lines else ([], [], [])


def _cell(cosine: Any) -> str:
    return "n/a" if cosine is None or cosine.value is None else f"{cosine.value:+.2f}"
