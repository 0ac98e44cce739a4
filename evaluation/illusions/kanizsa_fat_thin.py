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
the sign of an induced surface is not known. Of a network's stage only those pixels of the gap count that none of its
units sees together with an inducer, by receptive fields that are computed: units that see both respond to both without
completing anything. Where no such pixel is left it is n/a; at 32 pixels only the first stage of ``cnn`` can be asked.

A ratio counts where its interval lies above 0. At 32 pixels the outlines of OUTL are one pixel wide and weaker than the
edges of filled discs: oriented gradients have +.33 [−.11, .69] there and .00 [−.29, .38] at 64. Claims want 64 pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Benchmark, Observer, Score, TrainedObserver, not_available
from evaluation.illusions import classification_image
from evaluation.illusions.classification_image import Image, pixels_asked, pixels_drawn
from evaluation.illusions.fat_thin_answers import DEGREES, LARGEST, RATIO, Answers, threshold_scores
from evaluation.illusions.fat_thin_figures import plot
from evaluation.illusions.fat_thin_stimuli import CONDITIONS, SUPPORT_RATIOS, Figures, figures, render
from evaluation.illusions.gates import stage_reasons
from evaluation.illusions.kanizsa_contour_probe import linear_probe
from evaluation.illusions.kanizsa_gap import INPUT_FILTER
from evaluation.illusions.receptive_fields import seen_apart
from evaluation.illusions.time_course import CHUNK, time_course
from evaluation.statistics import Array, holm, sign_flip_test

KNOWN = 0.6  # least accuracy in the noise of the classification image
Probe = Callable[[Array], Array]


class KanizsaFatThin(Benchmark):
    """Fat or thin: threshold ratio of the strongest control to the illusory square, and the classification image.

    Args:
        train: Figures each read-out is trained on.
        per_cell: Figures for every condition, support ratio and signed rotation.
        fields: Noise fields of the classification image.
        seed: Of the figures.
    """

    name = "kanizsa_fat_thin"
    version = 3  # intervals keep conditions paired as their figures are
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
            lambda stimuli: _decide(observer, probes, stimuli), size, self.fields, self.seed, apart(observer, size)
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


def apart(observer: Observer, size: int) -> dict[str, Array]:
    """Return, for every stage of a network, the pixels that no unit sees together with an inducer."""
    if not isinstance(observer, TrainedObserver):
        return {}  # a null observer's fields are not known: every pixel counts, in its favour
    drawn, asked = (torch.from_numpy(f(size)) for f in (pixels_drawn, pixels_asked))
    reach = INPUT_FILTER if observer.rule.tags.spiking else 0
    return {n: np.asarray(m.numpy()) for n, m in seen_apart(observer.net, drawn, asked, reach).items()}


def image_scores(stage: str, image: Image | None) -> list[Score]:
    """Return a stage's mean z in the gap and at its mirror image, and their difference with the p of all swaps."""
    if image is None:
        why = "the gap holds no pixel that is clear of the discs: use larger images"
        return [not_available("classification_image", why, stage=stage)]
    where: dict[str, Any] = {"higher_is_better": None, "stage": stage, "n_stimuli": image.num}
    scores = [Score("accuracy_in_noise", image.accuracy, **where)]
    if image.apart is not None:
        left = classification_image.templates(len(image.apart), image.apart)
        if not np.abs(np.stack(list(left.values()))).sum(-1).all():
            why = "units that see the gap see inducers too: use larger images, or ask kanizsa_gap"
            return [*scores, not_available("classification_image", why, stage=stage)]
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
        return not_available(metric, stage_reasons(own))
    return replace(judged[-1], stage="", target=f"{judged[-1].stage} {judged[-1].target}")


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
