"""torchvision's data sets as tasks: found in the data folder, downloaded only where that is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.data.base import Augment, Images, Source, Task
from training.errors import UserError


def torchvision_task(factory: Callable[..., Any], source: Source, *, augment: Augment = "none", train: int = 0) -> Task:
    """Return the task of a torchvision data set that has ``data``, ``targets`` and ``classes``.

    Args:
        factory: A class of ``torchvision.datasets``.
        source: Where to look, and whether to download.
        augment: Random changes of training images.
        train: Use only the first so many training images; 0 for all.

    Raises:
        UserError: If the files are not there or not whole.
    """
    if train < 0:
        raise UserError(f"{factory.__name__}: train must be at least 0, got {train}")
    root = source.root / "torchvision"
    name = factory.__name__
    try:
        train_set = factory(str(root), train=True, download=source.download)
        test_set = factory(str(root), train=False, download=source.download)
    except Exception as error:  # torchvision raises RuntimeError, OSError, pickle and zlib errors alike
        raise UserError(_hint(name, root, source, error)) from error
    images = _tensor(train_set.data)
    targets = torch.as_tensor(train_set.targets).long()
    if train:
        images, targets = images[:train], targets[:train]
    return Task(
        tuple(str(c) for c in train_set.classes),
        Images(images, targets),
        Images(_tensor(test_set.data), torch.as_tensor(test_set.targets).long()),
        encoding="srgb",
        augment=augment,
    )


def _tensor(data: Any) -> Tensor:
    """Return images as uint8 ``(N, C, H, W)`` from torchvision's ``(N, H, W)`` or ``(N, H, W, C)``."""
    images = torch.as_tensor(data)
    return images[:, None] if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()


def _hint(name: str, root: Path, source: Source, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    if source.download:
        return f"{name} could not be downloaded to {root}: {reason}"
    return f"{name} is not in {root} ({reason}); set PLASTICBENCH_DATA to where it is, or add --download"
