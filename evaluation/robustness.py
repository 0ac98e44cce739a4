"""Robustness, the converse of an illusion: images that we see as before and a network does not (panda to gibbon).

    vulnerability = (area under noise − area under the worst attack) / area under noise

The area is that under accuracy over log₂ ε; noise has random signs and the attacks' ε. Per image the worst of FGSM and
PGD on the derivative of the rule's own inference (of surrogates of several widths where it spikes), PGD on the backprop
twin (the run of the same model, task and seed), and a search that takes no derivative. 0: attacks do no more
than noise; 1: they break everything. Read the clean accuracy beside it.

A rule must not look robust because its derivatives are useless: ``masked`` is 1 where an attack without them, or
through the twin, breaks clearly more than the derivatives do, where they vanish, or where even ε = ½ leaves images
intact.
Control: the same perturbation upside down must not fool (``flipped``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.accuracy import wilson
from evaluation.attacked import Curves, Victim, curves
from evaluation.attacks import broken, fgsm
from evaluation.base import Benchmark, Observer, Score, TrainedObserver, not_available
from evaluation.statistics import Array, stratified_bootstrap

LEVELS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # ε × 255
CLEARLY = 0.1  # accuracy by which one attack must beat another for derivatives to be called masked
VANISHING = 0.05  # share of images without a derivative from which on derivatives are called masked
TWIN = "backprop"
HUMAN = "no human curve is known; `plasticbench show robustness` shows what ε = 8/255 looks like"
STYLE = {
    "noise": ("k", "-", 2.4), "worst": ("C3", "-", 2.4), "flipped": ("0.55", "--", 1), "fgsm": ("C0", "--", 1),
    "pgd": ("C1", "--", 1), "transfer": ("C2", "--", 1), "squares": ("C4", "--", 1),
}  # fmt: skip


class Robustness(Benchmark):
    """Accuracy under FGSM, PGD, transfer and black-box search against noise of equal size.

    Args:
        num: Held-out images.
        queries: Outputs that the black-box search asks for, per image and ε.
        seed: Of noise and searches.
    """

    name = "robustness"
    pillar = "robustness"
    headline = "vulnerability"
    reference = "Elsayed et al. 2018, arXiv 1802.08195 (flipped control)"
    on_request = True  # it asks for some ten thousand outputs

    def __init__(self, *, num: int = 96, queries: int = 60, seed: int = 0) -> None:
        self.num, self.queries, self.seed = num, queries, seed
        self._seen: tuple[Observer, Curves] | None = None

    def absent(self) -> str:
        """Return why there is no twin to transfer attacks from; nothing where there is one."""
        return (
            "" if self.sibling(TWIN) is not None else f"no finished {TWIN} run of this model, task and seed beside it"
        )

    def measure(self, observer: Observer) -> list[Score]:
        """Return accuracy per attack and ε, the areas, the vulnerability, and whether derivatives are masked."""
        if not isinstance(observer, TrainedObserver):
            return [not_available("vulnerability", "a null observer has no held-out task")]
        if not observer.classes:
            return [not_available("vulnerability", "it predicts images and names nothing")]
        x, y = held_out(observer, self.num)
        victim = Victim(observer)
        share = (~broken(victim.logits(x), y)).double().mean().item()
        low, high = wilson(share, len(y))
        clean = Score("accuracy_clean", share, ci_low=low, ci_high=high, n_stimuli=len(y))
        if low <= 1 / len(observer.classes):
            return [clean, not_available("vulnerability", "no better than chance on clean images")]
        twin = None if observer.name == TWIN else self.sibling(TWIN)
        other = Victim(twin) if isinstance(twin, TrainedObserver) else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            sizes = [level / 255 for level in LEVELS]
            found = curves(victim, x, y, sizes, other, queries=self.queries, seed=self.seed)
        self._seen = observer, found
        scores = [clean, *_accuracies(found, len(y)), *_summary(found, len(y), len(observer.classes))]
        if observer.name != TWIN and other is None:
            scores.append(not_available("data", self.absent(), target="transfer"))
        return scores

    def draw(self, folder: Path, observers: Mapping[str, Observer]) -> list[Path]:
        """Draw accuracy against ε under noise, every attack, and the flipped control."""
        from evaluation.figures import figure

        paths = []
        for name, observer in observers.items():
            if self._seen is None or self._seen[0] is not observer:
                self.measure(observer)
            if self._seen is None or self._seen[0] is not observer:
                continue  # it cannot be judged
            assert isinstance(observer, TrainedObserver)
            with figure(folder / "robustness.png", 6.4, 4.2) as axes:
                for attack, values in self._seen[1].intact.items():
                    colour, line, width = STYLE[attack]
                    axes.plot(LEVELS, values.mean(0), line, marker="o", ms=4, lw=width, color=colour, label=attack)
                axes.axhline(1 / len(observer.classes), color="0.7", lw=0.8, label="guessing")
                why = masking(self._seen[1], 1 / len(observer.classes))
                axes.set_xscale("log", base=2)
                axes.set_xticks(LEVELS, [f"{level:g}" for level in LEVELS])
                axes.set(ylabel="accuracy", ylim=(-0.02, 1.02))
                axes.set_xlabel(f"ε × 255 (largest change of a pixel)\n{HUMAN}", fontsize=8)
                axes.set_title(f"Robustness: {name}" + f"\nmasked: {why}" * bool(why), fontsize=10)
                axes.legend(frameon=False, fontsize=8, ncol=2)
            paths.append(folder / "robustness.png")
        return paths


def held_out(observer: TrainedObserver, num: int) -> tuple[Tensor, Tensor]:
    """Return the first held-out images in 0…1, in the encoding the network was trained on, and their classes."""
    images = observer.held_out.images[:num]
    return images.float() / 255 if images.dtype == torch.uint8 else images.float(), observer.held_out.targets[:num]


def _accuracies(found: Curves, num: int) -> list[Score]:
    scores = [
        Score(
            "accuracy_under", float(a), None, None if attack == "flipped" else True, target=f"{attack} {level:g}/255",
            n_stimuli=num,
        )
        for attack, values in found.intact.items()
        for level, a in zip(LEVELS, values.mean(0), strict=True)
    ]  # fmt: skip
    return scores + [not_available("accuracy_under", why, target=attack) for attack, why in found.missing.items()]


def _summary(found: Curves, num: int, classes: int) -> list[Score]:
    noise, worst = found.intact["noise"], found.intact["worst"]
    here: dict[str, Any] = {"n_stimuli": num}
    why = masking(found, 1 / classes)
    scores = [
        Score("masked", float(bool(why)), higher_is_better=False, reason=why, **here),
        Score("area_noise", area(noise.mean(0)[None])[0], **here),
        Score("area_attacked", area(worst.mean(0)[None])[0], **here),
    ]
    for metric, other in (("flipped", found.intact.get("flipped")), ("vulnerability", worst)):
        if other is None:
            scores.append(not_available(metric, next(iter(found.missing.values()))))
            continue
        both = np.concatenate([noise, other], 1)
        low, high = stratified_bootstrap(excess, both, np.zeros(num, dtype=np.int64))
        value = float(excess(both.mean(0)[None])[0])
        better = None if metric == "flipped" else False
        scores.append(Score(metric, value, higher_is_better=better, ci_low=low, ci_high=high, **here))
    return scores


def area(accuracy: Array) -> Array:
    """Return the mean of accuracies ``(R, ε)`` over log₂ ε, by the trapezoidal rule."""
    octaves = np.log2(LEVELS)
    return np.asarray(np.trapezoid(accuracy, octaves, axis=1) / (octaves[-1] - octaves[0]))


def excess(means: Array) -> Array:
    """Return (area under noise − area under attack) / area under noise of rows ``(R, 2 ε)``, noise first."""
    noise, attacked = area(means[:, : len(LEVELS)]), area(means[:, len(LEVELS) :])
    return (noise - attacked) / np.maximum(noise, 1e-9)


def masking(found: Curves, chance: float) -> str:
    """Return why derivatives do not show how vulnerable a rule is; empty where nothing speaks for it.

    Args:
        found: What stays intact.
        chance: Accuracy of guessing.
    """
    mean = {attack: values.mean(0) for attack, values in found.intact.items()}
    if "pgd" not in mean:
        return "no derivative could be taken: " + next(iter(found.missing.values()))
    white = np.minimum(mean["fgsm"], mean["pgd"])
    for attack in ("squares", "transfer"):
        if attack in mean and (gain := float((white - mean[attack]).max())) > CLEARLY:
            return f"{attack} breaks up to {gain:.0%} more images than the derivatives do"
    if found.dead > VANISHING:
        return f"the derivative vanishes at {found.dead:.0%} of the images"
    if found.unbounded is not None and found.unbounded > chance:
        return f"even ε = ½ leaves {found.unbounded:.0%} of the images intact"
    if (gain := float((mean["pgd"] - mean["fgsm"]).max())) > CLEARLY:
        return f"one step breaks up to {gain:.0%} more images than ten"
    return ""


def sheet(size: int = 32) -> tuple[Tensor, list[str], list[str]]:
    """Return polygons attacked in a linear classifier of their pixels (ε = 8/255), with the controls, and labels."""
    from training.data import shapes

    known = shapes.draw(2048, size, clutter=0, noise=0.0, seed=1)
    pixels = known.images.flatten(1) - 0.5
    wanted = torch.nn.functional.one_hot(known.targets, 4).float() - 0.25
    weight = torch.linalg.solve(pixels.t() @ pixels + 100 * torch.eye(pixels.shape[1]), pixels.t() @ wanted)
    x = torch.stack([known.images[(known.targets == k).nonzero()[0, 0]] for k in range(4)])
    epsilon = 8 / 255
    attacked = fgsm(lambda a: (a.flatten(1) - 0.5) @ weight, x, torch.arange(4), epsilon)
    change = epsilon * (attacked - x).sign()
    sign = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    columns = [x, 0.5 + change * 4, attacked, (x + change.flip(2)).clamp(0, 1), (x + epsilon * sign).clamp(0, 1)]
    labels = ["image", "change × 4", "attacked, ε 8/255", "upside down", "noise, ε 8/255"]
    return torch.stack(columns, 1), list(shapes.CLASSES), labels
