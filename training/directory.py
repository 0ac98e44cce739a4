"""A run directory: the only source of truth about a run. Every file is replaced whole or not at all.

config.json   what was asked          status.json   how far it got
last.ckpt     weights, optimiser      metrics.csv   curves, one row per epoch
scores.jsonl  what was measured       figures/, wandb/
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.config import ADDED_FIELDS, SCHEMA_VERSION, RunConfig
from training.errors import UserError

_UMASK = os.umask(0)
os.umask(_UMASK)
STATES = ("running", "interrupted", "failed", "unsupported", "done")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_UMASK)  # mkstemp's files are private
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """One run directory."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """Weights, optimiser state and progress after the last whole epoch."""
        return self.path / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """Curves."""
        return self.path / "metrics.csv"

    @property
    def figures(self) -> Path:
        """Folder of pictures."""
        return self.path / "figures"

    def write_config(self, config: RunConfig) -> None:
        """Write ``config.json``."""
        record = {"schema_version": SCHEMA_VERSION, "key": config.key} | dataclasses.asdict(config)
        write_whole(self.path / "config.json", json.dumps(record, indent=2) + "\n")

    def config(self) -> RunConfig:
        """Return the run's configuration.

        Raises:
            UserError: If it is missing, broken, or written by another version.
        """
        record = self._json("config.json")
        version = record.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise UserError(
                f"{self.path}: run directory of version {version}, this is version {SCHEMA_VERSION}; "
                "move it away and run it again"
            )
        key = record.pop("key", None)
        known = {f.name for f in dataclasses.fields(RunConfig)}
        if not known - set(ADDED_FIELDS) <= set(record) <= known:
            raise UserError(f"{self.path}/config.json: fields {sorted(set(record) ^ known)} do not match")
        config = RunConfig(**record)
        if config.key != key:
            raise UserError(f"{self.path}/config.json: was edited by hand (its key does not match); run it again")
        return config

    def status(self) -> dict[str, Any]:
        """Return ``{"state": …, "reason": …}``; an empty state where the run never started."""
        if not (self.path / "status.json").exists():
            return {"state": "", "reason": "", "attempt": 0}
        return self._json("status.json")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run; the system lets go of it when the process ends, however it ends.

        Raises:
            UserError: If another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{self.path}: another process is at work on it; wait for it, or end it") from error
            yield

    def set_status(self, state: str, reason: str = "") -> None:
        """Write ``status.json``; a new start counts as an attempt."""
        attempt = self.status().get("attempt", 0) + (state == "running")
        record = {
            "state": state,
            "reason": reason,
            "attempt": attempt,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        write_whole(self.path / "status.json", json.dumps(record) + "\n")

    def scores(self) -> list[dict[str, Any]]:
        """Return all score records.

        Raises:
            UserError: If a line is not a whole record.
        """
        path = self.path / "scores.jsonl"
        records = []
        for number, line in enumerate(_text(path).splitlines() if path.exists() else (), 1):
            try:
                record = json.loads(line)
                if not isinstance(record, dict) or "benchmark" not in record:
                    raise ValueError("not a score")
            except ValueError as error:
                raise UserError(
                    f"{path}: line {number} is not a whole record ({error}); delete that line, then "
                    f"`plasticbench evaluate {self.path}` measures what is missing"
                ) from error
            records.append(record)
        return records

    def add_scores(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add the records of one or several benchmarks; what is left of an incomplete measurement is replaced."""
        new = {_measurement(r) for r in records}
        kept = [r for r in self.scores() if _measurement(r) not in new]
        lines = [json.dumps(r, allow_nan=False) for r in (*kept, *records)]
        write_whole(self.path / "scores.jsonl", "".join(f"{line}\n" for line in lines))

    def measured(self) -> set[tuple[str, int]]:
        """Return (benchmark, version) of what was measured and is there to the last record."""
        counts = Counter(_measurement(r) for r in self.scores())
        return {_measurement(r) for r in self.scores() if counts[_measurement(r)] >= r.get("records", 1)}

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            record = json.loads(_text(path))
            if isinstance(record, dict):
                return record
            problem = "not a JSON object"
        except ValueError as error:
            problem = str(error)
        raise UserError(f"{path}: broken ({problem}); move {self.path} away and run it again")


def _measurement(record: Mapping[str, Any]) -> tuple[str, int]:
    return record["benchmark"], record.get("benchmark_version", 1)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: not there; is {path.parent} a run directory?") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def run_directories(root: Path) -> list[RunDirectory]:
    """Return the run directories under ``root`` (or ``root`` itself), sorted by name.

    Raises:
        UserError: If ``root`` does not exist.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of runs; start with `plasticbench run` or `plasticbench study`")
    if (root / "config.json").exists():
        return [RunDirectory(root)]
    return [RunDirectory(p) for p in sorted(root.iterdir()) if (p / "config.json").exists()]
