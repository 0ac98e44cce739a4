"""Kanizsa, tiers 2 and 3, below the leaderboard: thresholds, and what happens inside where nothing is drawn.

These do not need the network's own answer to an illusory polygon: they stand also where the index is n/a, each
with gates of its own. Imports no torch.
"""

from collections.abc import Sequence
from typing import Any

from experiments.cells import Mark, Table, Where, always, cell, laid_out

BOARD = "kanizsa_inside"
# Name of a number → benchmark, metric, target.
NUMBERS: dict[str, Where] = {
    "fat_thin": ("kanizsa_fat_thin", "threshold_ratio", None),
    "classification_image": ("kanizsa_fat_thin", "classification_image", None),
    "similarity": ("kanizsa_representation", "similarity_over_low_level", None),
    "decoding": ("kanizsa_representation", "decoding_over_low_level", None),
    "contour": ("kanizsa_contour_probe", "auc", None),
    "gap": ("kanizsa_gap", "gap", None),
    "reconstruction": ("kanizsa_gap", "reconstruction", None),
}
COLUMNS = {
    "fat/thin": "fat_thin",
    "gap noise": "classification_image",
    "similarity": "similarity",
    "decoding": "decoding",
    "contour AUC": "contour",
    "gap": "gap",
    "reconstruction": "reconstruction",
}
NOTES = (
    "fat/thin: octaves less rotation that a read-out of the deepest stage that can be judged needs for the illusory "
    "square than for the strongest of four controls. gap noise: z by which noise in the empty gap sways it more than "
    "noise as far beyond the disc; either sign.",
    "similarity, decoding: illusory to real polygons minus the strongest of six controls, at the best stage, minus the "
    "best of pixels, oriented gradients and polar spectrum. contour AUC: a probe of real contours on illusory ones, "
    "against the strongest control; .5 = none.",
    "gap: response in units that see nothing but the gap, 1 = a real contour's; 0 to the last bit without feedback. "
    "reconstruction: energy that states send back to the gap's pixels, relative to the strongest control; −1 … 1. "
    "None of these has a human number beside it but the order of fat/thin (Westheimer & Li 1997).",
)
numbers = always(NUMBERS)


def table(rows: Sequence[Any], mark: Mark) -> Table:
    """Return header, cells and lines below; nothing where nothing was asked for.

    Args:
        rows: Of one setting.
        mark: Turns a reason into a mark.
    """
    return laid_out(rows, BOARD, "inside", COLUMNS, NOTES, lambda _, number: cell(number, mark))
