"""Did it learn? How far every stage's weights moved from where they began.

    change_l = ‖W_l − W_l⁰‖ / ‖W_l⁰‖

Published comparisons contain rules whose hidden stages never moved; those networks are random features
with a trained readout. The other half of the gate, doing better than the rule's baseline (`readout_only`), needs
two runs and is on the leaderboard.
"""

from evaluation.base import Benchmark, Observer, Score, TrainedObserver, not_available

MOVED = 1e-3  # a relative change below this is rounding or a clamp, not learning


class Learned(Benchmark):
    """Relative weight change per stage; ``n/a`` names the hidden stages that did not move."""

    name = "learned"
    pillar = "learning"
    headline = "hidden_change"
    selects = True

    def measure(self, observer: Observer) -> list[Score]:
        """Return ``weight_change`` per stage and ``hidden_change``, the smallest over hidden stages."""
        if not isinstance(observer, TrainedObserver):
            return [not_available("hidden_change", "a null observer has no weights")]
        change = {}
        for stage in observer.net.stages:
            now, before = observer.net.parameters_of(stage), observer.initial.parameters_of(stage)
            moved = sum((now[n] - before[n]).square().sum().item() for n in now)
            size = sum(p.square().sum().item() for p in before.values())
            change[stage] = (moved / max(size, 1e-30)) ** 0.5
        scores = [Score("weight_change", c, higher_is_better=None, stage=s) for s, c in change.items()]
        hidden = {s: change[s] for s in observer.net.hidden}
        still = [s for s, c in hidden.items() if c < MOVED]
        if still:
            return [*scores, not_available("hidden_change", f"did not move: {', '.join(still)}")]
        return [*scores, Score("hidden_change", min(hidden.values()), higher_is_better=None)]
