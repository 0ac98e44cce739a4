"""THINGS-MEG: 200 repeated object photographs, MEG of 4 subjects from −100 to 1300 ms: RDMs over time.

Hebart et al. 2023 (eLife 12:e82580), OpenNeuro ds004212. Reads the published preprocessed epochs, which are large
and not fetched for you, and the THINGS images; reading epochs needs MNE (pip install mne):

    things_meg/preprocessed_P1-epo.fif … preprocessed_P4-epo.fif       (with the parts -epo-1.fif … beside them)
    things_meg/images/<concept>/<stimulus>.jpg

Trials whose metadata say `test` are averaged over repetitions; time is averaged in bins of 10 ms.
"""

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from evaluation.brain.data import BrainData, Card, DataMissing, linear_luminance
from evaluation.brain.images import folder_of, photographs
from evaluation.brain.rdm import Array, rdm
from training.data.base import Source

BIN = 10.0  # ms
CARD = Card(
    name="things_meg",
    modality="meg",
    rois=(),
    subjects=4,
    citation="Hebart et al. 2023, eLife 12:e82580; OpenNeuro ds004212",
    licence="CC0 (responses); the THINGS images have terms of their own",
)
HOW = "get derivatives/preprocessed from OpenNeuro ds004212 and the THINGS images (osf.io/jum2f)"


def build(source: Source) -> BrainData:
    """Return the data set.

    Raises:
        DataMissing: If its files, or MNE, are not there.
    """
    folder = folder_of(source.root, "things_meg", HOW)
    paths = sorted(folder.glob("preprocessed_P?-epo.fif"))
    if not paths:
        raise DataMissing(f"data not there: no preprocessed_P*-epo.fif in {folder}; {HOW}")
    names: list[str] = []
    movies, times = [], None
    for path in paths:
        values, shown, now = _test_trials(path)
        names = names or sorted(set(shown.tolist()))
        averaged = np.stack([values[shown == n].mean(0) for n in names])
        bins = np.floor(now / BIN + 1e-9).astype(int)
        binned = np.stack([averaged[..., bins == b].mean(-1) for b in np.unique(bins)], -1)
        times = np.array([now[bins == b].mean() for b in np.unique(bins)])
        movies.append(rdm(np.moveaxis(binned, 2, 0)))
    parts = [PurePosixPath(n) for n in names]
    images = photographs([folder / "images" / p.parent.name / p.name for p in parts])
    return BrainData(CARD, linear_luminance(images), tuple(names), movie=np.stack(movies), times=times)


def _test_trials(path: Path) -> tuple[Array, Any, Array]:
    """Return test trials ``(trials, channels, T)``, what each showed, and times in ms."""
    try:
        import mne
    except ImportError as error:
        raise DataMissing("reading epochs needs MNE: pip install mne") from error
    epochs = mne.read_epochs(path, preload=False, verbose="error")
    table = epochs.metadata
    if table is None or not {"trial_type", "image_path"} <= set(table.columns):
        raise DataMissing(f"{path}: its epochs have no metadata trial_type and image_path; {HOW}")
    chosen = np.flatnonzero((table["trial_type"] == "test").to_numpy())
    shown = np.array([str(p) for p in table["image_path"].to_numpy()[chosen]])
    values = epochs[chosen].get_data(picks="data", verbose="error")
    return np.asarray(values, dtype=np.float64), shown, 1000 * np.asarray(epochs.times, dtype=np.float64)
