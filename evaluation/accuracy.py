"""Task performance on held-out images, without which no other score means anything."""

import math

import torch

from evaluation.base import Benchmark, Observer, Score, TrainedObserver, not_available

Z = 1.959964  # 97.5 % quantile of the standard normal distribution


class Accuracy(Benchmark):
    """Share of held-out images named correctly, with Wilson's 95 % interval; mean loss beside it."""

    name = "accuracy"
    pillar = "task"
    headline = "accuracy"
    selects = True
    reference = "Wilson 1927, J. Am. Stat. Assoc. 22:209"

    def measure(self, observer: Observer) -> list[Score]:
        """Return accuracy, the share of the most frequent answer, and the loss."""
        if not isinstance(observer, TrainedObserver):
            return [not_available("accuracy", "a null observer has no held-out task")]
        output = observer.predict_held_out()
        target = observer.preprocess.target(observer.held_out.targets)
        num = len(target)
        if not output.isfinite().all():
            return [not_available("accuracy", "its output is not finite: training diverged")]
        if not observer.classes:
            loss = (output - target).square().mean().item()
            return [Score("mean_squared_error", loss, higher_is_better=False, n_stimuli=num)]
        answers = output.argmax(1)
        hits = (answers == target).float().mean().item()
        low, high = wilson(hits, num)
        most = torch.bincount(answers, minlength=output.shape[1]).max().item() / num
        loss = -output.gather(1, target[:, None]).clamp(min=1e-12).log().mean().item()
        chance = 1 / len(observer.classes)
        return [
            Score("accuracy", hits, ci_low=low, ci_high=high, ceiling_low=chance, ceiling_high=1.0, n_stimuli=num),
            Score("most_frequent_answer", most, higher_is_better=None, n_stimuli=num),
            Score("cross_entropy", loss, higher_is_better=False, n_stimuli=num),
        ]


def wilson(share: float, num: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of ``num``."""
    centre = (share + Z**2 / (2 * num)) / (1 + Z**2 / num)
    half = Z * math.sqrt(share * (1 - share) / num + Z**2 / (4 * num**2)) / (1 + Z**2 / num)
    return max(0.0, centre - half), min(1.0, centre + half)
