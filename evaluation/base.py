"""What a benchmark is (``Benchmark``), what it examines (``Observer``) and what it returns (``Score``).

Shapes: ``B`` images. Stimuli are float in 0…1, linear in luminance, ``(B, 1 or 3, H, W)`` of any size; the
observer fits them to what its network was trained on.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from models.base import StagedNet
from rules.base import Learned, Objective, Rule, SpikeRecord
from training.data.base import Images, Preprocess, Source

BATCH = 256


@dataclass(frozen=True)
class Score:
    """One number of one benchmark.

    Attributes:
        metric: Name of the number.
        raw: The number as measured; ``None`` where a gate failed.
        value: The number to compare, ``raw`` unless it is normalised by a ceiling.
        higher_is_better: Direction, or ``None`` where neither end is better.
        stage: The stage it belongs to, if it belongs to one.
        target: ROI, time or condition it belongs to.
        ceiling_low: Lower bound of what a perfect model would score.
        ceiling_high: Upper bound.
        ci_low: Lower end of the 95 % interval within this run.
        ci_high: Upper end.
        n_stimuli: Images behind the number.
        gate: ``pass``, or ``n/a``: never 0 for what could not be judged.
        reason: Why not.
    """

    metric: str
    raw: float | None
    value: float | None = None
    higher_is_better: bool | None = True
    stage: str = ""
    target: str = ""
    ceiling_low: float | None = None
    ceiling_high: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n_stimuli: int = 0
    gate: str = "pass"
    reason: str = ""

    def __post_init__(self) -> None:
        if self.raw is not None and not abs(self.raw) < float("inf"):
            object.__setattr__(self, "gate", "n/a")
            object.__setattr__(self, "reason", self.reason or f"{self.metric} is not finite")
            object.__setattr__(self, "raw", None)
            object.__setattr__(self, "value", None)
        elif self.value is None:
            object.__setattr__(self, "value", self.raw)


def not_available(metric: str, reason: str, **where: Any) -> Score:
    """Return the score of something that could not be judged, with the reason."""
    return Score(metric, None, gate="n/a", reason=reason, **where)


class Observer(Protocol):
    """What a benchmark examines: a trained network under its rule, or anything that answers like one.

    Attributes:
        name: What it is called on the board.
        classes: Names of the classes of ``predict``, by index; empty if it predicts images.
        in_shape: ``(C, H, W)`` at which it sees best.
    """

    @property
    def name(self) -> str:
        """What it is called on the board."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of ``predict``."""

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Size at which it sees best."""

    def predict(self, stimuli: Tensor) -> Tensor:
        """Return class probabilities ``(B, classes)``, or predicted images."""

    def activations(self, stimuli: Tensor) -> dict[str, Tensor]:
        """Return each stage's activity, ``{stage: (B, ...)}``; empty if it has no stages."""

    def signals(self, stimuli: Tensor, target: Tensor, objective: Objective | None = None) -> dict[str, Tensor]:
        """Return each stage's learning signal, ``{stage: (B, ...)}``; empty if it does not learn.

        The loss is the task's own unless another is given.
        """


@dataclass(frozen=True)
class TrainedObserver:
    """A network under its learning rule.

    Attributes:
        name: The rule's name.
        net: The network at its present weights.
        rule: The rule.
        initial: The network as it was initialised.
        initial_rule: The rule as it was attached.
        objective: The task's loss.
        preprocess: From stimuli to the network's input.
        classes: Names of the task's classes.
        held_out: The task's held-out images, in the encoding the network was trained on.
        task: Name of the task that it was trained on.
        task_params: The task's options, such as the ``order`` of the frames that it was trained on.
    """

    name: str
    net: StagedNet
    rule: Rule
    initial: StagedNet
    initial_rule: Rule
    objective: Objective
    preprocess: Preprocess
    classes: tuple[str, ...]
    held_out: Images
    task: str = ""
    task_params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the network's input."""
        return self.preprocess.shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """``(classes,)``, or ``(C, H, W)`` of the frame that it predicts."""
        return self.net.out_shape

    @property
    def frames(self) -> int:
        """Frames in one input; 1 where inputs are images."""
        return self.preprocess.frames

    def predict(self, stimuli: Tensor) -> Tensor:
        """Return class probabilities for stimuli in linear luminance, or the next frame of clips, as a stimulus.

        Frames of a clip are stacked along the channels, the oldest first, ``(B, frames · (1 or 3), H, W)``; a still
        image ``(B, 1 or 3, H, W)`` is every frame. What is predicted is ``(B, *out_shape)``, in linear luminance within
        0…1, so that it can be appended to the clip.
        """
        if not self.classes:
            return self._each(self.preprocess.stimulus, stimuli, self._frame)
        return self._normalised(self._each(self.preprocess.stimulus, stimuli, self.rule.predict))

    def predict_held_out(self) -> Tensor:
        """Return class probabilities for the task's held-out images, or what ``preprocess.target`` gives."""
        return self._normalised(self._each(self.preprocess, self.held_out.images, self.rule.predict))

    def activations(self, stimuli: Tensor) -> dict[str, Tensor]:
        """Return each stage's activity for stimuli in linear luminance."""
        with evaluating(self.net, self.rule):
            parts = [
                {k: v.detach() for k, v in self.rule.activations(self.net, self._cast(x)).items()}
                for x in self._batches(self.preprocess.stimulus, stimuli)
            ]
        return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}

    def signals(self, stimuli: Tensor, target: Tensor, objective: Objective | None = None) -> dict[str, Tensor]:
        """Return each stage's learning signal for stimuli in linear luminance, by the task's loss or another one."""
        parts = [
            self.learn(self._cast(x), t, objective).signals
            for x, t in zip(self._batches(self.preprocess.stimulus, stimuli), target.split(BATCH), strict=True)
        ]
        return {name: torch.cat([p[name].detach() for p in parts]) for name in parts[0]}

    def trajectory(self, stimuli: Tensor, target: Tensor | None = None) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """Return energies ``(B,)`` and each stage's activity ``(B, ...)`` over the iterations of the rule's inference.

        Args:
            stimuli: In linear luminance.
            target: What the output is drawn towards; the observer's own decision by default, which needs no label.
        """
        if target is None:
            target = self._each(self.preprocess.stimulus, stimuli, self.rule.predict)
            target = target.argmax(1) if self.classes else target
        parts = []
        with evaluating(self.net, self.rule):
            for x, t in zip(self._batches(self.preprocess.stimulus, stimuli), target.split(BATCH), strict=True):
                steps = self.rule.trajectory(self.net, self._cast(x), t, self.objective)
                parts.append([(e.detach(), {k: v.detach().clone() for k, v in a.items()}) for e, a in steps])
        return [
            (torch.cat([e for e, _ in step]), {k: torch.cat([a[k] for _, a in step]) for k in step[0][1]})
            for step in zip(*parts, strict=True)
        ]

    def spikes(self, x: Tensor) -> dict[str, SpikeRecord]:
        """Return what each hidden stage does in time for network input; empty where inference does not spike."""
        with evaluating(self.net, self.rule):
            return self.rule.record(self.net, self._cast(x))

    def learn(self, x: Tensor, target: Tensor, objective: Objective | None = None) -> Learned:
        """Return what the rule would learn from one batch of network input; nothing changes.

        It works on copies and restores the random state, so that a probe during training leaves no trace.
        """
        return learn_without_trace(self.net, self.rule, objective or self.objective, x, target)

    def probe(self, num: int = 256) -> tuple[Tensor, Tensor]:
        """Return the first ``num`` held-out images as network input, and their targets."""
        x = self.preprocess(self.held_out.images[:num])
        target = self.preprocess.target(self.held_out.targets[:num])
        return self._cast(x), target if self.classes else self._cast(target)

    def _cast(self, x: Tensor) -> Tensor:
        weight = next(self.net.parameters())
        return x.to(weight.device, weight.dtype)

    def _batches(self, prepare: Callable[[Tensor], Tensor], images: Tensor) -> Iterator[Tensor]:
        return (prepare(part) for part in images.split(BATCH))

    def _each(
        self,
        prepare: Callable[[Tensor], Tensor],
        images: Tensor,
        function: Callable[[StagedNet, Tensor], Tensor],
    ) -> Tensor:
        with evaluating(self.net, self.rule):
            outputs = [function(self.net, self._cast(x)).detach() for x in self._batches(prepare, images)]
        return torch.cat(outputs).cpu()

    def _frame(self, net: StagedNet, x: Tensor) -> Tensor:
        return self.preprocess.frame(self.rule.predict(net, x), x)

    def _normalised(self, output: Tensor) -> Tensor:
        return output.float().softmax(1) if self.classes else output


class evaluating:
    """The true evaluation mode of every module, without gradients, restored afterwards."""

    def __init__(self, *modules: nn.Module) -> None:
        self.modes = {m: m.training for module in modules for m in module.modules()}
        self.no_grad = torch.no_grad()

    def __enter__(self) -> None:
        for module in self.modes:
            module.training = False
        self.no_grad.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.no_grad.__exit__(*error)
        for module, mode in self.modes.items():
            module.training = mode


def learn_without_trace(
    net: StagedNet, rule: Rule, objective: Objective, x: Tensor, target: Tensor, seed: int = 0
) -> Learned:
    """Return ``rule.learn`` on copies of network and rule, with torch's random state restored."""
    net, rule = copy.deepcopy((net, rule))
    for module in (*net.modules(), *rule.modules()):  # not eval(), which a subclass may override
        module.training = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return rule.learn(net, x, target, objective)


class Benchmark:
    """Stimuli, a metric, a ceiling and a version: a function from an observer to scores.

    Attributes:
        name: Equal to the file's stem.
        version: Raised whenever a score would change.
        pillar: The part of the examination it belongs to: task, learning, credit, illusion, brain, cost.
        headline: The metric that the leaderboard shows.
        reference: Where the method comes from.
        selects: Whether it is measured on a validation share too, where hyper-parameters are chosen.
        on_request: Measured only where a study or a command names it.
        source: Where it may look for data; the runner sets it.
        siblings: From a rule to the observer of the finished run beside this one that differs by the rule alone; the
            runner sets it.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    pillar: ClassVar[str]
    headline: ClassVar[str]
    reference: ClassVar[str] = ""
    selects: ClassVar[bool] = False
    on_request: ClassVar[bool] = False
    source: Source = Source(Path())
    siblings: Callable[[str], "Observer | None"] | None = None

    def absent(self) -> str:
        """Return why the data that it needs are not there; nothing where they are, or where it needs none."""
        return ""

    def sibling(self, rule: str) -> Observer | None:
        """Return the finished run of the same model, task and seed under another rule; ``None`` where there is none."""
        return self.siblings(rule) if self.siblings is not None else None

    def measure(self, observer: Observer) -> list[Score]:
        """Return the scores of an observer; ``n/a`` with a reason where it cannot be judged."""
        raise NotImplementedError(f"{type(self).__name__} must define measure(observer)")

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Write figures about the observers and return their paths."""
        del folder, observers
        return []
