"""One brain data set as a benchmark: every stage, for activations and learning signals, beside all controls.

    activation, signal_<loss>               stage × target: mean over subjects of the similarity of RDMs, with noise
                                            ceilings and the 95 % interval over subjects and images
    …_of_mean                               similarity with the RDM averaged over subjects (higher, no ceiling)
    …_given_low_level, _label, _activation, _all      what is left given pixels, Gabor energy and silhouettes; given the
                                            categories; given the same stage's activations; given all of these
    …_given_pixels, _gabor, _silhouette     what is left given one of them alone
    signal_shuffled_label, …_null           label signals of categories shuffled over images: one shuffle, drawn as any
                                            row; the mean and 95 % range over many shuffles
    …_best                                  per target, at the stage that other images chose
    …_spatial, _slope, _temporal, …         hierarchy scores (hierarchy.py), with the p of their permutation null
    untrained_…                             the same network before training, under the same rule
    control_…                               pixels, luminance, Gabor energy, silhouettes, categories, output errors

A signal is named by its loss (losses.py); what a local rule learns whatever the loss is `signal_unsupervised`.
`signal_label` is shaped like the categories whatever was learned:
read it given the categories.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from evaluation.base import Benchmark, Observer, Score, not_available
from evaluation.brain import encoding_reports, hierarchy_reports, reports
from evaluation.brain.cortex import unreadable
from evaluation.brain.data import BrainData, DataMissing, problems
from evaluation.brain.features import Spec, precise
from evaluation.brain.inference import RESAMPLES, Alignment, align
from evaluation.brain.mode import NotInEvaluationMode
from evaluation.brain.models import Rows, collect
from evaluation.brain.rdm import METHODS, Method
from training.data.base import Source

_present: set[tuple[type, Path]] = set()  # benchmarks and folders in which their data were seen


class BrainBenchmark(Benchmark):
    """A network's stages and learning signals against one brain data set.

    Args:
        resamples: Bootstrap resamples of subjects and images behind every interval; the class's own by default.
        method: Similarity of RDMs: ``spearman``, ``rho-a`` or ``corr``.
        distance: Of network RDMs: ``correlation`` or ``euclidean``.
        pooling: Of maps: ``none``, ``global`` or ``pyramid``.
        reduction: ``none``, ``pca`` or ``projection``.
        components: Of the reduction.
        scales: Further resolutions at which activations are compared, in multiples of the training resolution.
        seed: Of the resampling.
        encoding: Whether responses, where there are any, are also encoded voxel by voxel; and BH score and CKA.
        banded: With ``encoding``, also fit signals beyond activations and categories (slow).

    Raises:
        ValueError: Naming an option that is out of range.
    """

    version = 2
    pillar = "brain"
    headline = "activation_spatial"
    losses: ClassVar[tuple[str, ...]] = ("pseudo_label", "entropy", "label", "instance", "reconstruction")
    resamples: ClassVar[int] = RESAMPLES

    def __init__(
        self,
        *,
        resamples: int | None = None,
        method: Method = "spearman",
        distance: str = "correlation",
        pooling: str = "none",
        reduction: str = "none",
        components: int = 512,
        scales: tuple[float, ...] | None = None,
        seed: int = 0,
        encoding: bool | None = None,
        banded: bool = False,
    ) -> None:
        for name, value, least in (("resamples", resamples, 2), ("components", components, 1), ("seed", seed, 0)):
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        for name, switch in (("encoding", encoding), ("banded", banded)):
            if switch is not None and not isinstance(switch, bool):
                raise ValueError(f"{name} must be true or false, got {switch!r}")
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
        if scales is not None and not (isinstance(scales, (tuple, list)) and all(map(_is_scale, scales))):
            raise ValueError(f"scales must be a list of numbers above 0, such as [1.5, 2.0], got {scales!r}")
        self.draws = type(self).resamples if resamples is None else resamples
        self.method: Method = method
        self.spec = Spec(pooling, reduction, components, distance)  # type: ignore[arg-type]
        self.scales = type(self).default_scales if scales is None else tuple(scales)
        self.seed, self.banded = seed, banded
        self.encoding = (type(self).encodes if encoding is None else encoding) or banded
        self._last: tuple[BrainData, Rows, Alignment] | None = None

    default_scales: ClassVar[tuple[float, ...]] = ()
    encodes: ClassVar[bool] = True
    shuffles: ClassVar[int] = 40  # of the categories, behind the null of label signals
    singly: ClassVar[bool] = True  # whether each low-level control is also held constant alone

    def load(self, source: Source) -> BrainData:
        """Return the data; ``DataMissing`` says what is not there."""
        raise NotImplementedError

    def absent(self) -> str:
        """Return why the data are not there; nothing where they are. Loads them once per process."""
        here = type(self), self.source.root
        if here not in _present:
            try:
                self.load(self.source)
            except DataMissing as reason:
                return str(reason)
            _present.add(here)
        return ""

    def measure(self, observer: Observer) -> list[Score]:
        """Return every score of the examination."""
        self._last = None
        try:
            data = self.load(self.source)
        except DataMissing as reason:
            return [not_available(n, str(reason)) for n in ("data", self.headline)]
        if wrong := problems(data) + unreadable(data.cortex):
            return [not_available(self.headline, f"the brain data are broken: {'; '.join(wrong[:3])}")]
        data = data.in_order()
        exact = precise(observer)
        try:
            rows = collect(exact, data, self.losses, self.spec, shuffles=self.shuffles, singly=self.singly)
        except (ValueError, NotInEvaluationMode) as reason:
            return [not_available(self.headline, str(reason))]
        targets = data.targets
        scores: list[Score] = []
        if targets:
            found = align(
                rows.rdms, targets, [e.row for e in rows.entries], method=self.method, resamples=self.draws,
                seed=self.seed, people=data.names_of_people,
            )  # fmt: skip
            self._last = data, rows, found
            scores += reports.matrix(rows, found, len(data))
            scores += reports.null(rows, targets, self.method, len(data))
            scores += reports.best(rows, targets, self.method, len(data))
            scores += hierarchy_reports.space(rows, found, data)
            scores += reports.resolutions(observer, data, targets, self.spec, self.method, self.scales)
        scores += hierarchy_reports.time(rows, data, self.method)
        if self.encoding:
            scores += encoding_reports.encoding(exact, data, self.spec, self.losses, banded=self.banded)
        scores += [not_available(m, why, stage=s) for (m, s), why in rows.missing.items()]
        if not any(s.metric == self.headline for s in scores):
            scores.append(not_available(self.headline, "it has no such score"))
        return [_simulated(s) if data.card.simulated else s for s in scores]

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Draw the last measurement: heat map, slopes, controls, time course, cortex."""
        if self._last is None:
            return []
        from evaluation.brain import pictures

        data, rows, found = self._last
        title = f"{data.card.name}{' (simulated)' if data.card.simulated else ''}: {', '.join(observers)}"
        return pictures.draw_all(folder, f"brain_{self.name}", title, data, rows, found, self.method)


def _is_scale(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _simulated(score: Score) -> Score:
    """Say on the score itself that no brain was involved."""
    if score.gate != "pass":
        return score
    return replace(score, reason=f"simulated; {score.reason}" if score.reason else "simulated")
