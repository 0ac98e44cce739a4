"""What the leaderboard's tables share: a rule's name with its kind, a number with its interval, or why it has none.

Imports no torch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Mark = Callable[[str], str]
Where = tuple[str | None, ...]  # benchmark, metric, target, field of the record
Table = tuple[list[str], list[list[str]], list[str]]  # header, cells, lines below


def always(numbers: Mapping[str, Where]) -> Callable[[Sequence[tuple[str, str, str]]], dict[str, Where]]:
    """Return the ``numbers`` of a table that reads the same ones, whatever was measured."""
    return lambda seen: dict(numbers)


def named(row: Any) -> str:
    """Return a row's rule; controls and null observers say what they are."""
    return str(row.rule) + {"control": " (control)", "null": " (null observer)"}.get(row.kind, "")


def said(number: Any) -> bool:
    """Return whether a number was measured, or says why it was not."""
    return number.value is not None or bool(number.reason)


def cell(number: Any, mark: Mark, form: str = "{:+.3f}", ends: str = "{:+.2f}") -> str:
    """Return a number with its interval over seeds, or ``n/a`` with the mark of its reason.

    Where some seeds have the number and others may not be judged, their number and the reason stand behind it.

    Args:
        number: Over seeds.
        mark: Turns a reason into a mark.
        form: Of the number.
        ends: Of its interval.
    """
    if number.value is None:
        return f"n/a{mark(number.reason)}" if number.reason else ""
    text = form.format(number.value)
    if number.low is not None:
        text += f" [{ends.format(number.low)}, {ends.format(number.high)}]"
    if number.reason:
        text += behind(len(number.per_seed), mark(number.reason))
    return text


def behind(seeds: int, mark: str) -> str:
    """Return how many seeds stand behind a number that others lack, with the mark of why."""
    return f" ({seeds} seed{'s' if seeds > 1 else ''}{mark})"


def used(rows: Sequence[Any], board: str, columns: Mapping[str, str]) -> dict[str, str]:
    """Return the columns, header → name of a number, that were measured in some row or say there why not."""
    return {c: n for c, n in columns.items() if any(said(r.pillars[board][n]) for r in rows)}


def asked(rows: Sequence[Any], board: str, names: Iterable[str]) -> list[Any]:
    """Return the rows of which one of the numbers was measured, or says why not."""
    names = list(names)
    return [r for r in rows if any(said(r.pillars[board][n]) for n in names)]


def laid_out(
    rows: Sequence[Any],
    board: str,
    title: str,
    columns: Mapping[str, str],
    notes: Sequence[str],
    text: Callable[[str, Any], str],
) -> Table:
    """Return the table of the rows that were asked, with the columns that say anything; nothing without such rows.

    Args:
        rows: Of one setting.
        board: Whose numbers are shown.
        title: Above the rules.
        columns: Header → name of a number.
        notes: Lines below.
        text: From a number's name and the number to its cell.
    """
    shown_columns = used(rows, board, columns)
    shown = asked(rows, board, shown_columns.values())
    lines = [[named(r), *(text(n, r.pillars[board][n]) for n in shown_columns.values())] for r in shown]
    return ([title, *shown_columns], lines, list(notes)) if lines else ([], [], [])
