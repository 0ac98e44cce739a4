"""Does inference settle? The energy of rules that iterate, step by step, before and after training.

    energy ratio = Σ F_T / Σ F_0        an image rises if F_{t+1} > F_t at any of its steps

A step of gradient descent lowers an energy as long as its size is below 2 over the largest eigenvalue of the energy's
Hessian, in which a state has I + JᵀJ with J the Jacobian of the stage above it. Training enlarges J, so that a step
size that was stable at the initial weights need not be at the final ones; the weights then learn from an oscillation.

Images are held out, the target is their own label, as in ``learn``; for rules whose weights move during inference they
are held. Everything is computed in double precision, on copies. A rise below 1e-6 of the image's first energy is not
counted: where two inputs of a max pooling are equal the energy has a kink, at which the smallest step chatters.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation.base import Benchmark, Observer, Score, TrainedObserver, evaluating, not_available
from evaluation.figures import figure
from models.base import StagedNet
from rules.base import Rule

IMAGES = 256  # held-out images
RISE = 1e-3  # of an image's first energy: a smaller rise is a kink's or rounding


class Inference(Benchmark):
    """Share of images whose energy rises during inference, and the energy that is left, at both ends of training."""

    name = "inference"
    pillar = "learning"
    headline = "unstable_share"
    reference = "Whittington & Bogacz 2017, Neural Comput. 29:1229"

    def measure(self, observer: Observer) -> list[Score]:
        """Return three numbers at ``initial`` and ``final`` weights, and the share that rises at the final ones."""
        reason = _without_iterations(observer)
        if reason:
            return [not_available("unstable_share", reason)]
        assert isinstance(observer, TrainedObserver)
        scores = []
        for moment, energies in _moments(observer).items():
            here: dict[str, Any] = {"target": moment, "n_stimuli": energies.shape[1], "higher_is_better": None}
            share = rises(energies).double().mean().item()
            scores += [
                Score("energy_ratio", (energies[-1].double().sum() / energies[0].double().sum()).item(), **here),
                Score("rising_share", share, **here),
                Score("ends_higher_share", (~(energies[-1] <= energies[0])).double().mean().item(), **here),
            ]
        return [*scores, Score("unstable_share", share, higher_is_better=False, n_stimuli=energies.shape[1])]

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Draw the mean energy over the steps of inference at both ends of training, in units of the first one."""
        curves = {
            (name, moment): energies.mean(1) / energies[0].mean()
            for name, observer in observers.items()
            if not _without_iterations(observer) and isinstance(observer, TrainedObserver)
            for moment, energies in _moments(observer).items()
        }
        if not curves:
            return []
        path = folder / "inference.png"
        with figure(path, 4.8, 3.2) as axes:
            for (name, moment), curve in curves.items():
                style = "--" if moment == "initial" else "-"
                axes.plot(range(len(curve)), curve.numpy(), style, label=f"{name}, {moment} weights")
            axes.set(xlabel="step of inference", ylabel="energy / energy before inference")
            axes.axhline(1.0, color="0.8", linewidth=0.8, zorder=0)
            axes.legend(frameon=False, fontsize=8)
        return [path]


def energies_of(net: StagedNet, rule: Rule, observer: TrainedObserver) -> Tensor:
    """Return the energy of held-out images before and after each step of inference, ``(T + 1, B)``."""
    x, target = observer.probe(IMAGES)
    net, rule = copy.deepcopy((net, rule))
    with evaluating(net, rule), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.stack([e.detach() for e, _ in rule.trajectory(net, x, target, observer.objective)]).cpu()


def rises(energies: Tensor) -> Tensor:
    """Return whether the energy of each image rises at any step, or stops being a number, ``(B,)``.

    Args:
        energies: Before and after each step, ``(T + 1, B)``.
    """
    falls = energies[1:] <= energies[:-1] + RISE * energies[0].abs()
    return ~falls.all(0)


def _moments(observer: TrainedObserver) -> dict[str, Tensor]:
    return {
        "initial": energies_of(observer.initial, observer.initial_rule, observer),
        "final": energies_of(observer.net, observer.rule, observer),
    }


def _without_iterations(observer: Observer) -> str:
    """Return why there is nothing to measure, without computing anything; nothing where inference iterates."""
    if not isinstance(observer, TrainedObserver):
        return "a null observer does not learn"
    iterates = type(observer.rule).trajectory is not Rule.trajectory and getattr(observer.rule, "steps", 1) > 0
    return "" if iterates else "its inference has no iterations"
