"""``plasticbench show``: stimuli and training images as labelled sheets."""

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from evaluation import figures
from experiments.catalogues import BENCHMARKS
from training.catalogue import TASKS
from training.config import Execution, check_options, stream
from training.data.base import Source, Task
from training.errors import UserError, unknown

COLUMNS = 10


def draw(what: str, output: Path, size: int | None, overrides: Mapping[str, Any], execution: Execution) -> None:
    """Write the sheet of a benchmark's stimuli or of a task's training images.

    Args:
        what: Name of a benchmark with a function ``sheet``, or of a task.
        output: PNG to write.
        size: Side of the stimuli in pixels.
        overrides: ``task_params`` of a task.
        execution: Where data are.

    Raises:
        UserError: If there is nothing to show under that name.
    """
    if output.suffix.lower() != ".png":
        raise UserError(f"{output}: the sheet is a PNG; end its name with .png")
    if size is not None and not 16 <= size <= 512:
        raise UserError(f"--size must be 16 to 512 pixels, got {size}")
    stimuli = _sheets()
    if what in stimuli:
        images, rows, columns = stimuli[what](size) if size else stimuli[what]()
        figures.sheet(images, rows, columns, output)
    elif what in TASKS.entries():
        _training_images(what, output, size, overrides, execution)
    else:
        raise unknown("stimulus or task", what, [*stimuli, *TASKS.entries()])


def _sheets() -> dict[str, Any]:
    """Return the benchmarks that can draw their stimuli."""
    found = {}
    for name in BENCHMARKS.entries():
        module = sys.modules[BENCHMARKS.load(name).__module__]
        if hasattr(module, "sheet"):
            found[name] = module.sheet
    return found


def _training_images(
    name: str, output: Path, size: int | None, overrides: Mapping[str, Any], execution: Execution
) -> None:
    build = TASKS.load(name)
    options = dict(overrides.get("task_params", {}))
    if size and "size" in inspect.signature(build).parameters:
        options["size"] = size
    task = build(
        Source(execution.data, execution.download, stream(0, "show")), **check_options(TASKS, name, options, "show")
    )
    if not task.classes:
        _clips(task, output)
        return
    few = [(task.train.targets == c).nonzero()[:COLUMNS, 0] for c in range(len(task.classes))]
    width = min(map(len, few))
    images = torch.stack([task.train.images[index[:width]] for index in few])
    if images.dtype == torch.uint8:
        images = images.float() / 255
    figures.sheet(images, task.classes, [""] * width, output, linear=task.encoding == "linear")


def _clips(task: Task, output: Path) -> None:
    """Write the frames of training clips, one clip in a row, with the frame that is to be predicted at the end."""
    seen = task.train.images[:COLUMNS].unflatten(1, (task.frames, -1))
    clips = torch.cat([seen, task.train.targets[:COLUMNS, None]], 1)
    clips = clips.float() / 255 if clips.dtype == torch.uint8 else clips
    columns = [*(f"frame {i + 1}" for i in range(task.frames)), "to predict"]
    rows = [f"clip {i + 1}" for i in range(len(clips))]
    figures.sheet(clips, rows, columns, output, linear=task.encoding == "linear")
