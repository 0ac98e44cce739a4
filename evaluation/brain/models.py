"""The rows of an examination: every RDM that is compared with the brain, and what each is held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.base import Observer, TrainedObserver
from evaluation.brain.controls import LOW_LEVEL, control_rdms
from evaluation.brain.data import BrainData
from evaluation.brain.features import (
    Source,
    Spec,
    activations_of,
    reducer_for,
    signals_of,
    stage_rdms,
    untrained,
)  # fmt: skip
from evaluation.brain.inference import Row
from evaluation.brain.losses import outputs, probe
from evaluation.brain.mode import assert_evaluation_mode
from evaluation.brain.rdm import Array, num_images, rdm, settled

SHUFFLED = "shuffled_label"  # a loss that is a control
UNTRAINED = "untrained_"  # prefix of what the same network gives before training
UNSUPERVISED = "signal_unsupervised"  # what a rule learns whatever the loss
SEEN = 8  # images whose signals are compared between losses
TRIED = 2  # shuffles of the categories under which it is looked at what they change


@dataclass(frozen=True)
class Entry:
    """One row with its place on the board.

    Attributes:
        metric: ``activation``, ``signal_label_given_label``, ``control_pixels``, …
        stage: The stage; empty for controls.
        row: What is compared.
    """

    metric: str
    stage: str
    row: Row


@dataclass
class Rows:
    """Everything that is compared.

    Attributes:
        stages: Names of the network's stages, in order.
        families: What has stages: ``activation``, ``signal_<loss>``, ``signal_unsupervised``; with ``untrained_``
            before it, the same of the network before training.
        rdms: Name (``family/stage``, or a control's) → RDM ``(P,)``.
        controls: Names of the rows without stages.
        missing: (metric, stage) → why there is none.
        entries: The rows.
        null: Stage → RDMs of label signals under shuffled categories, ``(shuffles, P)``; nan where there is no pattern.
    """

    stages: tuple[str, ...] = ()
    families: list[str] = field(default_factory=list)
    rdms: dict[str, Array] = field(default_factory=dict)
    controls: list[str] = field(default_factory=list)
    missing: dict[tuple[str, str], str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    null: dict[str, Array] = field(default_factory=dict)

    def add(self, family: str, found: Mapping[str, Array], left_out: Mapping[str, str] | None = None) -> None:
        """Add one family's RDMs, ``{stage: (P,)}``, but for stages left out for a reason, ``{stage: reason}``."""
        if not found:
            self.missing[family, ""] = "the rule gives no learning signal"
            return
        self.families.append(family)
        for stage, vector in found.items():
            if why := (left_out or {}).get(stage) or useless(vector):
                self.missing[family, stage] = why
            else:
                self.rdms[f"{family}/{stage}"] = vector

    def control(self, name: str, vector: Array) -> None:
        """Add one row without stages."""
        if why := useless(vector):
            self.missing[f"control_{name}", ""] = why
        else:
            self.rdms[name] = vector
            self.controls.append(name)

    def of(self, family: str) -> dict[str, Array]:
        """Return a family's RDMs, ``{stage: (P,)}``."""
        names = {s: f"{family}/{s}" for s in self.stages}
        return {s: self.rdms[n] for s, n in names.items() if n in self.rdms}

    def where(self, metric: str) -> list[int]:
        """Return the indices of a metric's entries, in the order of the stages."""
        return [i for i, e in enumerate(self.entries) if e.metric == metric]


def useless(vector: Array) -> str:
    """Return why an RDM cannot be compared, or nothing."""
    if not np.isfinite(vector).all():
        return "the same at every unit of the stage for at least one image: no pattern"
    if np.ptp(vector) <= 1e-12 * max(1.0, float(np.abs(vector).max())):
        return "the same for all images"
    return ""


def collect(
    observer: Observer, data: BrainData, losses: tuple[str, ...], spec: Spec, *, shuffles: int = 0, singly: bool = False
) -> Rows:
    """Return all rows of a network on a data set.

    Args:
        observer: The network, at the precision in which it is examined.
        data: The brain data.
        losses: Whose learning signals are wanted.
        spec: How patterns are taken.
        shuffles: Shuffles of the categories over images behind the null of label signals.
        singly: Whether each low-level control is also held constant alone.

    Raises:
        NotInEvaluationMode: If a normalisation or dropout depends on the batch or on chance.
        ValueError: If the observer has no stages.
    """
    if isinstance(observer, TrainedObserver):
        assert_evaluation_mode(observer)
    rows = Rows()
    found = _activations(observer, data, spec)
    rows.stages = tuple(found)
    rows.add("activation", found)
    simple, missing = control_rdms(data)
    for name, vector in simple.items():
        rows.control(name, vector)
    rows.missing |= {(f"control_{n}", ""): why for n, why in missing.items()}
    _signals(rows, observer, data, (*losses, SHUFFLED) if "label" in losses else losses, spec, "")
    if isinstance(observer, TrainedObserver):
        before = untrained(observer)
        rows.add(f"{UNTRAINED}activation", _activations(before, data, spec))
        _signals(rows, before, data, losses, spec, UNTRAINED)
    if "label" in losses and shuffles:
        rows.null = _null(observer, data, spec, shuffles)
    rows.entries = _entries(rows, singly=singly)
    return rows


def _activations(observer: Observer, data: BrainData, spec: Spec) -> dict[str, Array]:
    if not observer.activations(data.stimuli[:1]):
        raise ValueError("it has no stages")
    reducer = reducer_for(observer, spec, signals=False)
    return stage_rdms(activations_of(observer, data.stimuli), len(data), reducer)


def _signals(rows: Rows, observer: Observer, data: BrainData, losses: tuple[str, ...], spec: Spec, prefix: str) -> None:
    """Add the learning signals of some losses, and for each the output's error alone.

    Local rules change some stages whatever the loss. Their signals there are no loss's: they make a family of
    their own, ``signal_unsupervised``.
    """
    found: dict[str, dict[str, Array]] = {}
    sources: dict[str, Source] = {}
    for loss in losses:
        family = f"{prefix}signal_{loss}"
        try:
            ready = probe(loss, observer, data)
        except ValueError as reason:
            rows.missing[family, ""] = str(reason)
            continue
        source = signals_of(observer, data.stimuli, ready)
        if not source(np.arange(1)):
            rows.missing[family, ""] = "the rule gives no learning signal"
            continue
        found[loss] = stage_rdms(source, len(data), reducer_for(observer, spec, signals=True))
        sources[loss] = source
        if not prefix:
            output = outputs(observer, data.stimuli)
            error = ready.objective.error(output, ready.target.to(output.device))
            rows.control(f"output_error_{loss}", settled(rdm(error.flatten(1).cpu().double().numpy(), spec.distance)))
    free = _whatever_the_loss(found, sources)
    for loss, own in found.items():
        rows.add(f"{prefix}signal_{loss}", own, dict.fromkeys(free, f"does not depend on the loss; see {UNSUPERVISED}"))
    if free:
        own = next(iter(found.values()))
        rows.add(f"{prefix}{UNSUPERVISED}", {s: own[s] for s in free})


def _null(observer: Observer, data: BrainData, spec: Spec, shuffles: int) -> dict[str, Array]:
    """Return every stage's RDMs of signals of categories shuffled over images, ``{stage: (shuffles, P)}``.

    Where two shuffles say that every stage's signal is either the same whatever the categories or the bare error of the
    output, to the last bit, the others need no learning: a local rule is then examined in half the time.
    """
    found: dict[str, list[Array]] = {}
    output, bare = outputs(observer, data.stimuli), []
    kinds: dict[str, str] = {}
    for k in range(shuffles):
        try:
            ready = probe(SHUFFLED, observer, data, shuffle=k)
        except ValueError:
            return {}
        error = ready.objective.error(output, ready.target.to(output.device))
        bare.append(_pattern(settled(rdm(error.flatten(1).cpu().double().numpy(), spec.distance))))
        if k == TRIED:
            kinds = {stage: _kind(vectors, bare) for stage, vectors in found.items()}
        if kinds and all(kinds.values()):
            for stage, kind in kinds.items():
                found[stage].append(bare[-1] if kind == "error" else found[stage][0])
            continue
        source = signals_of(observer, data.stimuli, ready)
        if not source(np.arange(1)):
            return {}
        for stage, vector in stage_rdms(source, len(data), reducer_for(observer, spec, signals=True)).items():
            found.setdefault(stage, []).append(_pattern(vector))
    return {stage: np.stack(v) for stage, v in found.items()}


def _pattern(vector: Array) -> Array:
    """Return an RDM, or nan where it is none."""
    return np.full_like(vector, np.nan) if useless(vector) else vector


def _kind(vectors: Sequence[Array], bare: Sequence[Array]) -> str:
    """Return ``fixed`` for a stage whose RDM no shuffle changes, ``error`` for the output's error, else nothing."""
    if all(np.array_equal(v, vectors[0], equal_nan=True) for v in vectors):
        return "fixed"
    return "error" if all(np.array_equal(v, e) for v, e in zip(vectors, bare, strict=False)) else ""


def _whatever_the_loss(found: Mapping[str, Mapping[str, Array]], sources: Mapping[str, Source]) -> list[str]:
    """Return the stages whose signals are the same, to the last bit, under every loss; none where there is one loss."""
    first, *others = found.values() or [{}]
    same = [s for s, v in first.items() if others and not useless(v)]
    same = [s for s in same if all(s in o and np.array_equal(first[s], o[s]) for o in others)]
    if not same:
        return []
    few = np.arange(min(SEEN, num_images(len(first[same[0]]))))
    signals = [source(few) for source in sources.values()]
    return [s for s in same if all(bool((signals[0][s] == o[s]).all()) for o in signals[1:])]


def _entries(rows: Rows, *, singly: bool) -> list[Entry]:
    """Return every family raw and given what it must be held against, then the controls.

    Args:
        rows: Whose entries are wanted.
        singly: Whether each low-level control is also held constant alone, which says which of them explains a score.
    """
    low = tuple(n for n in LOW_LEVEL if n in rows.rdms)
    labels = tuple(n for n in rows.controls if n.startswith("label_"))
    entries = []
    for family in rows.families:
        prefix = UNTRAINED if family.startswith(UNTRAINED) else ""
        for stage in rows.of(family):
            name = f"{family}/{stage}"
            held: dict[str, tuple[str, ...]] = {"": ()}
            if low and not family.endswith(SHUFFLED):
                held["_given_low_level"] = low
            if singly and not prefix and not family.endswith(SHUFFLED):
                held |= {f"_given_{n}": (n,) for n in low if len(low) > 1}
            if labels:
                held["_given_label"] = labels
            same = f"{prefix}activation/{stage}"
            control = bool(prefix) or family.endswith(SHUFFLED)
            if same in rows.rdms and not family.endswith("activation") and not control:
                held["_given_activation"] = (same,)
                held["_given_all"] = (*low, *labels, same)
            entries += [Entry(family + kind, stage, Row(name, others)) for kind, others in held.items()]
    for name in rows.controls:
        entries.append(Entry(f"control_{name}", "", Row(name)))
        if name.startswith("output_error") and labels:
            entries.append(Entry(f"control_{name}_given_label", "", Row(name, labels)))
    return entries
