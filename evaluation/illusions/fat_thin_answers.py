"""Answers of fat or thin to thresholds of rotation, and to their ratios.

Shapes: ``C`` signed rotations; answers are ``(C, images)``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.base import Score, not_available
from evaluation.illusions import psychometric
from evaluation.illusions.fat_thin_stimuli import CONDITIONS, CONTROLS, ROTATIONS
from evaluation.illusions.gates import collapse_gate, competence_gate
from evaluation.statistics import Array, interval

RATIO = 0.5  # support ratio of the headline
EASY = 8.0  # degrees from which on real figures must be known
RESAMPLES = 500
LARGEST = max(ROTATIONS)
DEGREES = np.array([*(-d for d in reversed(ROTATIONS)), *ROTATIONS])
HUMAN = "people: twice the real figure's (Westheimer & Li 1997, high certainty)"


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
        drawn = psychometric.resampled(self.fat[condition, ratio], RESAMPLES, seed=0)
        return psychometric.fit(DEGREES, np.concatenate([counts[None], drawn]), asked)[0]

    def gate(self) -> str | None:
        """Return why the stage may not be judged, or nothing."""
        easy = np.abs(DEGREES) >= EASY
        real = self.fat["REAL", RATIO][easy]
        truth = np.broadcast_to((DEGREES[easy] > 0)[:, None], real.shape)
        answers = {c: self.fat[c, RATIO].ravel() for c in ("IN", *CONTROLS)}
        return competence_gate(real.ravel().astype(int), truth.ravel().astype(int), ("thin", "fat"), "figures") or (
            collapse_gate(answers, 2)
        )


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
    for at_ratio in dict.fromkeys(r for _, r in found.fat):
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
