"""One run, described: ``RunConfig``, its key, and the seed streams. Imports no torch.

Two runs with the same scientific fields are the same run. What cannot change the result (device,
loggers, folders, progress bar) is in ``Execution`` and not in the key.
"""

import dataclasses
import hashlib
import inspect
import json
import os
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from training.catalogue import MODELS, RULES, TASKS, options_of
from training.errors import UserError, unknown

SCHEMA_VERSION = 1
# Schedules of the learning rate over all steps of a run.
Schedule = Literal["constant", "cosine"]
Optimizer = Literal["adam", "adamw", "sgd"]
Inputs = Literal["standardised", "unit"]
Loss = Literal["task", "cross_entropy", "sigmoid_cross_entropy", "squared_error", "mean_squared_error"]
Precision = Literal["32-true", "64-true", "bf16-mixed"]
# Fields that came after the first release. At their defaults they are not in the key: earlier runs stay what they were.
ADDED_FIELDS = ("objective", "inputs", "validation", "trials")
NULL = "null:"  # prefix of the observers that are examined without being trained


@dataclass(frozen=True)
class RunConfig:
    """The scientific fields of one run: one cell of rule × model × task × seed.

    Attributes:
        rule: Name of a learning rule, path of a rule file, or ``null:NAME`` for a null observer.
        model: Name of an architecture.
        task: Name of a task.
        seed: Non-negative; one seed gives the same initial weights and data order to every rule.
        rule_params: Hyper-parameters of the rule.
        model_params: Options of the architecture.
        task_params: Options of the task.
        rule_source: Hash of the rule's file where it comes by path.
        rule_version: Version that the rule declares; raised when its numbers change.
        epochs: Passes over the training set.
        batch_size: Images per optimiser step (over all processes, per accumulated batch).
        optimizer: Serves every rule alike, unless a rule declares that Δw must stay as it is.
        lr: Learning rate.
        momentum: Of ``sgd``.
        weight_decay: Decoupled for ``adamw``, added to the gradient for the others.
        schedule: ``constant``, or ``cosine`` to zero at the last step.
        clip: Largest norm of the whole gradient; 0 for none.
        accumulate: Batches per optimiser step.
        precision: Lightning's name of the arithmetic.
        objective: The loss; ``task`` for the one that the task comes with.
        inputs: ``standardised`` by the training images, or as they are, in 0…1 (``unit``).
        validation: Share of the training set that is held out in place of the test set, which is then not touched.
        trials: Trials of the random search that chose the hyper-parameters; 0 where nobody searched.
    """

    rule: str
    model: str
    task: str
    seed: int = 0
    rule_params: dict[str, Any] = field(default_factory=dict)
    model_params: dict[str, Any] = field(default_factory=dict)
    task_params: dict[str, Any] = field(default_factory=dict)
    rule_source: str | None = None
    rule_version: int = 1
    epochs: int = 5
    batch_size: int = 64
    optimizer: Optimizer = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    clip: float = 0.0
    accumulate: int = 1
    precision: Precision = "32-true"
    objective: Loss = "task"
    inputs: Inputs = "standardised"
    validation: float = 0.0
    trials: int = 0

    @property
    def key(self) -> str:
        """First 12 hexadecimal digits of the sha256 of the canonical JSON; a rule file counts by name and content."""
        fields = dataclasses.asdict(self)
        for name in ADDED_FIELDS:
            if fields[name] == getattr(type(self), name):
                del fields[name]
        if self.rule_source:
            fields["rule"] = self.rule_name
        return hashlib.sha256(canonical_json(fields).encode()).hexdigest()[:12]

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def rule_name(self) -> str:
        """The rule's name, also where it was given as a path."""
        return Path(self.rule).stem if self.rule.endswith(".py") else self.rule.removeprefix(NULL)

    @property
    def is_null(self) -> bool:
        """Whether this is a null observer, which is examined without being trained."""
        return self.rule.startswith(NULL)

    @property
    def directory(self) -> str:
        """Name of the run's directory: readable, unique, and a single path component."""
        parts = (self.rule_name, self.model, self.task, f"s{self.seed}", self.key)
        return "-".join(re.sub(r"[^A-Za-z0-9_.]", "_", p).lstrip(".") for p in parts)


TRAINING_FIELDS = (
    "epochs", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "schedule", "clip", "accumulate",
    "precision", "objective", "inputs", "validation",
)  # fmt: skip


@dataclass(frozen=True)
class Execution:
    """How and where runs are executed; none of it can change a result.

    Attributes:
        runs: Folder of the run directories.
        data: Folder of downloaded data sets.
        download: Whether missing data sets may be downloaded.
        wandb: Where Weights & Biases logs go.
        accelerator: Lightning's name of the device.
        progress: Whether to show a progress bar.
        threads: Intra-op threads per process. One is fastest for small networks.
        benchmarks: Wanted beside those that every run is examined with.
        susceptibility: Epochs between measurements of the Kanizsa index during training; 0 for none.
    """

    runs: Path = Path("runs")
    data: Path = Path()
    download: bool = False
    wandb: Literal["online", "offline", "off"] = "offline"
    accelerator: str = "cpu"
    progress: bool = True
    threads: int = 1
    benchmarks: tuple[str, ...] = ()
    susceptibility: int = 0


def data_root() -> Path:
    """Return the folder of data sets: ``$PLASTICBENCH_DATA``, or the platform's cache folder."""
    if os.environ.get("PLASTICBENCH_DATA"):
        return Path(os.environ["PLASTICBENCH_DATA"]).expanduser().resolve()
    import pooch

    return Path(pooch.os_cache("plasticbench"))


def canonical_json(value: Any) -> str:
    """Return JSON that is the same for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def stream(seed: int, *names: str | int) -> int:
    """Return the seed of a named random stream, independent of every other name.

    Args:
        seed: The run's seed.
        *names: What the stream is for, such as ``"init"`` or ``"order", epoch``.
    """
    digest = hashlib.sha256(":".join(str(n) for n in (seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def coerce(value: Any, kind: Any, where: str) -> Any:
    """Return ``value`` as the annotated type, or say what is wrong.

    Args:
        value: As it came from YAML, JSON or the command line.
        kind: The annotation it must satisfy.
        where: Name of the key, for the message.

    Raises:
        UserError: If it does not fit.
    """
    origin = typing.get_origin(kind)
    if origin is Literal:
        if value not in typing.get_args(kind):
            raise unknown("value", value, [str(a) for a in typing.get_args(kind)], where)
        return value
    if origin in (types.UnionType, typing.Union):
        members = typing.get_args(kind)
        if value is None and type(None) in members:
            return None
        return coerce(value, next(m for m in members if m is not type(None)), where)
    if kind is float and not isinstance(value, bool):
        try:
            number = float(value)  # also "1e-3", which YAML reads as a string
        except (TypeError, ValueError):
            number = float("nan")
        if abs(number) < float("inf"):
            return number
    elif kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif kind in (list, tuple) or origin in (list, tuple):
        if isinstance(value, list | tuple):
            inner = next(iter(typing.get_args(kind)), inspect.Parameter.empty)
            return [coerce(v, inner, where) for v in value]
    elif kind is dict or origin is dict:
        if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
            return dict(value)
    elif kind is inspect.Parameter.empty or (isinstance(kind, type) and type(value) is kind):
        return value
    name = getattr(kind, "__name__", str(kind))
    raise UserError(f"{where}: expected {name}, got {value!r}")


def run_config(values: Mapping[str, Any], where: str = "run") -> RunConfig:
    """Return a checked ``RunConfig``; every name is known, every value has its type and range.

    Args:
        values: Field name → value, with ``rule_params`` and so on as mappings.
        where: Where the values stand, for the messages.

    Raises:
        UserError: If anything is unknown, missing or out of range.
    """
    hints = typing.get_type_hints(RunConfig)
    for name in values:
        if name not in hints:
            raise unknown("key", name, hints, where)
    for name in ("rule", "model", "task"):
        if not values.get(name):
            raise UserError(f"{where}: {name} is missing")
    checked = {n: coerce(v, hints[n], f"{where}: {n}") for n, v in values.items()}
    lowest = {"seed": 0, "epochs": 0, "batch_size": 1, "accumulate": 1, "weight_decay": 0, "clip": 0, "trials": 0}
    for name, low in lowest.items():
        if name in checked and checked[name] < low:
            raise UserError(f"{where}: {name} must be at least {low}, got {checked[name]}")
    if checked.get("lr", 1.0) <= 0:
        raise UserError(f"{where}: lr must be positive, got {checked['lr']}")
    for name in ("momentum", "validation"):
        if not 0 <= checked.get(name, 0.0) < 1:
            raise UserError(f"{where}: {name} must be at least 0 and below 1, got {checked[name]}")
    if checked.get("batch_size", RunConfig.batch_size) % checked.get("accumulate", 1):
        raise UserError(f"{where}: batch_size must be a multiple of accumulate")
    for name in ("model", "task"):
        if checked[name].endswith(".py"):
            raise UserError(f"{where}: {name} {checked[name]!r}: only rules come by path; put the file into its folder")
    if checked["rule"].startswith(NULL):
        checked |= {"model": "none", "model_params": {}, "rule_params": {}}
    else:
        checked["rule_version"] = version_of(checked["rule"])
        checked["rule_params"] = check_options(RULES, checked["rule"], checked.get("rule_params", {}), where)
        checked["model_params"] = check_options(MODELS, checked["model"], checked.get("model_params", {}), where)
        if checked["rule"].endswith(".py"):
            path = Path(checked["rule"]).resolve()
            checked["rule"] = str(path)
            checked["rule_source"] = source_hash(path)
    checked["task_params"] = check_options(TASKS, checked["task"], checked.get("task_params", {}), where)
    return RunConfig(**checked)


def version_of(rule: str) -> int:
    """Return the version that a rule declares.

    Raises:
        UserError: If it is not a whole number.
    """
    version = getattr(RULES.load(rule), "version", 1)
    if type(version) is not int:
        raise UserError(f"rule {rule}: version must be a whole number, got {version!r}")
    return version


def source_hash(path: Path) -> str:
    """Return the hash of a rule's file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def check_options(catalogue: Any, name: str, options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return all options of an entry with their annotated types, those not given at their defaults.

    Defaults are written out so that a run says what it was, and so that giving one changes nothing.

    Args:
        catalogue: Where the entry is.
        name: Its name.
        options: Option → value.
        where: Where they stand, for the messages.

    Raises:
        UserError: If the entry or an option is unknown, or a value has the wrong type.
    """
    function = catalogue.load(name)
    known = options_of(function)
    try:
        hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    except NameError:  # an annotation that exists for type checkers only
        hints = {}
    checked = {}
    for n, p in known.items():
        if p.default is not inspect.Parameter.empty:
            try:
                checked[n] = coerce(p.default, hints.get(n, inspect.Parameter.empty), n)
            except UserError:  # a default that its own annotation does not admit is the author's to keep
                checked[n] = p.default
    for option, value in options.items():
        if option not in known:
            raise unknown(f"option of {catalogue.kind} {name}", option, known, where)
        kind = hints.get(option, inspect.Parameter.empty)
        checked[option] = coerce(value, kind, f"{where}: {catalogue.kind}.{option}")
    for option in known:
        if option not in checked:
            raise UserError(f"{where}: {catalogue.kind} {name} needs the option {option!r}")
    try:
        canonical_json(checked)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: an option of {catalogue.kind} {name} cannot be written as JSON ({error})") from error
    return checked
