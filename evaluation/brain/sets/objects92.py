"""92 cut-out objects: fMRI of 15 subjects (EVC, IT), human and monkey IT, and similarity judgements.

Kriegeskorte et al. 2008 (Neuron 60:1126): images, monkey IT (674 neurons), human IT of 4 subjects; Cichy, Pantazis
& Oliva 2014 (Nat. Neurosci. 17:455): EVC and IT of 15 subjects; Mur et al. 2013 (Front. Psychol. 4:128):
judgements of 16 subjects. RDMs only: no voxel responses, so no encoding.

Early visual cortex is largely explained by the objects' silhouettes, since they lie on a uniform grey; and with
two regions there is no correlation over regions: the slope over stages takes its place.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evaluation.brain._examination import BrainBenchmark
from evaluation.brain.data import BrainData, Card, linear_luminance, same_people
from evaluation.brain.fetch import RemoteFile, files
from evaluation.brain.rdm import Array
from training.data.base import Source

DEMOS = "https://raw.githubusercontent.com/rsagroup/rsatoolbox/{}/demos/92imageData/{}"
NET2BRAIN = (
    "https://raw.githubusercontent.com/cvai-roig-lab/Net2Brain/05ac462951ef792ff2ba70c4b97d5409a8e44289/"
    "input_data/brain_data/92images/{}"
)
STIMULI = "Kriegeskorte_Neuron2008_supplementalData.mat"
FILES = {
    STIMULI: RemoteFile(
        DEMOS.format("9ac4b5cdcb702c02481cabba33c551d187d50b6c", STIMULI),
        "06f21214399a5d43dc264eed19a7f4b8daf11c8622a59eec3e106064ce5e3504",
    ),
    "92_brainRDMs.mat": RemoteFile(
        DEMOS.format("a019e37ee631456aa99425efb33cb4e26e9ea181", "92_brainRDMs.mat"),
        "1743f90a15e895798a94318649e80e1123a7e5943a1703fa1dd7c31ea5780b7c",
    ),
    "92_behavRDMs.mat": RemoteFile(
        DEMOS.format("8ee4a8f6b55f788acbee29521916f5f38f2926be", "92_behavRDMs.mat"),
        "7a8e118c144c3840adeeeef6ea0706a0be2b3e80df719af15fbb56fc62562f5f",
    ),
    "fmri_EVC_RDMs.npz": RemoteFile(
        NET2BRAIN.format("fmri_EVC_RDMs.npz"), "c73de20f9cb2229f1796085e79c153f63a4287b8bf7faaf7531571b1898d3f8b"
    ),
    "fmri_IT_RDMs.npz": RemoteFile(
        NET2BRAIN.format("fmri_IT_RDMs.npz"), "ecf104457ae841d2a2bf503fb0dc16c6387e32d0cd74fb5217ca4ef859a805dd"
    ),
}
CARD = Card(
    name="objects92",
    modality="fmri",
    rois=("EVC", "IT"),
    beside=("human_IT_2008", "monkey_IT", "behaviour"),
    subjects=15,
    citation="Kriegeskorte et al. 2008, Neuron 60:1126; Cichy, Pantazis & Oliva 2014, Nat. Neurosci. 17:455; "
    "Mur et al. 2013, Front. Psychol. 4:128",
    licence="none stated by the sources (rsatoolbox demos, Net2Brain); images show identifiable faces: do not "
    "redistribute",
    notes="Objects on uniform grey (128, 128, 128).",
)


class Objects92(BrainBenchmark):
    """Stages and learning signals against EVC and IT of 15 subjects, monkey IT and behaviour (92 objects)."""

    name = "objects92"
    reference = CARD.citation
    headline = "activation_slope"
    default_scales = (1.5, 2.0)
    on_request = True  # its data are not part of plasticbench

    def load(self, source: Source) -> BrainData:
        """Return the data."""
        return build(source)


def build(source: Source) -> BrainData:
    """Return the data set.

    Raises:
        DataMissing: If its files are not in the data folder and may not be downloaded.
    """
    return _read(source.root, source.download)


@functools.lru_cache(maxsize=2)
def _read(root: Path, download: bool) -> BrainData:
    from scipy.io import loadmat

    path = files("objects92", FILES, Source(root, download))
    main = loadmat(path[STIMULI])
    objects = main["stimuli_92objs"]
    images = np.stack(list(objects["image"][0]))
    flags = {n: np.array([f.item() for f in objects[n][0]], dtype=np.int64) for n in ("animal", "human", "face")}
    natural = np.array([f.item() for f in objects["natural"][0]], dtype=np.int64)
    labels = {
        "animacy": flags["animal"],
        # The six groups of the original study, in the order of the files.
        "group": np.repeat(np.arange(6), [12, 12, 12, 12, 23, 21]),
        "face": flags["face"],
        "natural": natural,
    }
    monkey, _ = (r.ravel() for r in main["RDMs_mIT_hIT_fig1"]["RDM"][0])
    scans = np.stack(list(loadmat(path["92_brainRDMs.mat"])["RDMs"]["RDM"].ravel())).reshape(4, 2, 92, 92)
    judged = np.stack(list(loadmat(path["92_behavRDMs.mat"])["rdms_behav_92"]["RDM"][0]))
    rdms: Mapping[str, Array] = {
        "EVC": _vectors(np.load(path["fmri_EVC_RDMs.npz"])["Net_RDM"]),
        "IT": _vectors(np.load(path["fmri_IT_RDMs.npz"])["Net_RDM"]),
        "human_IT_2008": _vectors(scans.mean(1)),
        "monkey_IT": monkey[None].astype(np.float64),
        "behaviour": _vectors(judged),
    }
    names = tuple(f"{i:02d}_{str(c[0]).replace(' ', '_')}" for i, c in enumerate(objects["category"][0]))
    people = same_people({r: rdms[r] for r in ("EVC", "IT")})  # of Cichy et al.; the other targets are other people
    cortex = root / "objects92" / "cortex"  # of the user's own: the sources have none
    return BrainData(
        CARD, linear_luminance(images), names, labels, rdms, people=people, cortex=cortex if cortex.is_dir() else None
    )


def _vectors(matrices: Array) -> Array:
    """Return square RDMs ``(S, N, N)`` as vectors ``(S, P)``."""
    i, j = np.triu_indices(matrices.shape[-1], 1)
    return np.asarray(matrices[:, i, j], dtype=np.float64)
