"""Control: frozen random features and a trained readout. A rule that does not beat it taught its hidden stages nothing.

    ∂L/∂W_L = e h_{L-1}ᵀ        ∂L/∂W_l = 0 for l < L

e is the error at the output. Local: the readout sees its own input and its own error.
"""

from torch import Tensor

from models.base import StagedNet
from rules.base import Learned, Objective, Rule, Tags, differentiate


class ReadoutOnly(Rule):
    """The delta rule on the readout alone. Signal: the output error; none reaches the hidden stages."""

    tags = Tags(locality="presynaptic activity and the stage's own error", separate_backward=False, control=True)

    recurrent = True

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return the readout's gradient only."""
        return differentiate(net, x, target, objective, stages=[net.readout])
