"""The leaderboard as text: terminal table, Markdown, CSV, JSON. One source of cells for all of them."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.statistics import smallest_p
from experiments.catalogues import boards
from experiments.cells import cell, named
from experiments.estimates import Estimate
from experiments.leaderboard import Row
from training.directory import write_whole
from training.errors import unknown

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
ALPHA = 0.05
UNSTABLE = 0.01  # share of images on which inference may be unstable without a mark
WIDTH = 150  # columns of a table that is not printed to a terminal
SORTS = ("accuracy", "kanizsa", "hidden_cosine", "flops_ratio", "rule")
HEADER = (
    "rule", "seeds", "accuracy", "Δ backprop", "learned?", "Kanizsa index", "cos to BP", "FLOPs", "time", "trials",
)  # fmt: skip
FOOTNOTES = (
    "Interquartile mean over seeds [bootstrap 95 % interval]; Δ is paired by seed, p exact sign-flip, Holm-corrected.",
    "Kanizsa index: probability of the polygon minus that of the strongest of six controls; 0 = not fooled. "
    "n/a = cannot be judged.",
    "cos to BP: mean over hidden stages of the cosine between the rule's update and backprop's (by stage: below); "
    "FLOPs and time of one step are relative to backprop's.",
    "trials: of the random search on validation data that chose the rule's hyper-parameters; – = nobody searched.",
)


class Notes:
    """Numbers the reasons of a table, so that each is written out once, below it."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def mark(self, reason: str) -> str:
        """Return the mark of a reason, such as ``¹``; nothing for no reason."""
        if not reason:
            return ""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return str(self.reasons.index(reason) + 1).translate(SUPERSCRIPTS)

    def lines(self) -> list[str]:
        """Return every mark with its reason."""
        return [f"{self.mark(r)} {r}" for r in self.reasons]


def cells(row: Row, notes: Notes) -> tuple[str, ...]:
    """Return what a row shows, in the order of ``HEADER``; reasons go to the notes."""
    e = row.estimates
    done = row.states.get("done", 0)
    seeds = str(done) if done == len(row.seeds) else f"{done}/{len(row.seeds)}"
    trials = str(row.trials or "–") + notes.mark(row.searched)
    if e["accuracy"].value is None and not done and row.reasons:
        return (row.rule, seeds, f"n/a{notes.mark(row.reasons[0].split(' ', 1)[1])}", *[""] * 6, trials)
    predicts = e["accuracy"].value is None and row.performance.value is not None
    performance = _interval(row.performance, "{:+.1%}" if predicts else "{:.1%}", notes)
    change = _interval(row.difference, "{:+.1%}", notes) if row.difference.value is not None else ""
    if row.p_value is not None:
        change += f" p={row.p_value:.2g}"
    verdict, _, why = row.learned.partition(" (")
    learned = verdict + notes.mark(why.removesuffix(")"))
    cosine = _point(e["hidden_cosine"], "{:+.2f}")
    if (e["bp_equivalent"].value or 0) > 0 and not re.match(r"backprop\b", row.rule):
        cosine += " BP-equivalent"
    unstable = e["unstable_share"].value or 0.0
    shaky = f"its inference is unstable on {unstable:.0%} of images: their energy rises" if unstable > UNSTABLE else ""
    return (
        named(row) + notes.mark(shaky), seeds, "skill " * predicts + performance, change,
        learned,
        _interval(e["kanizsa"], "{:+.3f}", notes), cosine, _point(e["flops_ratio"], "{:.2f}×"),
        _point(e["time_ratio"], "{:.2f}×"), trials,
    )  # fmt: skip


def ordered(rows: Sequence[Row], by: str) -> list[Row]:
    """Return the rows sorted within each setting.

    Raises:
        UserError: If the order is unknown.
    """
    if by not in SORTS:
        raise unknown("sort", by, SORTS)
    if by == "rule":
        return sorted(rows, key=lambda r: (r.task, r.model, r.rule))
    sign = 1 if by == "flops_ratio" else -1

    def key(row: Row) -> tuple[Any, ...]:
        value = row.estimates[by].value
        return (row.task, row.model, value is None, sign * (value or 0.0), row.rule)

    return sorted(rows, key=key)


def settings(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Return (task, model) → rows, in the order of the rows."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.task, row.model), []).append(row)
    return found


def power(rows: Sequence[Row]) -> list[str]:
    """Return a line where no p of a setting could have come out below .05, whatever the data."""
    tested = [len(r.difference.per_seed) for r in rows if r.p_value is not None]
    if not tested or (least := smallest_p(max(tested), len(tested))) <= ALPHA:
        return []
    plural = "s" if len(tested) > 1 else ""
    return [f"with {max(tested)} seeds and {len(tested)} comparison{plural} no p can be below {least:.2g}"]


def print_table(rows: Sequence[Row], svg: Path | None = None) -> None:
    """Print the board to the terminal.

    Args:
        rows: What to print.
        svg: File that also gets the table as a picture.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(record=svg is not None)
    if svg or not console.is_terminal:
        console = Console(width=WIDTH, record=svg is not None)
    for (task, model), members in settings(rows).items():
        table = Table(title=f"{task} × {model}", title_justify="left", title_style="bold", pad_edge=False)
        for i, name in enumerate(HEADER):
            table.add_column(name, justify="left" if i in (0, 4) else "right")
        kind, notes = members[0].kind, Notes()
        for row in members:
            if row.kind != kind:
                table.add_section()
                kind = row.kind
            table.add_row(*(Text(c) for c in cells(row, notes)))
        console.print(table)
        failures = [f"{row.rule} {reason}" for row in members for reason in row.reasons]
        for line in [*notes.lines(), *power(members), *failures]:
            console.print(Text(f"  {line}", style="dim"))
        for board in boards().values():
            header, lines, below = board.table(members, (own := Notes()).mark)
            _print_below(console, header, lines, [*own.lines(), *below])
    for header, lines, below in _across(rows):
        _print_below(console, header, lines, below)
    for note in FOOTNOTES if rows else ():
        console.print(Text(note, style="dim"))
    if svg:
        picture = console.export_svg(title="plasticbench leaderboard")
        # The picture must not fetch a font from anywhere; any monospaced one will do.
        write_whole(svg, re.sub(r"@font-face\s*\{.*?\}", "", picture, flags=re.DOTALL))


def _across(rows: Sequence[Row]) -> list[tuple[list[str], list[list[str]], list[str]]]:
    """Return the tables that compare settings, with their notes."""
    found = []
    for board in boards().values():
        if hasattr(board, "across"):
            header, lines, below = board.across(rows, (own := Notes()).mark)
            found.append((header, lines, [*own.lines(), *below]))
    return found


def _print_below(console: Any, header: Sequence[str], lines: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    """Print a table below the main one, with its notes; nothing where it is empty."""
    from rich.table import Table
    from rich.text import Text

    if lines:
        below = Table(pad_edge=False)
        for i, name in enumerate(header):
            below.add_column(name, justify="right" if i else "left")
        for cells_ in lines:
            below.add_row(*(Text(c) for c in cells_))
        console.print(below)
        for line in notes:
            console.print(Text(f"  {line}", style="dim"))


def markdown(rows: Sequence[Row]) -> str:
    """Return the board as Markdown."""
    lines = []
    for (task, model), members in settings(rows).items():
        lines += [f"### {task} × {model}", "", _line(HEADER), _line(["---"] * len(HEADER))]
        notes = Notes()
        lines += [_line(cells(row, notes)) for row in members]
        failures = [f"{row.rule} {reason}" for row in members for reason in row.reasons]
        lines += ["", *(f"{line}  " for line in [*notes.lines(), *power(members), *failures]), ""]
        for board in boards().values():
            header, table_, below = board.table(members, (own := Notes()).mark)
            lines += _markdown_below(header, table_, [*own.lines(), *below])
    for header, table_, below in _across(rows):
        lines += _markdown_below(header, table_, below)
    return "\n".join([*lines, *(f"{note}  " for note in FOOTNOTES)]) + "\n"


def _markdown_below(header: Sequence[str], lines: Sequence[Sequence[str]], notes: Sequence[str]) -> list[str]:
    if not lines:
        return []
    whole = [_line(header), _line(["---"] * len(header)), *map(_line, lines), ""]
    return [*whole, *(f"{note}  " for note in notes), ""]


def to_csv(rows: Sequence[Row]) -> str:
    """Return the board as CSV: plain numbers, one row per rule and setting."""
    text = io.StringIO()
    columns, records = table(rows)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *records])
    return text.getvalue()


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    """Return the board as columns and plain records; ``None`` where there is no number."""
    records = [_flat(r) for r in rows]
    columns = list(dict.fromkeys(name for r in records for name in r))
    return columns, [[r.get(c) for c in columns] for r in records]


def to_json(rows: Sequence[Row]) -> str:
    """Return the board as JSON: everything, with the values of every seed."""
    records = [dataclasses.asdict(r) | {"learned": r.learned} for r in rows]
    return json.dumps({"schema_version": 1, "rows": records}, indent=2, allow_nan=False) + "\n"


def write_all(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write ``leaderboard.md``, ``.csv`` and ``.json`` and return their paths."""
    texts = {"md": markdown(rows), "csv": to_csv(rows), "json": to_json(rows)}
    for suffix, text in texts.items():
        write_whole(folder / f"leaderboard.{suffix}", text)
    return [folder / f"leaderboard.{suffix}" for suffix in texts]


def _flat(row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {
        "rule": row.rule, "kind": row.kind, "model": row.model, "task": row.task, "seeds": len(row.seeds),
        "done": row.states.get("done", 0), "learned": row.learned, "p_value": row.p_value, "trials": row.trials,
        "searched": row.searched,
        "reasons": "; ".join(row.reasons),
    }  # fmt: skip
    estimates = {
        **row.estimates, "difference": row.difference, "above_readout": row.above_readout,
        **{f"kanizsa_vs_{c}": e for c, e in row.contrasts.items()},
        **{f"cosine_{s}": e for s, e in row.cosines.items()},
        **{
            f"{board}_{n}": e
            for board, numbers in row.pillars.items()
            for n, e in numbers.items()
            if e.value is not None or e.reason
        },
    }  # fmt: skip
    for name, e in estimates.items():
        record |= {name: e.value, f"{name}_low": e.low, f"{name}_high": e.high}
        if e.reason:
            record[f"{name}_reason"] = e.reason
    return record


def _point(e: Estimate, form: str) -> str:
    return "n/a" if e.value is None else form.format(e.value)


def _interval(e: Estimate, form: str, notes: Notes) -> str:
    return cell(e, notes.mark, form, form) or "n/a"


def _line(parts: Sequence[str]) -> str:
    return "| " + " | ".join(p.replace("|", "\\|") for p in parts) + " |"
