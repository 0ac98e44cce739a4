"""The leaderboard: runs aggregated over seeds, one row per rule and setting, controls always beside the rules.

A setting is a model and a task with their options. Within it, rows are compared by seed: the same seed
means the same initial weights and the same order of images.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.statistics import holm, sign_flip_test
from experiments.catalogues import boards
from experiments.estimates import Estimate, estimate, over
from experiments.study import baseline_of, is_control
from experiments.tuned import searched_elsewhere
from training.catalogue import MODELS, RULES, TASKS, Catalogue
from training.config import TRAINING_FIELDS, RunConfig, canonical_json
from training.directory import run_directories
from training.errors import UserError

REFERENCE = "backprop"
FEWEST_SEEDS = 3  # seeds below which no gate is passed
KIND_ORDER = {"rule": 0, "control": 1, "null": 2}
# Headline numbers: name, benchmark, metric.
HEADLINES = (
    ("accuracy", "accuracy", "accuracy"),
    ("error_ratio", "prediction", "error_ratio"),
    ("kanizsa", "kanizsa", "index"),
    ("hidden_change", "learned", "hidden_change"),
    ("hidden_cosine", "credit", "hidden_cosine"),
    ("bp_equivalent", "credit", "bp_equivalent"),
    ("flops_ratio", "cost", "flops_ratio"),
    ("time_ratio", "cost", "time_ratio"),
    ("unstable_share", "inference", "unstable_share"),
)


@dataclass(frozen=True)
class Finished:
    """One run as read from its directory."""

    config: RunConfig
    state: str
    reason: str
    scores: list[dict[str, Any]]

    @property
    def kind(self) -> str:
        """``rule``, ``control`` or ``null``."""
        return "null" if self.config.is_null else "control" if is_control(self.config.rule) else "rule"


@dataclass(frozen=True)
class Row:
    """One rule in one setting.

    Attributes:
        rule: The rule with its options, and with training fields that differ from the setting's usual ones.
        model: The model with its options.
        task: The task with its options, and the share of the training set where that is held out, not the test set.
        kind: ``rule``, ``control`` or ``null``.
        seeds: Seeds that were started.
        states: How many of them ended how.
        reasons: Why seeds failed or are unsupported.
        estimates: The headline numbers.
        difference: Performance minus backprop's, paired by seed.
        p_value: Exact sign-flip p of the difference, Holm-corrected over the setting's rules.
        pillars: The numbers of every table below the board, by its name.
        baseline: The rule's own control: a readout on frozen random features, under the same inference.
        above_readout: Performance minus that of the baseline, paired by seed.
        trials: Trials of the random search that chose its hyper-parameters; 0 where nobody searched.
        searched: On what they were searched, in words, where that is not this task and model.
        contrasts: Kanizsa contrast against every control condition.
        probabilities: Probability of the polygon in every Kanizsa condition.
        cosines: Cosine to backprop of every stage at the final weights.
    """

    rule: str
    model: str
    task: str
    kind: str
    seeds: list[int]
    states: dict[str, int]
    reasons: list[str]
    estimates: dict[str, Estimate]
    contrasts: dict[str, Estimate]
    probabilities: dict[str, Estimate]
    cosines: dict[str, Estimate]
    difference: Estimate = field(default_factory=Estimate)
    p_value: float | None = None
    baseline: str = "readout_only"
    above_readout: Estimate = field(default_factory=Estimate)
    trials: int = 0
    searched: str = ""
    pillars: dict[str, dict[str, Estimate]] = field(default_factory=dict)

    @property
    def performance(self) -> Estimate:
        """Accuracy, or how much less than a copy of the last frame a predictor of frames errs: 1 − ratio of errors."""
        ratio = self.estimates.get("error_ratio", Estimate())
        if self.estimates["accuracy"].per_seed or not ratio.per_seed:
            return self.estimates["accuracy"]
        return estimate({s: 1 - r for s, r in ratio.per_seed.items()}, ratio.reason)

    @property
    def learned(self) -> str:
        """Verdict of the did-it-learn gates: every hidden stage moved, and better than the rule's baseline."""
        if self.kind != "rule":
            return ""
        if self.estimates["hidden_change"].reason:
            return f"no ({self.estimates['hidden_change'].reason})"
        if self.estimates["hidden_change"].value is None:
            return "n/a (not measured)"
        gain = self.above_readout
        if gain.value is None:
            return f"unsure (no {self.baseline} beside it)"
        if gain.value <= 0:
            return f"no (not above {self.baseline})"
        if len(gain.per_seed) < FEWEST_SEEDS:
            return f"unsure ({len(gain.per_seed)} of {FEWEST_SEEDS} seeds that the gate needs)"
        apart = gain.low is not None and gain.low > 0
        return "yes" if apart else f"unsure (the interval of its gain over {self.baseline} contains 0)"


def read_rows(root: Path, problems: list[str] | None = None) -> list[Row]:
    """Return the rows of all runs in a folder, setting by setting, rules before controls, the most accurate first.

    Only scores of the newest version of each benchmark count; older ones cannot be compared with them.

    Args:
        root: Folder of run directories.
        problems: Gets a line for every broken run directory, which is then left out.

    Raises:
        UserError: If the folder does not exist; or, without ``problems``, if a run directory is broken.
    """
    runs = []
    for directory in run_directories(root):
        try:
            status = directory.status()
            runs.append(Finished(directory.config(), status["state"] or "new", status["reason"], directory.scores()))
        except UserError as error:
            if problems is None:
                raise
            problems.append(str(error))
    newest: dict[str, int] = {}
    for s in (s for run in runs for s in run.scores):
        newest[s["benchmark"]] = max(newest.get(s["benchmark"], 0), s.get("benchmark_version", 1))
    for run in runs:
        run.scores[:] = [s for s in run.scores if s.get("benchmark_version", 1) == newest[s["benchmark"]]]
    networks, nulls = [r for r in runs if not r.config.is_null], [r for r in runs if r.config.is_null]
    rows: list[Row] = []
    for members in _grouped(networks, _setting).values():
        task = _task(members[0])
        beside = [n for n in nulls if _task(n) == task]
        rows += _compare(members, beside)
    shown = {_task(n) for n in networks}
    for alone in _grouped([n for n in nulls if _task(n) not in shown], _task).values():
        rows += _compare([], alone)
    return rows


def short(catalogue: Catalogue, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are not at their defaults."""
    defaults = catalogue.defaults(name)
    return {k: v for k, v in options.items() if k not in defaults or defaults[k] != v}


def label(name: str, options: Mapping[str, Any]) -> str:
    """Return ``name(option=value, …)``, or the name alone."""
    return f"{name}({', '.join(f'{k}={v}' for k, v in options.items())})" if options else name


def _task(run: Finished) -> str:
    return canonical_json([run.config.task, run.config.task_params, run.config.validation])


def _setting(run: Finished) -> str:
    return canonical_json([_task(run), run.config.model, run.config.model_params])


def _training(config: RunConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in TRAINING_FIELDS}


def _grouped(runs: Sequence[Finished], key: Any) -> dict[str, list[Finished]]:
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return dict(sorted(groups.items()))


def _but_seed(run: Finished) -> str:
    fields = {k: v for k, v in dataclasses.asdict(run.config).items() if k != "seed"}
    if run.config.rule_source:
        fields["rule"] = run.config.rule_name  # one file is one rule, wherever it lies
    return canonical_json(fields)


def _compare(members: Sequence[Finished], nulls: Sequence[Finished]) -> list[Row]:
    """Return the rows of one setting, each compared with backprop and with its rule's own baseline."""
    usual: dict[str, Any] = {}
    for name in TRAINING_FIELDS:
        counts = Counter(getattr(m.config, name) for m in members if m.kind != "null")
        value, count = counts.most_common(1)[0] if counts else (None, 0)
        usual[name] = value if 2 * count > counts.total() else None  # where no value is usual, every row says its own
    first = members[0].config if members else None
    model = label(first.model, short(MODELS, first.model, first.model_params)) if first else "none"
    groups = list(_grouped([*members, *nulls], _but_seed).values())
    every = (s for run in (*members, *nulls) for s in run.scores)
    seen = list(dict.fromkeys((s["benchmark"], s["metric"], s["target"]) for s in every))
    numbers = {name: board.numbers(seen) for name, board in boards().items()}
    rows = [_row(group, model, usual, numbers) for group in groups]
    same = Counter((r.rule, r.trials) for r in rows)
    for i, (group, row) in enumerate(zip(groups, rows, strict=True)):
        if same[row.rule, row.trials] > 1:  # two states of one rule file, or two versions of one rule
            mark = group[0].config.rule_source or f"v{group[0].config.rule_version}"
            rows[i] = dataclasses.replace(row, rule=f"{row.rule} #{mark[:6]}")
    compared = []
    for group, row in zip(groups, rows, strict=True):
        reference = _partner(REFERENCE, group[0].config, groups, rows)
        if row.kind != "null" and group[0].config.rule != REFERENCE:
            row = dataclasses.replace(row, difference=_paired(row, reference))
        if row.kind == "rule":
            control = _partner(row.baseline, group[0].config, groups, rows)
            row = dataclasses.replace(row, above_readout=_paired(row, control))
        compared.append(row)
    tested = [i for i, r in enumerate(compared) if r.kind == "rule" and len(r.difference.per_seed) > 1]
    p_values = [sign_flip_test(list(compared[i].difference.per_seed.values())) for i in tested]
    for i, p in zip(tested, holm([p for p in p_values if p is not None]), strict=True):
        compared[i] = dataclasses.replace(compared[i], p_value=p)
    return sorted(compared, key=lambda r: (KIND_ORDER[r.kind], -(r.performance.value or -1.0), r.rule))


def _partner(name: str, config: RunConfig, groups: Sequence[Sequence[Finished]], rows: Sequence[Row]) -> Row | None:
    """Return the row of a rule to compare with: as much searched, trained the same way, or the only one there is.

    Tuned rules have learning rates of their own: the partner of one is what the same number of trials made of it. Among
    several settings of a control, those count that agree with the rule in every option that both have.
    """
    found = [(g[0].config, r) for g, r in zip(groups, rows, strict=True) if g[0].config.rule == name]
    agreeing = [(c, r) for c, r in found if _agree(c.rule_params, config.rule_params)]
    found = agreeing or found
    equal = [(c, r) for c, r in found if c.trials == config.trials]
    for among in (equal, found):
        same = [r for c, r in among if _training(c) == _training(config)]
        if same or len(among) == 1:
            return same[0] if same else among[0][1]
    return None


def _agree(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(a[k] == b[k] for k in a.keys() & b.keys())


def _row(group: Sequence[Finished], model: str, usual: Mapping[str, Any], numbers: Mapping[str, Any]) -> Row:
    first = group[0].config
    other = {k: v for k, v in _training(first).items() if v != usual[k]} if not first.is_null else {}
    share = f", validation {first.validation:g}" if first.validation else ""
    failures = [f"s{r.config.seed} {r.state}: {r.reason or 'not finished'}" for r in group if r.state != "done"]
    records: dict[tuple[str, str], list[tuple[int, dict[str, Any]]]] = {}
    for run in group:
        for score in run.scores:
            records.setdefault((score["benchmark"], score["metric"]), []).append((run.config.seed, score))

    def over_seeds(
        bench: str, metric: str, target: str | None = None, field: str = "value", stage: str | None = None
    ) -> Estimate:
        per_seed: dict[int, list[dict[str, Any]]] = {}
        for seed, s in records.get((bench, metric), ()):
            if target in (None, s["target"]) and stage in (None, s["stage"]):
                per_seed.setdefault(seed, []).append(s)
        return over(per_seed, field)

    def places(bench: str, metric: str, where: str) -> list[str]:
        return list(dict.fromkeys(s[where] for _, s in records.get((bench, metric), ())))

    task = label(first.task, short(TASKS, first.task, first.task_params))
    return Row(
        rule=label(first.rule_name, short(RULES, first.rule, first.rule_params) | other),
        model=model,
        task=task + share,
        trials=first.trials,
        searched=searched_elsewhere(first, task, model),
        kind=group[0].kind,
        baseline=baseline_of(first.rule),
        seeds=sorted(r.config.seed for r in group),
        states=dict(Counter(r.state for r in group)),
        reasons=failures,
        estimates={name: over_seeds(bench, metric) for name, bench, metric in HEADLINES},
        contrasts={c: over_seeds("kanizsa", "index_vs", c) for c in places("kanizsa", "index_vs", "target")},
        probabilities={c: over_seeds("kanizsa", "p_polygon", c) for c in places("kanizsa", "p_polygon", "target")},
        pillars={name: {n: over_seeds(*w) for n, w in where.items()} for name, where in numbers.items()},
        cosines={s: over_seeds("credit", "cosine", "final", stage=s) for s in places("credit", "cosine", "stage")},
    )


def _paired(row: Row, partner: Row | None) -> Estimate:
    """Return the difference in performance to a partner over the seeds that both have."""
    own = row.performance.per_seed
    theirs = partner.performance.per_seed if partner else {}
    return estimate({s: own[s] - theirs[s] for s in own if s in theirs})
