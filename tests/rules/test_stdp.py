"""STDP against theory: windows, bounds, competition, convolution as a sum of dense synapses, reward, batches."""

import math

import pytest
import torch
from torch import nn

from models import cnn, mlp, resnet
from rules._stdp import Winners, afferents, change, find_winners, onto_stage, under
from rules._trace import correlate, earlier_trace
from rules.reward_stdp import RewardSTDP
from rules.spiking_readout_only import SpikingReadoutOnly
from rules.stdp import STDP
from rules.trace_stdp import TraceSTDP
from tests.rules.spiking import CE, attached, batch, population, step

A = 0.01


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


# --- trace STDP -------------------------------------------------------------------------------------------------


def fair_share(rule, post):
    """Spikes of one neuron of a dense stage that fires its fair share; amplitudes are per this many."""
    return rule.target * len(post) / post.shape[2]


def pair(t_pre, t_post, *, mu=0.0, p=0.5, steps=60, **options):
    """Return Δp of one synapse for one presynaptic and one postsynaptic spike."""
    rule = TraceSTDP(potentiation=A, depression=A, tau_plus=20.0, tau_minus=20.0, mu=mu, trace_target=0.0, **options)
    synapse = nn.Linear(1, 1)
    nn.init.constant_(synapse.weight, 2 * p - 1)
    pre, post = torch.zeros(steps, 1, 1), torch.zeros(steps, 1, 1)
    if t_pre is not None:
        pre[t_pre] = 1
    if t_post is not None:
        post[t_post] = 1
    with torch.no_grad():
        delta, _ = rule.plasticity(synapse, torch.tensor(1.0), pre, post, False)
    return float(delta) / 2 * fair_share(rule, post)  # w = 2p − 1


@pytest.mark.parametrize("gap", [1, 2, 5, 10, 20, 35])
def test_a_single_pair_has_the_exponential_window(gap):
    assert pair(10, 10 + gap) == pytest.approx(A * math.exp(-gap / 20), rel=1e-9)
    assert pair(10 + gap, 10) == pytest.approx(-A * math.exp(-gap / 20), rel=1e-9)


def test_the_published_values_of_the_window():
    """A = 1, τ = 20 ms, dt = 1 ms: ±1 ms → ±.951, ±10 ms → ±.607 (Song, Miller & Abbott 2000)."""
    for gap, value in ((1, 0.951), (10, 0.607)):
        assert pair(20, 20 + gap) / A == pytest.approx(value, abs=1e-3)
        assert pair(20 + gap, 20) / A == pytest.approx(-value, abs=1e-3)


def test_coincident_spikes_and_lone_spikes_change_nothing():
    assert pair(10, 10) == 0 and pair(None, 10) == 0 and pair(10, None) == 0 and pair(None, None) == 0


def test_norse_agrees_once_its_amplitude_is_corrected():
    """norse lets a trace grow by dt/τ instead of 1, and decays it by 1 − dt/τ; it reads traces after they grew."""
    stdp = pytest.importorskip("norse.torch.functional.stdp")
    tau, dt = 20.0, 1e-3
    decay = 1 - 1 / tau
    parameters = stdp.STDPParameters(
        a_pre=torch.tensor(tau), a_post=torch.tensor(tau), tau_pre_inv=torch.tensor(1 / (tau * dt)),
        tau_post_inv=torch.tensor(1 / (tau * dt)), w_min=-10.0, w_max=10.0, eta_plus=A, eta_minus=A,
        stdp_algorithm="additive", mu=0.0, hardbound=False,
    )  # fmt: skip
    pre, post = (torch.rand(40, 1, 5) < 0.2).double(), (torch.rand(40, 1, 3) < 0.2).double()
    state = stdp.STDPState(torch.zeros(1, 5), torch.zeros(1, 3))
    weight = torch.zeros(3, 5)
    for before, after in zip(pre, post, strict=True):
        weight, state = stdp.stdp_step_linear(before, after, weight, state, parameters, dt)
    matched = -1 / math.log(decay)  # the τ whose e^{−1/τ} is norse's 1 − dt/τ
    x, y = earlier_trace(pre, matched), earlier_trace(post, matched)
    expected = A * torch.einsum("tbj,tbi->ji", post, x) - A * torch.einsum("tbj,tbi->ji", y, pre)
    assert torch.allclose(weight, expected, rtol=1e-6, atol=1e-9)


def test_many_spikes_add_up_over_all_pairs():
    rule = TraceSTDP(potentiation=A, depression=A, tau_plus=7.0, tau_minus=12.0, mu=0.0, trace_target=0.0)
    pre, post = (torch.rand(40, 3, 6) < 0.2).double(), (torch.rand(40, 3, 4) < 0.2).double()
    synapse = nn.Linear(6, 4)
    with torch.no_grad():
        delta, drive = rule.plasticity(synapse, torch.tensor(1.0), pre, post, False)
    expected = torch.zeros(3, 4, 6)
    for b in range(3):
        for j in range(4):
            for i in range(6):
                for t in post[:, b, j].nonzero()[:, 0].tolist():
                    for u in pre[:, b, i].nonzero()[:, 0].tolist():
                        if t > u:
                            expected[b, j, i] += A * math.exp(-(t - u) / 7)
                        elif t < u:
                            expected[b, j, i] -= A * math.exp((t - u) / 12)
    fair = 2 / fair_share(rule, post)  # 2s / share
    assert torch.allclose(delta, fair * expected.sum(0))
    assert torch.allclose(drive, fair * expected.sum(2))  # the signal: each image's own Σ_i Δw


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
def test_weight_dependence_is_a_power_of_the_distance_to_the_bound(mu):
    assert pair(10, 15, mu=mu, p=0.8) == pytest.approx(A * 0.2**mu * math.exp(-5 / 20))
    assert pair(15, 10, mu=mu, p=0.8) == pytest.approx(-A * 0.8**mu * math.exp(-5 / 20))


def poisson_drive(mu, steps=1200):
    """Drive one neuron of 30 Poisson synapses for a long time and return the final efficacies.

    The postsynaptic neuron is linear–Poisson (Kempter et al. 1999; Rubin, Lee & Sompolinsky 2001): rate ∝ Σ p x.
    """
    ratio, num = 1.05, 30
    rule = TraceSTDP(potentiation=0.5, depression=0.5 * ratio, tau_plus=5.0, tau_minus=5.0, mu=mu, trace_target=0.0)
    synapse = nn.Linear(num, 1)
    p = torch.rand(1, num)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        pre = (torch.rand(40, 100, num, generator=generator) < 0.1).double()
        drive = (pre @ p.T) / (0.1 * num * p.mean())
        post = (torch.rand(40, 100, 1, generator=generator) < 0.1 * drive).double()
        with torch.no_grad():
            synapse.weight.copy_(2 * p - 1)
            delta, _ = rule.plasticity(synapse, torch.tensor(1.0), pre, earlier(post), False)
        p = (p + 0.0008 * delta / 2 * fair_share(rule, post)).clamp(0, 1)
    return p[0]


def earlier(post):
    return torch.cat([torch.zeros_like(post[:1]), post[:-1]])  # a spike follows its cause by one step


def test_under_poisson_drive_the_additive_rule_is_bimodal_and_the_multiplicative_one_unimodal():
    additive, multiplicative = poisson_drive(0.0), poisson_drive(1.0)
    extreme = lambda p: ((p < 0.1) | (p > 0.9)).double().mean()
    assert extreme(additive) > 0.8 and (additive < 0.1).any() and (additive > 0.9).any()
    assert extreme(multiplicative) < 0.05 and multiplicative.std() < 0.15
    assert multiplicative.mean() == pytest.approx(0.5, abs=0.15)  # (1 − p) = 1.05 p, shifted up by causal pairs


@pytest.mark.parametrize("mu", [0.0, 1.0])
@pytest.mark.parametrize("depression", [0.0, A])
def test_a_dense_stage_that_visits_spikes_alone_learns_what_a_convolution_of_one_position_learns(mu, depression):
    """Two ways to the same Δw: at postsynaptic spikes alone, and as a contraction over all steps."""
    rule = TraceSTDP(potentiation=A, depression=depression, tau_plus=5.0, tau_minus=9.0, mu=mu, trace_target=0.7)
    pre, post = torch.randint(-1, 2, (30, 4, 6)).double(), (torch.rand(30, 4, 3) < 0.3).double()
    dense, conv = nn.Linear(6, 3), nn.Conv2d(6, 3, 1)
    with torch.no_grad():
        conv.weight.copy_(dense.weight[:, :, None, None])
        delta, drive = rule.plasticity(dense, torch.tensor(1.0), pre, post, True)
        other, same = rule.plasticity(conv, torch.tensor(1.0), pre[..., None, None], post[..., None, None], True)
    assert torch.allclose(delta, other.flatten(1), atol=1e-12) and torch.allclose(drive, same.flatten(1), atol=1e-12)
    assert float(delta.abs().max()) > 1e-3


def test_a_stage_learns_alone_from_kept_spikes_what_it_learns_in_the_network():
    net = cnn.build((1, 8, 8), (10,), width=4, hidden=12)
    rule = attached(STDP(coactive=0.5), net)
    x, target = batch()
    layers, _ = rule.run(net, x, seed=0)
    grads = rule.learn(net, x, target, CE).grads
    for stage, below in (("conv2", "conv1"), ("hidden", "conv3")):
        alone = rule.learn_stage(net, stage, layers[below].signal)
        assert set(alone) == {k for k in grads if stage in k} and len(alone) == 2
        for name, grad in alone.items():
            assert torch.allclose(grad, grads[name]), name


@pytest.mark.parametrize("rule", [STDP, TraceSTDP, RewardSTDP])
@pytest.mark.parametrize("build", [cnn, mlp])
def test_mixed_precision_changes_nothing(rule, build):
    """Potentials sum currents that bfloat16 rounds away: neither learning nor inference is given it."""
    torch.set_default_dtype(torch.float32)
    net = build.build((1, 8, 8), (10,), width=4)
    ours = attached(rule(), net)
    x, target = batch()
    found = []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(ours.learn(net, x, target, CE).grads | {"output": ours.predict(net, x)})
    assert all(torch.equal(grad, found[1][name]) for name, grad in found[0].items())


def test_under_reward_a_stage_learns_alone_only_if_it_hears_of_no_decision():
    net = cnn.build((1, 8, 8), (10,), width=4, hidden=12)
    rule = attached(RewardSTDP(coactive=0.5), net)
    x, target = batch()
    layers, _ = rule.run(net, x, seed=0)
    grads = rule.learn(net, x, target, CE).grads
    for name, grad in rule.learn_stage(net, "conv2", layers["conv1"].signal).items():
        assert torch.allclose(grad, grads[name]), name
    with pytest.raises(ValueError, match="hidden learns under the reward"):
        rule.learn_stage(net, "hidden", layers["conv3"].signal)
    with pytest.raises(ValueError, match="conv2 learns under the reward"):
        attached(RewardSTDP(below="reward"), net).learn_stage(net, "conv2", layers["conv1"].signal)


def test_convolutional_trace_stdp_is_the_sum_of_dense_stdp_over_positions():
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
    pre, post = torch.rand(4, 2, 2, 6, 6), torch.rand(4, 2, 3, 3, 3)
    patches = torch.nn.functional.unfold(pre.flatten(0, 1), 3, padding=1, stride=2)  # (T·B, C·K·K, positions)
    dense = torch.zeros(3, 18)
    for position in range(9):
        synapse = nn.Linear(18, 3)
        dense += correlate(synapse, patches[:, :, position][None], post.flatten(0, 1).flatten(2)[:, :, position][None])
    assert torch.allclose(correlate(conv, pre, post).flatten(1), dense)


def test_an_off_cell_is_an_on_cell_with_the_opposite_weight():
    """Push–pull: the same spikes from OFF cells, at p' = 1 − p, change p' by the same amount."""
    rule = TraceSTDP(potentiation=A, depression=A, mu=1.0)
    pre, post = (torch.rand(30, 2, 6) < 0.3).double(), (torch.rand(30, 2, 4) < 0.3).double()
    synapse, mirrored = nn.Linear(6, 4), nn.Linear(6, 4)
    with torch.no_grad():
        synapse.weight.uniform_(-1, 1)
        mirrored.weight.copy_(-synapse.weight)
        on, _ = rule.plasticity(synapse, torch.tensor(1.0), pre, post, True)
        off, _ = rule.plasticity(mirrored, torch.tensor(1.0), -pre, post, True)
    assert torch.allclose(on, -off)


# --- winner-take-all STDP ---------------------------------------------------------------------------------------


def test_winners_are_the_earliest_then_the_highest_of_distinct_maps_and_apart():
    latency = torch.randint(0, 11, (20, 6, 7, 7))
    overshoot = torch.rand(20, 6, 7, 7)
    found = find_winners(population(latency, overshoot), 4, 1)
    for b in range(20):
        # The published procedure, one winner at a time, by brute force.
        alive, expected = latency[b] < 10, []
        for _ in range(4):
            if not alive.any():
                break
            candidates = [
                (int(latency[b, f, r, c]), -float(overshoot[b, f, r, c]), f, r, c)
                for f, r, c in alive.nonzero().tolist()
                # only the first map at a position competes
                if (int(latency[b, f, r, c]), -float(overshoot[b, f, r, c]))
                == min((int(latency[b, g, r, c]), -float(overshoot[b, g, r, c])) for g in range(6))
            ]
            if not candidates:
                break
            _, _, f, r, c = min(candidates)
            expected.append((f, r, c))
            alive[f] = False
            alive[:, max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2] = False
        mine = found.image == b
        got = list(zip(found.neuron[mine].tolist(), *found.position[mine].T.tolist(), strict=True))
        assert got == expected
        assert len({f for f, _, _ in got}) == len(got)


def test_a_silent_image_has_no_winner():
    assert len(find_winners(population(torch.full((3, 5), 10), torch.zeros(3, 5)), 1, 0)) == 0
    assert len(find_winners(population(torch.full((3, 5, 4, 4), 10), torch.zeros(3, 5, 4, 4)), 3, 1)) == 0


def winner(neuron=0):
    index = torch.zeros(1).long()
    return Winners(index, torch.tensor([neuron]), torch.zeros(1, 2).long(), index)


def changes(p, seen, *, ltp=0.4, ltd=0.3, push_pull=False, soft=True, balanced=False):
    """Return Δp of one winner with efficacies p that saw these presynaptic signals."""
    delta = change(
        2 * p[None] - 1, torch.tensor(1.0), seen[None], winner(), torch.tensor([ltp]), torch.tensor([ltd]),
        push_pull=push_pull, soft=soft, balanced=balanced,
    )  # fmt: skip
    return delta[0] / 2


def test_earlier_synapses_go_up_and_all_others_down_as_far_as_the_bounds_allow():
    p = torch.tensor([0.2, 0.2, 0.9])
    soft = changes(p, torch.tensor([1.0, 0.0, 1.0]))
    assert soft.tolist() == pytest.approx([0.4 * 0.8, -0.3 * 0.2, 0.4 * 0.1])
    published = changes(p, torch.tensor([1.0, 0.0, 1.0]), soft=False)
    assert published.tolist() == pytest.approx([0.4 * 0.16, -0.3 * 0.16, 0.4 * 0.09])


@pytest.mark.parametrize("soft", [True, False])
def test_push_pull_is_the_rule_on_an_on_synapse_and_an_off_synapse(soft):
    """A weight stands for two synapses, p_on = p and p_off = 1 − p; each follows the rule, and their changes add up."""
    p = torch.rand(3)
    on, off = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    together = changes(p, on - off, push_pull=True, soft=soft)
    apart = changes(p, on, soft=soft) - changes(1 - p, off, soft=soft)
    assert torch.allclose(together, apart)
    if soft:
        assert together.tolist() == pytest.approx(
            [0.7 * (1 - float(p[0])), -0.7 * float(p[1]), 0.3 * (1 - 2 * float(p[2]))]
        )


def test_soft_bounds_lead_to_the_share_of_wins_that_a_synapse_preceded():
    """a₊ q (1 − p) = a₋ (1 − q) p, so that p → a₊ q / (a₊ q + a₋ (1 − q)), whatever p was (theory)."""
    q, p = torch.tensor([0.1, 0.5, 0.9]), torch.rand(3)
    for _ in range(4000):
        p = p + 0.02 * changes(p, (torch.rand(3) < q).double())
    assert torch.allclose(p, 0.4 * q / (0.4 * q + 0.3 * (1 - q)), atol=0.1)


def test_anti_stdp_goes_the_other_way_and_keeps_the_bounds():
    p, seen = torch.rand(50), (torch.rand(50) < 0.5).double()
    forwards, back = changes(p, seen), changes(p, seen, ltp=-0.4, ltd=-0.3)
    assert (forwards.sign() == -back.sign()).all()
    for delta in (forwards, back):
        assert (p + delta >= 0).all() and (p + delta <= 1).all()
    assert torch.allclose(changes(p, seen, soft=False), -changes(p, seen, ltp=-0.4, ltd=-0.3, soft=False))


def test_nothing_moves_at_the_published_bounds_and_the_sum_is_kept_when_balanced():
    edge = torch.tensor([0.0, 1.0])
    assert (changes(edge, torch.ones(2), soft=False) == 0).all()
    for soft in (True, False):
        kept = changes(torch.rand(9), (torch.rand(9) < 0.5).double(), soft=soft, balanced=True)
        assert kept.sum().abs() < 1e-12 and kept.abs().sum() > 0.01


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (1, 0)])
def test_afferents_of_a_convolution_are_those_of_a_dense_synapse_at_each_position(stride, padding):
    conv = nn.Conv2d(2, 3, 3, stride=stride, padding=padding)
    inputs = [torch.randn(4, 2, 8, 8) for _ in range(5)]
    size = conv(inputs[0]).shape[2:]
    num = 30
    found = Winners(
        torch.randint(0, 4, (num,)), torch.randint(0, 3, (num,)),
        torch.stack([torch.randint(0, size[0], (num,)), torch.randint(0, size[1], (num,))], 1),
        torch.randint(0, 5, (num,)),
    )  # fmt: skip
    seen = afferents(conv, inputs, found)
    for n in range(num):
        patches = torch.nn.functional.unfold(inputs[found.latency[n]], 3, padding=padding, stride=stride)
        place = found.position[n, 0] * size[1] + found.position[n, 1]
        assert torch.equal(seen[n].flatten(), patches[found.image[n], :, place])


@pytest.mark.parametrize("encoding", ["latency", "constant"])
def test_one_step_is_the_published_rule_written_as_loops(encoding):
    """Kheradpisheh's update for every winner of every image, averaged over the batch; first conv stage."""
    net = cnn.build((1, 8, 8), (10,), width=4, hidden=12)
    rule = attached(
        STDP(
            encoding=encoding,
            balanced=False,
            soft=False,
            winners=2,
            scaling=0.0,
            potentiation=0.02,
            depression=0.01,
        ),
        net,
    )
    x, target = batch(5)
    learned = rule.learn(net, x, target, CE)
    layers, _ = rule.run(net, x, seed=0)
    p1 = layers["conv1"].populations[0]
    found = find_winners(p1, 2, 1)
    conv, bound = net.stages["conv1"].synapse, net.stages["conv1"].synapse.weight.abs().max()
    padded = [torch.nn.functional.pad(s, (1, 1, 1, 1)) for s in p1.synapses["stages.conv1.synapse"][1]]
    expected = torch.zeros_like(conv.weight)
    for b, f, (r, c), t in zip(found.image, found.neuron, found.position, found.latency, strict=True):
        patch = padded[t][b, :, r : r + 3, c : c + 3]
        efficacy = (conv.weight[f] / bound + 1) / 2
        expected[f] += 2 * bound * efficacy * (1 - efficacy) * 0.03 * patch * (4 / 2)
    assert torch.allclose(-learned.grads["stages.conv1.synapse.weight"] * 1e-3, expected.detach() / 5)


def test_no_spikes_no_change_and_no_signal():
    for rule in (STDP(scaling=0.0), RewardSTDP(), TraceSTDP()):
        net = mlp.build((1, 8, 8), (10,), width=12)
        rule = attached(rule, net)
        rule.scaling = 0.0
        learned = rule.learn(net, torch.zeros(4, 1, 8, 8), torch.arange(4), CE)
        for stage in net.hidden:
            assert learned.grads[f"stages.{stage}.synapse.weight"].abs().max() == 0
            assert learned.signals[stage].abs().max() == 0


@pytest.mark.parametrize("make", [lambda: STDP(potentiation=0.3, depression=0.2), lambda: RewardSTDP(gain=500.0), lambda: TraceSTDP(potentiation=0.1, depression=0.05)])  # fmt: skip
def test_bounds_hold_under_violent_learning(make):
    for build in (mlp.build, cnn.build):
        net = build((1, 8, 8), (10,), width=6)
        bounds = {n: s.weight.abs().max().item() for n, s in net.synapses().items()}
        rule = attached(make(), net)
        for _ in range(15):
            step(rule, net, *batch())
        for name, synapse in net.synapses().items():
            if "readout" not in name:
                assert synapse.weight.abs().max() <= bounds[name] + 1e-12
                assert torch.isfinite(synapse.weight).all()


def test_batched_learning_is_the_mean_of_sequential_steps_at_frozen_weights():
    for rule in (STDP(), RewardSTDP(), TraceSTDP()):
        net = cnn.build((1, 8, 8), (10,), width=3, hidden=12)
        rule = attached(rule, net)
        rule.scaling = 0.0
        x, target = batch(6)
        torch.manual_seed(3)
        together = rule.learn(net, x, target, CE)
        for stage in net.hidden:
            name = f"stages.{stage}.synapse.weight"
            alone = []
            for i in range(6):
                torch.manual_seed(3)
                alone.append(rule.learn(net, x[i : i + 1], target[i : i + 1], CE).grads[name])
            assert torch.allclose(together.grads[name], torch.stack(alone).mean(0), atol=1e-10)


def test_the_signal_is_the_summed_absolute_change_of_the_image():
    net = mlp.build((1, 8, 8), (10,), width=12, depth=1)
    rule = attached(STDP(scaling=0.0), net)
    x, target = batch(5)
    for i in range(5):
        learned = rule.learn(net, x[i : i + 1], target[i : i + 1], CE)
        own = (learned.grads["stages.hidden1.synapse.weight"] * 1e-3).abs().sum(1)
        assert torch.allclose(learned.signals["hidden1"][0], own)


def test_drive_of_pooled_maps_is_summed_under_the_pool():
    found = Winners(torch.tensor([0, 0]), torch.tensor([1, 1]), torch.tensor([[0, 1], [1, 1]]), torch.tensor([0, 0]))
    p = population(torch.zeros(1, 2, 4, 4, dtype=torch.long), torch.zeros(1, 2, 4, 4))
    drive = onto_stage(torch.tensor([2.0, 3.0]), found, p, nn.MaxPool2d(2))
    assert float(drive[0, 1, 0, 0]) == pytest.approx(5) and float(drive.sum()) == pytest.approx(5)


@pytest.mark.parametrize(("size", "pool"), [
    (7, nn.MaxPool2d(2)), (7, nn.MaxPool2d(3, 2, 1)), (8, nn.MaxPool2d(1, 2)), (7, nn.AvgPool2d(2)),
    (7, nn.AdaptiveAvgPool2d(1)), (7, nn.AdaptiveAvgPool2d(3)), (6, nn.Identity()),
])  # fmt: skip
def test_a_pooled_unit_stands_for_the_neurons_that_reach_it(size, pool):
    """Which neurons reach a unit is asked of the pooling itself, one neuron at a time."""
    grid = torch.rand(2, 3, size, size)
    expected = torch.zeros_like(pool(grid))
    for r in range(size):
        for c in range(size):
            alone = torch.zeros(1, 1, size, size)
            alone[0, 0, r, c] = 1
            expected += (pool(alone) > 0) * grid[:, :, r : r + 1, c : c + 1]
    assert torch.allclose(under(grid, pool), expected)


@pytest.mark.parametrize("make", [STDP, RewardSTDP, TraceSTDP])
def test_signals_behind_odd_maps_have_the_shape_of_the_stage(make):
    net = cnn.build((1, 14, 14), (10,), width=3, hidden=12)  # 14 → 7 → 3 → 1
    rule = attached(make(), net)
    learned = rule.learn(net, torch.randn(4, 1, 14, 14), torch.arange(4), CE)
    for stage, activity in rule.activations(net, torch.randn(4, 1, 14, 14)).items():
        assert learned.signals[stage].shape == activity.shape


def test_stages_learn_one_after_the_other_if_asked():
    net = cnn.build((1, 8, 8), (10,), width=3, hidden=12)
    rule = attached(STDP(images_per_stage=8), net)
    for stage in [*net.hidden, None]:
        learned = rule.learn(net, *batch(8), CE)
        moved = {n.split(".")[1] for n in learned.grads if n.endswith("weight")} - {"readout"}
        assert moved == ({stage} if stage else set())


def test_the_spiking_control_moves_no_hidden_weight_and_shares_everything_else():
    net = cnn.build((1, 8, 8), (10,), width=3, hidden=12)
    control, rule = attached(SpikingReadoutOnly(), net), attached(STDP(), net)
    x, target = batch()
    frozen, plastic = control.learn(net, x, target, CE), rule.learn(net, x, target, CE)
    assert torch.equal(frozen.output, plastic.output)
    assert set(plastic.grads) - set(frozen.grads) == {f"stages.{s}.synapse.weight" for s in net.hidden}
    assert all(torch.equal(g, plastic.grads[n]) for n, g in frozen.grads.items())


def test_homeostasis_equalises_wins_and_reaches_its_target():
    net = mlp.build((1, 8, 8), (10,), width=10, depth=1)
    rule = attached(STDP(encoding="constant", potentiation=0.0, depression=0.0, target=0.3, competition=1.0), net)
    images = torch.randn(256, 1, 8, 8)

    def census():
        layers, _ = rule.run(net, images, seed=0)
        p = layers["hidden1"].populations[0]
        wins = torch.bincount(find_winners(p, 1, 0).neuron, minlength=10)
        return wins.double().std() / wins.double().mean(), (p.crossed < p.steps).double().mean()

    before, _ = census()
    for i in range(800):
        step(rule, net, images[(i % 8) * 32 :][:32], torch.zeros(32).long())
    uneven, fired = census()
    assert uneven < 0.5 * before and float(fired) == pytest.approx(0.3, abs=0.05)


def test_trace_stdp_keeps_the_sum_of_a_neurons_weights():
    net = mlp.build((1, 8, 8), (10,), width=12)
    rule = attached(TraceSTDP(potentiation=0.002), net)
    before = {n: s.weight.sum(1).clone() for n, s in net.synapses().items()}
    start = {n: s.weight.clone() for n, s in net.synapses().items()}
    for _ in range(5):
        step(rule, net, *batch())
    for name in list(before)[:-1]:
        weight = net.synapses()[name].weight
        assert (weight - start[name]).norm() > 1e-3 * start[name].norm()
        assert torch.allclose(weight.sum(1), before[name], atol=1e-6)


# --- reward -----------------------------------------------------------------------------------------------------


def test_without_reward_nothing_changes_and_the_reward_flips_the_sign():
    rule = RewardSTDP(punished_potentiation=0.02, punished_depression=0.015)
    with torch.no_grad():
        rule.hit_rate.fill_(0.5)
    ltp, ltd = rule.modulate(torch.tensor([1.0, 0.0, -1.0]))
    assert ltp[1] == 0 and ltd[1] == 0
    assert ltp[0] == -ltp[2] > 0 and ltd[0] == -ltd[2] > 0


def test_reward_adapts_to_the_hit_rate_as_published():
    """Rewards count by N_miss/N, punishments by N_hit/N (Mozafari et al. 2018)."""
    rule = RewardSTDP(gain=1.0)
    with torch.no_grad():
        rule.hit_rate.fill_(0.75)
    ltp, ltd = rule.modulate(torch.tensor([1.0, -1.0]))
    assert ltp.tolist() == pytest.approx([0.25 * 0.02, -0.75 * 0.02])
    assert ltd.tolist() == pytest.approx([0.25 * 0.015, -0.75 * 0.0025])


def test_a_label_reaches_hidden_stages_through_one_scalar_only():
    """Two labels that give the same reward give the same hidden updates; another reward gives the opposite sign."""
    net = mlp.build((1, 8, 8), (10,), width=20)
    rule = attached(RewardSTDP(below="reward", soft=False, punished_potentiation=0.02, punished_depression=0.015), net)
    with torch.no_grad():
        rule.hit_rate.fill_(0.5)
    rule.scaling = 0.0
    x = torch.randn(1, 1, 8, 8)
    layers, _ = rule.run(net, x, seed=0)
    decision = int(rule.decide(net, layers)[0])
    updates = {k: rule.learn(net, x, torch.tensor([k]), CE).grads for k in range(10)}
    wrong = [k for k in range(10) if k != decision]
    for stage in net.hidden:
        name = f"stages.{stage}.synapse.weight"
        assert updates[decision][name].norm() > 0
        assert all(torch.equal(updates[k][name], updates[wrong[0]][name]) for k in wrong)
        assert torch.allclose(updates[decision][name], -updates[wrong[0]][name])


def test_the_hit_rate_is_a_running_mean_that_the_optimiser_steps():
    net = mlp.build((1, 8, 8), (10,), width=20)
    rule = attached(RewardSTDP(memory=0.1), net)
    x, target = batch(16)
    layers, _ = rule.run(net, x, seed=0)
    hits = (rule.reward(net, layers, target) > 0).double().mean()
    before = rule.hit_rate.item()
    step(rule, net, x, target)
    assert rule.hit_rate.item() == pytest.approx(0.9 * before + 0.1 * float(hits))


def test_every_synapse_inside_residual_blocks_follows_its_own_two_sides():
    """Both convolutions of a block: what a winner's patch of *that* synapse's input says, by unfolding it."""
    net = resnet.build((1, 8, 8), (10,), width=4)
    rule = attached(STDP(scaling=0.0, soft=False, balanced=False, potentiation=0.0005, depression=0.000375), net)
    x, target = batch(4)
    learned = rule.learn(net, x, target, CE)
    layers, _ = rule.run(net, x, seed=0)
    checked = 0
    for layer in layers.values():
        for p in layer.populations:
            found = find_winners(p, 5, 1)
            for name, (conv, inputs) in p.synapses.items():
                bound = conv.weight.abs().max()
                expected = torch.zeros_like(conv.weight)
                first = p is layers["stem"].populations[0]
                for b, f, (r, c), t in zip(found.image, found.neuron, found.position, found.latency, strict=True):
                    patches = torch.nn.functional.unfold(
                        inputs[t], conv.kernel_size, padding=conv.padding, stride=conv.stride
                    )
                    seen = patches[b, :, r * p.overshoot.shape[3] + c].view(conv.weight.shape[1:])
                    efficacy = (conv.weight[f] / bound + 1) / 2
                    raw = 0.000875 * seen if first else 0.0005 * seen - 0.000375 * (1 - seen)
                    expected[f] += 2 * bound * efficacy * (1 - efficacy) * raw * len(conv.weight) / 5 / 4
                assert torch.allclose(-learned.grads[f"{name}.weight"] * 1e-3, expected.detach()), name
                checked += bool(len(found))
    assert checked > 8
