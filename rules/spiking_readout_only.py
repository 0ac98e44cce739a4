"""Control: frozen random spiking features and a trained readout, with the inference and the homeostasis of `stdp`.

    Δw = 0 in every hidden stage        ΔW_L = −η e v / (1 + |v|²)

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
        target: Share of neurons that fire.
        readout: Rate of the delta rule.
    """

    tags = Tags(
        separate_backward=False, phases=1, spiking=True, control=True,
        locality="presynaptic activity and the stage's own error",
    )  # fmt: skip
    search_space = {"lr": RATES}

    def __init__(
        self, *, encoding: Encoding = "constant", steps: int = 10, target: float = 0.4, readout: float = 10.0
    ) -> None:
        super().__init__(encoding=encoding, steps=steps, target=target, readout=readout)

    def learning_stages(self, net: object) -> list[str]:
        """Return none."""
        del net
        return []
