"""Shared by all tests: one thread, offline W&B, the data folder, small networks."""

import os
from pathlib import Path

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest
import torch

from models import cnn, mlp, resnet, vgg

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
if "PLASTICBENCH_DATA" not in os.environ and SHARED.is_dir():
    os.environ["PLASTICBENCH_DATA"] = str(SHARED)

torch.set_num_threads(1)

# Every architecture at a size that a test can afford.
SMALL = {
    "mlp": lambda i=(1, 8, 8), o=(10,): mlp.build(i, o, width=12),
    "cnn": lambda i=(1, 8, 8), o=(10,): cnn.build(i, o, width=3, hidden=12),
    "vgg": lambda i=(1, 8, 8), o=(10,): vgg.build(i, o, width=2),
    "resnet": lambda i=(1, 8, 8), o=(10,): resnet.build(i, o, width=2),
}


@pytest.fixture(autouse=True)
def _float32():
    """Give every test float32 and a fixed seed, whatever the one before did."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=sorted(SMALL))
def build(request):
    """Builder of each architecture."""
    return SMALL[request.param]


@pytest.fixture
def data_folder():
    """Folder of real data sets; the test is skipped where there is none."""
    folder = Path(os.environ.get("PLASTICBENCH_DATA", "/nonexistent"))
    if not folder.is_dir():
        pytest.skip("no PLASTICBENCH_DATA")
    return folder
