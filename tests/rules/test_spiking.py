"""Spiking inference: neurons against snnTorch and closed forms, encodings, determinism, one image alone and in a batch."""

import gc
import math

import pytest
import snntorch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import cnn, mlp, resnet, vgg
from rules._encoding import contrast, difference_of_gaussians, encode, rank_latency
from rules._neurons import Population, kth_largest
from rules._spiking import _earliest, simulate
from rules.base import OBJECTIVES
from rules.reward_stdp import RewardSTDP
from rules.spiking_readout_only import SpikingReadoutOnly
from rules.stdp import STDP
from rules.surrogate_gradient import SurrogateGradient
from rules.surrogate_readout_only import SurrogateReadoutOnly
from rules.trace_readout_only import TraceReadoutOnly
from rules.trace_stdp import TraceSTDP

CE = OBJECTIVES["cross_entropy"]
RULES = (STDP, RewardSTDP, TraceSTDP, SurrogateGradient)
CONTROLS = {STDP: SpikingReadoutOnly, TraceSTDP: TraceReadoutOnly, SurrogateGradient: SurrogateReadoutOnly}


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)


def nets():
    shape, out = (1, 8, 8), (10,)
    return {
        "mlp": lambda: mlp.build(shape, out, width=12),
        "cnn": lambda: cnn.build(shape, out, width=3, hidden=12),
        "vgg": lambda: vgg.build(shape, out, width=2),
        "resnet": lambda: resnet.build(shape, out, width=2),
    }


def attached(rule, net):
    rule.attach(net.eval())
    return rule


def neurons(kind="first_spike", theta=1.0, steps=20, **options):
    return Population("n", torch.as_tensor([theta]), steps, kind, options.pop("decay", 0.9), **options)


@given(theta=st.floats(0.01, 3.0), current=st.floats(-5.0, 5.0))
@settings(deadline=None, max_examples=60)
def test_a_first_spike_neuron_under_constant_current_fires_when_the_ramp_crosses(theta, current):
    torch.set_default_dtype(torch.float64)
    steps = 20
    by_hand = next((t for t in range(steps) if (t + 1) * current / steps > theta * (1 + 1e-12)), steps)
    stepwise = neurons(theta=theta, steps=steps)
    for _ in range(steps):
        stepwise.integrate(torch.full((1, 1), current))
    closed = neurons(theta=theta, steps=steps)
    closed.integrate_constant(torch.full((1, 1), current))
    near_a_tie = any(abs((t + 1) * current / steps - theta) < 1e-9 for t in range(steps))
    if not near_a_tie:
        assert int(stepwise.latency) == int(closed.latency) == by_hand
        if by_hand < steps:
            assert float(closed.overshoot) == pytest.approx(float(stepwise.overshoot), abs=1e-9)


def test_first_spike_neurons_are_integrate_and_fire_of_snntorch_without_reset_silenced_after_their_spike():
    currents = torch.randn(20, 4, 6)
    ours = neurons(theta=0.3)
    theirs = snntorch.Leaky(beta=1.0, threshold=0.3, reset_mechanism="none")
    potential, fired = torch.zeros(4, 6), torch.zeros(4, 6)
    for current in currents:
        ours.integrate(current)
        spike, potential = theirs(current / 20, potential)
        fired = torch.maximum(fired, spike)
        assert torch.equal(ours.fired.double(), fired)


def test_leaky_neurons_follow_their_difference_equation():
    currents = torch.randn(30, 4, 6)
    ours = neurons("lif", theta=0.7, steps=30, decay=0.8)
    v, spike = torch.zeros(4, 6), torch.zeros(4, 6)
    for current in currents:
        v = 0.8 * v + current - 0.7 * spike
        spike = (v > 0.7).double()
        assert torch.equal(ours.step(current), spike)
        assert torch.allclose(ours.potential, v, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 8, 4, 5), (3, 12)])
def test_inhibition_lets_the_first_few_neurons_of_a_position_fire(shape):
    """Against a loop over time; and afterwards, from the crossings alone, as step by step."""
    currents = torch.randn(12, *shape)
    make = lambda share: Population("n", torch.full((shape[1],), 0.2), 12, "first_spike", 1.0, coactive=share)
    later, stepwise, free = make(0.25), make(0.25), make(1.0)
    spikes = torch.stack([stepwise.step(current) for current in currents])
    for current in currents:
        later.integrate(current)
        free.integrate(current)
    later.inhibit()
    num = round(0.25 * shape[1])
    expected = torch.full_like(free.latency, 12)
    for b in range(shape[0]):
        for place in range(free.latency[0, 0].numel()):
            wait, over = (t[b].reshape(shape[1], -1)[:, place] for t in (free.latency, free.overshoot))
            order = sorted(range(shape[1]), key=lambda f: (float(wait[f]), -float(over[f])))
            for f in order[:num]:
                expected[b].view(shape[1], -1)[f, place] = wait[f]
    assert torch.equal(later.latency, expected) and torch.equal(stepwise.latency, expected)
    assert torch.equal(12 - spikes.sum(0), expected)
    assert ((expected < 12).sum(1) <= num).all() and (expected < 12).any()


def test_competing_neurons_fire_one_at_a_time_and_reset_the_others():
    ours = neurons("lif", theta=0.5, steps=30, decay=0.9, compete=True, remember=True)
    for current in torch.rand(30, 5, 8):
        spikes = ours.step(current)
        assert (spikes.sum(1) <= 1).all()
        assert (ours.potential[spikes.sum(1) == 1] == 0).all()
    assert torch.stack(ours.signals).sum() > 20


@pytest.mark.parametrize("shape", [(5, 8), (3, 4, 2, 3)])
def test_competing_neurons_follow_their_difference_equation_step_by_step_and_at_all_steps_at_once(shape):
    currents, theta = torch.rand(30, *shape), 0.5 + torch.rand(shape[1])
    make = lambda: Population("n", theta, 30, "lif", 0.9, compete=True, keep=True, remember=True)
    stepwise, throughout = make(), make()
    for current in currents:
        stepwise.step(current)
    spikes = throughout.compete_throughout(currents)
    v, scale = torch.zeros(shape), theta.view(-1, *(1,) * (len(shape) - 2))
    for t, current in enumerate(currents):
        v = 0.9 * v + current
        margin = v / scale
        first = margin == margin.amax(1, keepdim=True)
        expected = first & (margin > 1)
        v = v * ~expected.any(1, keepdim=True)
        for signal in (spikes[t], throughout.signals[t], stepwise.signals[t]):
            assert torch.equal(signal, expected.double())
        for potential in (throughout.potentials[t], stepwise.potentials[t]):
            assert torch.allclose(potential, v, atol=1e-12)
    assert torch.equal(throughout.potential, throughout.potentials[-1])
    fired = spikes.sum(2)
    assert 0 < fired.mean() < 1 and fired.max() == 1


@pytest.mark.parametrize("name", list(nets()))
def test_at_most_one_spike_per_neuron_in_latency_mode(name):
    net = nets()[name]()
    rule = attached(STDP(encoding="latency"), net)
    records = rule.record(net, torch.randn(5, 1, 8, 8))
    assert list(records) == net.hidden
    total = sum(r.spikes.sum() for r in records.values())
    assert total > 0
    for record in records.values():
        counts = record.spikes.sum(0)
        assert record.spikes.min() >= 0 and counts.max() <= 1 + 1e-12
        code = rule.activations(net, torch.randn(5, 1, 8, 8))
        assert all(code[s].min() >= 0 and code[s].max() <= 1 for s in net.hidden)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("encoding", ["latency", "poisson", "constant"])
def test_an_image_alone_and_in_a_batch_spikes_alike_and_again(rule, encoding):
    for build in nets().values():
        net = build()
        spiking = attached(rule(encoding=encoding), net)
        x = torch.randn(6, 1, 8, 8)
        together = spiking.predict(net, x)
        alone = torch.cat([spiking.predict(net, one[None]) for one in x])
        torch.manual_seed(99)  # the state of the global generator does not matter
        assert torch.allclose(together, alone, atol=1e-12)
        assert torch.equal(together, spiking.predict(net, x))


def test_the_record_agrees_with_the_activations_and_latencies_with_the_code():
    net = nets()["cnn"]()
    rule = attached(STDP(encoding="latency", steps=12), net)
    x = torch.randn(4, 1, 8, 8)
    record, code = rule.record(net, x), rule.activations(net, x)
    for stage in net.hidden:
        expected = (12 - record[stage].latencies.double()) / 12
        assert torch.allclose(code[stage], expected)
        assert len(record[stage].potentials) == 12
    net = nets()["mlp"]()
    rate = attached(TraceSTDP(steps=9), net)
    record, code = rate.record(net, x), rate.activations(net, x)
    assert all(torch.allclose(code[s], record[s].rates) for s in net.hidden)


@given(maps=st.integers(1, 9), data=st.data())
def test_the_kth_largest_is_that_of_topk(maps, data):
    k = data.draw(st.integers(1, maps))
    x = torch.randint(0, 4, (3, maps, 2, 5)).double()  # with ties
    assert torch.equal(kth_largest(x, k), x.topk(k, 1).values[:, -1:])


@pytest.mark.parametrize("side", [6, 7])
def test_the_earliest_latency_under_a_pooling_is_that_of_max_pool(side):
    latency = torch.randint(0, 11, (2, 3, side, side)).double()
    for pool in (torch.nn.MaxPool2d(2), torch.nn.MaxPool2d(3, 2), torch.nn.MaxPool2d(2, ceil_mode=True)):
        assert torch.equal(_earliest(latency, pool), -pool(-latency))


def test_max_pooling_passes_the_earliest_spike():
    net = nets()["cnn"]()
    rule = attached(STDP(encoding="latency"), net)
    layers, _ = rule.run(net, torch.randn(3, 1, 8, 8), seed=0)
    own = layers["conv1"].populations[-1].latency.double()
    windows = own.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).amin(-1)
    assert torch.equal((10 - layers["conv1"].signal.sum(0)), windows)


def test_the_readout_is_the_potential_of_an_integrator_at_the_end():
    net = nets()["mlp"]()
    rule = attached(STDP(encoding="latency"), net)
    x = torch.randn(3, 1, 8, 8)
    layers, output = rule.run(net, x, seed=0)
    readout, v = net.stages["readout"].synapse, torch.zeros(3, 10)
    with torch.no_grad():
        for latched in layers["hidden2"].signal:
            v = v + (latched @ readout.weight.T + readout.bias) / 10
    assert torch.allclose(output, v)


@pytest.mark.parametrize(("rule", "control"), CONTROLS.items())
def test_a_rule_and_its_own_control_infer_alike_and_the_control_moves_no_hidden_weight(rule, control):
    assert rule.baseline == rules_file(control) and control.tags.control
    net = nets()["cnn"]()
    plastic, frozen = attached(rule(), net), attached(control(), net)
    frozen.load_state_dict(plastic.state_dict(), strict=False)
    x, target = torch.randn(5, 1, 8, 8), torch.arange(5)
    torch.manual_seed(1)
    learned = plastic.learn(net, x, target, CE)
    torch.manual_seed(1)
    beside = frozen.learn(net, x, target, CE)
    assert torch.allclose(learned.output, beside.output)
    assert torch.allclose(plastic.predict(net, x), frozen.predict(net, x))
    of_network = {n for n in beside.grads if n.startswith("stages.")}
    assert of_network == {"stages.readout.synapse.weight", "stages.readout.synapse.bias"}
    assert all(torch.allclose(g, learned.grads[n]) for n, g in beside.grads.items())
    before = {n: p.clone() for n, p in net.named_parameters()}
    frozen.after_step(net)
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())


def rules_file(rule):
    return rule.__module__.rpartition(".")[2]


def test_neurons_stand_inside_residual_blocks_too():
    net = nets()["resnet"]()
    rule = attached(STDP(), net)
    names = [p.name for p in rule.places(net)]
    assert names[:4] == ["stem", "block1.relu", "block1", "block2.relu"] and len(names) == 17
    synapses = [key for p in rule.places(net) for key in p.synapses]
    hidden = [n for n in net.synapses() if "readout" not in n]
    assert sorted(synapses) == sorted(hidden)  # every affine map drives exactly one population


def test_the_filter_is_blind_to_uniform_fields_and_sees_edges():
    assert difference_of_gaussians(torch.zeros(1)).sum().abs() < 1e-12
    assert (contrast(torch.full((2, 3, 9, 9), 0.7)) == 0).all()
    edge = torch.zeros(1, 1, 12, 12)
    edge[..., 6:] = 1
    c = contrast(edge)[0, 0, 6]
    assert c[6] > 0 > c[5] and c.abs().max() == pytest.approx(1)
    assert torch.allclose(contrast(-edge), -contrast(edge))


def test_colours_are_coded_channel_by_channel():
    image = torch.zeros(1, 3, 12, 12)
    image[:, 0, :, 6:] = 1  # a red edge
    c = contrast(image)
    assert (c[:, 0] != 0).any() and (c[:, 1:] == 0).all()


def test_stronger_contrast_fires_earlier_and_every_step_has_its_share():
    c = (torch.arange(-20.0, 21.0) / 20)[None]
    latency = rank_latency(c, 5)[0]
    order = c[0].abs().argsort(descending=True, stable=True)
    assert (latency[order].diff() >= 0).all()
    counts = torch.bincount(latency, minlength=6)
    assert counts[5] == 1 and counts[:5].sum() == 40 and (counts[:5] == 8).all()  # the silent one is c = 0
    spikes = encode(c, "latency", 5, 0.5, 0, latched=False)
    assert (spikes.abs().sum(0) <= 1).all() and torch.equal(spikes.sum(0).sign(), (c * (c.abs() >= 0.1)).sign())
    latched = encode(c, "latency", 5, 0.5, 0, latched=True)
    assert torch.equal(latched, spikes.cumsum(0)) and (latched[0] != 0).any()  # on from the very step of the spike


def test_poisson_spikes_have_the_rate_that_the_contrast_asks_for():
    x = torch.randn(3, 40)
    c = contrast(x)
    spikes = encode(x, "poisson", 4000, 0.5, 7, latched=False)
    spread = (0.25 / 4000) ** 0.5
    assert ((spikes.mean(0) - 0.5 * c).abs() < 5 * spread).all()
    other = encode(x, "poisson", 4000, 0.5, 8, latched=False)
    assert not torch.equal(spikes, other)


def test_the_gradient_of_a_spike_is_the_fast_sigmoid():
    """One neuron, one step, one synapse: ∂(signal)/∂w = x / T · 1 / (1 + k |V − θ|)²."""
    surrogate = snntorch.surrogate.fast_sigmoid(slope=10.0)
    w, x = torch.tensor(0.6, requires_grad=True), 1.5
    cell = Population("n", torch.tensor([0.5]), 1, "first_spike", 1.0, surrogate)
    signal = cell.step((w * x).view(1, 1))
    (gradient,) = torch.autograd.grad(signal.sum(), w)
    assert signal.item() == 1 and gradient.item() == pytest.approx(x / (1 + 10 * abs(0.9 - 0.5)) ** 2)


@pytest.mark.parametrize("neuron", ["first_spike", "lif"])
def test_surrogate_gradients_use_the_same_inference_as_prediction(neuron):
    for build in nets().values():
        net = build()
        rule = attached(SurrogateGradient(neuron=neuron), net)
        x, target = torch.randn(4, 1, 8, 8), torch.randint(0, 10, (4,))
        learned = rule.learn(net, x, target, CE)
        assert torch.allclose(learned.output, rule.predict(net, x), atol=1e-10)


def test_the_readout_of_the_surrogate_gradient_is_the_exact_gradient():
    net = nets()["mlp"]()
    rule = attached(SurrogateGradient(), net)
    x, target = torch.randn(4, 1, 8, 8), torch.randint(0, 10, (4,))
    learned = rule.learn(net, x, target, CE)
    v = rule.activations(net, x)["hidden2"]
    expected = (learned.output.softmax(1) - torch.nn.functional.one_hot(target, 10)).T @ v / 4
    assert torch.allclose(learned.grads["stages.readout.synapse.weight"], expected)


def test_normalisation_is_refused_with_its_reason():
    net = cnn.build((1, 8, 8), (10,), width=2, hidden=8, norm="batch")
    assert "norm=none" in STDP().supports(net, CE)


def test_a_blank_image_makes_no_neuron_fire():
    for build in nets().values():
        net = build()
        rule = attached(STDP(), net)
        assert all(r.spikes.sum() == 0 for r in rule.record(net, torch.zeros(2, 1, 8, 8)).values())


@pytest.mark.parametrize(("option", "value"), [("encoding", "morse"), ("steps", 0)])
def test_mistakes_are_named(option, value):
    with pytest.raises(ValueError, match=str(value)):
        STDP(**{option: value})


def test_simulation_leaves_no_hooks_behind_even_when_it_fails():
    net = nets()["resnet"]()

    def broken(name):
        if name == "block3":
            raise RuntimeError("no neurons here")
        return neurons(theta=1.0, steps=2)

    with pytest.raises(RuntimeError, match="no neurons"):
        simulate(net, torch.zeros(2, 1, 1, 8, 8), broken)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())
    assert hooks == 0 and math.isfinite(net(torch.zeros(1, 1, 8, 8)).sum().item())


@pytest.mark.parametrize("make", [*RULES, lambda: SurrogateGradient(neuron="lif")])
def test_nothing_of_a_batch_outlives_it(make):
    """No neuron, potential or graph is kept: training would run out of memory."""
    net, rule = mlp.build((1, 8, 8), (10,), width=6), make()
    rule.attach(net)
    x, target = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
    alive = []
    for _ in range(3):
        rule.learn(net, x, target, CE)
        gc.collect()
        alive.append(sum(issubclass(type(o), torch.Tensor | torch.nn.Module) for o in gc.get_objects()))
    assert alive[1] == alive[2]
