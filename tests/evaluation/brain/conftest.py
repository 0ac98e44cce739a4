"""Networks as observers, and the real 92 objects where they are."""

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from evaluation.base import TrainedObserver
from evaluation.brain.sets import objects92, simulated_ventral_stream
from models import cnn
from rules.backprop import Backprop
from rules.base import OBJECTIVES
from training.data.base import Images, Preprocess, Source


def observer_of(net, rule, *, colour=True, size=32, classes=4):
    """A network under a rule, at its initial weights, as a benchmark sees it."""
    channels = 3 if colour else 1
    rule.attach(net)
    generator = torch.Generator().manual_seed(5)
    held_out = Images(
        torch.rand(16, channels, size, size, generator=generator), torch.randint(0, classes, (16,), generator=generator)
    )
    preprocess = Preprocess((channels, size, size), (0.2,) * channels, (0.3,) * channels, "linear")
    names = tuple(f"class{i}" for i in range(classes))
    return TrainedObserver("rule", net, rule, net, rule, OBJECTIVES["cross_entropy"], preprocess, names, held_out)


@pytest.fixture
def small():
    """A small convolutional network under backprop."""
    torch.manual_seed(0)
    return observer_of(cnn.build((3, 32, 32), (4,), width=4, hidden=16), Backprop())


@pytest.fixture(scope="session")
def objects():
    """The 92 objects; tests are skipped where they are not."""
    folder = Path(os.environ.get("PLASTICBENCH_DATA", "/nonexistent"))
    if not (folder / "objects92").is_dir():
        pytest.skip("no objects92 in PLASTICBENCH_DATA")
    return objects92.build(Source(folder))


@pytest.fixture(scope="session")
def stream():
    """The simulated ventral stream as brain data."""
    return simulated_ventral_stream.build(Source(Path()))


@pytest.fixture(scope="session")
def few(stream):
    """Sixteen images of the simulated stream, without voxels and time."""
    import numpy as np

    part = stream.select(np.arange(0, 64, 4))
    return dataclasses.replace(part, rdms=dict(part.targets), responses={}, movie=None, times=None)
