"""Cost of learning: arithmetic and time of one learning step, relative to backprop on the same network and batch."""

import copy
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from evaluation.base import Benchmark, Observer, Score, TrainedObserver, not_available
from rules.base import differentiate

REPEATS, LEAST = 7, 3
ENOUGH = 10.0  # seconds after which no repeat is begun


class Cost(Benchmark):
    """FLOPs (exact, matrix products and convolutions) and CPU time (median of interleaved repeats) over backprop's."""

    name = "cost"
    pillar = "cost"
    headline = "flops_ratio"

    def measure(self, observer: Observer) -> list[Score]:
        """Return both ratios for one ``learn`` on a probe batch."""
        if not isinstance(observer, TrainedObserver):
            return [not_available("flops_ratio", "a null observer does not learn")]
        x, target = observer.probe(64)
        objective = observer.objective
        net, rule = copy.deepcopy((observer.net, observer.rule))  # a rule may keep traces of what it saw
        with torch.random.fork_rng(devices=[]):
            steps: list[Callable[[], object]] = [
                lambda: rule.learn(net, x, target, objective),
                lambda: differentiate(net, x, target, objective),
            ]
            flops = [_flops(step) for step in steps]
            seconds: list[list[float]] = [[], []]
            for repeat in range(REPEATS):
                if repeat >= LEAST and sum(map(sum, seconds)) > ENOUGH:
                    break
                for times, step in zip(seconds, steps, strict=True):
                    start = time.process_time()
                    step()
                    times.append(time.process_time() - start)
        here: dict[str, Any] = {"higher_is_better": False, "n_stimuli": len(x)}
        return [
            Score("flops_ratio", flops[0] / flops[1], **here),
            Score("time_ratio", median(seconds[0]) / max(median(seconds[1]), 1e-9), **here),
            Score("parameters", float(sum(p.numel() for p in net.parameters())), higher_is_better=None),
        ]


def _flops(step: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter:
        step()
    return counter.get_total_flops()


class _NoModules:
    """Counts are wanted in total, not per module, whose bookkeeping fails on gradients of a stage's own input."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, *error: object) -> None:
        """End."""
