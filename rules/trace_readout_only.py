"""Control: frozen random spiking features and a trained readout, with the inference of `trace_stdp`.

    Δw = 0 in every hidden stage        the readout learns by the delta rule of ``rules/_delta_readout.py``

The comparison that `trace_stdp` must win: same encoding, competing neurons and thresholds that adapt, no plasticity.
"""

from rules._encoding import Encoding
from rules._spiking_rule import RATES
from rules._trace import Trace
from rules.base import Tags


class TraceReadoutOnly(Trace):
    """`trace_stdp` without plasticity. Signal: the output error; none in the hidden stages.

    Args:
        encoding: How images become input spikes: ``latency``, ``poisson`` or ``constant``.
        steps: Time steps per image.
        max_rate: Largest probability of a Poisson spike per step.
        decay: β of the leaky neurons, per step.
        competition: Rate at which thresholds equalise the neurons' shares of the spikes.
        homeostasis: Rate at which thresholds approach the target.
        target: Share of steps at which a position fires.
        readout: Rate of the delta rule.
    """

    plastic = False
    tags = Tags(
        separate_backward=False, phases=1, spiking=True, control=True,
        locality="presynaptic activity and the stage's own error",
    )  # fmt: skip
    search_space = {"lr": RATES}

    def __init__(
        self,
        *,
        encoding: Encoding = "poisson",
        steps: int = 16,
        max_rate: float = 0.5,
        decay: float = 0.9,
        competition: float = 1.0,
        homeostasis: float = 0.3,
        target: float = 0.9,
        readout: float = 10.0,
    ) -> None:
        super().__init__(
            encoding=encoding, steps=steps, max_rate=max_rate, decay=decay, competition=competition,
            homeostasis=homeostasis, target=target, readout=readout,
        )  # fmt: skip
