"""Kanizsa, tier 2: is the square fat or thin? Thresholds of rotation, and which noise in the gap sways the answer.

A linear read-out of a stage learns fat from thin on *real* figures, filled and outlined, of both polarities, and then
judges illusory ones and controls that are turned by the same angles. θ: rotation at three quarters of right answers.

    threshold_ratio = min over controls c of log2(θ_c / θ_IN)        controls: OUT, DOWN (local), OUTL, CLOSED

above 0 where mouths that make a figure help more than mouths that make none. Accuracy is no score: oriented
gradients at corners have it too, and have it for outlined pacmen, which make no figure for us. FRAG, the bare
corners, stands beside and is no control: people do hardly better with a figure than with what supports it
(Westheimer & Li 1997). A θ beyond the rotations shown was not reached and counts as the largest of them.

classification_image: a second read-out learns fat from thin on the *illusory* figure in noise, where the gap tells
nothing. z of each half gap (``classification_image.py``) minus z at its mirror image beyond its disc, as far from it,
where no contour leads. If nothing is completed the two can be swapped: an exact test over all swaps, either sign, as
the sign of an induced surface is not known. Units whose receptive field holds a mouth and a piece of the gap respond to
both without completing anything; what feedback adds is asked by ``kanizsa_gap``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Benchmark, Observer, Score, not_available
from evaluation.figures import panels
from evaluation.illusions import classification_image, psychometric
from evaluation.illusions.classification_image import Image
from evaluation.illusions.fat_thin_stimuli import (
    CONDITIONS,
    CONTROLS,
    ROTATIONS,
    SUPPORT_RATIOS,
    Figures,
    figures,
    fixed,
    render,
)
from evaluation.illusions.gates import collapse_gate, competence_gate
from evaluation.illusions.kanizsa_contour_probe import linear_probe
from evaluation.illusions.time_course import CHUNK, time_course
from evaluation.statistics import Array, holm, interval, sign_flip_test

RATIO = 0.5  # support ratio of the headline
EASY = 8.0  # degrees from which on real figures must be known
RESAMPLES = 500
LARGEST = max(ROTATIONS)
DEGREES = np.array([*(-d for d in reversed(ROTATIONS)), *ROTATIONS])
HUMAN = "people: twice the real figure's (Westheimer & Li 1997, high certainty)"
KNOWN = 0.6  # least accuracy in the noise of the classification image
STYLE = {
    "REAL": ("k", 2.2), "IN": ("C3", 2.2), "OUT": ("C0", 1.4), "DOWN": ("C9", 1.4), "OUTL": ("C2", 1.4),
    "CLOSED": ("C4", 1.4), "FRAG": ("C1", 1.0),
}  # fmt: skip
Probe = Callable[[Array], Array]


@dataclass(frozen=True)
class Answers:
    """What the read-out of one stage said.

    Attributes:
        fat: Condition and support ratio → answers *fat* by signed rotation, ``(C, images)``.
    """

    fat: dict[tuple[str, float], Array]

    def counts(self, condition: str, ratio: float = RATIO) -> Array:
        """Return the number of answers *fat* by signed rotation."""
        return np.asarray(self.fat[condition, ratio].sum(1), dtype=float)

    def hits(self, condition: str, ratio: float = RATIO) -> float:
        """Return the share of right answers."""
        return float((self.fat[condition, ratio] == (DEGREES > 0)[:, None]).mean())

    def resampled(self, condition: str, ratio: float = RATIO) -> Array:
        """Return thresholds: the estimate, then those of resampled images, ``(1 + RESAMPLES,)``."""
        counts, asked = self.counts(condition, ratio), np.full(len(DEGREES), self.fat[condition, ratio].shape[1])
        drawn = psychometric.resampled(counts, asked, RESAMPLES, seed=0)
        return psychometric.fit(DEGREES, np.concatenate([counts[None], drawn]), asked)[0]

    def gate(self) -> str | None:
        """Return why the stage may not be judged, or nothing."""
        easy = np.abs(DEGREES) >= EASY
        real = self.fat["REAL", RATIO][easy]
        truth = np.broadcast_to((DEGREES[easy] > 0)[:, None], real.shape)
        answers = np.concatenate([self.fat[c, RATIO].ravel() for c in ("IN", *CONTROLS)])
        return competence_gate(real.ravel().astype(int), truth.ravel().astype(int), ("thin", "fat"), "figures") or (
            collapse_gate(answers, 2)
        )


class KanizsaFatThin(Benchmark):
    """Fat or thin: threshold ratio of the strongest control to the illusory square, and the classification image.

    Args:
        train: Figures each read-out is trained on.
        per_cell: Figures for every condition, support ratio and signed rotation.
        fields: Noise fields of the classification image.
        seed: Of the figures.
    """

    name = "kanizsa_fat_thin"
    pillar = "illusion"
    headline = "threshold_ratio"
    reference = "Ringach & Shapley 1996, Vision Res. 36:3037; Gold et al. 2000, Curr. Biol. 10:663"
    on_request = True

    def __init__(self, *, train: int = 2000, per_cell: int = 40, fields: int = 6000, seed: int = 4) -> None:
        self.train, self.per_cell, self.fields, self.seed = train, per_cell, fields, seed
        self._last: tuple[Observer, list[Score], dict[str, Answers], dict[str, Image]] | None = None

    def measure(self, observer: Observer) -> list[Score]:
        """Return per stage thresholds, their ratios and the classification image; the deepest stage is the headline."""
        size = observer.in_shape[1]
        learned, truth = real_figures(size, self.train, self.seed)
        probes = _fitted(observer, learned, truth)
        if not probes:
            return [not_available("threshold_ratio", "it has no stages")]
        answers = self.answers(observer, probes, size)
        images = self.images(observer, size)
        scores = []
        for stage, found in answers.items():
            scores += threshold_scores(stage, found) + image_scores(stage, images.get(stage))
        for metric in ("threshold_ratio", "classification_image"):
            scores.append(deepest(metric, scores))
        self._last = observer, scores, answers, images
        return scores

    def answers(self, observer: Observer, probes: Mapping[str, Probe], size: int) -> dict[str, Answers]:
        """Return what every stage's read-out says about every condition."""
        said: dict[str, dict[tuple[str, float], Array]] = {stage: {} for stage in probes}
        for ratio, shown in self.shown(size).items():
            for condition in CONDITIONS:
                for stage, values in _decide(observer, probes, render(shown, condition, size)).items():
                    said[stage][condition, ratio] = (values > 0).reshape(len(DEGREES), self.per_cell).astype(float)
        return {stage: Answers(found) for stage, found in said.items()}

    def shown(self, size: int) -> dict[float, Figures]:
        """Return the figures of every support ratio."""
        degrees = torch.tensor(DEGREES).repeat_interleave(self.per_cell)
        return {r: figures(size, degrees, r, self.seed + 10 + k) for k, r in enumerate(SUPPORT_RATIOS)}

    def images(self, observer: Observer, size: int) -> dict[str, Image]:
        """Return every stage's classification image; none where the gap holds no pixel."""
        if not np.abs(np.stack(list(classification_image.templates(size).values()))).sum(-1).all():
            return {}
        learned = classification_image.taught(size, self.train, LARGEST, self.seed + 1)
        probes = _fitted(observer, render(learned, "IN", size), learned.fat)
        return classification_image.measured(
            lambda stimuli: _decide(observer, probes, stimuli), size, self.fields, self.seed
        )

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Draw psychometric functions, thresholds and the classification image of the stage that is the headline."""
        paths = []
        for name, observer in observers.items():
            if self._last is None or self._last[0] is not observer:
                self.measure(observer)
            if self._last is None or self._last[0] is not observer:
                continue
            paths.append(plot(folder / "kanizsa_fat_thin.png", name, *self._last[1:]))
        return paths


def real_figures(size: int, num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return real figures of rotations from 1° to the largest shown, and whether each is fat."""
    turns = 1 + (LARGEST - 1) * torch.rand(num, generator=torch.Generator().manual_seed(seed))
    shown = figures(size, turns * (1 - 2 * (torch.arange(num) % 2)), RATIO, seed)
    return render(shown, "REAL", size), shown.fat


def threshold_scores(stage: str, found: Answers) -> list[Score]:
    """Return a stage's accuracies, thresholds in degrees, and threshold ratios in octaves."""
    num = found.fat["IN", RATIO].size
    where: dict[str, Any] = {"higher_is_better": None, "stage": stage, "n_stimuli": num}
    scores = [Score("accuracy", found.hits(c), target=c, **where) for c in CONDITIONS]
    if reason := found.gate():
        return [*scores, not_available("threshold_ratio", reason, stage=stage)]
    theta = {c: found.resampled(c) for c in CONDITIONS}
    for c, values in theta.items():
        low, high = interval(values[1:])
        told = "not reached: at least" if values[0] >= LARGEST else ""
        scores.append(Score("threshold", float(values[0]), target=c, ci_low=low, ci_high=high, reason=told, **where))
    told = "at least; " if theta["IN"][0] >= LARGEST else ""
    ratio = float(theta["IN"][0] / theta["REAL"][0])
    scores.append(Score("illusory_over_real", ratio, reason=told + HUMAN, **where))
    octaves = {c: np.log2(theta[c] / theta["IN"]) for c in (*CONTROLS, "FRAG")}
    for c, values in octaves.items():
        low, high = interval(values[1:])
        scores.append(Score("threshold_ratio_vs", float(values[0]), target=c, ci_low=low, ci_high=high, **where))
    for at_ratio in SUPPORT_RATIOS:
        at = {c: found.resampled(c, at_ratio) for c in ("IN", *CONTROLS)}
        least = min(float(np.log2(at[c][0] / at["IN"][0])) for c in CONTROLS)
        scores.append(Score("threshold_ratio_at", least, target=f"support_ratio={at_ratio}", **where))
    least = np.stack([octaves[c] for c in CONTROLS]).min(0)
    strongest = min(CONTROLS, key=lambda c: octaves[c][0])
    if min(theta["IN"][0], theta[strongest][0]) >= LARGEST:
        why = f"reads rotations up to {LARGEST:g}° from neither the illusory figure nor a control"
        return [*scores, not_available("threshold_ratio", why, stage=stage)]
    low, high = interval(least[1:])
    where["target"] = strongest
    return [*scores, Score("threshold_ratio", float(least[0]), ci_low=low, ci_high=high, **where)]


def image_scores(stage: str, image: Image | None) -> list[Score]:
    """Return a stage's mean z in the gap and at its mirror image, and their difference with the p of all swaps."""
    if image is None:
        why = "the gap holds no pixel that is clear of the discs: use larger images"
        return [not_available("classification_image", why, stage=stage)]
    where: dict[str, Any] = {"higher_is_better": None, "stage": stage, "n_stimuli": image.num}
    scores = [Score("accuracy_in_noise", image.accuracy, **where)]
    if image.accuracy < KNOWN:
        why = f"its read-out does not know the illusory figure in noise ({image.accuracy:.0%})"
        return [*scores, not_available("classification_image", why, stage=stage)]
    names = list(image.gap)
    p = dict(zip(names, holm([sign_flip_test(image.difference(n).tolist()) or 1.0 for n in names]), strict=True))
    for n in names:
        for place, z in (("gap", image.gap[n]), ("mirror", image.mirror[n])):
            scores.append(Score("strip_z", float(z.mean()), target=f"{n} {place}", **where))
    best = min(names, key=lambda n: p[n])
    value = float(image.difference(best).mean())
    scores.append(Score("classification_image_p", p[best], target=best, **where))
    return [*scores, Score("classification_image", value, target=best, reason=f"p = {p[best]:.2g}", **where)]


def deepest(metric: str, scores: list[Score]) -> Score:
    """Return the number of the deepest stage that can be judged, as that of the network."""
    own = [s for s in scores if s.metric == metric]
    judged = [s for s in own if s.raw is not None]
    if not judged:
        return not_available(metric, "; ".join(f"{s.stage}: {s.reason}" for s in own))
    return replace(judged[-1], stage="", target=f"{judged[-1].stage} {judged[-1].target}")


def plot(
    path: Path, name: str, scores: list[Score], answers: Mapping[str, Answers], images: Mapping[str, Image]
) -> Path:
    """Write the psychometric functions, thresholds and classification image of the stage that is the headline."""
    headline = next(s for s in scores if s.metric == "threshold_ratio" and not s.stage)
    stage = headline.target.split(" ")[0] if headline.raw is not None else list(answers)[-1]
    found = answers[stage]
    with panels(path, 13.5, 4.2, 3) as (left, middle, right):
        fine = np.linspace(-LARGEST, LARGEST, 121, dtype=np.float64)
        asked = np.full(len(DEGREES), found.fat["IN", RATIO].shape[1])
        for c in CONDITIONS:
            colour, width = STYLE[c]
            counts = found.counts(c)
            theta, bias = (v[0] for v in psychometric.fit(DEGREES, counts[None], asked))
            left.plot(DEGREES, counts / asked, "o", ms=3, color=colour)
            # What was not reached has no curve.
            curve = psychometric.probability(fine, theta, bias) if theta < LARGEST else np.full(len(fine), np.nan)
            left.plot(fine, curve, "-o", markevery=[], ms=3, lw=width, color=colour, label=c)
        left.axhline(0.5, color="0.85", lw=0.8)
        left.set(xlabel="rotation of the mouths (°, thin to fat)", ylabel="share of answers fat", ylim=(-0.02, 1.02))
        left.set_title(f"Fat or thin: {name}, {stage}", fontsize=9)
        left.legend(frameon=False, fontsize=7)
        _thresholds(middle, stage, scores, headline)
        _map(right, stage, images.get(stage), scores)
    return path


def _thresholds(axes: Any, stage: str, scores: list[Score], headline: Score) -> None:
    theta = {s.target: s for s in scores if s.metric == "threshold" and s.stage == stage}
    for i, (c, s) in enumerate(theta.items()):
        colour = STYLE[c][0]
        assert s.raw is not None and s.ci_low is not None and s.ci_high is not None
        axes.plot([i, i], [s.ci_low, s.ci_high], color=colour, lw=1.5)
        axes.plot(i, s.raw, "^" if s.reason else "o", color=colour, ms=6)
    if theta and theta["REAL"].raw is not None:
        axes.plot([0.6, 1.4], [2 * theta["REAL"].raw] * 2, ":", color="0.4", lw=1.5, label=HUMAN)
        axes.plot([], [], "^", color="0.6", label="not reached: at least")
        axes.legend(frameon=False, fontsize=7)
    axes.set_xticks(range(len(theta)), list(theta), fontsize=8)
    axes.set(ylabel="threshold θ (°)", yscale="log", ylim=(0.4, 2 * LARGEST))
    axes.set_yticks([0.5, 1, 2, 4, 8, 12], ["0.5", "1", "2", "4", "8", "12"])
    axes.minorticks_off()
    value = f"n/a: {headline.reason}" if headline.raw is None else f"log2 ratio {headline.raw:+.2f} ({headline.target})"
    axes.set_title(value if len(value) < 70 else value[:69] + "…", fontsize=8)


def _map(axes: Any, stage: str, image: Image | None, scores: list[Score]) -> None:
    score = next((s for s in scores if s.metric == "classification_image" and s.stage == stage), None)
    if image is None:
        axes.set_axis_off()
        axes.set_title(score.reason if score else "", fontsize=8)
        return
    most = max(float(np.abs(image.map).max()), 1e-12)
    size = image.map.shape[0]
    shown = axes.imshow(image.map, cmap="RdBu_r", vmin=-most, vmax=most)
    axes.figure.colorbar(shown, ax=axes, shrink=0.75, label="correlation of fat with luminance")
    figure = fixed(size, torch.ones(1), 0.0, 0)
    half, radius, middle = float(figure.side) / 2, float(figure.disc_radius), size / 2 - 0.5
    turn = np.linspace(0, 2 * np.pi, 60)
    for x, y in ((1, 1), (-1, 1), (-1, -1), (1, -1)):
        axes.plot(middle + x * half + radius * np.cos(turn), middle + y * half + radius * np.sin(turn), "0.3", lw=0.8)
    strips = np.abs(classification_image.templates(size)["edge"]).sum(1).reshape(2, size, size) > 0
    axes.contour(strips[0], [0.5], colors="k", linewidths=0.8)
    axes.contour(strips[1], [0.5], colors="0.5", linewidths=0.8, linestyles=":")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel("solid: gap, dotted: its mirror image beyond the disc", fontsize=8)
    told = "" if score is None else score.reason
    if score and score.raw is not None:
        told = f"z {score.raw:+.1f} ({score.target}), {told}"
    axes.set_title(f"classification image: {told}", fontsize=8)


def sheet(size: int = 64) -> tuple[Tensor, list[str], list[str]]:
    """Return thin and fat figures of two rotations (columns) in every condition (rows)."""
    degrees = [-12.0, 12.0, -4.0, 4.0]
    shown = figures(size, torch.tensor(degrees), RATIO, seed=3)
    rows = [render(shown, c, size) for c in CONDITIONS]
    return torch.stack(rows), list(CONDITIONS), [f"{'thin' if d < 0 else 'fat'} {abs(d):g}°" for d in degrees]


def _fitted(observer: Observer, stimuli: Tensor, fat: Tensor) -> dict[str, Probe]:
    return {stage: linear_probe(a, fat.numpy()) for stage, a in _activity(observer, stimuli).items()}


def _decide(observer: Observer, probes: Mapping[str, Probe], stimuli: Tensor) -> dict[str, Array]:
    return {stage: probes[stage](a) for stage, a in _activity(observer, stimuli).items()}


def _activity(observer: Observer, stimuli: Tensor) -> dict[str, Array]:
    """Return every stage's activity at the end of inference; a part of the stimuli at a time, as courses are long."""
    parts = [time_course(observer, x).moments[-1] for x in stimuli.split(CHUNK)]
    return {n: np.concatenate([p[n].double().numpy() for p in parts]) for n in parts[0]}
