"""Control: frozen random spiking features and a trained readout, with the inference and the homeostasis of `stdp`.

    Δw = 0 in every hidden stage        the readout learns by the delta rule of ``rules/_delta_readout.py``

The comparison that a spiking rule must win: same encoding, same neurons, same thresholds that adapt, same delta rule at
the readout, but no plasticity. `readout_only` is the same for rates that do not spike.
"""

from rules._encoding import Encoding
from rules._spiking_rule import RATES
from rules._winner_take_all import WinnerTakeAll
from rules.base import Tags


class SpikingReadoutOnly(WinnerTakeAll):
    """`stdp` without plasticity. Signal: the output error; none in the hidden stages.

    Args:
        encoding: How images become input spikes: ``latency``, ``poisson`` or ``constant``.
        steps: Time steps per image.
        coactive: Share of the neurons at one position that may fire.
        target: Share of neurons that reach their thresholds.
        readout: Rate of the delta rule.
    """

    tags = Tags(
        separate_backward=False, phases=1, spiking=True, control=True,
        locality="presynaptic activity and the stage's own error",
    )  # fmt: skip
    version = 2
    search_space = {"lr": RATES}

    def __init__(
        self,
        *,
        encoding: Encoding = "latency",
        steps: int = 10,
        coactive: float = 0.1,
        target: float = 0.4,
        readout: float = 100.0,
    ) -> None:
        super().__init__(encoding=encoding, steps=steps, coactive=coactive, target=target, readout=readout)

    def learning_stages(self, net: object) -> list[str]:
        """Return none."""
        del net
        return []
