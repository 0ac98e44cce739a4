"""Null observers that know nothing: what a network of that task sees, through fixed linear filters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from rules.base import Objective
from training.data.base import Preprocess, Task

Filter = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Filtered:
    """An observer whose stages are filters of the image; it names nothing and learns nothing.

    Attributes:
        name: What it is called on the board.
        in_shape: ``(C, H, W)`` at which it sees.
        preprocess: From stimuli to what is filtered.
        filters: Stage → from images ``(B, C, H, W)`` to a map ``(B, C, h, w)``.
    """

    name: str
    in_shape: tuple[int, int, int]
    preprocess: Preprocess
    filters: Mapping[str, Filter] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

    def predict(self, stimuli: Tensor) -> Tensor:
        """Return the images as its last filter leaves them."""
        return list(self.activations(stimuli).values())[-1]

    def activations(self, stimuli: Tensor) -> dict[str, Tensor]:
        """Return the map of every filter."""
        x = self.preprocess.stimulus(stimuli)
        return {name: function(x) for name, function in self.filters.items()}

    def signals(self, stimuli: Tensor, target: Tensor, objective: Objective | None = None) -> dict[str, Tensor]:
        """Return nothing: nothing is learned from stimuli."""
        del stimuli, target, objective
        return {}


def filtered(name: str, task: Task, filters: Mapping[str, Filter]) -> Filtered:
    """Return the observer of a task."""
    return Filtered(name, task.in_shape, task.preprocess(), filters)
