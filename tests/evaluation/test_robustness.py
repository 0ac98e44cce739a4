"""Robustness: attacks reach the closed form on a linear model, masked derivatives are unmasked, controls do not fool."""

import numpy as np
import pytest
import torch
from torch import nn

from evaluation import robustness
from evaluation.attacked import Curves, Victim, curves
from evaluation.attacks import broken, fgsm, gradient, margin, pgd, squares
from evaluation.base import TrainedObserver
from evaluation.robustness import LEVELS, Robustness, area, excess, masking
from models.base import Stage, StagedNet
from rules.base import OBJECTIVES, Rule
from rules.stdp import STDP
from rules.surrogate_gradient import SurrogateGradient
from rules.trace_stdp import TraceSTDP
from tests.conftest import SMALL
from training.data.base import Images, Preprocess

SIZE, CLASSES = 8, 4


@pytest.fixture
def linear():
    """A linear classifier and images in the inner half of 0…1, with the classes it gives them."""
    weight = torch.randn(SIZE * SIZE, CLASSES, generator=torch.Generator().manual_seed(1))
    x = 0.3 + 0.4 * torch.rand(32, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    return weight, x, (x.flatten(1) @ weight).argmax(1)


def of(scores, metric, target=None):
    return next(s for s in scores if s.metric == metric and target in (None, s.target))


def test_pgd_reaches_the_closed_form_optimum_of_a_linear_model(linear):
    """Two classes: the largest fall of the margin within ε is ε ‖w_true − w_other‖₁, at x − ε sign(w_true − w_other)."""
    weight, x, _ = linear
    two = weight[:, :2]
    y = (x.flatten(1) @ two).argmax(1)
    for epsilon in (0.01, 0.05):
        before = margin(x.flatten(1) @ two, y)
        difference = two.t()[y] - two.t()[1 - y]
        optimum = before - epsilon * difference.abs().sum(1)
        for attacked in (
            pgd(lambda a: a.flatten(1) @ two, x, y, epsilon),
            fgsm(lambda a: a.flatten(1) @ two, x, y, epsilon),
        ):
            assert torch.allclose(margin(attacked.flatten(1) @ two, y), optimum, atol=1e-4)


@pytest.mark.parametrize("attack", [fgsm, pgd, squares])
def test_attacks_stay_within_the_ball_and_the_image_and_depend_on_their_seed_alone(linear, attack):
    weight, x, y = linear
    x = (x - 0.3) / 0.4  # up to both ends of 0…1
    first, second = (attack(lambda a: a.flatten(1) @ weight, x, y, 0.1) for _ in range(2))
    assert torch.equal(first, second)
    assert (first - x).abs().max() <= 0.1 + 1e-6 and first.min() >= 0 and first.max() <= 1


def test_a_search_without_derivatives_lowers_the_margin_and_never_beats_the_optimum(linear):
    weight, x, y = linear
    two = weight[:, :2]
    y = (x.flatten(1) @ two).argmax(1)
    epsilon, before = 0.05, margin(x.flatten(1) @ two, y)
    found = margin(squares(lambda a: a.flatten(1) @ two, x, y, epsilon, queries=200).flatten(1) @ two, y)
    fewer = margin(squares(lambda a: a.flatten(1) @ two, x, y, epsilon, queries=5).flatten(1) @ two, y)
    optimum = before - epsilon * (two[:, 0] - two[:, 1]).abs().sum()
    assert (found < before).all() and (found >= optimum - 1e-4).all() and found.mean() < fewer.mean()


def test_margin_and_gradient():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 1.0, 0.0], [float("nan"), 0.0, 0.0]])
    y = torch.tensor([0, 0, 1, 1])
    assert margin(logits, y)[:3].tolist() == [1.0, -3.0, 0.0]
    assert broken(logits, y).tolist() == [False, True, True, True]
    weight = torch.randn(4, 3)
    x = torch.rand(5, 1, 2, 2)
    y = torch.tensor([0, 1, 2, 0, 1])
    p = (x.flatten(1) @ weight).softmax(1) - torch.eye(3)[y]
    assert torch.allclose(
        gradient(lambda a: a.flatten(1) @ weight, x, y, "cross_entropy").flatten(1), p @ weight.t(), atol=1e-6
    )


class Plain(Rule):
    """Plain inference."""


class Quantised(Rule):
    """An adversarially masked toy: inference rounds the image to 16 levels first, which has no derivative but 0."""

    def predict(self, net, x):
        return net(x + ((x * 15).round() / 15 - x).detach() - (x - x.detach()))


class Blocked(Rule):
    """Inference that no derivative leads through."""

    @torch.no_grad()
    def predict(self, net, x):
        return net(x)


def observer(rule, name="plain", num=48, correct=True):
    """A linear network under a rule, with images that it names rightly by a small margin."""
    net = StagedNet(
        {"a": Stage(nn.Linear(SIZE * SIZE, SIZE * SIZE, bias=False)), "readout": Stage(nn.Linear(SIZE * SIZE, CLASSES))},
        (1, SIZE, SIZE), (CLASSES,),
    )  # fmt: skip
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        net.stages["a"].synapse.weight.copy_(torch.eye(SIZE * SIZE))
        net.stages["readout"].synapse.weight.copy_(torch.randn(CLASSES, SIZE * SIZE, generator=generator))
        net.stages["readout"].synapse.bias.zero_()
        x = 0.2 + 0.6 * torch.rand(num, 1, SIZE, SIZE, generator=generator)
        y = rule.predict(net, x).argmax(1)
    y = y if correct else (y + 1) % CLASSES
    names = tuple("abcd")
    preprocess = Preprocess((1, SIZE, SIZE), (0.0,), (1.0,), "linear")
    return TrainedObserver(name, net, rule, net, rule, OBJECTIVES["cross_entropy"], preprocess, names, Images(x, y))


def test_a_plain_linear_model_is_vulnerable_not_masked_and_not_fooled_by_the_flipped_perturbation():
    scores = Robustness(num=48).measure(observer(Plain()))
    assert of(scores, "masked").raw == 0, of(scores, "masked").reason
    assert of(scores, "vulnerability").raw > 0.3
    assert abs(of(scores, "flipped").raw) < 0.15 * of(scores, "vulnerability").raw + 0.05
    assert of(scores, "accuracy_under", "flipped 16/255").raw > of(scores, "accuracy_under", "worst 16/255").raw + 0.3
    assert "no finished backprop run" in of(scores, "data").reason
    worst = [of(scores, "accuracy_under", f"worst {level:g}/255").raw for level in LEVELS]
    assert worst == sorted(worst, reverse=True)
    for attack in ("fgsm", "pgd", "squares"):
        assert all(
            of(scores, "accuracy_under", f"{attack} {e:g}/255").raw >= w for e, w in zip(LEVELS, worst, strict=True)
        )


def test_a_masked_model_is_unmasked_by_search_and_by_its_twin():
    masked = observer(Quantised(), "masked")
    alone = Robustness(num=48).measure(masked)
    assert of(alone, "accuracy_under", "fgsm 16/255").raw == 1.0
    assert of(alone, "accuracy_under", "pgd 16/255").raw > 0.9  # its random start is noise
    assert of(alone, "masked").raw == 1 and "squares breaks" in of(alone, "masked").reason
    assert of(alone, "vulnerability").raw > 0.05  # the search counts
    bench = Robustness(num=48)
    bench.siblings = lambda rule: observer(Plain(), "backprop") if rule == "backprop" else None
    beside = bench.measure(masked)
    assert of(beside, "accuracy_under", "transfer 16/255").raw < 0.6 and not [s for s in beside if s.metric == "data"]
    assert of(beside, "vulnerability").raw > of(alone, "vulnerability").raw - 1e-9


def test_inference_without_derivatives_says_so_and_is_judged_by_search():
    scores = Robustness(num=24).measure(observer(Blocked(), "blocked", 24))
    assert "no derivative" in of(scores, "accuracy_under", "pgd").reason
    assert of(scores, "masked").raw == 1 and of(scores, "vulnerability").raw > 0 and of(scores, "flipped").gate == "n/a"


def test_who_is_no_better_than_chance_or_names_nothing_is_not_judged():
    assert "chance" in of(Robustness().measure(observer(Plain(), correct=False)), "vulnerability").reason

    class Null:
        name, classes, in_shape = "null", (), (1, 8, 8)

    assert Robustness().measure(Null())[0].gate == "n/a"


def test_the_area_is_the_mean_over_octaves_and_the_excess_is_relative_to_noise():
    assert area(np.full((1, 6), 0.7)) == pytest.approx([0.7])
    assert area(np.array([[1, 1, 1, 0, 0, 0.0]])) == pytest.approx([2.5 / 5])
    assert excess(np.array([[0.8] * 6 + [0.2] * 6])) == pytest.approx([0.75])


def test_every_sign_of_masked_derivatives_is_named():
    def found(dead=0.0, unbounded=0.0, **values):
        return Curves({k: np.full((1, 6), v) for k, v in values.items()}, {}, dead, unbounded)

    plain = {"fgsm": 0.5, "pgd": 0.4, "squares": 0.6}
    assert masking(found(**plain), 0.25) == ""
    assert "squares" in masking(found(**plain | {"squares": 0.2}), 0.25)
    assert "transfer" in masking(found(**plain | {"transfer": 0.2}), 0.25)
    assert "vanishes" in masking(found(dead=0.5, **plain), 0.25)
    assert "½" in masking(found(unbounded=0.5, **plain), 0.25)
    assert "one step" in masking(found(**plain | {"fgsm": 0.2}), 0.25)
    assert masking(Curves({}, {"pgd": "none"}, 0.0, None), 0.25)


def test_two_measurements_are_equal_and_leave_the_network_alone():
    first, second = observer(Plain()), observer(Plain())
    before = {k: v.clone() for k, v in first.net.state_dict().items()}
    assert Robustness(num=16).measure(first) == Robustness(num=16).measure(second)
    assert all(torch.equal(v, before[k]) for k, v in first.net.state_dict().items())
    assert all(p.requires_grad for p in first.net.parameters())


SPIKING = [
    lambda: STDP(coactive=1.0), lambda: STDP(encoding="latency", coactive=1.0), lambda: SurrogateGradient(neuron="lif"),
    lambda: SurrogateGradient(encoding="poisson"), lambda: TraceSTDP(),
]  # fmt: skip


@pytest.mark.parametrize("make", SPIKING)
def test_spiking_inference_has_ways_back_with_the_same_output_and_a_derivative(make):
    """Through lateral inhibition and winner-take-all too (trace_stdp); the output is that of ``predict``."""
    net, rule = SMALL["cnn"](), make()
    rule.attach(net)
    x = torch.randn(3, 1, 8, 8)
    ways = rule.ways_back(net)
    assert len(ways) == 3
    for way in ways.values():
        y = x.clone().requires_grad_()
        output = way(y)
        assert torch.allclose(output, rule.predict(net, x), atol=1e-4)
        (derivative,) = torch.autograd.grad(output.square().sum(), y)
        assert derivative.isfinite().all() and (derivative != 0).any()


def test_lateral_inhibition_among_first_spikes_has_no_way_back():
    assert STDP(coactive=0.5).ways_back(None) == {}


def test_the_way_back_of_a_plain_rule_is_its_own_inference():
    net = SMALL["cnn"]()
    x = torch.randn(2, 1, 8, 8)
    (way,) = Plain().ways_back(net).values()
    assert torch.equal(way(x), net(x))


def test_curves_count_an_image_as_broken_within_every_larger_ball():
    seen = observer(Plain())
    x, y = seen.held_out.images, seen.held_out.targets
    found = curves(Victim(seen), x, y, [e / 255 for e in LEVELS], None, queries=10, seed=0)
    for name in ("fgsm", "pgd", "squares", "worst"):
        assert (np.diff(found.intact[name], axis=1) <= 0).all()
    assert found.dead == 0 and found.unbounded == 0


def test_the_figure_and_the_sheet_are_drawn(tmp_path):
    bench, seen = Robustness(num=16, queries=5), observer(Plain())
    (path,) = bench.draw(tmp_path, {"plain": seen})
    assert path.stat().st_size > 5000
    images, rows, columns = robustness.sheet(32)
    assert images.shape == (4, 5, 1, 32, 32) and len(rows) == 4 and len(columns) == 5
    assert (images[:, 2] - images[:, 0]).abs().max() <= 8 / 255 + 1e-6
