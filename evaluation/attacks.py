"""Attacks on a classifier within an L∞ ball around images in 0…1: FGSM, PGD, and a search that sees outputs only.

    margin(x) = logit of the true class − largest other logit;   an image is broken where it is ≤ 0
    FGSM   x + ε sign ∂(cross-entropy)/∂x                                             (one step)
    PGD    x ← clip(x − ε/4 sign ∂margin/∂x), from a random start, the ball and 0…1    (the margin does not saturate)
    squares of ±ε, kept where the margin falls; no derivative                        (after Andriushchenko et al. 2020)

Written here because the attack libraries want an ``nn.Module`` that is its own inference, or pin old versions of common
packages; a rule's inference is not its network's forward pass. Shapes: images ``(B, C, H, W)``, classes ``(B,)``.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Logits = Callable[[Tensor], Tensor]
STEPS = 10


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """Return the logit of the true class minus the largest other one, ``(B,)``; nan counts as broken."""
    own = logits.gather(1, target[:, None])[:, 0]
    other = logits.scatter(1, target[:, None], -torch.inf).amax(1)
    return (own - other).nan_to_num(nan=-1.0)


def broken(logits: Tensor, target: Tensor) -> Tensor:
    """Return which images are named wrongly; a tie is wrong."""
    return margin(logits, target) <= 0


def gradient(logits: Logits, images: Tensor, target: Tensor, loss: str) -> Tensor:
    """Return the derivative of every image's own loss (``cross_entropy``, or ``margin``, negated) at the image."""
    x = images.detach().requires_grad_()
    with torch.enable_grad():
        output = logits(x)
        value = (
            F.cross_entropy(output, target, reduction="sum")
            if loss == "cross_entropy"
            else -margin(output, target).sum()
        )
        (derivative,) = torch.autograd.grad(value, x)
    return derivative


def fgsm(logits: Logits, images: Tensor, target: Tensor, epsilon: float) -> Tensor:
    """Return images after one step of ε along the sign of the gradient, within 0…1."""
    return (images + epsilon * gradient(logits, images, target, "cross_entropy").sign()).clamp(0, 1)


def pgd(logits: Logits, images: Tensor, target: Tensor, epsilon: float, *, steps: int = STEPS, seed: int = 0) -> Tensor:
    """Return images after steps of ε/4 along the sign of the gradient of the margin, within the ball and 0…1."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(images.shape, generator=generator).to(images) * 2 - 1
    x = (images + 0.5 * epsilon * start).clamp(0, 1)
    for _ in range(steps):
        x = x + epsilon / 4 * gradient(logits, x, target, "margin").sign()
        x = torch.minimum(torch.maximum(x, images - epsilon), images + epsilon).clamp(0, 1)
    return x


@torch.no_grad()
def squares(
    logits: Logits, images: Tensor, target: Tensor, epsilon: float, *, queries: int = 100, seed: int = 0
) -> Tensor:
    """Return images after a random search over squares of ±ε that asks for outputs only.

    Args:
        logits: From images to logits; no derivative is taken.
        images: In 0…1.
        target: Classes.
        epsilon: Radius of the ball.
        queries: Outputs asked for per image.
        seed: Of the search.
    """
    generator = torch.Generator().manual_seed(seed)
    num, channels, height, width = images.shape

    def sign(*shape: int) -> Tensor:
        return (torch.randint(0, 2, shape, generator=generator) * 2 - 1).to(images)

    x = (images + epsilon * sign(num, channels, 1, width)).clamp(0, 1)
    best = margin(logits(x), target)
    rows, columns = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    for query in range(queries - 1):
        side = max(1, round(0.5 * min(height, width) * (1 - query / queries) ** 2))
        top = torch.randint(0, height - side + 1, (num, 1, 1), generator=generator)
        left = torch.randint(0, width - side + 1, (num, 1, 1), generator=generator)
        inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
        tried = torch.where(inside[:, None], (images + epsilon * sign(num, channels, 1, 1)).clamp(0, 1), x)
        found = margin(logits(tried), target)
        better = found < best
        x, best = torch.where(better[:, None, None, None], tried, x), torch.minimum(best, found)
    return x
