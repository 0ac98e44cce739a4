"""A rule's inference under attack: which images stay intact at every size of perturbation.

The inference that is attacked is the rule's own (``Rule.predict``), and derivatives are those of that inference
(``Rule.ways_back``). Shapes: images ``(B, C, H, W)`` in 0…1 in the encoding the network was trained on.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.attacks import Logits, broken, fgsm, gradient, pgd, squares
from evaluation.base import TrainedObserver
from evaluation.statistics import Array

UNBOUNDED = 0.5  # an ε at which any image can be turned into uniform grey
WHITE = ("fgsm", "pgd")
CHUNK = 64
Attack = Callable[[Tensor, Tensor, float], list[Tensor]]


class Victim:
    """An observer as a function from images to logits, on copies of network and rule, without a trace in either."""

    def __init__(self, observer: TrainedObserver) -> None:
        self.net, self.rule = copy.deepcopy((observer.net, observer.rule))
        for module in (*self.net.modules(), *self.rule.modules()):  # not eval(), which a subclass may override
            module.training = False
        for weight in (*self.net.parameters(), *self.rule.parameters()):
            weight.requires_grad_(False)
        self.preprocess = observer.preprocess

    def see(self, images: Tensor) -> Tensor:
        """Return what the network is given."""
        weight = next(self.net.parameters())
        return self.preprocess(images).to(weight.device, weight.dtype)

    def logits(self, images: Tensor) -> Tensor:
        """Return the rule's own output, without derivatives."""
        with torch.no_grad():
            parts = [self.rule.predict(self.net, self.see(part)).detach() for part in images.split(CHUNK)]
        return torch.cat(parts).float().cpu()

    def ways_back(self, images: Tensor, target: Tensor) -> tuple[dict[str, Logits], str]:
        """Return functions to logits that have a derivative at the image, and why there are none."""
        ways: dict[str, Logits] = {}
        why = "its rule names no way back from the output to the image"
        for name, way in self.rule.ways_back(self.net).items():

            def logits(x: Tensor, way: Logits = way) -> Tensor:
                return way(self.see(x)).float().cpu()

            try:
                found = gradient(logits, images, target, "margin")
            except RuntimeError as error:  # torch: no element requires grad, or an operation without a derivative
                why = f"no derivative leads from its output to the image ({' '.join(str(error).split())[:80]})"
                continue
            if not found.isfinite().all():
                why = "the derivative of its output is not finite"
                continue
            ways[name] = logits
        return ways, "" if ways else why


@dataclass(frozen=True)
class Curves:
    """What stays intact.

    Attributes:
        intact: Attack → share ``(B, ε)`` in which each image is named rightly at each size; ``noise``, ``flipped``, and
            ``worst`` (the least over attacks) stand beside the attacks.
        missing: Attack → why it could not be tried.
        dead: Share of images at which every derivative is exactly 0.
        unbounded: Share that PGD leaves intact with ε = ½; ``None`` where it could not be tried.
    """

    intact: dict[str, Array]
    missing: dict[str, str]
    dead: float
    unbounded: float | None


def curves(
    victim: Victim, x: Tensor, y: Tensor, sizes: Sequence[float], twin: Victim | None, *, queries: int, seed: int
) -> Curves:
    """Return what stays intact of images ``x`` of classes ``y``.

    Args:
        victim: Who is attacked.
        x: Images.
        y: Their classes.
        sizes: ε, ascending; what breaks within a small ball counts as broken within a larger one.
        twin: Whose derivatives are borrowed for the transfer; ``None`` where there is none.
        queries: Outputs that the search asks for, per image and ε.
        seed: Of noise, starts and search.
    """
    ways, why = victim.ways_back(x[:2], y[:2])
    attacks: dict[str, Attack] = {}
    dead, unbounded = 0.0, None
    if ways:
        attacks["fgsm"] = lambda a, t, e: [fgsm(w, a, t, e) for w in ways.values()]
        attacks["pgd"] = lambda a, t, e: [pgd(w, a, t, e, seed=seed) for w in ways.values()]
        dead = float(
            np.mean(np.all([_slopes(w, x, y, "margin").flatten(1).eq(0).all(1) for w in ways.values()], axis=0))
        )
    if twin is not None:
        paths, _ = twin.ways_back(x[:2], y[:2])
        attacks["transfer"] = lambda a, t, e: [pgd(w, a, t, e, seed=seed) for w in paths.values()]
    attacks["squares"] = lambda a, t, e: [squares(victim.logits, a, t, e, queries=queries, seed=seed)]
    correct = ~broken(victim.logits(x), y)
    intact = {"noise": np.stack([_under_noise(victim, x, y, e, seed) for e in sizes], 1)}
    for name, attack in attacks.items():
        left, columns = correct, []
        for epsilon in sizes:
            left = _survivors(victim, x, y, left, attack, epsilon)
            columns.append(left.double().numpy())
        intact[name] = np.stack(columns, 1)
        if name == "pgd":
            unbounded = _survivors(victim, x, y, left, attack, UNBOUNDED).double().mean().item()
    if ways:
        sign = _slopes(next(iter(ways.values())), x, y, "cross_entropy").sign()
        upside_down = [~broken(victim.logits((x + e * sign.flip(2)).clamp(0, 1)), y) for e in sizes]
        intact["flipped"] = torch.stack(upside_down, 1).double().numpy()
    intact["worst"] = np.min([intact[name] for name in attacks], axis=0)
    return Curves(intact, {} if ways else dict.fromkeys(WHITE, why), dead, unbounded)


def _survivors(victim: Victim, x: Tensor, y: Tensor, left: Tensor, attack: Attack, epsilon: float) -> Tensor:
    """Return which of the images that are ``left`` survive an attack too."""
    left = left.clone()
    for index in left.nonzero()[:, 0].split(CHUNK):
        for tried in attack(x[index], y[index], epsilon):
            left[index] &= ~broken(victim.logits(tried), y[index])
    return left


def _slopes(way: Logits, x: Tensor, y: Tensor, loss: str) -> Tensor:
    return torch.cat([gradient(way, a, t, loss) for a, t in zip(x.split(CHUNK), y.split(CHUNK), strict=True)])


def _under_noise(victim: Victim, x: Tensor, y: Tensor, epsilon: float, seed: int) -> Array:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(2):
        sign = (torch.randint(0, 2, x.shape, generator=generator) * 2 - 1).to(x)
        found.append(~broken(victim.logits((x + epsilon * sign).clamp(0, 1)), y))
    return torch.stack(found).double().mean(0).numpy()
