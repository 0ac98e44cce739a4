"""Who may be asked about illusory polygons: a network that names real ones, and does not answer the same to all."""

import math
from collections.abc import Sequence

import numpy as np

from evaluation.accuracy import wilson
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
            return f"cannot name real {what}: {names[int(c)]} {np.mean(own == c):.0%}"
    return None


def collapse_gate(answers: Array, num: int = len(CORNERS)) -> str | None:
    """Return why a network may not be judged: it must not answer the same to everything, of ``num`` answers."""
    share = np.bincount(answers.astype(int)) / len(answers)
    entropy = float(-(share[share > 0] * np.log(share[share > 0])).sum() / math.log(num))
    return f"answers nearly the same to everything (entropy {entropy:.2f})" if entropy < COLLAPSE else None


def missing_class(classes: Sequence[str]) -> str | None:
    """Return why a network may not be judged: its task must have the polygons among its classes."""
    absent = [name for name in CORNERS.values() if name not in classes]
    return f"its task has no class {absent[0]!r}" if absent else None
