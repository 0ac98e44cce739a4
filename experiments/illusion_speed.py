"""CPU time of every benchmark of still illusions on one finished run, as it would be measured and drawn.

    python -m experiments.illusion_speed RUN [--benchmark kanizsa lightness]

One thread, the libraries that a benchmark imports at its first use left out by measuring a small one before. The run's
directory is read and not changed.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from evaluation.base import Benchmark, Observer
from evaluation.illusions.lightness import Lightness
from experiments.catalogues import BENCHMARKS
from experiments.runner import benchmark, observer_of
from training.config import Execution
from training.directory import RunDirectory
from training.errors import UserError, unknown
from training.run import build, restore

MOVING = ("rotating_snakes", "motion_readout")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return 2 where the run cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("--benchmark", nargs="+", default=[], help="by default all of still illusions")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        names = chosen(options.benchmark)
        directory, execution = RunDirectory(options.run), Execution()
        if not (options.run / "config.json").exists():
            raise UserError(f"{options.run}: no run is there")
        observer = observer_of(restore(directory, execution), build(directory.config(), execution))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    seconds(Lightness(num=2, training=20), observer)
    spent = {name: seconds(benchmark(name, execution), observer) for name in names}
    for name, own in spent.items():
        print(f"{name:<24} {own:6.1f} s CPU")
    print(f"{'together':<24} {sum(spent.values()):6.1f} s CPU")
    return 0


def chosen(names: list[str]) -> list[str]:
    """Return the names of benchmarks, by default those of the pillar of illusions that do not move.

    Raises:
        UserError: If there is no benchmark of a name.
    """
    known = list(BENCHMARKS.entries())
    for name in names:
        if name not in known:
            raise unknown("benchmark", name, known)
    return names or [n for n in known if BENCHMARKS.load(n).pillar == "illusion" and n not in MOVING]


def seconds(bench: Benchmark, observer: Observer) -> float:
    """Return the CPU time that measuring and drawing takes."""
    start = time.process_time()
    bench.measure(observer)
    with tempfile.TemporaryDirectory() as folder:
        bench.draw(Path(folder), {observer.name: observer})
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
