"""Winner-take-all STDP's cards against their equations as loops, from input spikes to −Δw; and who hears of labels."""

import pytest
import torch
from torch import nn

from models import cnn, mlp, resnet
from rules._encoding import encode
from rules._spiking import Layer
from rules.reward_stdp import RewardSTDP
from rules.stdp import STDP
from rules.trace_stdp import TraceSTDP
from tests.rules.spiking import CE, UNIT, arrived, attached, batch, learn, population, step


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


# --- winner-take-all STDP ----------------------------------------------------------------------------------------


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


def test_the_signal_counts_every_synapse_that_drives_a_neuron():
    """One image, in which a map wins once: Σ |Δw| over both the second convolution of a block and its shortcut."""
    net = resnet.build((1, 8, 8), (10,), width=4)
    rule = attached(STDP(scaling=0.0, coactive=0.5), net)
    learned = rule.learn(net, torch.randn(1, 1, 8, 8), torch.zeros(1).long(), CE)
    layers, _ = rule.run(net, torch.zeros(1, 1, 8, 8), seed=0)
    several = 0
    for stage in net.hidden:
        synapses = layers[stage].populations[-1].synapses
        changes = [(UNIT * learned.grads[f"{s}.weight"]).abs().flatten(1).sum(1) for s in synapses]
        assert torch.allclose(learned.signals[stage][0].flatten(1).sum(1), torch.stack(changes).sum(0)), stage
        several += len(synapses) > 1 and min(float(c.sum()) for c in changes) > 0
    assert several


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


# --- reward ------------------------------------------------------------------------------------------------------


def test_the_reward_is_whether_the_class_that_fired_most_and_earliest_is_right():
    net = mlp.build((1, 8, 8), (3,), width=6, depth=1)
    rule = attached(RewardSTDP(), net)
    # Neuron j stands for class j mod 3. Codes 1 − t/10 of the classes: (.5, .5), (1, .2), (0, 0); silence; class 2.
    latency = torch.tensor([[5, 0, 10, 5, 8, 10], [10] * 6, [9, 9, 1, 9, 9, 10]])
    p = population(latency, torch.zeros(3, 6))
    layers = {"hidden1": Layer([p], latency[None], nn.Identity())}
    for target, expected in (([1, 1, 2], [1, 0, 1]), ([0, 0, 0], [-1, 0, -1]), ([2, 2, 1], [-1, 0, -1])):
        assert rule.reward(net, layers, torch.tensor(target)).tolist() == expected


def test_a_class_decides_by_the_mean_of_its_neurons_however_many_they_are():
    """Codes .5 and .5 of class 0, .6 of class 1: two neurons do not outvote a better one."""
    net = mlp.build((1, 8, 8), (3,), width=4, depth=1)
    rule = attached(RewardSTDP(), net)
    latency = torch.tensor([[5, 4, 10, 5]])
    layers = {"hidden1": Layer([population(latency, torch.zeros(1, 4))], latency[None], nn.Identity())}
    decision, fired = rule.decide(net, layers)
    assert decision.tolist() == [1] and fired.all()


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
