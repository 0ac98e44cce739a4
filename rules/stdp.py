"""Convolutional STDP with winner-take-all (after Kheradpisheh et al. 2018, Neural Netw. 99:56; Mozafari et al. 2019).

    w = s (2p − 1)        Δp = { a₊ (1 − p) if t_pre ≤ t_post;  −a₋ p otherwise }        for the winners of an image

The distance to the bound stands where those papers have p (1 − p) (`soft=False`): p then settles at the share of the
neuron's wins that the synapse preceded, wherever it began, and a neuron cannot become ever more selective.

Input: contrasts of ON and OFF cells, after a difference of Gaussians, as latencies, the strongest first. (Under a
constant current every input is there from the first step, and the rule of the first stage is competitive Hebb, not
STDP.) All neurons fire at most once. Of the neurons at one position (the maps there; the units of a dense stage) the
first to fire silence the others, in learning and inference alike: a share `coactive` of them fires. In learning, per
image a few neurons of distinct maps, apart from each other, win and learn. Thresholds keep every neuron winning its
share (homeostasis) and the share that reaches threshold, silenced or not, at a target:

    Δ log θ_j = η_c (share of wins of j − 1/F) + η_r (mean share − target)
    Δp_ij     = η_s p (1 − p) (target − share of j) · (mean activity of i, relative to its stage's)

The last line is synaptic scaling (Turrigiano 2008): half of the neurons begin with a negative mean drive and would
never fire; scaling wakes them. It acts from the second stage on: the input's contrasts have no sign on average.

Hidden stages are unsupervised: no label, no error reaches them. Readout: ``rules/_delta_readout.py``.

Local: the spike times of the synapse's two sides and its efficacy; `balanced` adds the sum over a neuron's own
synapses. The competition is among neighbours of one stage. Signed weights: see ``rules/_stdp.py``.
Learning is batched: all images of a batch see the same weights, and the changes are averaged. ``batch_size=1`` with the
learning rate divided by the batch size is the published sequential rule; while changes are small the two agree. Scaling
takes its means over the batch.
"""

from rules._encoding import Encoding
from rules._spiking_rule import RATES
from rules._winner_take_all import WinnerTakeAll
from rules.base import Tags, loguniform


class STDP(WinnerTakeAll):
    """Winner-take-all STDP in all hidden stages. Signal: Σ |Δw| of a neuron's synapses that this image causes.

    Amplitudes are changes per step of a neuron that wins its fair share, at a learning rate of 1e-3; the study's
    rate and schedule scale them. The rule is stepped without momentum.

    Args:
        encoding: How images become input spikes: ``latency``, ``poisson`` or ``constant``.
        steps: Time steps per image.
        potentiation: a₊.
        depression: a₋.
        soft: Whether changes shrink with the distance to their bound, or with p (1 − p) as published.
        balanced: Whether a neuron keeps the sum of its weights. Without it depression silences deeper stages, most of
            whose inputs are silent in most images.
        coactive: Share of the neurons at one position that may fire.
        winners: Neurons that learn per image in a convolutional stage; one in a dense stage.
        radius: Reach of lateral inhibition, in positions.
        competition: η_c.
        homeostasis: η_r.
        scaling: η_s.
        target: Share of neurons that reach their thresholds.
        readout: Rate of the delta rule.
        images_per_stage: Images after which learning moves on to the next stage; 0: all stages learn jointly.
    """

    tags = Tags(
        supervised=False, separate_backward=False, phases=1, spiking=True,
        locality="spike times of the two sides; the sum of a neuron's own synapses; winners among neighbours",
    )  # fmt: skip
    baseline = "spiking_readout_only"
    version = 2
    search_space = {"lr": RATES, "potentiation": loguniform(1e-4, 1e-1), "target": loguniform(0.05, 0.6)}

    def __init__(
        self,
        *,
        encoding: Encoding = "latency",
        steps: int = 10,
        potentiation: float = 0.02,
        depression: float = 0.015,
        soft: bool = True,
        balanced: bool = True,
        coactive: float = 0.1,
        winners: int = 5,
        radius: int = 1,
        competition: float = 0.3,
        homeostasis: float = 0.1,
        scaling: float = 0.003,
        target: float = 0.4,
        readout: float = 100.0,
        images_per_stage: int = 0,
    ) -> None:
        super().__init__(
            encoding=encoding, steps=steps, potentiation=potentiation, depression=depression, soft=soft,
            balanced=balanced, coactive=coactive, winners=winners, radius=radius, competition=competition,
            homeostasis=homeostasis, scaling=scaling, target=target, readout=readout,
            images_per_stage=images_per_stage,
        )  # fmt: skip
