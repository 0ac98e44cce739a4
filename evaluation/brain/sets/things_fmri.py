"""THINGS-fMRI: 100 repeated object photographs, single-trial responses of 3 subjects in V1, V2, V3, V4 and IT.

Hebart et al. 2023 (eLife 12:e82580). Reads the published table layout (figshare 10.25452/figshare.plus.20492835), which
is 43 GB and not fetched for you, and the THINGS images:

    things_fmri/betas_csv/sub-01_ResponseData.h5, sub-01_StimulusMetadata.csv, sub-01_VoxelMetadata.csv, … sub-03_…
    things_fmri/images/<concept>/<stimulus>.jpg

Trials of type `test` are standardised per voxel and session and averaged over repetitions.
"""

import csv
from pathlib import Path

import numpy as np

from evaluation.brain.data import BrainData, Card, DataMissing, linear_luminance, same_people
from evaluation.brain.images import folder_of, photographs
from evaluation.brain.rdm import Array
from training.data.base import Source

COLUMNS = {"V1": "V1", "V2": "V2", "V3": "V3", "V4": "hV4", "IT": "IT"}  # ROI → column of the voxel table
CARD = Card(
    name="things_fmri",
    modality="fmri",
    rois=tuple(COLUMNS),
    subjects=3,
    citation="Hebart et al. 2023, eLife 12:e82580",
    licence="CC0 (responses); the THINGS images have terms of their own",
)
HOW = "get betas_csv from figshare 10.25452/figshare.plus.20492835 and the THINGS images (osf.io/jum2f)"


def build(source: Source) -> BrainData:
    """Return the data set.

    Raises:
        DataMissing: If its files are not in the data folder.
    """
    folder = folder_of(source.root, "things_fmri", HOW)
    tables = sorted((folder / "betas_csv").glob("sub-*_StimulusMetadata.csv"))
    if not tables:
        raise DataMissing(f"data not there: no sub-*_StimulusMetadata.csv in {folder / 'betas_csv'}; {HOW}")
    names: list[str] = []
    concepts: dict[str, str] = {}
    responses: dict[str, list[Array]] = {roi: [] for roi in COLUMNS}
    for table in tables:
        subject = table.name.split("_")[0]
        trials = _rows(table)
        test = [i for i, r in enumerate(trials) if r["trial_type"] == "test"]
        concepts |= {trials[i]["stimulus"]: trials[i]["concept"] for i in test}
        names = names or sorted({trials[i]["stimulus"] for i in test})
        betas = _betas(table.with_name(f"{subject}_ResponseData.h5"), test)
        sessions = np.array([trials[i]["session"] for i in test])
        shown = np.array([trials[i]["stimulus"] for i in test])
        for s in np.unique(sessions):
            own = sessions == s
            spread = betas[own].std(0)
            betas[own] = (betas[own] - betas[own].mean(0)) / np.where(spread > 0, spread, 1)
        averaged = np.stack([betas[shown == n].mean(0) for n in names])
        voxels = _rows(table.with_name(f"{subject}_VoxelMetadata.csv"))
        for roi, column in COLUMNS.items():
            inside = np.array([float(v[column] or 0) == 1 for v in voxels])
            responses[roi].append(averaged[:, inside])
    images = photographs([folder / "images" / concepts[n] / n for n in names])
    return BrainData(
        CARD, linear_luminance(images), tuple(names), responses={roi: tuple(v) for roi, v in responses.items()},
        people=same_people(responses),
    )  # fmt: skip


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        raise DataMissing(f"data not there: {path}; {HOW}")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _betas(path: Path, trials: list[int]) -> Array:
    """Return the responses of some trials ``(trials, V)`` from a pandas table stored as HDF5, without PyTables."""
    import h5py

    if not path.exists():
        raise DataMissing(f"data not there: {path}; {HOW}")
    with h5py.File(path) as file:
        values = file["ResponseData"]["block0_values"][:, trials]
    return np.asarray(values, dtype=np.float64).T.copy()
