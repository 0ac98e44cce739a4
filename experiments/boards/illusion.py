"""Kanizsa, tier 1, below the leaderboard: who is fooled, more or less than backprop, and is it more than corners?

Differences are paired by seed. Two tests stand side by side, since a large p of one says nothing about the other: exact
sign flips for a difference, two one-sided t tests for its absence (within ±MARGIN), each Holm-corrected over the
rules of the setting. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.statistics import equivalence_test, holm, iqm, iqm_interval, sign_flip_test
from experiments.cells import Mark, Table, Where, always, asked, cell, named, used

REFERENCE = "backprop"
MARGIN = 0.05  # probability: rules whose index differs by less are fooled the same
ALPHA = 0.05
FEWEST_SEEDS = 5  # below which an interval over seeds says neither more nor less
# Name of a number → benchmark, metric, target.
NUMBERS: dict[str, Where] = {
    "index": ("kanizsa", "index", None),
    "normalised": ("kanizsa", "index_normalised", None),
    "log_odds": ("kanizsa", "index_log_odds", None),
    "dose": ("kanizsa", "dose_response", None),
    "dose_partial": ("kanizsa", "dose_response_partial", None),
    "signatures": ("kanizsa", "signatures", None),
}
COLUMNS = {
    "index": "index",
    "normalised": "normalised",
    "log odds": "log_odds",
    "dose–response": "dose",
    "given corners": "dose_partial",
    "signatures": "signatures",
}
NOTES = (
    "Kanizsa. index: P(polygon) for the illusory figure minus that for the strongest of six controls; normalised: 1 = "
    "as good as real contours. dose–response: rank correlation with the support ratio, which people's clarity follows "
    "(Shipley & Kellman 1992; order only); given corners: what of it is not in the answers to the bare corners. "
    "signatures: share of four human contrasts, asked of who is fooled.",
    f"Δ: index minus backprop's, paired by seed [bootstrap 95 %]; p: exact sign flips; same: p that it differs by "
    f"{MARGIN} or more (TOST). Both Holm-corrected over the setting's rules. "
    "With five seeds no sign-flip p can be below .06.",
)
numbers = always(NUMBERS)


@dataclass(frozen=True)
class Difference:
    """One rule's index minus the reference's.

    Attributes:
        per_seed: Seed → difference.
        value: Interquartile mean; ``None`` where no seed has both.
        low: Lower end of its bootstrap interval; ``None`` for fewer than two seeds.
        high: Upper end.
        p: Of the exact sign-flip test, Holm-corrected.
        same: p of the equivalence test, Holm-corrected.
    """

    per_seed: dict[int, float]
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    same: float | None = None

    @property
    def verdict(self) -> str:
        """``more``, ``less``, ``the same`` or ``undecided``; by the interval of five seeds or more, and the TOST."""
        if self.value is None or self.low is None or self.high is None:
            return "not known"
        if self.same is not None and self.same <= ALPHA:
            return "the same"
        if len(self.per_seed) < FEWEST_SEEDS:
            return f"undecided ({len(self.per_seed)} of {FEWEST_SEEDS} seeds)"
        if self.low > 0:
            return "more"
        return "less" if self.high < 0 else "undecided"


def reference_of(rows: Sequence[Any]) -> Any | None:
    """Return the row of backprop: the one without options, or the only one (tuned rules have rates of their own)."""
    found = [r for r in rows if r.rule.split("(")[0] == REFERENCE]
    plain = [r for r in found if r.rule == REFERENCE]
    return plain[0] if plain else found[0] if len(found) == 1 else None


def differences(rows: Sequence[Any]) -> dict[str, Difference]:
    """Return rule → difference of its index to backprop's, of one setting; controls are compared too."""
    reference = reference_of(rows)
    if reference is None:
        return {}
    theirs = _number(reference, "index").per_seed
    found = {}
    for row in rows:
        if row is not reference and row.kind != "null":
            own = _number(row, "index").per_seed
            found[row.rule] = {seed: own[seed] - theirs[seed] for seed in sorted(own) if seed in theirs}
    tested = [rule for rule, d in found.items() if len(d) > 1]
    flips = holm([p for r in tested if (p := sign_flip_test(list(found[r].values()))) is not None])
    equal = holm([p for r in tested if (p := equivalence_test(list(found[r].values()), MARGIN)) is not None])
    done = {}
    for rule, per_seed in found.items():
        values = list(per_seed.values())
        low, high = iqm_interval(values) or (None, None)
        at = tested.index(rule) if rule in tested else None
        done[rule] = Difference(
            per_seed,
            float(iqm(np.array(values))) if values else None,
            low,
            high,
            None if at is None else flips[at],
            None if at is None else equal[at],
        )
    return done


def table(rows: Sequence[Any], mark: Mark) -> Table:
    """Return header, cells and lines below; nothing where no row may be judged.

    Args:
        rows: Of one setting.
        mark: Turns a reason into a mark.
    """
    if all(_number(r, "index").value is None for r in rows):
        return [], [], []
    shown = asked(rows, "illusion", ["index"])
    judged = [r for r in shown if _number(r, "index").value is not None]  # of all others one reason says it all
    columns = used(judged, "illusion", COLUMNS)
    compared = differences(rows)
    lines = [
        [
            named(r), *(cell(_number(r, n), mark) for n in columns.values()),
            difference_text(compared[r.rule]) if r.rule in compared else "",
        ]
        for r in shown
    ]  # fmt: skip
    return ["illusion", *columns, "Δ backprop"], lines, list(NOTES)


def difference_text(difference: Difference) -> str:
    """Return a difference with its interval and both p, as a cell."""
    if difference.value is None:
        return "n/a"
    text = f"{difference.value:+.3f}"
    if difference.low is not None:
        text += f" [{difference.low:+.3f}, {difference.high:+.3f}]"
    if difference.p is not None:
        text += f" p = {difference.p:.2g}, same {difference.same:.2g}"
    return text


def _number(row: Any, name: str) -> Any:
    return row.pillars["illusion"][name]
