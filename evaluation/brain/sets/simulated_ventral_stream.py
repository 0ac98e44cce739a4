"""Simulated V1, V2, V4, IT with a known hierarchy: no brain was involved. The positive control, always there.

64 images of polygons; 8 subjects; fMRI-like responses (haemodynamics, drift, noise, GLM) and sensor patterns over time
(simulation.py). A score here tells whether a network's order of stages resembles that of a random convolutional
hierarchy on Gabor energy, not whether it resembles a brain.
"""

import functools

from evaluation.brain._examination import BrainBenchmark
from evaluation.brain.data import BrainData, Card, same_people
from evaluation.brain.simulation import AREAS, simulate
from training.data.base import Source

CARD = Card(
    name="simulated_ventral_stream",
    modality="mixed",
    rois=AREAS,
    subjects=8,
    citation="simulated (plasticbench)",
    licence="Apache-2.0",
    simulated=True,
    notes="The generating model is the observer `ventral_stream`.",
)


class SimulatedVentralStream(BrainBenchmark):
    """Stages and learning signals against a simulated ventral stream of known hierarchy (positive control)."""

    name = "simulated_ventral_stream"
    headline = "activation_spatial"
    losses = ("pseudo_label", "label")
    resamples = 100  # it is measured after every run, and must be cheap
    shuffles, singly = 10, False
    encodes = False  # `plasticbench brain score RUN --on simulated_ventral_stream --set encoding=true`

    def load(self, source: Source) -> BrainData:
        """Return the data."""
        return build(source)


def build(source: Source) -> BrainData:
    """Return the data set; nothing is looked for."""
    del source
    return _made()


@functools.cache
def _made() -> BrainData:
    made = simulate()
    names = tuple(f"polygon_{i:02d}" for i in range(len(made.stimuli)))
    return BrainData(
        CARD,
        made.stimuli,
        names,
        {"shape": made.labels},
        responses=made.betas,
        movie=made.movie,
        times=made.times,
        explainable=made.explainable(),
        people=same_people(made.betas),
    )
