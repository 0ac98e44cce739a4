"""The picture of fat and thin: psychometric functions, thresholds, and the classification image of one stage."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import torch

from evaluation.base import Score
from evaluation.figures import panels
from evaluation.illusions import psychometric
from evaluation.illusions.classification_image import Image, templates
from evaluation.illusions.fat_thin_answers import DEGREES, HUMAN, LARGEST, RATIO, Answers
from evaluation.illusions.fat_thin_stimuli import CONDITIONS, fixed

STYLE = {
    "REAL": ("k", 2.2), "IN": ("C3", 2.2), "OUT": ("C0", 1.4), "DOWN": ("C9", 1.4), "OUTL": ("C2", 1.4),
    "CLOSED": ("C4", 1.4), "FRAG": ("C1", 1.0),
}  # fmt: skip
SWAYED = "people: noise at the illusory edges sways them\n(Gold et al. 2000; Keane et al. 2013; high certainty)"


def plot(
    path: Path, name: str, scores: list[Score], answers: Mapping[str, Answers], images: Mapping[str, Image]
) -> Path:
    """Write the psychometric functions, thresholds and classification image of the stages that are the headlines."""
    headline, swayed = (
        next(s for s in scores if s.metric == m and not s.stage) for m in ("threshold_ratio", "classification_image")
    )
    stage = headline.target.split(" ")[0] if headline.raw is not None else list(answers)[-1]
    seen_at = swayed.target.split(" ")[0] if swayed.raw is not None else stage  # stages are judged each by its gates
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
        _map(right, seen_at, images.get(seen_at), scores)
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
    axes.set_title(fill(value if len(value) < 140 else value[:139] + "…", 60), fontsize=8)


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
    strips = np.abs(templates(size, image.apart)["edge"]).sum(1).reshape(2, size, size) > 0
    for strip, colour, line in zip(strips, ("k", "0.5"), ("-", ":"), strict=True):
        if strip.any():
            axes.contour(strip, [0.5], colors=colour, linewidths=0.8, linestyles=line)
    axes.set(xticks=[], yticks=[])
    none = "" if strips.any() else "\nno piece of it is seen without an inducer"
    axes.set_xlabel(f"solid: gap that counts, dotted: its mirror image beyond the disc{none}\n{SWAYED}", fontsize=7)
    told = "not measured" if score is None else score.reason
    if score and score.raw is not None:
        told = f"z {score.raw:+.1f} ({score.target}), {told}"
    elif score:
        told = f"n/a, {told}"
    axes.set_title(fill(f"classification image, {stage}: {told}", 56), fontsize=8)
