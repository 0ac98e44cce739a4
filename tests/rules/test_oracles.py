"""Every rule against its defining equation, written out independently in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import cnn, mlp, resnet
from models.base import Stage, StagedNet, initialise
from rules.backprop import Backprop
from rules.base import OBJECTIVES, differentiate
from rules.direct_feedback_alignment import DirectFeedbackAlignment
from rules.feedback_alignment import FeedbackAlignment
from rules.readout_only import ReadoutOnly
from rules.untrained import Untrained

CE, MSE = OBJECTIVES["cross_entropy"], OBJECTIVES["mean_squared_error"]


@pytest.fixture(autouse=True)
def _float64():
    torch.set_default_dtype(torch.float64)


def batch(net, num=6):
    x = torch.randn(num, *net.in_shape)
    return (
        (x, torch.randint(0, 10, (num,)), CE) if net.out_shape == (10,) else (x, torch.rand(num, *net.out_shape), MSE)
    )


def attached(rule, net):
    rule.attach(net)
    return rule


def relative(a, b):
    return ((a - b).norm() / b.norm().clamp(min=1e-300)).item()


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=lambda o: o.name)
def test_error_is_the_gradient_of_each_images_own_loss(objective):
    output = torch.randn(5, 10, requires_grad=True)
    target = torch.rand(5, 10) if objective is MSE else torch.randint(0, 10, (5,))
    (gradient,) = torch.autograd.grad(objective.losses(output, target).sum(), output)
    assert torch.allclose(objective.error(output.detach(), target), gradient, atol=1e-12)


def test_losses_over_classes_are_their_formulas():
    output, target = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    wanted = torch.eye(3)[target]
    p = 1 / (1 + torch.exp(-output))
    bernoulli = -(wanted * p.log() + (1 - wanted) * (1 - p).log()).sum(1)
    assert torch.allclose(OBJECTIVES["sigmoid_cross_entropy"].losses(output, target), bernoulli)
    assert torch.allclose(OBJECTIVES["squared_error"].losses(output, target), ((output - wanted) ** 2).sum(1) / 2)
    assert torch.allclose(CE.losses(output, target), -(output.softmax(1)[range(5), target]).log())


@pytest.mark.parametrize("out_shape", [(10,), (1, 8, 8)])
def test_backprop_is_autograd_of_the_mean_loss(build, out_shape):
    net = build((1, 8, 8), out_shape)
    x, target, objective = batch(net)
    learned = Backprop().learn(net, x, target, objective)
    objective.losses(net(x), target).mean().backward()
    for name, parameter in net.named_parameters():
        assert torch.equal(learned.grads[name], parameter.grad), name


def test_backprop_signals_equal_finite_differences_of_each_images_own_loss():
    net = mlp.build((1, 4, 4), (10,), width=5)
    x, target, _ = batch(net)
    signal = Backprop().learn(net, x, target, CE).signals["hidden1"]
    hidden = net.trace(x)["hidden1"].detach()
    step = 1e-6
    for unit in range(5):
        losses = []
        for sign in (1, -1):
            moved = hidden.clone()
            moved[:, unit] += sign * step
            losses.append(CE.losses(net.stages["readout"](net.stages["hidden2"](moved)), target))
        assert torch.allclose(signal[:, unit], (losses[0] - losses[1]) / (2 * step), atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_feedback_alignment_on_an_mlp_is_lillicraps_equation(activation):
    net = mlp.build((1, 4, 4), (10,), width=7, activation=activation)
    x, target, _ = batch(net)
    rule = attached(FeedbackAlignment(), net)
    learned = rule.learn(net, x, target, CE)
    h0 = x.flatten(1)
    w1, w2, w3 = (net.stages[s].synapse.weight for s in ("hidden1", "hidden2", "readout"))
    f, slope = {
        "tanh": (torch.tanh, lambda z: 1 - torch.tanh(z) ** 2),
        "relu": (torch.relu, lambda z: (z > 0).double()),
    }[activation]
    z1 = h0 @ w1.T
    z2 = f(z1) @ w2.T
    error = torch.softmax(f(z2) @ w3.T, 1) - F.one_hot(target, 10)
    b2, b3 = rule.get_buffer("stages_hidden2_synapse"), rule.get_buffer("stages_readout_synapse")
    delta2 = (error @ b3) * slope(z2)
    delta1 = (delta2 @ b2) * slope(z1)
    expected = {"hidden1": delta1.T @ h0, "hidden2": delta2.T @ f(z1), "readout": error.T @ f(z2)}
    for stage, gradient in expected.items():
        assert relative(learned.grads[f"stages.{stage}.synapse.weight"], gradient / len(x)) < 1e-12
    assert relative(learned.grads["stages.hidden1.synapse.bias"], delta1.mean(0)) < 1e-12
    assert relative(learned.signals["hidden1"], delta2 @ b2) < 1e-12
    assert relative(learned.signals["hidden2"], error @ b3) < 1e-12


def test_feedback_alignment_on_a_convolution_is_the_transposed_convolution_with_b():
    stages = {
        "conv1": Stage(nn.Conv2d(2, 4, 3, padding=1), nonlinearity=nn.Tanh()),
        "conv2": Stage(nn.Conv2d(4, 5, 3, padding=1, stride=2), nonlinearity=nn.Tanh()),
        "readout": Stage(nn.Linear(5 * 4 * 4, 10)),
    }
    net = initialise(StagedNet(stages, (2, 8, 8), (10,)))
    x, target, _ = batch(net)
    rule = attached(FeedbackAlignment(), net)
    learned = rule.learn(net, x, target, CE)
    trace = net.trace(x)
    error = torch.softmax(trace["readout"], 1) - F.one_hot(target, 10)
    signal2 = (error @ rule.get_buffer("stages_readout_synapse")).view(-1, 5, 4, 4)
    delta2 = signal2 * (1 - trace["conv2"] ** 2)
    b = rule.get_buffer("stages_conv2_synapse")
    signal1 = F.conv_transpose2d(delta2, b, stride=2, padding=1, output_padding=1)
    delta1 = signal1 * (1 - trace["conv1"] ** 2)
    # dW of a convolution, from its definition: sum over images and positions of error × patch.
    patches = F.unfold(x, 3, padding=1).view(len(x), 2 * 9, 64)
    dw1 = torch.einsum("bop,bip->oi", delta1.flatten(2), patches).view(4, 2, 3, 3) / len(x)
    patches = F.unfold(trace["conv1"], 3, padding=1, stride=2).view(len(x), 4 * 9, 16)
    dw2 = torch.einsum("bop,bip->oi", delta2.flatten(2), patches).view(5, 4, 3, 3) / len(x)
    assert relative(learned.signals["conv1"], signal1) < 1e-12
    assert relative(learned.grads["stages.conv2.synapse.weight"], dw2) < 1e-12
    assert relative(learned.grads["stages.conv1.synapse.weight"], dw1) < 1e-12


@pytest.mark.parametrize("out_shape", [(10,), (1, 8, 8)])
def test_feedback_alignment_with_b_equal_to_w_is_backprop(build, out_shape):
    net = build((1, 8, 8), out_shape)
    x, target, objective = batch(net)
    rule = attached(FeedbackAlignment(), net)
    reference = Backprop().learn(net, x, target, objective)
    free = rule.learn(net, x, target, objective)
    first = next(iter(net.parameters_of(net.hidden[0])))
    assert relative(free.grads[first], reference.grads[first]) > 0.1  # before tying it is another rule
    rule.tie_feedback(net)
    tied = rule.learn(net, x, target, objective)
    for name, grad in reference.grads.items():
        assert relative(tied.grads[name], grad) < 1e-10, name
    for stage, signal in reference.signals.items():
        assert relative(tied.signals[stage], signal) < 1e-10, stage


def test_every_synapse_above_the_first_has_feedback_of_its_own_also_inside_residual_blocks():
    net = resnet.build((1, 8, 8), (10,), width=2)
    rule = attached(FeedbackAlignment(), net)
    assert len(rule.feedback(net)) == len(net.synapses()) - 1 == 20
    weights = {id(b) for b in rule.feedback(net).values()}
    assert len(weights) == 20


def test_feedback_alignment_never_reads_the_forward_weights_backwards():
    """Replacing W above a stage while its activity and the output error stay put leaves the stage's error as it was."""
    net = mlp.build((1, 4, 4), (10,), width=7)
    x, target, _ = batch(net)
    rule = attached(FeedbackAlignment(), net)
    before = rule.learn(net, x, target, CE).signals["hidden2"]
    readout = net.stages["readout"].synapse
    hidden = net.trace(x)["hidden2"].detach()
    output = readout(hidden).detach()
    # Another W and bias with the same output on this batch: move W inside the null space of the activity.
    null = torch.eye(7) - torch.linalg.pinv(hidden) @ hidden
    with torch.no_grad():
        readout.weight += torch.randn(10, 7) @ null
    assert relative(readout(hidden), output) < 1e-9
    assert null.norm() > 0.5
    assert relative(rule.learn(net, x, target, CE).signals["hidden2"], before) < 1e-9
    assert relative(Backprop().learn(net, x, target, CE).signals["hidden2"], before) > 0.1


def test_direct_feedback_alignment_on_an_mlp_is_noklands_equation():
    net = mlp.build((1, 4, 4), (10,), width=7)
    x, target, _ = batch(net)
    rule = attached(DirectFeedbackAlignment(), net)
    learned = rule.learn(net, x, target, CE)
    trace = {"input": x.flatten(1)} | net.trace(x)
    error = torch.softmax(trace["readout"], 1) - F.one_hot(target, 10)
    b1, b2 = rule.get_buffer("to_hidden1"), rule.get_buffer("to_hidden2")
    for stage, below, b in (("hidden1", "input", b1), ("hidden2", "hidden1", b2)):
        delta = (error @ b) * (1 - trace[stage] ** 2)
        assert relative(learned.grads[f"stages.{stage}.synapse.weight"], delta.T @ trace[below] / len(x)) < 1e-12
        assert relative(learned.grads[f"stages.{stage}.synapse.bias"], delta.mean(0)) < 1e-12
        assert relative(learned.signals[stage], error @ b) < 1e-12
    assert relative(learned.grads["stages.readout.synapse.weight"], error.T @ trace["hidden2"] / len(x)) < 1e-12


def test_direct_feedback_alignment_on_one_hidden_stage_tied_is_backprop():
    net = mlp.build((1, 4, 4), (10,), width=7, depth=1)
    x, target, _ = batch(net)
    rule = attached(DirectFeedbackAlignment(), net)
    rule.tie_feedback(net)
    learned, reference = rule.learn(net, x, target, CE), Backprop().learn(net, x, target, CE)
    for name, grad in reference.grads.items():
        assert relative(learned.grads[name], grad) < 1e-10


def test_direct_feedback_signal_is_b_times_error_at_every_stage_also_behind_shortcuts(build):
    """Nothing is summed over the blocks above: the signal is B_l e and nothing else."""
    net = build()
    x, target, _ = batch(net)
    rule = attached(DirectFeedbackAlignment(), net)
    learned = rule.learn(net, x, target, CE)
    error = torch.softmax(net(x), 1) - F.one_hot(target, 10)
    for stage in net.hidden:
        signal = learned.signals[stage]
        columns = signal.permute(0, 2, 3, 1) if signal.dim() == 4 else signal  # B's columns: rows, columns, channels
        assert relative(columns.flatten(1), error @ rule.get_buffer(f"to_{stage}")) < 1e-12


def test_direct_feedback_inside_a_residual_block_is_local():
    """The first convolution of a block learns from its own B e: the second one's weights do not matter to it."""
    net = resnet.build((1, 8, 8), (10,), width=2)
    x, target, _ = batch(net)
    rule = attached(DirectFeedbackAlignment(), net)
    name = "stages.block8.synapse.conv1.weight"
    before = rule.learn(net, x, target, CE)
    other = copy.deepcopy(net)
    with torch.no_grad():
        second = other.stages["block8"].synapse.conv2
        second.weight.copy_(torch.randn_like(second.weight))
        # Keep the output as it was, so that the error, which is the rule's declared input, stays the same.
        solution = torch.linalg.lstsq(other.trace(x)["block8"].flatten(1), before.output).solution
        other.stages["readout"].synapse.weight.copy_(solution.T)
        other.stages["readout"].synapse.bias.zero_()
    after = rule.learn(other, x, target, CE)
    assert relative(after.output, before.output) < 1e-6
    assert relative(after.grads[name], before.grads[name]) < 1e-6
    a, b = (differentiate(n, x, target, CE).grads[name] for n in (net, other))
    assert relative(a, b) > 0.1


def test_shared_direct_feedback_gives_all_positions_of_a_map_one_error_of_the_same_length():
    net = cnn.build((1, 8, 8), (10,), width=3, hidden=12)
    x, target, _ = batch(net)
    rule = attached(DirectFeedbackAlignment(shared=True), net)
    signal = rule.learn(net, x, target, CE).signals["conv1"]
    assert torch.equal(signal, signal[:, :, :1, :1].expand_as(signal))
    error = torch.softmax(net(x), 1) - F.one_hot(target, 10)
    assert relative(signal.flatten(1).norm(dim=1), (error @ rule.get_buffer("to_conv1")).norm(dim=1)) < 1e-12


def test_direct_feedback_refuses_matrices_that_do_not_fit_in_memory():
    with torch.device("meta"):  # shapes without the three gigabytes
        net = mlp.build((3, 64, 64), (3, 64, 64), width=2**15, depth=1)
    assert "weights" in DirectFeedbackAlignment().supports(net, MSE)


@pytest.mark.parametrize("out_shape", [(10,), (1, 8, 8)])
def test_readout_only_trains_the_readout_exactly_and_nothing_else(build, out_shape):
    net = build((1, 8, 8), out_shape)
    x, target, objective = batch(net)
    learned = ReadoutOnly().learn(net, x, target, objective)
    reference = Backprop().learn(net, x, target, objective)
    assert set(learned.grads) == set(net.parameters_of(net.readout))
    assert set(learned.signals) == {net.readout}
    for name, grad in learned.grads.items():
        assert torch.equal(grad, reference.grads[name])


def test_untrained_learns_nothing(build):
    net = build()
    x, target, objective = batch(net)
    learned = Untrained().learn(net, x, target, objective)
    assert learned.grads == {}
    assert learned.loss == objective.losses(net(x), target).mean()


def test_a_tied_feedback_buffer_keeps_no_graph_and_the_rule_can_learn_again_and_again():
    net = cnn.build((1, 8, 8), (10,), width=3, hidden=12)
    rule = attached(FeedbackAlignment(), net)
    rule.tie_feedback(net)
    x, target, _ = batch(net)
    first = rule.learn(net, x, target, CE).grads
    second = rule.learn(net, x, target, CE).grads
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_feedback_alignment_turns_the_updates_towards_backprop():
    """Published course of the angle: 90° at the start, then falling (50-100-100-5 tanh network, SGD)."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    net = mlp.build((50,), (5,), width=100)
    teacher = mlp.build((50,), (5,), width=100)
    x = torch.randn(2000, 50)
    y = (4 * teacher(x)).argmax(1)
    rule = attached(FeedbackAlignment(), net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def angles():
        ours, reference = rule.learn(net, x[:256], y[:256], CE), differentiate(net, x[:256], y[:256], CE)
        cosine = [
            torch.cosine_similarity(ours.grads[n].flatten(), reference.grads[n].flatten(), 0)
            for n in ("stages.hidden1.synapse.weight", "stages.hidden2.synapse.weight")
        ]
        return [torch.rad2deg(torch.acos(c)).item() for c in cosine]

    start = angles()
    for step in range(800):
        i = torch.randint(0, 2000, (64,), generator=torch.Generator().manual_seed(step))
        learned = rule.learn(net, x[i], y[i], CE)
        for name, parameter in net.named_parameters():
            parameter.grad = learned.grads[name]
        optimizer.step()
    end = angles()
    assert all(75 < a < 105 for a in start), start
    assert all(a < 60 for a in end), end


def test_modes_leave_synapses_without_feedback_and_everything_else_alone():
    from rules._synapse import feedback_through

    net = cnn.build((1, 8, 8), (10,), width=3, hidden=12)
    x = torch.randn(3, 1, 8, 8)
    with feedback_through({}):
        inside = net(x)
    assert torch.equal(inside, net(x))


def test_learned_feedback_gets_the_gradient_of_its_forward_weight():
    """What Kolen–Pollack needs: where B is a parameter, its gradient is that of W."""
    from rules._synapse import feedback_through

    net = cnn.build((1, 8, 8), (10,), width=3, hidden=12)
    synapses = list(net.synapses().values())[1:]
    feedback = {s.weight: torch.randn_like(s.weight, requires_grad=True) for s in synapses}
    x, target, _ = batch(net)
    with feedback_through(feedback):
        loss = CE.losses(net(x), target).mean()
    forward = torch.autograd.grad(loss, list(feedback), retain_graph=True)
    backward = torch.autograd.grad(loss, list(feedback.values()))
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
