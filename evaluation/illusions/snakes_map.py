"""Speed over the two grey levels of the snake, against what humans see (Atala-Gerard & Bach 2017, i-Perception 8(2)).

The order is black, g1, white, g2, in luminance. Humans see it turn at about 1 deg/s for g1 up to .25 and g2 between .20
and .75, and weakly the other way round in an island at (.70, .95); other cells were not published as numbers and are
left out of the comparison. (g2, g1) is the mirror image of (g1, g2): its speed is the opposite by construction, so only
g1 < g2 is measured. A static map without any memory can have this map too.
"""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.base import Score, not_available
from evaluation.illusions.extrapolation import Predictor, View, motion
from evaluation.illusions.snakes_conditions import phases
from evaluation.illusions.snakes_stimuli import grey, render
from evaluation.statistics import Array, spearman

LEVELS = (0.05, 0.2, 0.35, 0.55, 0.7, 0.95)
ISLAND = (0.7, 0.95)
PHASES = 4
LEAST = 6  # known cells that must be measured
SUMMARY = ("map_sign", "map_auc", "map_spearman")


def human(g1: float, g2: float) -> float | None:
    """Return the human direction and rank: +1, −½ in the island, 0 where both are equal, ``None`` where not known."""
    if g1 == g2:
        return 0.0
    if g1 > g2:
        mirrored = human(g2, g1)
        return None if mirrored is None else -mirrored
    if (g1, g2) == ISLAND:
        return -0.5
    return 1.0 if g1 <= 0.25 and 0.2 <= g2 <= 0.75 else None


def speeds(observer: Predictor, seen: View, seed: int = 0) -> dict[tuple[float, float], float]:
    """Return the speed of every cell of the map; nan where the pattern faded."""
    turns = phases(PHASES, seen.disc.period, seed)
    pairs = list(itertools.combinations(LEVELS, 2))
    images = [render(replace(seen.disc, colours=grey((0.0, a, 1.0, b))), seen.size, turns) for a, b in pairs]
    found = motion(observer, seen, seen.still(torch.cat(images))).by_image.view(len(pairs), PHASES).nanmean(1).tolist()
    upper = dict(zip(pairs, found, strict=True))
    return upper | {(b, a): -v for (a, b), v in upper.items()} | {(level, level): 0.0 for level in LEVELS}


def scores(cells: dict[tuple[float, float], float]) -> list[Score]:
    """Return every measured cell, and how the map agrees with the human one where that is known."""
    upper = {pair: v for pair, v in cells.items() if pair[0] < pair[1]}
    listed = [
        Score("map", v, higher_is_better=None, target=f"g1={a:g},g2={b:g}", n_stimuli=PHASES)
        for (a, b), v in upper.items()
    ]
    known = {pair: h for pair, v in upper.items() if (h := human(*pair)) is not None and math.isfinite(v)}
    if ISLAND not in known or len(known) < LEAST:
        return [*listed, *(not_available(n, "the pattern fades in cells of the map") for n in SUMMARY)]
    ours, theirs = (np.array([d[pair] for pair in known]) for d in (upper, known))
    rank = spearman(ours.tolist(), theirs.tolist())
    num: int = len(known)
    unit: dict[str, Any] = {"ceiling_low": 0.5, "ceiling_high": 1.0, "n_stimuli": num}
    return [
        *listed,
        Score("map_sign", float((np.sign(ours) == np.sign(theirs)).mean()), **unit),
        Score("map_auc", auc(ours, theirs > 0), **unit),
        Score("map_spearman", rank, ceiling_high=1.0, n_stimuli=num),
    ]


def auc(values: Array, positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive has a larger value than a negative, ties counted half."""
    difference = values[positive][:, None] - values[~positive][None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())
