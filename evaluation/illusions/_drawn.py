"""What benchmarks share whose picture shows their scores: they keep those of the observer that was measured last."""

from collections.abc import Mapping
from pathlib import Path

from evaluation.base import Benchmark, Observer, Score


class DrawnFromScores(Benchmark):
    """A benchmark that is drawn from its scores, measured anew only for an observer that is not the last one."""

    _last: tuple[Observer, list[Score]] | None = None

    def measure(self, observer: Observer) -> list[Score]:
        """Return the scores of an observer."""
        scores = self.scores(observer)
        self._last = observer, scores
        return scores

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Draw the scores of every observer of which there is something to draw."""
        paths = []
        for name, observer in observers.items():
            last, scores = self._last or (None, [])
            if last is not observer:
                scores = self.measure(observer)
            if path := self.plot(folder / f"{self.name}.png", name, scores):
                paths.append(path)
        return paths

    def scores(self, observer: Observer) -> list[Score]:
        """Return the scores of an observer."""
        raise NotImplementedError(f"{type(self).__name__} must define scores(observer)")

    def plot(self, path: Path, name: str, scores: list[Score]) -> Path | None:
        """Write a picture of scores and return its path; nothing where nothing can be shown.

        Args:
            path: File to write.
            name: Of the observer.
            scores: Its scores.
        """
        raise NotImplementedError(f"{type(self).__name__} must define plot(path, name, scores)")
