"""Kanizsa, tier 3: does anything happen *in the gap*, where no stimulus is? Only feedback or recurrence can do that.

    gap(c) = Σ_u sign(d_u) (r_u(IN) − r_u(c)) / Σ_u |d_u|        d_u = r_u(REAL) − r_u(BLANK), feed-forward

over units u whose feed-forward receptive field holds a piece of a side's gap and nothing that is drawn in any
condition; it is computed for every layout (``receptive_fields``). The sign is the unit's own preference for a real
contour at that place; 1 is as much as a real contour does. gap is the smallest over the six controls c.

A feed-forward network sees the same pixels there in every condition, noise included: its gap is exactly 0, to the
last bit. What is not 0 is feedback (of predictive coding, over its iterations) or a leak: a normalisation over the
whole image, or an input gain. ``gap_unsigned`` shows either, whatever its sign; reasons name the leaks. Spiking
encodings scale an image by its strongest contrast; spiking networks therefore see a spot of full contrast in the
corner of every image, the same in all conditions, which keeps that gain the same.

reconstruction: what the states feed back to the input, J₁ᵀ (v₁ − f₁(x)), on the pixels of the gap: energy for IN
against a control, (E_IN − E_c) / (E_IN + E_c), smallest over controls (after Pang et al. 2021).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.base import Benchmark, Observer, Score, TrainedObserver, not_available
from evaluation.figures import figure
from evaluation.illusions.gates import collapse_gate, competence_gate, missing_class, stage_reasons
from evaluation.illusions.kanizsa_stimuli import CONTROLS, CORNERS, Layouts, layouts, render
from evaluation.illusions.receptive_fields import global_modules, units_touching, units_within
from evaluation.illusions.time_course import TimeCourse, iterates, time_course
from evaluation.statistics import Array, interval, resampled_means

SHOWN = ("IN", *CONTROLS)
NEAR = 0.75  # pixels from the line between two discs: a pixel of the gap
INPUT_FILTER = 3  # pixels that the encoding of spiking rules reaches around each pixel
FEWEST = 20  # units over all layouts below which a stage has none to speak of
SILENT = "its units in the gaps do not respond to real contours either"  # their 0 would say nothing
HUMAN = "people: V1 later than V2, weaker than real contours\n(Lee & Nguyen 2001, from memory: order only)"


class KanizsaGap(Benchmark):
    """Responses in units that see the gap only: IN against six controls, over inference, by stage.

    Args:
        per_cell: Layouts for every set, number of corners and support ratio.
        seed: Of the layouts.
    """

    name = "kanizsa_gap"
    version = 4  # units that are silent to real contours cannot be asked; reconstruction over inference
    pillar = "illusion"
    headline = "gap"
    reference = "Lee & Nguyen 2001, PNAS 98:1907; Pang et al. 2021, arXiv 2102.01955"
    on_request = True

    def __init__(self, *, per_cell: int = 3, seed: int = 1) -> None:
        self.per_cell, self.seed = per_cell, seed
        self._last: tuple[Observer, dict[str, Array], str] | None = None

    def measure(self, observer: Observer) -> list[Score]:
        """Return the gap by stage, control and moment; the headline is the mean over stages that have units."""
        if not isinstance(observer, TrainedObserver):
            return [not_available("gap", "a null observer has no units")]
        if reason := missing_class(observer.classes):
            return [not_available("gap", reason)]
        layout = layouts(observer.in_shape[1], self.per_cell, self.seed)
        images = {c: render(layout, c, observer.in_shape[1]) for c in ("REAL", "BLANK", *SHOWN)}
        if observer.rule.tags.spiking:
            images = {c: anchored(x) for c, x in images.items()}
        gaps = Gaps(observer, layout, images)
        leaks = global_modules(observer.net)
        told = f"leaks through {', '.join(leaks)}" if leaks else ""
        scores, found, courses = [], {}, {}
        for stage, units in gaps.units.items():
            few = int(units.sum()) < FEWEST
            if few or not gaps.preference(stage).any():
                why = "no receptive field fits into a gap: use larger images" if few else SILENT
                scores.append(not_available("gap", why, stage=stage))
                continue
            response = gaps.responses(stage)  # condition → (T, layouts)
            contrast = np.stack([response["IN"][-1] - response[c][-1] for c in CONTROLS], 1)
            found[stage] = contrast
            scores += _stage_scores(stage, contrast, gaps.unsigned(stage), int(units.sum()), told)
            courses[stage] = np.array(
                [min(a - b for b in others) for a, *others in zip(*(response[c].mean(1) for c in SHOWN), strict=True)]
            )
            if gaps.unit:
                scores += [
                    Score("gap_over_time", float(v), higher_is_better=None, stage=stage, target=f"{gaps.unit}={t}")
                    for t, v in enumerate(courses[stage])
                ]
        scores += gaps.reconstruction()
        self._last = (observer, courses, gaps.unit)
        missing = [s for s in scores if s.metric == "gap"]
        return [*scores, self._headline(observer, layout, images, found, told, missing)]

    def _headline(
        self,
        observer: TrainedObserver,
        layout: Layouts,
        images: Mapping[str, Tensor],
        found: Mapping[str, Array],
        told: str,
        why: Sequence[Score],
    ) -> Score:
        if not found:
            return not_available("gap", stage_reasons(why))
        truth = np.array([observer.classes.index(CORNERS[n]) for n in layout.corners.tolist()])
        answer = {c: observer.predict(images[c]).argmax(1).numpy() for c in ("REAL", *SHOWN)}
        shown = {c: answer[c] for c in SHOWN}
        reason = competence_gate(answer["REAL"], truth, observer.classes) or collapse_gate(shown)
        if reason:
            return not_available("gap", reason)
        every = np.mean(list(found.values()), axis=0)
        low, high = interval(resampled_means(every, np.zeros(len(every), dtype=np.int64)).min(1))
        value = float(every.mean(0).min())
        return Score("gap", value, higher_is_better=None, ci_low=low, ci_high=high, n_stimuli=len(every), reason=told)

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Draw the gap over the time of inference, by stage, of the observer that was measured last."""
        if self._last is None or self._last[0] not in observers.values() or not self._last[1]:
            return []
        observer, courses, unit = self._last
        path = folder / "kanizsa_gap.png"
        nothing = not any(course.any() for course in courses.values())
        with figure(path, 6.0, 3.6) as axes:
            for k, (stage, course) in enumerate(courses.items()):
                x = np.arange(len(course)) if unit else np.array([k])  # one pass has no time: stages side by side
                axes.plot(x, course, "-o", ms=3 if unit else 6, label=stage)
            axes.axhline(0, color="0.85", lw=0.8)
            when = f"{unit} of inference" if unit else "stages, in one feed-forward pass"
            axes.set(ylabel="IN − strongest control, in the gap\n(1 = a real contour's response)")
            axes.set_xlabel(f"{when}\n{HUMAN}", fontsize=8)
            axes.set_title(f"Kanizsa gap: {observer.name}" + ", 0 to the last bit" * nothing)
            if not unit:
                axes.set_xticks(range(len(courses)), list(courses))
            else:
                axes.legend(frameon=False, fontsize=7)
        return [path]


class Gaps:
    """Responses of the units whose receptive fields lie in the gaps of every layout.

    Args:
        observer: Who is examined.
        layout: What was drawn.
        images: Condition → images, with REAL and BLANK.
    """

    def __init__(self, observer: TrainedObserver, layout: Layouts, images: Mapping[str, Tensor]) -> None:
        self.observer, self.images = observer, images
        free = torch.stack([(images[c] == images["BLANK"])[:, 0] for c in SHOWN]).all(0)
        if observer.rule.tags.spiking:
            width = 2 * INPUT_FILTER + 1
            free = F.max_pool2d((~free).float()[:, None], width, 1, INPUT_FILTER)[:, 0] == 0
        self.pixels = gap_pixels(layout, images["BLANK"].shape[-1]) & free
        inside, touching = (f(observer.net, r) for f, r in ((units_within, free), (units_touching, self.pixels)))
        hidden = observer.net.hidden
        self.units = {n: inside[n] & touching[n] for n in hidden}
        self.courses: dict[str, TimeCourse] = {c: time_course(observer, images[c]) for c in ("REAL", "BLANK", *SHOWN)}

    @property
    def unit(self) -> str:
        """What time is counted in."""
        return self.courses["IN"].unit

    def preference(self, stage: str) -> Tensor:
        """Return d_u of every unit that sees a gap, 0 for all others, ``(layouts, units)``."""
        first = 0 if self.unit == "iteration" else -1  # spikes end with the response, relaxation begins with it
        difference = self.courses["REAL"][stage][first] - self.courses["BLANK"][stage][first]
        return difference.double() * self.units[stage]

    def responses(self, stage: str) -> dict[str, Array]:
        """Return, by condition, the signed response over time in units of a real contour's, ``(T, layouts)``."""
        preferred = self.preference(stage)
        scale = preferred.abs().sum(1).mean().clamp(min=1e-12)
        blank = self.courses["BLANK"][stage].double()
        return {
            c: ((self.courses[c][stage].double() - blank) * preferred.sign()).sum(2).div(scale).numpy() for c in SHOWN
        }

    def unsigned(self, stage: str) -> dict[str, float]:
        """Return, by control, the mean size of the change from control to IN, in units of a real contour's."""
        scale = self.preference(stage).abs().sum().clamp(min=1e-12)
        last = {c: self.courses[c][stage][-1].double() * self.units[stage] for c in SHOWN}
        return {c: float((last["IN"] - last[c]).abs().sum() / scale) for c in CONTROLS}

    def reconstruction(self) -> list[Score]:
        """Return the energy that the first stage's states send back to the pixels of the gap, IN against controls."""
        if not iterates(self.observer):
            return [not_available("reconstruction", "its states do not differ from the feed-forward pass")]
        first = next(iter(self.observer.net.stages))
        energy = {c: self._sent_back(first, c) for c in SHOWN}
        course = np.stack([_relative(energy["IN"], energy[c]) for c in CONTROLS], 2)  # (T, layouts, controls)
        contrast = course[-1]
        low, high = interval(resampled_means(contrast, np.zeros(len(contrast), dtype=np.int64)).min(1))
        value = float(contrast.mean(0).min())
        return [
            *(
                Score("reconstruction_vs", float(contrast[:, k].mean()), higher_is_better=None, target=c)
                for k, c in enumerate(CONTROLS)
            ),
            *(
                Score("reconstruction_over_time", float(v), higher_is_better=None, target=f"{self.unit}={t}")
                for t, v in enumerate(course.mean(1).min(1))
            ),
            Score("reconstruction", value, higher_is_better=None, ci_low=low, ci_high=high, n_stimuli=len(contrast)),
        ]

    def _sent_back(self, first: str, condition: str) -> Array:
        """Return the energy on the gap's pixels over inference, ``(T, layouts)``."""
        stage = self.observer.net.stages[first]
        weight = next(stage.parameters())
        x = self.observer.preprocess.stimulus(self.images[condition]).to(weight).requires_grad_()
        with torch.enable_grad():
            predicted = stage(x)
        found = []
        for state in self.courses[condition][first]:
            error = state.to(weight).view_as(predicted) - predicted.detach()
            (back,) = torch.autograd.grad(predicted, x, error, retain_graph=True)
            found.append((back.square().sum(1).cpu() * self.pixels).sum((1, 2)).double())
        return np.asarray(torch.stack(found).numpy())


def gap_pixels(layout: Layouts, size: int) -> Tensor:
    """Return the pixels on the sides between the discs, ``(B, size, size)`` boolean."""
    axis = torch.arange(size) + 0.5 - size / 2
    found = torch.zeros(len(layout), size, size, dtype=torch.bool)
    half = (layout.side / 2 - layout.disc_radius)[:, None, None]
    for k in range(int(layout.corners.max())):
        normal, middle = layout.gap(k)
        dx, dy = axis - middle[:, 0, None, None], axis[:, None] - middle[:, 1, None, None]
        cos, sin = normal.cos()[:, None, None], normal.sin()[:, None, None]
        across, along = cos * dx + sin * dy, cos * dy - sin * dx
        found |= (across.abs() < NEAR) & (along.abs() < half) & (k < layout.corners)[:, None, None]
    return found


def anchored(images: Tensor) -> Tensor:
    """Return images with a white spot on a black field in one corner, so that all have the same strongest contrast.

    The spot is as wide as the centre of a difference of Gaussians of 1 and 2 pixels, √(8 ln 4 / 3): no other pattern
    drives one more, and no figure here, whose contrast is at most half as large, comes near.
    """
    offset = torch.arange(-INPUT_FILTER, INPUT_FILTER + 1, dtype=images.dtype)
    images = images.clone()
    inside = torch.hypot(offset[:, None], offset[None]) <= math.sqrt(8 * math.log(4) / 3)
    images[..., : len(offset), : len(offset)] = inside.to(images.dtype)
    return images


def _stage_scores(stage: str, contrast: Array, unsigned: Mapping[str, float], units: int, told: str) -> list[Score]:
    low, high = interval(resampled_means(contrast, np.zeros(len(contrast), dtype=np.int64)).min(1))
    largest = max(unsigned, key=lambda c: unsigned[c])
    return [
        *(
            Score("gap_vs", float(contrast[:, k].mean()), higher_is_better=None, stage=stage, target=c)
            for k, c in enumerate(CONTROLS)
        ),
        Score(
            "gap_in", float(contrast.mean(0).min()), higher_is_better=None, stage=stage, ci_low=low, ci_high=high,
            n_stimuli=len(contrast), reason=told,
        ),
        Score("gap_unsigned", unsigned[largest], higher_is_better=None, stage=stage, target=largest, reason=told),
        Score("gap_units", float(units), higher_is_better=None, stage=stage),
    ]  # fmt: skip


def _relative(a: Array, b: Array) -> Array:
    total = a + b
    return np.divide(a - b, total, out=np.zeros_like(total), where=total > 0)


def sheet(size: int = 64) -> tuple[Tensor, list[str], list[str]]:
    """Return the gap's pixels marked white on the images of every condition, for every polygon."""
    shared = layouts(size, 1, seed=2)
    chosen = shared.select((((shared.support_ratio - 0.4).abs() < 1e-3) & (shared.matching == 0)).nonzero()[:, 0])
    rows = (*SHOWN, "BLANK", "REAL")
    marked = [torch.where(gap_pixels(chosen, size)[:, None], 1.0, render(chosen, c, size)) for c in rows]
    return torch.stack(marked), list(rows), list(CORNERS.values())
