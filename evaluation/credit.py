"""Credit assignment: how a rule's update relates to backprop's on the same images.

    cosine_l = <g_l, b_l> / (‖g_l‖ ‖b_l‖)        norm_ratio_l = ‖g_l‖ / ‖b_l‖

g_l is the rule's update of stage l and b_l the gradient, on one probe batch of held-out images, at the initial
weights and at the final ones; during training a callback records the same. Cosine and norm are
reported per stage: an aggregate hides stages that learn nothing (arXiv 2606.21126).
"""

import math
from typing import Any

import torch
from torch import Tensor

from evaluation.base import Benchmark, Observer, Score, TrainedObserver, learn_without_trace, not_available
from models.base import StagedNet
from rules.base import Learned, Objective, Rule, differentiate

BP_EQUIVALENT = 0.999  # cosine above which, in every stage, a rule is backprop by another name
FLOOR = 1e-12  # norm of a gradient below which it is rounding, and no angle is defined


class Credit(Benchmark):
    """Cosine, angle and norm ratio to backprop per stage; and whether the rule is backprop by another name."""

    name = "credit"
    version = 2
    pillar = "credit"
    headline = "hidden_cosine"
    reference = "Lillicrap et al. 2016, Nat. Commun. 7:13276"

    def measure(self, observer: Observer) -> list[Score]:
        """Return the comparison per stage at ``initial`` and ``final`` weights, and two summaries.

        ``hidden_cosine`` is of the final weights; ``bp_equivalent`` asks for both moments: where the output error has
        vanished other rules become backprop, which says nothing about how they got there.
        """
        if not isinstance(observer, TrainedObserver):
            return [not_available("hidden_cosine", "a null observer does not learn")]
        x, target = observer.probe()
        scores, final, equivalent = [], {}, True
        moments = {
            "initial": (observer.initial, observer.initial_rule),
            "final": (observer.net, observer.rule),
        }
        for moment, (net, rule) in moments.items():
            final = compare(net, rule, observer.objective, x, target)
            parallel = len(final) == len(net.stages) and min(c for c, _ in final.values()) > BP_EQUIVALENT
            equivalent = equivalent and parallel
            for stage in net.stages:
                if stage not in final:
                    why = "the rule does not train this stage, or a gradient vanished or is not finite"
                    scores.append(not_available("cosine", why, stage=stage, target=moment))
                    continue
                cosine, ratio = final[stage]
                here: dict[str, Any] = {"stage": stage, "target": moment, "n_stimuli": len(x), "higher_is_better": None}
                scores += [
                    Score("cosine", cosine, **here),
                    Score("angle", angle(cosine), **here),
                    Score("norm_ratio", ratio, **here),
                ]
        hidden = [final[s][0] for s in observer.net.hidden if s in final]
        if not hidden:
            return [*scores, not_available("hidden_cosine", "no hidden stage is trained")]
        return [
            *scores,
            Score("hidden_cosine", sum(hidden) / len(hidden), higher_is_better=None, n_stimuli=len(x)),
            Score("bp_equivalent", float(equivalent), higher_is_better=None, n_stimuli=len(x)),
        ]


def compare(
    net: StagedNet, rule: Rule, objective: Objective, x: Tensor, target: Tensor
) -> dict[str, tuple[float, float]]:
    """Return stage → (cosine, norm ratio) of the rule's update to backprop's; leaves no trace.

    Stages that the rule does not train, or whose gradient is at rounding level or not finite, are left out.
    """
    learned = learn_without_trace(net, rule, objective, x, target)
    with torch.random.fork_rng(devices=[]):
        was_training = net.training
        reference = differentiate(net.eval(), x, target, objective)
        net.train(was_training)
    result = {}
    for stage in net.stages:
        ours, theirs = _joined(net, stage, learned), _joined(net, stage, reference)
        if ours is not None and theirs is not None:
            norms = ours.norm().item(), theirs.norm().item()
            if min(norms) > FLOOR and math.isfinite(sum(norms)):
                cosine = (ours @ theirs).item() / (norms[0] * norms[1])
                result[stage] = (max(-1.0, min(1.0, cosine)), norms[0] / norms[1])
    return result


def angle(cosine: float) -> float:
    """Return the angle in degrees."""
    return math.degrees(math.acos(cosine))


def _joined(net: StagedNet, stage: str, learned: Learned) -> Tensor | None:
    """Return the stage's whole update as one vector in float64, or ``None`` where it has none."""
    names = net.parameters_of(stage)
    if not any(n in learned.grads for n in names):
        return None
    zero = {n: torch.zeros_like(p) for n, p in names.items()}
    return torch.cat([learned.grads.get(n, zero[n]).detach().double().flatten() for n in names])
