"""A correlator between features: which way, and by how much, did they turn between two frames (Reichardt 1961)?

    ω(x, x′) = Σ_{i<j} W_ij (z_i z′_j − z_j z′_i) / (‖z‖ ‖z′‖),   z = P [f(x) − f(grey)]

P holds the leading components of the features f over frames that really turn, W is a ridge regression on their speed.

Shapes: features are ``(B, units)``; ``K`` components.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from evaluation.statistics import Array

COMPONENTS = 24


@dataclass(frozen=True)
class Readout:
    """A correlator between features.

    Attributes:
        grey: Features of a uniform field, ``(1, units)``.
        components: ``(units, K)``.
        weights: Of the products of components, ``(K (K − 1) / 2,)``.
    """

    grey: Tensor
    components: Tensor
    weights: Tensor

    def products(
        self, before: Tensor, after: Tensor, grey_before: Tensor | None = None, grey_after: Tensor | None = None
    ) -> Tensor:
        """Return the products that change their sign with time, of features ``(B, units)``."""
        ends = ((before, grey_before), (after, grey_after))
        z, later = ((f.double() - (self.grey if g is None else g.double())) @ self.components for f, g in ends)
        z, later = (v / v.norm(dim=1, keepdim=True).clamp(min=1e-12) for v in (z, later))
        row, column = torch.triu_indices(z.shape[1], z.shape[1], 1)
        return z[:, row] * later[:, column] - z[:, column] * later[:, row]

    def turn(self, *features: Tensor) -> Array:
        """Return degrees from the first features to the second, ``(B,)``; arguments as of ``products``."""
        return (self.products(*features) @ self.weights).numpy()


def fit(base: Tensor, before: Tensor, after: Tensor, speeds: Tensor) -> Readout:
    """Return the read-out fitted to features of frames that turn.

    Args:
        base: Features of a uniform field, ``(1, units)``.
        before: Features of the first frames, ``(B, units)``.
        after: Of the second ones.
        speeds: Degrees between them, ``(B,)``.
    """
    from sklearn.linear_model import RidgeCV

    centred = torch.cat([before, after]).double() - base.double()
    # Leading right singular vectors, by way of the smaller of the two Gram matrices.
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    kept = values.flip(0)[:COMPONENTS] > 1e-10 * values[-1].clamp(min=1e-30)
    components = centred.T @ (vectors.flip(1)[:, :COMPONENTS][:, kept] / values.flip(0)[:COMPONENTS][kept].sqrt())
    plain = Readout(base.double(), components, torch.zeros(0))
    if components.shape[1] < 2:
        return replace(plain, weights=torch.zeros(components.shape[1] * (components.shape[1] - 1) // 2).double())
    ridge = RidgeCV(alphas=np.logspace(-8, 2, 11), fit_intercept=False)
    ridge.fit(plain.products(before, after).numpy(), speeds.numpy())
    return replace(plain, weights=torch.from_numpy(np.asarray(ridge.coef_)))
