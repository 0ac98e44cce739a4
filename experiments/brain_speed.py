"""Speed of brain alignment beside rsatoolbox's own, with the same numbers; and of a whole examination.

    python -m experiments.brain_speed [--resamples 200] [--whole]

CPU time of one thread. Left out of both sides: imports, and reading data. rsatoolbox: ``calc_rdm``, ``eval_fixed``,
``eval_bootstrap_rdm`` (subjects), ``eval_dual_bootstrap`` (subjects and images, which also resamples each alone).
"""

import argparse
import contextlib
import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from evaluation.brain.inference import Row, align
from evaluation.brain.rdm import Method, compare, rdm

IMAGES, SUBJECTS, MODELS, UNITS = 92, 15, 8, 1000
TOLERANCE = 1e-8  # between our numbers and rsatoolbox's


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--whole", action="store_true", help="also one cnn on objects92 with 1,000 resamples")
    parser.add_argument("--rule", default="backprop", help="of the whole examination")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name, ours, theirs in comparisons(options.resamples):
        print(f"{name:<42} {1e3 * ours:9.1f} ms   rsatoolbox {1e3 * theirs:9.1f} ms   ratio {ours / theirs:.4f}")
    print(f"{'RDM movie, 16 subjects x 251 times x 5 stages':<42} {1e3 * seconds(movie, 1):9.1f} ms")
    if options.whole:
        whole(options.rule)


def seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Return the least CPU time of a call."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        with contextlib.redirect_stderr(io.StringIO()):  # rsatoolbox draws a progress bar
            function()
        best = min(best, time.process_time() - start)
    return best


def comparisons(resamples: int) -> list[tuple[str, float, float]]:
    """Return (what, our seconds, rsatoolbox's seconds)."""
    from rsatoolbox.data.dataset import Dataset
    from rsatoolbox.inference.evaluate import eval_bootstrap_rdm, eval_dual_bootstrap, eval_fixed
    from rsatoolbox.model.model import ModelFixed
    from rsatoolbox.rdm.calc import calc_rdm
    from rsatoolbox.rdm.rdms import RDMs

    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(SUBJECTS, IMAGES, UNITS))
    data = rdm(patterns)
    vectors = {f"m{i}": rdm(rng.normal(size=(IMAGES, 50))) for i in range(MODELS)}
    rows = [Row(n) for n in vectors]
    rsa: Any = calc_rdm
    theirs, models = RDMs(data), [ModelFixed(n, RDMs(v[None])) for n, v in vectors.items()]
    datasets = [Dataset(p) for p in patterns]
    stacked = np.stack(list(vectors.values()))
    found: list[tuple[str, float, float]] = []
    methods: tuple[Method, ...] = ("corr", "spearman")
    for method in methods:
        found += [
            (
                f"fixed evaluation, 8 models, {method}",
                seconds(partial(compare, stacked, data, method)),
                seconds(partial(eval_fixed, models, theirs, method=method)),
            ),
            (
                f"bootstrap, subjects + images, N={resamples}, {method}",
                seconds(partial(align, vectors, {"r": data}, rows, method=method, resamples=resamples), 1),
                seconds(partial(eval_dual_bootstrap, models, theirs, method=method, N=resamples), 1),
            ),
        ]
    assert np.abs(data - rsa(datasets, method="correlation").dissimilarities).max() < TOLERANCE
    for method in methods:
        both = align(vectors, {"r": data}, rows, method=method, resamples=0).score[:, 0]
        result = eval_fixed(models, theirs, method=method)
        assert np.abs(both - result.evaluations.mean((0, 2))).max() < TOLERANCE, method
    counts = rng.multinomial(SUBJECTS, np.full(SUBJECTS, 1 / SUBJECTS), size=resamples) / SUBJECTS
    return [
        (
            "RDM, 15 subjects x 1,000 units, correlation",
            seconds(lambda: rdm(patterns)),
            seconds(lambda: rsa(datasets, method="correlation")),
        ),
        *found,
        (
            f"bootstrap, subjects, N={resamples}, corr",
            seconds(lambda: compare(stacked, data, "corr") @ counts.T),
            seconds(lambda: eval_bootstrap_rdm(models, theirs, method="corr", N=resamples), 1),
        ),
    ]


def movie() -> None:
    """Compare five stages with 16 subjects' RDMs at 251 times, RDMs computed from 64 sensors."""
    rng = np.random.default_rng(0)
    stages = rdm(rng.normal(size=(5, IMAGES, 50)))
    for _ in range(16):
        compare(stages, rdm(rng.normal(size=(251, IMAGES, 64))))


def whole(rule: str) -> None:
    """Examine one cnn (32 channels, 32 × 32 colour) on objects92: all rows, all controls, 1,000 resamples, pictures."""
    import tempfile
    from pathlib import Path

    from evaluation.brain.sets.objects92 import Objects92
    from experiments.runner import observer_of
    from training.config import Execution, data_root, run_config
    from training.data.base import Source
    from training.run import build

    archive = "cifar10/cifar10-train-20k.zip"
    there = (data_root() / archive).exists()
    task = {"task": "image_folder", "task_params": {"path": archive}} if there else {"task": "shapes"}
    config = run_config({"rule": rule, "model": "cnn", **task})
    execution = Execution(data=data_root())
    trained = build(config, execution)
    trained.net.eval()
    bench = Objects92(resamples=1000)
    bench.source = Source(data_root())
    bench.load(bench.source)
    observer = observer_of(trained, build(config, execution))
    start = time.process_time(), time.perf_counter()
    scores = bench.measure(observer)
    measured = time.process_time() - start[0], time.perf_counter() - start[1]
    with tempfile.TemporaryDirectory() as folder:
        bench.draw(Path(folder), {"x": observer})
    drawn = time.process_time() - start[0] - measured[0]
    print(
        f"objects92, {config.rule} x cnn on {config.task}, 1,000 resamples: {len(scores)} scores, {measured[0]:.1f} s "
        f"CPU ({measured[1]:.1f} s wall), pictures {drawn:.1f} s CPU"
    )


if __name__ == "__main__":
    main()
