"""Activity over the time that a rule's inference has: iterations of relaxation, steps of spikes, or one pass.

Shapes: ``B`` images; activity is ``{stage: (B, units)}``, one dictionary per moment.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.base import Observer, TrainedObserver
from rules.base import Rule

CHUNK = 128  # images simulated at once


@dataclass(frozen=True)
class TimeCourse:
    """Activity over time.

    Attributes:
        unit: What time is counted in: ``iteration``, ``step``, or nothing for a single pass.
        moments: Activity at each moment; the last one is what the rule ends with.
    """

    unit: str
    moments: list[dict[str, Tensor]]

    def __getitem__(self, stage: str) -> Tensor:
        """Return a stage's activity over time, ``(T, B, units)``."""
        return torch.stack([m[stage] for m in self.moments])


def iterates(observer: Observer) -> bool:
    """Return whether the observer's rule relaxes its states."""
    if not isinstance(observer, TrainedObserver):
        return False
    return type(observer.rule).trajectory is not Rule.trajectory and getattr(observer.rule, "steps", 1) > 0


def time_course(observer: Observer, stimuli: Tensor) -> TimeCourse:
    """Return the activity of every stage while the observer looks at stimuli.

    Iterating rules relax towards their own decision, which needs no label; their first moment is the feed-forward
    pass. Spiking rules: spikes per step up to each step. Everything else: one pass; a null observer has one
    stage, ``features``.
    """
    if iterates(observer):
        assert isinstance(observer, TrainedObserver)
        parts = [_flat([a for _, a in observer.trajectory(x)]) for x in stimuli.split(CHUNK)]
        return TimeCourse("iteration", _joined(parts))
    if isinstance(observer, TrainedObserver) and observer.rule.tags.spiking:
        parts = [_rates(observer, x) for x in stimuli.split(CHUNK)]
        if parts[0]:
            return TimeCourse("step", _joined(parts))
    return TimeCourse("", _flat([activity(observer, stimuli)]))


def activity(observer: Observer, stimuli: Tensor) -> dict[str, Tensor]:
    """Return each stage's activity; that of a null observer is its features; empty where there is neither."""
    found = observer.activations(stimuli)
    features = getattr(observer, "features", None)
    return {"features": features(stimuli)} if not found and features else found


def _rates(observer: TrainedObserver, stimuli: Tensor) -> list[dict[str, Tensor]]:
    records = observer.spikes(observer.preprocess.stimulus(stimuli))
    if not records:
        return []
    counted = {name: r.spikes.float().cumsum(0).flatten(2) for name, r in records.items()}
    steps = len(next(iter(counted.values())))
    return [{name: c[t] / steps for name, c in counted.items()} for t in range(steps)]


def _flat(moments: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{name: a.detach().flatten(1).cpu() for name, a in m.items()} for m in moments]


def _joined(parts: list[list[dict[str, Tensor]]]) -> list[dict[str, Tensor]]:
    return [{name: torch.cat([p[name] for p in same]) for name in same[0]} for same in zip(*parts, strict=True)]
