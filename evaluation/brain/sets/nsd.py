"""NSD: photographs that all subjects saw three times; 7T responses in V1, V2, V3, V4 and the ventral stream.

Allen et al. 2022 (Nat. Neurosci. 25:116). Under a data agreement (naturalscenesdataset.org), large, never fetched for
you. Reads the published layout under `nsd/`:

    nsddata/experiments/nsd/nsd_expdesign.mat
    nsddata/ppdata/subj01/func1pt8mm/roi/prf-visualrois.nii.gz, streams.nii.gz
    nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.hdf5, …
    nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5

Single-trial responses are standardised per voxel and session and averaged. Images that every subject whose files are
there saw are used, at most `MOST` of them.
"""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.brain.data import BrainData, Card, DataMissing, linear_luminance, same_people
from evaluation.brain.images import folder_of
from evaluation.brain.rdm import Array
from training.data.base import Source

TRIALS = 750  # per session
MOST = 515  # images that all eight subjects saw three times
PRF = {"V1": (1, 2), "V2": (3, 4), "V3": (5, 6), "V4": (7,)}  # labels in prf-visualrois
VENTRAL = 5  # label of the ventral stream in streams
CARD = Card(
    name="nsd",
    modality="fmri",
    rois=(*PRF, "ventral"),
    subjects=8,
    citation="Allen et al. 2022, Nat. Neurosci. 25:116",
    licence="NSD data agreement: naturalscenesdataset.org",
)
HOW = "sign the data agreement at naturalscenesdataset.org and copy the files listed in evaluation/brain/sets/nsd.py"


def build(source: Source) -> BrainData:
    """Return the data set.

    Raises:
        DataMissing: If its files are not in the data folder.
    """
    folder = folder_of(source.root, "nsd", HOW)
    subjects = sorted(int(p.name[-2:]) for p in (folder / "nsddata_betas" / "ppdata").glob("subj0?"))
    if not subjects:
        raise DataMissing(f"data not there: no nsddata_betas/ppdata/subj0* in {folder}; {HOW}")
    shown = {s: _shown(folder, s) for s in subjects}
    counts = [dict(zip(*np.unique(v, return_counts=True), strict=True)) for v in shown.values()]
    repeats = max(max(c.values()) for c in counts)
    common = sorted(i for i in counts[0] if all(c.get(i, 0) == repeats for c in counts))[:MOST]
    if len(common) < 4:
        raise DataMissing(
            f"{folder}: the sessions that are there share {len(common)} images seen {repeats} times; add more"
        )
    responses: dict[str, list[Array]] = {roi: [] for roi in CARD.rois}
    for s in subjects:
        for roi, values in _responses(folder, s, shown[s], np.array(common)).items():
            responses[roi].append(values)
    return BrainData(
        CARD,
        linear_luminance(_stimuli(folder, common)),
        tuple(f"nsd{i:05d}" for i in common),
        responses={roi: tuple(v) for roi, v in responses.items()},
        people=same_people(responses),
    )


def _sessions(folder: Path, subject: int) -> list[Path]:
    where = folder / f"nsddata_betas/ppdata/subj{subject:02d}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
    found = sorted(where.glob("betas_session??.hdf5"))
    if not found:
        raise DataMissing(f"data not there: no betas_session*.hdf5 in {where}; {HOW}")
    return found


@functools.lru_cache(maxsize=1)
def _design(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    from scipy.io import loadmat

    if not path.exists():
        raise DataMissing(f"data not there: {path}; {HOW}")
    content = loadmat(path)
    return content["masterordering"].ravel().astype(np.int64), content["subjectim"].astype(np.int64)


def _shown(folder: Path, subject: int) -> NDArray[np.int64]:
    """Return the image (0-based, of 73,000) of every trial of the sessions that are there."""
    order, images = _design(folder / "nsddata/experiments/nsd/nsd_expdesign.mat")
    shown = images[subject - 1][order - 1] - 1
    numbers = [int(p.stem[-2:]) for p in _sessions(folder, subject)]
    return np.concatenate([shown[(n - 1) * TRIALS : n * TRIALS] for n in numbers])


def _responses(folder: Path, subject: int, shown: NDArray[np.int64], images: NDArray[np.int64]) -> dict[str, Array]:
    import h5py
    from nilearn.image import load_img

    where = folder / f"nsddata/ppdata/subj{subject:02d}/func1pt8mm/roi"
    labels = {n: where / f"{n}.nii.gz" for n in ("prf-visualrois", "streams")}
    for path in labels.values():
        if not path.exists():
            raise DataMissing(f"data not there: {path}; {HOW}")
    # The HDF5 files hold (trials, z, y, x): MATLAB's axes, reversed.
    prf, streams = (np.asarray(load_img(str(p)).get_fdata()).T for p in labels.values())
    masks = {roi: np.isin(prf, values) for roi, values in PRF.items()} | {"ventral": (streams == VENTRAL) & ~(prf > 0)}
    inside = np.any(list(masks.values()), axis=0)
    total, count = np.zeros((len(images), int(inside.sum()))), np.zeros(len(images))
    for k, path in enumerate(_sessions(folder, subject)):
        with h5py.File(path) as file:
            betas = np.stack([b[inside] for b in file["betas"]]).astype(np.float64) / 300
        spread = betas.std(0)
        betas = (betas - betas.mean(0)) / np.where(spread > 0, spread, 1)
        for trial, image in enumerate(shown[k * TRIALS : (k + 1) * TRIALS]):
            place = np.searchsorted(images, image)
            if place < len(images) and images[place] == image:
                total[place] += betas[trial]
                count[place] += 1
    mean = total / count[:, None]
    return {roi: mean[:, m[inside]] for roi, m in masks.items()}


def _stimuli(folder: Path, images: list[int]) -> NDArray[np.uint8]:
    import h5py

    path = folder / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    if not path.exists():
        raise DataMissing(f"data not there: {path}; {HOW}")
    with h5py.File(path) as file:
        return np.asarray(file["imgBrick"][images])
