"""Cost of drawing clips, side by side with training one epoch on them: is the data the bottleneck?

    python -m experiments.clip_speed [--clips 256] [--repeats 5]

CPU time of one thread, drawing and training in turns, median of the repeats. A clip is drawn once and used in every
epoch, so that over a run the share is smaller by the number of epochs. The network is the small ``cnn`` of
``snakes.yaml``, trained by backprop, the cheapest rule that learns in every stage.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

from training.config import Execution, run_config
from training.data.base import Source, Task, training_loader
from training.data.next_frame import build as draw
from training.module import OPTIMIZERS
from training.run import Trained, build

KINDS = ("natural_motion", "moving_shapes")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=256, help="drawn and trained on at a time (default: 256)")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    if min(options.clips, options.repeats) < 1:
        parser.error("--clips and --repeats must be at least 1")
    torch.set_num_threads(1)
    for kind in KINDS:
        drawing, training = side_by_side(kind, options.clips, options.repeats)
        print(
            f"{kind:<16} drawing {1000 * drawing:6.1f} ms, training {1000 * training:6.1f} ms a clip; "
            f"drawing / training {drawing / training:.2f}"
        )
    return 0


def side_by_side(kind: str, clips: int, repeats: int) -> tuple[float, float]:
    """Return CPU seconds per clip of drawing and of one epoch of training, medians of repeats in turns.

    Args:
        kind: Which clips.
        clips: Drawn at a time.
        repeats: After one of each that does not count.
    """
    config = run_config({
        "rule": "backprop", "model": "cnn", "task": "next_frame", "batch_size": 8, "lr": 0.004, "epochs": 1,
        "model_params": {"width": 16, "hidden": 64, "activation": "relu"},
        "task_params": {"clips": kind, "predicts": "change", "train": clips, "test": 1},
    })  # fmt: skip
    trained = build(config, Execution())
    spent: dict[str, list[float]] = {"drawing": [], "training": []}
    for seed in range(repeats + 1):
        start = time.process_time()
        task = draw(Source(Path(), False, seed), **config.task_params)
        middle = time.process_time()
        epoch(trained, task)
        spent["drawing"].append((middle - start) / clips)
        spent["training"].append((time.process_time() - middle) / clips)
    return statistics.median(spent["drawing"][1:]), statistics.median(spent["training"][1:])


def epoch(trained: Trained, task: Task) -> None:
    """Train a network for one epoch."""
    config, parameters = trained.config, dict(trained.net.named_parameters())
    optimizer = OPTIMIZERS[config.optimizer](parameters.values(), config)
    for x, target in training_loader(task, config.batch_size, config.seed):
        for name, grad in trained.rule.learn(trained.net, x, target, trained.objective).grads.items():
            parameters[name].grad = grad
        optimizer.step()


if __name__ == "__main__":
    sys.exit(main())
