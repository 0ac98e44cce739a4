"""Pair-based STDP with traces among competing leaky neurons (Diehl & Cook 2015, Front. Comput. Neurosci. 9:99).

    x_i ← x_i e^{−1/τ₊} + s_i        y_j ← y_j e^{−1/τ₋} + s_j                 (all-to-all pairs; a spike adds 1)
    at a post spike:  Δp = a₊ (1 − p)^μ x_i − a₊ x_tar p^μ
    at a pre spike:   Δp = −a₋ p^μ y_j

A trace is read before the spikes of its own step enter it, so that one pair has the window a₊ e^{−Δt/τ₊} for
Δt = t_post − t_pre > 0, −a₋ e^{Δt/τ₋} for Δt < 0, and 0 for coincident spikes. μ = 0 is the additive rule, μ = 1 the
multiplicative one. x_tar lets presynaptic cells that were silent before a spike lose. A trace
of spikes at rate r settles at r τ₊: x_tar has to lie between that of strong and of weak inputs, or all synapses go
one way. Neurons that fire at most steps (target) average over the noise of the Poisson spikes.

Input: Poisson spikes of ON and OFF cells. At every step only the neuron furthest above its threshold fires at a
position; it resets the others (lateral inhibition). Thresholds keep every neuron firing its share, and after every step
each neuron gets back the sum of its weights. With one hidden stage this is the network of Diehl & Cook with signed
weights (see ``rules/_stdp.py``), a readout that learns by the delta rule in the place of labels given to neurons, and
inhibition without neurons of its own.

Local: spikes and traces of the two sides; the sum of a neuron's own synapses; competition among neighbours.
The changes of all steps are summed at frozen weights (exact for μ = 0) and averaged over the batch and over a
map's positions.
"""

from rules._encoding import Encoding
from rules._spiking_rule import RATES
from rules._trace import Trace
from rules.base import Tags, loguniform


class TraceSTDP(Trace):
    """Trace STDP in all hidden stages. Signal: Σ Δw of a neuron's synapses that this image causes (with its sign).

    Args:
        encoding: How images become input spikes: ``latency``, ``poisson`` or ``constant``.
        steps: Time steps per image.
        max_rate: Largest probability of a Poisson spike per step.
        decay: β of the leaky neurons, per step.
        potentiation: a₊, for a neuron that fires its fair share, at a learning rate of 1e-3.
        depression: a₋, likewise.
        tau_plus: τ₊ in steps.
        tau_minus: τ₋ in steps.
        mu: μ.
        trace_target: x_tar.
        competition: Rate at which thresholds equalise the neurons' shares of the spikes.
        homeostasis: Rate at which thresholds approach the target.
        target: Share of steps at which a position fires.
        readout: Rate of the delta rule.
    """

    tags = Tags(
        supervised=False, separate_backward=False, phases=1, spiking=True,
        locality="spikes and traces of the two sides; the sum of a neuron's own synapses; competition among neighbours",
    )  # fmt: skip
    baseline = "trace_readout_only"
    version = 3
    search_space = {"lr": RATES, "potentiation": loguniform(1e-5, 1e-2), "tau_plus": loguniform(1.0, 50.0)}

    def __init__(
        self,
        *,
        encoding: Encoding = "poisson",
        steps: int = 16,
        max_rate: float = 0.5,
        decay: float = 0.9,
        potentiation: float = 0.01,
        depression: float = 0.0,
        tau_plus: float = 10.0,
        tau_minus: float = 10.0,
        mu: float = 1.0,
        trace_target: float = 1.0,
        competition: float = 1.0,
        homeostasis: float = 0.3,
        target: float = 0.9,
        readout: float = 10.0,
    ) -> None:
        super().__init__(
            encoding=encoding, steps=steps, max_rate=max_rate, decay=decay, potentiation=potentiation,
            depression=depression, tau_plus=tau_plus, tau_minus=tau_minus, mu=mu, trace_target=trace_target,
            competition=competition, homeostasis=homeostasis, target=target, readout=readout,
        )  # fmt: skip
