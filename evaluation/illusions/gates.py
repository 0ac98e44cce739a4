"""Who may be asked about illusory polygons: a network that names real ones, and does not answer the same to all."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.accuracy import wilson
from evaluation.base import Score
from evaluation.illusions.kanizsa_stimuli import CORNERS
from evaluation.statistics import Array

COLLAPSE = 0.6  # least entropy of the answers, as a share of that of answers spread over the polygons


def competence_gate(answers: Array, truth: Array, names: Sequence[str], what: str = "polygons") -> str | None:
    """Return why a network may not be judged: every class of real figure must be named well above chance.

    The lower 95 % bound of each class's accuracy must exceed chance + half of what is left above it.
    """
    classes = np.unique(truth)
    needed = 1 / len(classes) + 0.5 * (1 - 1 / len(classes))
    for c in classes:
        own = answers[truth == c]
        low, _ = wilson(float((own == c).mean()), len(own))
        if low <= needed:
            return f"cannot name real {what}: {names[int(c)]} {np.mean(own == c):.0%} of {len(own)}"
    return None


def collapse_gate(answers: Mapping[str, Array], num: int = len(CORNERS)) -> str | None:
    """Return why a network may not be judged: the same answer to everything it is shown, in every condition.

    The answers to at least one condition must vary. Not those to all conditions together: an observer that sees the
    illusory figure, and has one and the same answer to all controls, in which there is none, is the ideal one.

    Args:
        answers: Condition → answers.
        num: How many different answers could be given.
    """
    most = max(answers, key=lambda c: entropy(answers[c], num))
    found = entropy(answers[most], num)
    return f"answers nearly the same to everything (entropy at most {found:.2f}, {most})" if found < COLLAPSE else None


def entropy(answers: Array, num: int) -> float:
    """Return the entropy of answers as a share of that of ``num`` answers given equally often."""
    share = np.unique(answers, return_counts=True)[1] / len(answers)
    return float(-(share * np.log(share)).sum() / math.log(num))


def missing_class(classes: Sequence[str]) -> str | None:
    """Return why a network may not be judged: its task must have the polygons among its classes."""
    absent = [name for name in CORNERS.values() if name not in classes]
    return f"its task has no class {absent[0]!r}" if absent else None


def stage_reasons(scores: Sequence[Score]) -> str:
    """Return why none of several stages can be judged, each reason once, behind the stages that it holds for."""
    stages: dict[str, list[str]] = {}
    for s in scores:
        stages.setdefault(s.reason, []).append(s.stage)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in stages.items())
