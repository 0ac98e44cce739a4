"""Null observer: the model that generated the simulated ventral stream. It must score 1 there, in space and in time."""

from evaluation.brain.simulation import VentralStream
from training.data.base import Task


def build(task: Task) -> VentralStream:
    """Return the observer; the task does not matter to it."""
    del task
    return VentralStream()
