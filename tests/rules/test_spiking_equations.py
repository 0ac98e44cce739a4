"""Every spiking rule's card against its equations written as loops, from input spikes to −Δw; and who hears of labels."""

import math

import pytest
import torch
from torch import nn

from models import cnn, mlp
from rules._encoding import encode
from rules._spiking import Layer
from rules.base import OBJECTIVES
from rules.reward_stdp import RewardSTDP
from rules.stdp import STDP
from rules.surrogate_gradient import SurrogateGradient
from rules.trace_stdp import TraceSTDP
from tests.rules.test_stdp import attached, batch, population, step

CE = OBJECTIVES["cross_entropy"]
UNIT = 1e-3  # the learning rate at which amplitudes are what they say


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


def learn(rule, net, x, target):
    """Return what a rule learns, and the seed of the spikes that it learned from."""
    torch.manual_seed(5)
    learned = rule.learn(net, x, target, CE)
    torch.manual_seed(5)
    return learned, int(torch.randint(2**31, ()))


# --- trace STDP -------------------------------------------------------------------------------------------------


def online_trace(p, pre, post, there, rule, signed):
    """Return Δp of one image, spike by spike in time; a synapse without a presynaptic cell never changes.

    Args:
        p: ``(F, I)``.
        pre: ``(T, I)``.
        post: ``(T, F)``.
        there: Whether a synapse has a presynaptic cell, ``(I,)``.
        rule: Its options.
        signed: Whether a weight is an ON synapse of p next to an OFF synapse of 1 − p.
    """
    up, down = math.exp(-1 / rule.tau_plus), math.exp(-1 / rule.tau_minus)
    total = torch.zeros_like(p)
    for sign in (1, -1) if signed else (1,):
        efficacy = p if sign == 1 else 1 - p
        x, y = torch.zeros(pre.shape[1]), torch.zeros(post.shape[1])
        for before, after in zip((sign * pre).clamp(min=0), post, strict=True):
            x, y = x * up, y * down
            gain = rule.potentiation * ((1 - efficacy) ** rule.mu * x - rule.trace_target * efficacy**rule.mu)
            total += sign * after[:, None] * gain * there
            total -= sign * rule.depression * efficacy**rule.mu * y[:, None] * before
            x, y = x + before, y + after
    return total


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
def test_trace_stdp_is_its_card_spike_by_spike(mu):
    """Both hidden stages of a network, from spikes to −Δw; x_tar, push–pull and the sign included."""
    net = mlp.build((1, 8, 8), (10,), width=6)
    options = {"depression": 0.004, "tau_plus": 5.0, "tau_minus": 9.0, "trace_target": 0.7}
    rule = attached(TraceSTDP(potentiation=0.01, mu=mu, steps=12, **options), net)
    x, target = batch(4)
    learned, seed = learn(rule, net, x, target)
    layers, _ = rule.run(net, x, seed=seed, remember=True)
    inputs = {"hidden1": encode(x, "poisson", 12, 0.5, seed, latched=False).flatten(2)}
    inputs["hidden2"] = torch.stack(layers["hidden1"].populations[0].signals)
    for stage in net.hidden:
        weight = net.stages[stage].synapse.weight.detach()
        bound = weight.abs().max()
        post = torch.stack(layers[stage].populations[0].signals)
        assert post.sum() > 10
        fair = 6 / (0.9 * 12)  # one over the spikes of a neuron that fires its share
        expected = torch.stack(
            [
                2 * bound * fair * online_trace(
                    (weight / bound + 1) / 2, inputs[stage][:, b], post[:, b], torch.ones(weight.shape[1]), rule,
                    stage == "hidden1",
                )
                for b in range(4)
            ]
        )  # fmt: skip
        assert torch.allclose(-UNIT * learned.grads[f"stages.{stage}.synapse.weight"], expected.mean(0), atol=1e-12)
        assert torch.allclose(learned.signals[stage], expected.sum(2), atol=1e-12)


def test_convolutional_trace_stdp_is_its_card_at_every_position():
    net = cnn.build((1, 8, 8), (10,), width=3, hidden=12)
    rule = attached(TraceSTDP(potentiation=0.01, depression=0.004, trace_target=0.7, steps=8), net)
    x, target = batch(2)
    learned, seed = learn(rule, net, x, target)
    layers, _ = rule.run(net, x, seed=seed, remember=True)
    conv = net.stages["conv1"].synapse
    weight, bound = conv.weight.detach().flatten(1), conv.weight.abs().max().detach()
    post = torch.stack(layers["conv1"].populations[0].signals).flatten(3)
    unfold = lambda frames: nn.functional.unfold(frames, 3, padding=1)  # (·, I, positions)
    pre = torch.stack([unfold(frame) for frame in encode(x, "poisson", 8, 0.5, seed, latched=False)])
    there = unfold(torch.ones(1, 1, 8, 8))[0]
    expected, drive = torch.zeros_like(weight), torch.zeros(2, 3, 64)
    for b in range(2):
        for place in range(64):
            p, own = (weight / bound + 1) / 2, (pre[:, b, :, place], post[:, b, :, place])
            delta = 2 * bound * 3 / (0.9 * 8 * 64) * online_trace(p, *own, there[:, place], rule, True)
            expected += delta / 2
            drive[b, :, place] = delta.sum(1)
    found = -UNIT * learned.grads["stages.conv1.synapse.weight"].flatten(1)
    assert torch.allclose(found, expected, atol=1e-12) and found.abs().max() > 1e-5
    pooled = drive.view(2, 3, 4, 2, 4, 2).sum((3, 5))  # a unit behind the pooling stands for four neurons
    assert torch.allclose(learned.signals["conv1"], pooled, atol=1e-12)


def test_thresholds_of_trace_stdp_share_the_spikes_out_and_reach_the_target():
    net = mlp.build((1, 8, 8), (10,), width=10, depth=1)
    rule = attached(TraceSTDP(potentiation=0.0, target=0.6), net)
    rule.log_threshold_hidden1.data += torch.randn(10)
    images = torch.randn(128, 1, 8, 8)

    def census():
        layers, _ = rule.run(net, images, seed=0, remember=True)
        rate = torch.stack(layers["hidden1"].populations[0].signals).mean((0, 1))
        return rate.std() / rate.mean(), rate.sum()

    uneven, _ = census()
    for i in range(300):
        step(rule, net, images[(i % 4) * 32 :][:32], torch.zeros(32).long())
    after, fired = census()
    assert after < 0.5 * uneven and float(fired) == pytest.approx(0.6, abs=0.05)


# --- winner-take-all STDP ---------------------------------------------------------------------------------------


def arrived(current, threshold):
    """Return the step at which integrators V(t) = Σ I / T first exceed their thresholds, T if never, ``(B, F)``."""
    above = current.cumsum(0) / len(current) > threshold
    return torch.where(above.any(0), above.double().argmax(0), len(current))


@pytest.mark.parametrize("encoding", ["latency", "poisson"])
def test_a_winner_learns_from_whether_each_input_fired_at_or_before_it(encoding):
    """From the image to −Δw without any of the rule's own functions: one dense stage, one winner per image."""
    net = mlp.build((1, 8, 8), (10,), width=7, depth=1)
    rule = attached(STDP(encoding=encoding, balanced=False, coactive=1.0, steps=8), net)
    x, target = batch(6)
    learned, seed = learn(rule, net, x, target)
    synapse = net.stages["hidden1"].synapse
    weight, theta = synapse.weight.detach(), rule.threshold("hidden1").detach()
    pulses = encode(x, encoding, 8, 0.5, seed, latched=False).flatten(2)
    drive = pulses.cumsum(0) if encoding == "latency" else pulses  # a latency spike switches a current on
    current = drive @ weight.T
    time = arrived(current, theta)
    bound = weight.abs().max()
    expected = torch.zeros_like(weight)
    active = (time.amin(1) < 8).nonzero()[:, 0].tolist()
    assert len(active) >= 3
    for b in active:
        when = int(time[b].min())
        reached = current[: when + 1, b].sum(0) / 8 - theta
        first = int(torch.where(time[b] == when, reached, -torch.inf).argmax())
        on, off = ((sign * pulses[: when + 1, b]).amax(0).clamp(min=0) for sign in (1, -1))
        p = (weight[first] / bound + 1) / 2
        up = 0.02 * (1 - p) * on - 0.015 * p * (1 - on)
        down = 0.02 * p * off - 0.015 * (1 - p) * (1 - off)  # the OFF synapse, of efficacy 1 − p
        expected[first] += 2 * bound * 7 * (up - down) / 6
    assert torch.allclose(-UNIT * learned.grads["stages.hidden1.synapse.weight"], expected, atol=1e-12)


def test_synaptic_scaling_is_its_line_of_the_card_and_starts_at_the_second_stage():
    net = cnn.build((1, 8, 8), (10,), width=3, hidden=12)
    rule = attached(STDP(potentiation=0.0, depression=0.0, scaling=0.01, target=0.3), net)
    x, target = batch(5)
    learned = rule.learn(net, x, target, CE)
    layers, _ = rule.run(net, x, seed=0)
    assert learned.grads["stages.conv1.synapse.weight"].abs().max() == 0
    for stage, below in (("conv2", "conv1"), ("hidden", "conv3")):
        synapse, signal = net.stages[stage].synapse, layers[below].signal
        signal = signal if isinstance(synapse, nn.Conv2d) else signal.flatten(2)
        weight, bound = synapse.weight.detach(), synapse.weight.abs().max().detach()
        theta = rule.threshold(stage).detach()
        with torch.no_grad():
            potential = torch.stack([synapse(frame) for frame in signal]).cumsum(0) / len(signal)
        reaches = (potential > theta.view(-1, *(1,) * (potential.dim() - 3))).any(0)
        expected = torch.zeros_like(weight)
        mean = signal.mean()
        for j in range(len(weight)):
            share = reaches[:, j].double().mean()
            for i in range(weight.shape[1]):
                p = (weight[j, i] / bound + 1) / 2
                expected[j, i] = 2 * bound * 0.01 * p * (1 - p) * (0.3 - share) * signal[:, :, i].mean() / mean
        assert torch.allclose(-UNIT * learned.grads[f"stages.{stage}.synapse.weight"], expected, atol=1e-12), stage
        assert expected.abs().max() > 1e-6


@pytest.mark.parametrize("make", [STDP, TraceSTDP])
@pytest.mark.parametrize("build", [cnn, mlp])
def test_no_label_reaches_a_hidden_stage_of_an_unsupervised_rule(make, build):
    """Other labels change the readout's weights and nothing else, to the last bit."""
    net = build.build((1, 8, 8), (10,), width=4)
    rule = attached(make(), net)
    assert not rule.tags.supervised
    x, target = batch()
    found = []
    for labels in (target, (target + 3) % 10):
        torch.manual_seed(1)
        found.append(rule.learn(net, x, labels, CE))
    ours, other = found
    differs = {n for n, g in ours.grads.items() if not torch.equal(g, other.grads[n])}
    assert differs == {"stages.readout.synapse.weight", "stages.readout.synapse.bias"}
    assert all(torch.equal(ours.signals[s], other.signals[s]) for s in net.hidden)


@pytest.mark.parametrize("encoding", ["latency", "constant"])
def test_a_batched_step_is_to_first_order_as_many_sequential_steps_at_a_share_of_the_rate(encoding):
    """With batch_size=1 and the learning rate divided by the batch size the rule is the published sequential one."""
    net = cnn.build((1, 8, 8), (10,), width=4, hidden=12)
    rule = attached(STDP(encoding=encoding, potentiation=1e-4, depression=0.75e-4, readout=0.0), net)
    x, target = batch(16)
    start = {n: p.clone() for n, p in [*net.named_parameters(), *rule.named_parameters()]}

    def moved(parts, rate):
        with torch.no_grad():
            for n, p in [*net.named_parameters(), *rule.named_parameters()]:
                p.copy_(start[n])
        for part in parts:
            for name, p in rule.named_parameters():  # thresholds rest, so that the winners stay
                p.data.copy_(start[name])
            step(rule, net, x[part], target[part], rate)
        return {s: net.stages[s].synapse.weight.detach() - start[f"stages.{s}.synapse.weight"] for s in net.hidden}

    together = moved([slice(None)], UNIT)
    in_sequence = moved([slice(i, i + 1) for i in range(16)], UNIT / 16)
    for stage in ("conv1", "conv2"):
        assert together[stage].norm() > 0
        assert (together[stage] - in_sequence[stage]).norm() < 0.05 * together[stage].norm(), stage


# --- reward -----------------------------------------------------------------------------------------------------


def test_the_reward_is_whether_the_class_that_fired_most_and_earliest_is_right():
    net = mlp.build((1, 8, 8), (3,), width=6, depth=1)
    rule = attached(RewardSTDP(), net)
    # Neuron j stands for class j mod 3. Codes 1 − t/10 of the classes: (.5, .5), (1, .2), (0, 0); silence; class 2.
    latency = torch.tensor([[5, 0, 10, 5, 8, 10], [10] * 6, [9, 9, 1, 9, 9, 10]])
    p = population(latency, torch.zeros(3, 6))
    layers = {"hidden1": Layer([p], latency[None], nn.Identity())}
    for target, expected in (([1, 1, 2], [1, 0, 1]), ([0, 0, 0], [-1, 0, -1]), ([2, 2, 1], [-1, 0, -1])):
        assert rule.reward(net, layers, torch.tensor(target)).tolist() == expected


@pytest.mark.parametrize("rewarded", [True, False])
def test_the_decided_classs_first_neuron_learns_and_reward_says_in_which_direction(rewarded):
    net = mlp.build((1, 8, 8), (3,), width=12, depth=1)
    rule = attached(RewardSTDP(balanced=False, coactive=1.0), net)
    weight = net.stages["hidden1"].synapse.weight.detach()
    checked = 0
    for image in torch.randn(10, 1, 1, 8, 8):
        drive = encode(image, "latency", 10, 0.5, 0, latched=True).flatten(2)
        current = drive @ weight.T
        time = arrived(current, rule.threshold("hidden1").detach())[0]
        votes = torch.stack([(1 - time[k::3] / 10).mean() for k in range(3)])
        decision = int(votes.argmax())
        target = decision if rewarded else (decision + 1) % 3
        delta = -rule.learn(net, image, torch.tensor([target]), CE).grads["stages.hidden1.synapse.weight"]
        (learners,) = delta.abs().sum(1).nonzero(as_tuple=True)
        (learner,) = learners.tolist()
        assert learner % 3 == decision and time[learner] == time[decision::3].min()
        seen = drive[time[learner], 0]
        gain = delta[learner] * seen  # towards the sign of a cell that fired at or before the winner, or away from it
        assert (gain[seen != 0] > 0).all() if rewarded else (gain[seen != 0] < 0).all()
        checked += 1
    assert checked == 10


def test_below_the_last_stage_labels_are_heard_only_if_asked():
    net = mlp.build((1, 8, 8), (10,), width=20)
    x = torch.randn(1, 1, 8, 8)
    for below, heard in (("unsupervised", False), ("reward", True)):
        rule = attached(RewardSTDP(below=below), net)
        layers, _ = rule.run(net, x, seed=0)
        decision = rule.decide(net, layers)[0]
        right, wrong = (rule.learn(net, x, (decision + k) % 10, CE).grads for k in (0, 1))
        same = torch.equal(right["stages.hidden1.synapse.weight"], wrong["stages.hidden1.synapse.weight"])
        assert same != heard
        assert not torch.equal(right["stages.hidden2.synapse.weight"], wrong["stages.hidden2.synapse.weight"])


# --- surrogate gradient -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["latency", "constant"])
@pytest.mark.parametrize("neuron", ["first_spike", "lif"])
def test_the_surrogate_gradient_is_backpropagation_through_time_by_hand(neuron, encoding):
    """Forward and backward recursions over time as loops; a reset passes no derivative (snnTorch)."""
    slope, steps, decay = 6.0, 9, 0.8
    net = mlp.build((1, 8, 8), (10,), width=11, depth=1)
    options = {"steps": steps, "decay": decay, "slope": slope}
    rule = attached(SurrogateGradient(encoding=encoding, neuron=neuron, **options), net)
    x, target = batch(5)
    learned = rule.learn(net, x, target, CE)
    hidden, readout = (net.stages[s].synapse for s in ("hidden1", "readout"))
    theta = rule.threshold("hidden1").detach()
    c = encode(x, encoding, steps, 0.5, 0, latched=neuron == "first_spike").flatten(2)
    with torch.no_grad():
        current = c @ hidden.weight.T + hidden.bias
        v, signal, above, before = torch.zeros(5, 11), [], [], []
        last = torch.zeros(5, 11)
        for now in current:
            before.append(last)
            if neuron == "first_spike":
                v = v + now / steps
                above.append(v - theta)
                last = last + (1 - last) * (above[-1] > 0)
            else:
                v = decay * v + now / theta - last
                above.append(v - 1)
                last = (above[-1] > 0).double()
            signal.append(last)
        code = torch.stack(signal).mean(0)
        assert 0.05 < code.mean() < 0.95
        output = code @ readout.weight.T + readout.bias
        error = output.softmax(1) - nn.functional.one_hot(target, 10)
        direct = error @ readout.weight / steps  # ∂loss/∂signal(t) of each image, without what comes after t
        weight = torch.zeros_like(hidden.weight)
        to_signal, to_potential = torch.zeros(5, 11), torch.zeros(5, 11)
        for t in reversed(range(steps)):
            to_signal = direct + to_signal
            spike = 1 / (1 + slope * above[t].abs()) ** 2
            if neuron == "first_spike":
                to_potential = to_potential + to_signal * (1 - before[t]) * spike
                weight += (to_potential / steps).T @ c[t] / 5
                to_signal = to_signal * (1 - (above[t] > 0).double())  # through the latch, to the step before
            else:
                to_potential = decay * to_potential + to_signal * spike
                weight += (to_potential / theta).T @ c[t] / 5
                to_signal = torch.zeros(5, 11)
    assert torch.allclose(learned.output, output)
    assert torch.allclose(learned.grads["stages.hidden1.synapse.weight"], weight, atol=1e-7)  # snnTorch: float32
    assert weight.norm() > 1e-4
    assert torch.allclose(learned.signals["hidden1"], error @ readout.weight)
