"""Two-frame motion read-out: do the features of a network that names images turn when a snake's contrast rises?

    ω(x, x′) = Σ_{i<j} W_ij (z_i z′_j − z_j z′_i) / (‖z‖ ‖z′‖),   z = P [f(x) − f(grey)]

f is a stage, P its leading components over frames of *symmetric* discs that really turn, W a ridge regression on their
speed: a Reichardt correlator between the stage's features. No snake is among what it is fitted to. It changes its sign
with the order of the frames, so a network without memory gives zero, by theory and whatever its weights, for a still
image, for a blink (there and back again) and for eye movements that are as likely backwards; an onset from grey is
zero because features are counted from grey. What is left to be measured is a rise in contrast, which turns the features
only where they respond to it nonlinearly (Bach & Atala-Gerard 2020), and, in spiking networks, the order of spikes
within the response to a still image. The gates are those of rotating_snakes; the stage is chosen by real rotation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.base import Observer, Score, TrainedObserver, not_available
from evaluation.illusions import readout_figure
from evaluation.illusions._drawn import DrawnFromScores
from evaluation.illusions.correlator import Readout, fit
from evaluation.illusions.snakes_conditions import SPEEDS, phases
from evaluation.illusions.snakes_scores import LEAST_CORRELATION, LEAST_SIGN, interval
from evaluation.illusions.snakes_stimuli import GREY, KITAOKA, Disc, fitting, grey, luminance, render, variants
from evaluation.illusions.static_null import blur
from evaluation.statistics import Array, spearman
from training.data.base import LUMINANCE

MAP = 32  # largest side of a map that is read
PATTERNS, PAIRS = 24, 16  # symmetric discs that the read-out is fitted to, and pairs of frames of each
HELD_OUT = 4  # symmetric discs of the gate
RISE = (0.3, 1.0)  # contrast before and after
CODES = ("S1", "S3_base", "S3", "C1", "C2")
BINS, REPEATS = 3, 20
STILL = "zero by theory: a network without memory answers identical frames identically"
COUNTED = "zero by theory: features are counted from grey"
REVERSIBLE = "zero by theory: as likely forwards as backwards, to a network without memory"


class MotionReadout(DrawnFromScores):
    """Speed of the snake over a rise in contrast, by stage, with controls, null observers, gates and theoretical zeros.

    Args:
        num: Phases per condition.
        seed: Of patterns and phases.
    """

    name = "motion_readout"
    pillar = "illusion"
    headline = "index"
    reference = "Reichardt 1961; Bach & Atala-Gerard 2020, i-Perception 11(5)"
    on_request = True

    def __init__(self, *, num: int = 8, seed: int = 0) -> None:
        self.num, self.seed = num, seed

    def scores(self, observer: Observer) -> list[Score]:
        """Return, by stage, gates and speeds of snakes and controls; the index at the stage that sees motion best."""
        size = max(observer.in_shape[1:])
        disc = fitting(size) or (Disc(cycles=5, rings=2) if size >= 32 else None)
        if not observer.classes and hasattr(observer, "frames"):
            return [not_available("index", "it predicts frames: see rotating_snakes")]
        if disc is None:
            return [not_available("index", f"images of {size} pixels cannot show the rings")]
        if not observer.activations(render(disc, size, torch.zeros(1))):
            return [not_available("index", "it has no stages")]
        colours = KITAOKA if observer.in_shape[0] == 3 else GREY
        mean = sum(d * luminance(c) for d, c in zip(disc.duty, colours, strict=True))
        disc = replace(disc, colours=colours, background=mean)
        shown, *turns = self._shown(disc, size)
        seen = {name: {k: _units(v) for k, v in observer.activations(x).items()} for name, x in shown.items()}
        bins, spiking = self._bins(observer, disc, size)
        zeros = {"J": REVERSIBLE, "B": REVERSIBLE, "O": COUNTED} | ({} if bins else {"F": STILL})
        scores = [Score("speed", 0.0, higher_is_better=None, target=c, reason=why) for c, why in zeros.items()]
        judged: list[tuple[float, Score]] = []
        reasons = []
        for stage in seen["grey"]:
            readout, own, reason = self._stage({name: stages[stage] for name, stages in seen.items()}, stage, *turns)
            scores += own
            if reason:
                reasons.append(f"{stage}: {reason}")
                continue
            judged.append((own[1].raw or 0.0, own[2]))
            if stage in bins:
                scores.append(_score(_within(readout, bins[stage]), stage, "F"))
        scores += spiking
        for name, null in NULLS.items():
            own = self._stage({n: null(x).flatten(1) for n, x in shown.items()}, name, *turns)[1]
            scores += [replace(s, metric=f"null_{s.metric}") for s in own]
        if not judged:
            return [*scores, not_available("index", f"no stage sees real rotation ({'; '.join(reasons)})")]
        _, index = max(judged, key=lambda j: j[0])
        return [*scores, replace(index, metric="index", target="")]

    def plot(self, path: Path, name: str, scores: list[Score]) -> Path | None:
        """Draw the speeds by stage and condition, with the gates; nothing without stages."""
        return readout_figure.speeds(path.parent, name, scores, CODES) if any(s.stage for s in scores) else None

    def _shown(self, disc: Disc, size: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Return all stimuli by name, the turns of the frames that are fitted to, and those of the gate."""
        turns = phases(self.num, disc.period, self.seed)
        grey_field = torch.full((1, len(disc.colours[0]), size, size), disc.background)
        shown = {"grey": grey_field}
        shown["fit"], shown["fit_later"], fitted = pairs(disc, size, range(PATTERNS), PAIRS, self.seed)
        speeds = torch.tensor([s * sign for s in SPEEDS for sign in (1.0, -1.0)])
        held_out = range(PATTERNS, PATTERNS + HELD_OUT)
        shown["gate"], shown["gate_later"], gated = pairs(disc, size, held_out, 3, self.seed + 1, speeds)
        for code in CODES:
            for when, contrast in zip(("low", "high"), RISE, strict=True):
                image = render(replace(variants(disc)[code], contrast=contrast), size, turns)
                shown |= {f"{code} {when}": image, f"{code} {when} mirrored": image.flip(-1)}
        return shown, fitted, gated

    def _stage(
        self, seen: Mapping[str, Tensor], stage: str, fitted: Tensor, gated: Tensor
    ) -> tuple[Readout, list[Score], str]:
        """Return the read-out of a stage's features, its scores, and why it may not be judged, or nothing."""
        readout = fit(seen["grey"], seen["fit"], seen["fit_later"], fitted)
        found, true = readout.turn(seen["gate"], seen["gate_later"]), gated.numpy()
        sign = float((np.sign(found) == np.sign(true)).mean())
        r = float(np.corrcoef(found, true)[0, 1]) if found.std() > 0 else math.nan
        where: dict[str, Any] = {"stage": stage, "n_stimuli": len(true), "ceiling_high": 1.0}
        scores = [Score("real_sign_accuracy", sign, **where), Score("real_correlation", r, **where)]
        if not (sign >= LEAST_SIGN and r >= LEAST_CORRELATION):
            reason = f"sign right in {sign:.0%}, r = {r:.2f}"
            return readout, [*scores, not_available("speed", reason, stage=stage, target="rise S1")], reason
        for code in CODES:
            one, other = (
                readout.turn(seen[f"{code} low{mirror}"], seen[f"{code} high{mirror}"]) for mirror in ("", " mirrored")
            )
            scores.append(_score((one - other) / 2, stage, f"rise {code}"))
        return readout, scores, ""

    def _bins(self, observer: Observer, disc: Disc, size: int) -> tuple[dict[str, list[Tensor]], list[Score]]:
        """Return, per spiking stage, thirds of the response to a snake, its mirror image and grey; else nothing.

        And, per stage, the rates to the snake and to its mirror image, for a difference in rate can look like a turn,
        and whether bright or dark places make the first spikes.
        """
        if not isinstance(observer, TrainedObserver):
            return {}, []
        image = render(disc, size, phases(self.num, disc.period, self.seed))
        shown = (image, image.flip(-1), torch.full_like(image[:1], disc.background))
        parts, waits = zip(*(_thirds(observer, x) for x in shown), strict=True)
        scores = []
        for stage in parts[0]:
            for code, part in zip(("S1", "S2"), parts, strict=False):
                here: dict[str, Any] = {"higher_is_better": None, "n_stimuli": len(image)}
                scores.append(Score("rate", float(part[stage].mean()), stage=stage, target=f"F {code}", **here))
            scores.append(first_spikes(waits[0][stage], image, disc.background, stage))
        return {stage: [p[stage] for p in parts] for stage in parts[0]}, scores


def symmetric(disc: Disc, seed: int) -> Disc:
    """Return a random disc without a direction: its two grey levels are the same and equally wide.

    Its mean over a cycle is the background's luminance, as a snake's is: the discs turn, and do nothing else.
    """
    rng = np.random.default_rng(seed)
    first, third = rng.uniform(0.1, 0.4, 2)
    duty = np.array([first, (1 - first - third) / 2, third, (1 - first - third) / 2])
    level = rng.uniform(-1, 1, 3)[[0, 1, 2, 1]]
    level -= level @ duty
    room = np.where(level > 0, 1 - disc.background, disc.background)
    level *= rng.uniform(0.5, 1.0) / (np.abs(level) / room).max()
    return replace(disc, colours=grey((disc.background + level).tolist()), duty=tuple(duty.tolist()))


def pairs(
    disc: Disc, size: int, patterns: range, num: int, seed: int, speeds: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames before and after a turn, and the turns: ``num`` phases of each symmetric pattern.

    Args:
        disc: Geometry and channels.
        size: Side in pixels.
        patterns: Their numbers.
        num: Phases of each, for every speed.
        seed: Of phases and turns.
        speeds: The turns; by default one for every phase, drawn between −1 and 1 degree.
    """
    generator = torch.Generator().manual_seed(seed)
    before: list[Tensor] = []
    after: list[Tensor] = []
    turns = []
    for pattern in patterns:
        by = torch.rand(num, generator=generator) * 2 - 1 if speeds is None else speeds.repeat_interleave(num)
        phase = disc.period * torch.rand(len(by), generator=generator)
        for frames, now in ((before, phase), (after, phase + by)):
            frames.append(render(symmetric(disc, pattern), size, now).expand(-1, len(disc.colours[0]), -1, -1))
        turns.append(by.double())
    return torch.cat(before), torch.cat(after), torch.cat(turns)


def _score(speeds: Array, stage: str, target: str) -> Score:
    low, high = interval(speeds)
    here: dict[str, Any] = {"higher_is_better": None, "n_stimuli": len(speeds), "ci_low": low, "ci_high": high}
    return Score("speed", float(speeds.mean()), stage=stage, target=target, **here)


def _units(activity: Tensor) -> Tensor:
    """Return activity as ``(B, units)``; maps larger than ``MAP`` are averaged down to it."""
    if activity.dim() == 4 and max(activity.shape[-2:]) > MAP:
        activity = F.adaptive_avg_pool2d(activity, MAP)
    return activity.flatten(1).cpu()


def _within(readout: Readout, bins: Sequence[Tensor]) -> Array:
    """Return the mirror difference of the turn from each third of the response to a still image to the next."""
    snake, mirrored, base = bins
    ways = [
        np.mean([readout.turn(b[:, n], b[:, n + 1], base[:, n], base[:, n + 1]) for n in range(BINS - 1)], 0)
        for b in (snake, mirrored)
    ]
    difference: Array = (ways[0] - ways[1]) / 2
    return difference


def _pixels(stimuli: Tensor) -> Tensor:
    return stimuli


def _log_difference(stimuli: Tensor) -> Tensor:
    """Return the two halves of a difference of Gaussians of log luminance: retina without motion."""
    log = (_luminance(stimuli).double() + 0.1).log()
    difference = blur(log, 1.0) - blur(log, 2.0)
    return torch.cat([difference.clamp(min=0), -difference.clamp(max=0)], 1)


NULLS: dict[str, Callable[[Tensor], Tensor]] = {
    "pixels": _pixels,
    "log_difference_of_gaussians": _log_difference,
}


def first_spikes(latency: Tensor, images: Tensor, background: float, stage: str) -> Score:
    """Return the rank correlation over places of the first spike's step with luminance: > 0 where dark comes first.

    Args:
        latency: Step of the first spike, ``(B, C, h, w)``.
        images: ``(B, 1 or 3, H, W)``.
        background: Their luminance where there is no pattern; these places are left out.
        stage: The stage.
    """
    if latency.dim() != 4 or min(latency.shape[2:]) < 2:
        return not_available("latency_luminance", "its neurons have no places", stage=stage)
    level = F.adaptive_avg_pool2d(_luminance(images), (latency.shape[2], latency.shape[3]))[:, 0]
    pattern = (level - background).abs() > 0.02
    rank = spearman(latency.mean(1)[pattern].tolist(), level[pattern].tolist())
    return Score("latency_luminance", rank, higher_is_better=None, stage=stage, n_stimuli=len(images))


def _luminance(stimuli: Tensor) -> Tensor:
    if stimuli.shape[1] == 1:
        return stimuli
    return (stimuli * stimuli.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)


def _thirds(observer: TrainedObserver, stimuli: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return each spiking stage's spikes per step in thirds of the response and the step of the first, over repeats.

    Shapes ``(B, BINS, units)`` and ``(B, …)``.
    """
    x = observer.preprocess.stimulus(stimuli)
    total: dict[str, Tensor] = {}
    waits: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        for repeat in range(REPEATS):
            torch.manual_seed(repeat)  # the same noise for every condition
            for stage, record in observer.spikes(x).items():
                parts = [_units(part.mean(0)) for part in record.spikes.float().tensor_split(BINS)]
                total[stage] = total.get(stage, 0) + torch.stack(parts, 1) / REPEATS
                waits[stage] = waits.get(stage, 0) + record.latencies.float().cpu() / REPEATS
    return total, waits
