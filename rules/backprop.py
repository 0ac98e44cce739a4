"""Backpropagation (Rumelhart, Hinton & Williams 1986, Nature 323:533): the reference of every comparison.

    δ_L = ∂L/∂z_L        δ_l = (W_{l+1}ᵀ δ_{l+1}) ⊙ f′(z_l)        ∂L/∂W_l = δ_l h_{l-1}ᵀ

h_l is the activity of stage l, z_l its pre-activation, δ_l the error at z_l.

Not local: the error travels back through the transposed forward weights, in a pass of its own,
while the forward activity is held.
"""

from torch import Tensor

from models.base import StagedNet
from rules.base import Learned, Objective, Rule, Tags, differentiate


class Backprop(Rule):
    """Gradient descent on the loss. Signal: dL/dh of each image."""

    tags = Tags(
        weight_transport=True,
        locality="presynaptic activity and an error carried by the transposed forward weights",
        exact_limit="already_exact",
    )

    recurrent = True

    def already_exact(self, net: StagedNet) -> None:
        """Backprop is its own limit."""

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return the gradient of the mean loss."""
        return differentiate(net, x, target, objective)
