"""Does it predict? The error of the predicted next frame over that of repeating the last frame, on held-out clips.

    error ratio = Σ ‖prediction − next frame‖² / Σ ‖last frame − next frame‖²

Below 1 the network knows something of the motion, or of what blurs; above 1 it would do better to predict nothing.
Held-out clips are in natural order whatever the network was trained on, so that networks trained on shuffled or static
frames are asked the same. The interval is a bootstrap over clips. ``skill`` is 1 − ratio, and n/a unless the whole
interval lies below 1: who loses to a copy has not learned to predict, and cannot be asked what it predicts.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evaluation.base import Benchmark, Observer, Score, TrainedObserver, not_available
from evaluation.figures import sheet

RESAMPLES = 2000
SHOWN = 6  # clips of the figure


class Prediction(Benchmark):
    """Error relative to copy-last-frame, with its interval over clips, and the share of clips predicted better."""

    name = "prediction"
    pillar = "task"
    headline = "error_ratio"
    reference = "Lotter, Kreiman & Cox 2017, arXiv 1605.08104"

    def measure(self, observer: Observer) -> list[Score]:
        """Return the ratio, the gated skill, the share of clips below 1, and both errors, in units of the input."""
        reason = _without_frames(observer)
        if reason:
            return [not_available("error_ratio", reason)]
        assert isinstance(observer, TrainedObserver)
        own, copied = errors(observer)
        if not bool(own.isfinite().all()):
            return [not_available("error_ratio", "its output is not finite: training diverged")]
        if not bool(copied.sum() > 0):
            return [not_available("error_ratio", "nothing moves in the held-out clips: a copy is exact")]
        num = len(own)
        low, high = interval(own, copied)
        ratio = (own.sum() / copied.sum()).item()
        better = (own < copied).double().mean().item()
        skill = Score("skill", 1 - ratio, ci_low=1 - high, ci_high=1 - low, ceiling_high=1.0, n_stimuli=num)
        if high >= 1:
            why = f"predicts no better than a copy of the last frame (ratio {ratio:.2f} [{low:.2f}, {high:.2f}])"
            skill = not_available("skill", why, n_stimuli=num)
        return [
            Score("error_ratio", ratio, higher_is_better=False, ci_low=low, ci_high=high, n_stimuli=num),
            skill,
            Score("clips_better", better, n_stimuli=num),
            Score("error", own.mean().item(), higher_is_better=False, n_stimuli=num),
            Score("copy_error", copied.mean().item(), higher_is_better=None, n_stimuli=num),
        ]

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Draw held-out clips: the frames seen, the next one, what was predicted, and by how much it is off (× 2)."""
        paths = []
        for observer in observers.values():
            if _without_frames(observer) or not isinstance(observer, TrainedObserver):
                continue
            few = torch.linspace(0, len(observer.held_out) - 1, min(SHOWN, len(observer.held_out))).round().long()
            seen, following, predicted = frames_of(observer, few)
            off = 0.5 + 2 * (predicted - following)
            images = torch.cat([seen, torch.stack([following, predicted, off], 1)], 1).clamp(0, 1)
            columns = [*(f"frame {i + 1}" for i in range(seen.shape[1])), "next", "predicted", "error × 2"]
            paths.append(folder / "prediction.png")
            rows = [f"clip {i}" for i in few.tolist()]
            sheet(images, rows, columns, paths[-1], linear=observer.preprocess.encoding == "linear")
        return paths


def errors(observer: TrainedObserver) -> tuple[Tensor, Tensor]:
    """Return the mean squared error of the prediction and of a copy of the last frame, per held-out clip ``(N,)``."""
    held_out, preprocess = observer.held_out, observer.preprocess
    target = preprocess.target(held_out.targets)
    own = observer.predict_held_out().double() - target
    moved = target
    if preprocess.predicts == "frame":
        moved = target - preprocess.target(held_out.images[:, -target.shape[1] :])
    return tuple(e.double().square().flatten(1).mean(1) for e in (own, moved))  # type: ignore[return-value]


def interval(own: Tensor, copied: Tensor, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Return the bootstrap 95 % interval over clips of Σ own / Σ copied."""
    rng = np.random.default_rng(seed)
    num = len(own)
    counts = rng.multinomial(num, np.full(num, 1 / num), size=resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (counts @ own.numpy()) / (counts @ copied.numpy())
    low, high = np.quantile(ratios[np.isfinite(ratios)], (0.025, 0.975))
    return float(low), float(high)


def frames_of(observer: TrainedObserver, clips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames seen ``(N, T, C, H, W)``, the next ones and the predicted ones, in 0…1 as the data are encoded."""
    held_out, preprocess = observer.held_out, observer.preprocess
    x, target = preprocess(held_out.images[clips]), preprocess.target(held_out.targets[clips])
    following, predicted = (preprocess.shown(f.float(), x) for f in (target, observer.predict_held_out()[clips]))
    images = held_out.images[clips]
    seen = images.float() / 255 if images.dtype == torch.uint8 else images
    return seen.unflatten(1, (-1, target.shape[1])), following, predicted


def _without_frames(observer: Observer) -> str:
    if not isinstance(observer, TrainedObserver):
        return "a null observer has no held-out task"
    return "it names classes and predicts no frame" if observer.classes else ""
