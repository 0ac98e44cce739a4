"""The map without memory that imitates a predictor best: what of an illusion needs no motion at all?

    y_c(u) = b_c + Σ_d [ g_cd(x_d(u)) + h_cd((G_σ ∗ x_d)(u)) ]

x is a still image and y what the predictor makes of it; G_σ is a Gaussian blur, g and h are piecewise linear functions
of one value, fitted by least squares, σ the one that fits best. Such a map has no time and has learned no motion, and
still turns asymmetric patterns, since it moves the phase of their fundamental (Bach & Atala-Gerard 2020). A predictor
whose speed this map shares has shown nothing beyond it.

Shapes: images ``(N, C, H, W)`` in linear luminance.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMAS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # pixels
KNOTS = 25
RIDGE = 1e-6  # share of the mean square of a feature
MOST = 30_000  # pixels that are fitted


@dataclass(frozen=True)
class StaticMap:
    """A fitted map; it predicts the frame after a clip from the last one alone.

    Attributes:
        weights: ``(features, C)``.
        sigma: Of the blur, in pixels.
        explained: Share of the variance of what the predictor changes, y − x, that the map explains.
        in_shape: As the predictor's.
        frames: As the predictor's.
    """

    weights: Tensor
    sigma: float
    explained: float
    in_shape: tuple[int, int, int]
    frames: int
    name: str = "static map"
    classes: tuple[str, ...] = ()

    def predict(self, stimuli: Tensor) -> Tensor:
        """Return the next frame of clips whose frames are stacked along the channels."""
        last = stimuli[:, -self.in_shape[0] // self.frames :]
        values = _values(last.double(), self.sigma).clamp(0, 1) * (KNOTS - 1)
        below = values.floor().clamp(max=KNOTS - 2).long()
        share, row = (values - below)[..., None], below + KNOTS * torch.arange(values.shape[1])
        out = ((1 - share) * self.weights[row] + share * self.weights[row + 1]).sum(1) + self.weights[-1]
        return out.view(len(last), *last.shape[2:], -1).movedim(-1, 1).clamp(0, 1).float()


def fit(x: Tensor, y: Tensor, frames: int) -> StaticMap:
    """Return the map that makes ``y`` of ``x`` best.

    Args:
        x: Still images.
        y: What the predictor makes of them.
        frames: Frames that the predictor sees.
    """
    x, y = x.double(), y.double()
    target = y.movedim(1, -1).flatten(0, 2)
    chosen = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))[:MOST]
    target = target[chosen]
    best: tuple[float, float, Tensor] = (math.inf, 0.0, target)
    for sigma in SIGMAS:
        features = _hats(_values(x, sigma)[chosen])
        gram = features.T @ features
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        weights = torch.linalg.solve(gram, features.T @ target)
        error = (features @ weights - target).square().sum().item()
        best = min(best, (error, sigma, weights), key=lambda b: b[0])
    change = (target - x.movedim(1, -1).flatten(0, 2)[chosen]).square().sum().item()
    explained = 1 - best[0] / change if change > 0 else 1.0
    return StaticMap(best[2], best[1], explained, (frames * x.shape[1], x.shape[2], x.shape[3]), frames)


def blur(x: Tensor, sigma: float) -> Tensor:
    """Return images blurred by a Gaussian of ``sigma`` pixels, borders repeated."""
    reach = math.ceil(4 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=x.dtype) / sigma).square())
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    across = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), kernel[:, :, None], groups=x.shape[1])
    return F.conv2d(F.pad(across, (0, 0, reach, reach), mode="replicate"), kernel[..., None], groups=x.shape[1])


def _values(x: Tensor, sigma: float) -> Tensor:
    """Return every pixel's own and blurred value, ``(N H W, 2 C)``."""
    return torch.cat([x, blur(x, sigma)], 1).movedim(1, -1).flatten(0, 2)


def _hats(values: Tensor) -> Tensor:
    """Return hat functions of values ``(P, V)``, and 1: ``(P, V KNOTS + 1)``; a sum of them is piecewise linear."""
    knots = torch.linspace(0, 1, KNOTS, dtype=values.dtype)
    hats = (1 - (values.clamp(0, 1)[..., None] - knots).abs() * (KNOTS - 1)).clamp(min=0).flatten(1)
    return torch.cat([hats, torch.ones_like(hats[:, :1])], 1)
