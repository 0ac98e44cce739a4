"""Rotating Snakes: does a predictor of video frames see the still image turn, and in the direction that we see?

    index = mean over phases of [ω(snake) − ω(its mirror image)] / 2, in degrees per frame, rings weighted by radius

ω is the turn between successive predictions when the still image is repeated and predictions are fed back
(Watanabe et al. 2018); positive is the direction humans see. The index alone says little: a blur and a saturation
without any memory turn an asymmetric pattern too. So it stands beside reversed, symmetric, two-level and shuffled
patterns, greyscale and textures, and is ``n/a`` for a network that does not predict real motion. Whether *learned
motion* causes it, only the same network trained on shuffled or still frames can say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from evaluation.base import Benchmark, Observer, Score, not_available
from evaluation.illusions import literature_flow, snakes_figures, snakes_map
from evaluation.illusions.extrapolation import STEPS, Motion, View, extrapolate, motion, view
from evaluation.illusions.snakes_conditions import PHASES, clips, crops, phases, snake
from evaluation.illusions.snakes_scores import (
    CONTROLS,
    NULL,
    SUMMARY,
    beyond_null,
    equivalence,
    false_positives,
    gates,
    speeds_of,
    summary,
    unable,
)
from evaluation.illusions.snakes_stimuli import (
    CONDITIONS,
    GREY_LUMINANCE,
    KITAOKA,
    fitting,
    render,
    texture,
    variants,
)
from evaluation.illusions.static_null import StaticMap, fit

UNGATED = ("S1", *CONTROLS, "G1", "G2")  # measured whether or not the gates are passed
PICTURED = ("S1", "C1", "C2", "G1")  # whose predictions are shown, beside a mirror image and a photograph


@dataclass(frozen=True)
class Examination:
    """What was measured of an observer; its pictures show the same numbers.

    Attributes:
        observer: Which one.
        seen: How it sees.
        gates: Scores of the gates.
        reason: Why it may not be judged, or nothing.
        measured: Motion by the code of the condition; of an observer that may not be judged, the ungated ones.
        stills: Still images of all conditions, ``(N, C, H, W)``, to imitate it on; none where it may not be judged.
        cells: Speed over the two grey levels; nothing where it may not be judged.
    """

    observer: Observer
    seen: View
    gates: list[Score]
    reason: str
    measured: Mapping[str, Motion]
    stills: tuple[Tensor, ...]
    cells: dict[tuple[float, float], float]


class RotatingSnakes(Benchmark):
    """Speed of the snake and of its controls, consistency over rings, linearity of the drift, and the gates.

    Args:
        num: Phases per condition, an even number.
        seed: Of phases, orders and displacements.
    """

    name = "rotating_snakes"
    version = 3  # where a gate fails, only the conditions are measured that stand beside other networks'
    pillar = "illusion"
    headline = "index"
    reference = "Kitaoka & Ashida 2003, Vision 15:261; Watanabe et al. 2018, Front. Psychol. 9:345"

    def __init__(self, *, num: int = PHASES, seed: int = 0) -> None:
        self.num, self.seed = num, seed
        self._last: Examination | None = None

    def measure(self, observer: Observer) -> list[Score]:
        """Return speeds per condition, ring and step, equivalence of controls, gates, and the index."""
        reason = unable(observer)
        if reason:
            return [not_available("index", reason)]
        found = self._last = self._examine(observer)
        seen, measured = found.seen, found.measured
        scores = list(found.gates)
        for code, moved in measured.items():
            scores += speeds_of(code, moved)
        scores += [*equivalence(measured), *false_positives(measured)]
        if found.reason:
            return [*scores, *(not_available(n, found.reason) for n in (*SUMMARY, *NULL, *snakes_map.SUMMARY))]
        imitation = imitate(observer, seen, torch.cat(found.stills))
        snakes = seen.still(render(snake(seen), seen.size, phases(self.num, seen.disc.period, self.seed)))
        return [
            *scores,
            *summary(measured),
            *beyond_null(measured["S1"], motion(imitation, seen, snakes), imitation.explained),
            *snakes_map.scores(found.cells),
            *literature(observer, seen, snakes),
        ]

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Draw predictions, flow, rings over steps, conditions and a film; of who may be judged, the map of greys."""
        paths = []
        for name, observer in observers.items():
            if unable(observer):
                continue
            found = (
                self._last if self._last is not None and self._last.observer is observer else self._examine(observer)
            )
            seen, snakes, judged = found.seen, found.measured["S1"], not found.reason
            images = {code: shown[:1] for code, shown in clips(seen, 2, self.seed, PICTURED)}
            images["C6"] = seen.still(crops(seen.size, seen.channels == 1, 1, self.seed))
            images = {"S1": images["S1"], "S2": images["S1"].flip(-1), **images}
            shown = {code: (clip[0, -1], extrapolate(observer, clip)[0]) for code, clip in images.items()}
            if not all(predicted.isfinite().all() for _, predicted in shown.values()):
                continue
            paths += [
                snakes_figures.predictions(folder, shown),
                snakes_figures.flow(folder, name, seen, shown["S1"][0], snakes, judged=judged),
                snakes_figures.speeds(folder, name, snakes),
                snakes_figures.conditions(folder, name, found.measured, judged=judged),
                snakes_figures.film(folder, *shown["S1"]),
            ]
            if judged:
                paths.append(snakes_figures.dose_map(folder, name, found.cells))
        return paths

    def _examine(self, observer: Observer) -> Examination:
        """Return what is measured of an observer, whatever its scores will be."""
        disc = fitting(max(observer.in_shape[1:]))
        assert disc is not None
        seen = view(observer, disc)
        scores, reason = gates(observer, seen)
        # Of a network that may not be judged, still wanted are the speed that other trainings are compared with, and
        # what it makes of controls and greys.
        measured, stills = {}, []
        for code, shown in clips(seen, self.num, self.seed, UNGATED if reason else None):
            measured[code] = motion(observer, seen, shown)
            if not reason and bool((shown == shown[:, :1]).all()):
                stills.append(shown[: self.num : 2, 0])
        if not reason and not measured["S1"].by_image.isfinite().any():
            reason = "its predictions lose the pattern within two steps"
        cells = {} if reason else snakes_map.speeds(observer, seen, self.seed)
        return Examination(observer, seen, scores, reason, measured, tuple(stills), cells)


def imitate(observer: Observer, seen: View, images: Tensor) -> StaticMap:
    """Return the static map that imitates an observer best, on images and on what it made of them.

    Args:
        observer: Predicts frames.
        seen: How it sees them.
        images: ``(N, C, H, W)`` at its size.
    """
    first = observer.predict(seen.still(images).flatten(1, 2))
    second = observer.predict(seen.still(first).flatten(1, 2))
    return fit(torch.cat([images, first]), torch.cat([first, second]), seen.frames)


def literature(observer: Observer, seen: View, snakes: Tensor) -> list[Score]:
    """Return the speed by the optical flow of earlier studies, over all steps at once, mirror-differenced."""
    flows = {"lucas_kanade": literature_flow.lucas_kanade, "farneback": literature_flow.farneback}
    if not literature_flow.available():
        return [not_available(name, "needs OpenCV: pip install 'plasticbench[flow]'") for name in flows]
    ends = [extrapolate(observer, c)[:, [0, -1]] for c in (snakes, snakes.flip(-1))]
    inner, outer = seen.disc.edges[-1][0], seen.disc.outer
    scores = []
    for name, flow in flows.items():
        turns = [[flow(first, last, inner, outer) / (STEPS - 1) for first, last in pairs] for pairs in ends]
        speed = float((torch.tensor(turns[0]) - torch.tensor(turns[1])).nanmean() / 2)
        scores.append(Score(name, speed, higher_is_better=None, target="S1", n_stimuli=len(snakes)))
    return scores


def sheet(size: int = 128) -> tuple[Tensor, list[str], list[str]]:
    """Return the published disc and every condition that is a still image (rows): grey, coloured, and mirrored."""
    disc = fitting(size) or fitting(64)
    assert disc is not None
    colour = replace(disc, colours=KITAOKA)
    turn = torch.zeros(1)
    grey, coloured = variants(disc), variants(colour)
    original = replace(colour, ellipse=True)  # as published; measured are sectors, whose duty is the same at any radius
    left, right = (
        render(replace(original, colours=c), size, turn)[0].expand(3, -1, -1) for c in (GREY_LUMINANCE, KITAOKA)
    )
    rows, images = ["published"], [torch.stack([left, left.flip(-1), right, right.flip(-1)])]
    for code in CONDITIONS:
        if code in coloured:
            right = render(coloured[code], size, turn)[0].expand(3, -1, -1)
            left = render(grey.get(code, coloured[code]), size, turn)[0].expand(3, -1, -1)
        elif code == "C6":
            left = right = crops(size, False)[0]
        elif code == "C5":
            left = right = texture(size, turn)[0].expand(3, -1, -1)
        else:
            continue
        rows.append(code)
        images.append(torch.stack([left, left.flip(-1), right, right.flip(-1)]))
    return torch.stack(images), rows, ["grey", "mirrored (S2)", "colour", "mirrored (S2)"]
