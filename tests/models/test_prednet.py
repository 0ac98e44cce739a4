"""PredNet against its published equations, written out step by step, and weights of the published layout."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models import prednet
from rules.backprop import Backprop
from rules.base import OBJECTIVES, refusal
from rules.feedback_alignment import FeedbackAlignment
from rules.readout_only import ReadoutOnly

WIDTH, SIZE, FRAMES = 4, 16, 3
CHANNELS = (3, WIDTH, 2 * WIDTH, 4 * WIDTH)
MSE = OBJECTIVES["mean_squared_error"]


def published(rng, peepholes=True, size=SIZE):
    """Weights in chainer's layout, as the Watanabe group saves them."""
    arrays = {}

    def convolution(name, outputs, inputs, bias=True):
        arrays[f"{name}/W"] = rng.normal(0, 0.2, (outputs, inputs, 3, 3)).astype(np.float32)
        if bias:
            arrays[f"{name}/b"] = rng.normal(0, 0.2, outputs).astype(np.float32)

    for n, own in enumerate(CHANNELS):
        if n:
            convolution(f"ConvA{n}", own, 2 * CHANNELS[n - 1])
        convolution(f"ConvP{n}", own, own)
        for gate in "ifco":
            convolution(f"ConvLSTM{n}/x_{gate}0", own, 2 * own, bias=False)
            if n < 3:
                convolution(f"ConvLSTM{n}/x_{gate}1", own, CHANNELS[n + 1], bias=False)
            convolution(f"ConvLSTM{n}/h_{gate}", own, own)
            if gate != "c" and peepholes:
                place = (1, own, size // 2**n, size // 2**n)
                arrays[f"ConvLSTM{n}/c_{gate}/W"] = rng.normal(0, 0.5, place).astype(np.float32)
    arrays["ConvP0/W"] *= 8  # predicted pixels below 0, between and above 1
    arrays["ConvP0/b"] += 0.3
    return arrays


def equations(arrays, frames, peepholes=True):
    """The prediction after the last frame, gate by gate from the arrays, in float64."""
    w = {name: torch.from_numpy(a).double() for name, a in arrays.items()}

    def conv(name, x):
        return F.conv2d(x, w[f"{name}/W"], w.get(f"{name}/b"), padding=1)

    predicted, state, memory = [0.0] * 4, [None] * 4, [None] * 4
    for frame in frames:
        errors = []
        for n in range(4):
            a = frame if n == 0 else F.max_pool2d(conv(f"ConvA{n}", errors[-1]).clamp(min=0), 2)
            errors.append(torch.cat([(a - predicted[n]).clamp(min=0), (predicted[n] - a).clamp(min=0)], 1))
            if state[n] is None:
                state[n] = memory[n] = torch.zeros_like(a)
        for n in (3, 2, 1, 0):
            cell, drive = f"ConvLSTM{n}", {}
            for gate in "ifco":
                drive[gate] = conv(f"{cell}/x_{gate}0", errors[n]) + conv(f"{cell}/h_{gate}", state[n])
                if n < 3:
                    above = state[n + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
                    drive[gate] = drive[gate] + conv(f"{cell}/x_{gate}1", above)
                if gate != "c" and peepholes:
                    drive[gate] = drive[gate] + w[f"{cell}/c_{gate}/W"] * memory[n]
            gates = {g: torch.tanh(d) if g == "c" else torch.sigmoid(d) for g, d in drive.items()}
            memory[n] = gates["i"] * gates["c"] + gates["f"] * memory[n]
            state[n] = gates["o"] * torch.tanh(memory[n])
            predicted[n] = conv(f"ConvP{n}", state[n]).clamp(min=0)
        predicted[0] = predicted[0].clamp(max=1)
    return predicted[0], state


@pytest.mark.parametrize("peepholes", [True, False])
@pytest.mark.parametrize("prefix", ["", "predictor/"])
def test_weights_of_the_published_layout_give_the_published_network(tmp_path, peepholes, prefix):
    arrays = published(np.random.default_rng(0), peepholes)
    with (tmp_path / "fpsi.model").open("wb") as file:
        np.savez(file, **{prefix + name: a for name, a in arrays.items()})
    net = prednet.build(
        (3 * FRAMES, SIZE, SIZE), (3, SIZE, SIZE), width=WIDTH, pixels="unit", peepholes=peepholes,
        weights=str(tmp_path / "fpsi.model"),
    ).double()  # fmt: skip
    x = torch.rand(2, 3 * FRAMES, SIZE, SIZE, dtype=torch.float64)
    expected, states = equations(arrays, x.chunk(FRAMES, 1), peepholes)
    assert expected.std() > 0.05 and 0 < (expected == 0).float().mean() < 0.9
    assert torch.allclose(net(x), expected, atol=1e-6)
    trace = net.trace(x)
    for n in range(4):
        assert torch.allclose(trace[f"level{n}"], states[n], atol=1e-6)


def test_peepholes_of_another_size_are_resampled(tmp_path):
    arrays = published(np.random.default_rng(0), size=32)
    for n in range(4):
        arrays[f"ConvLSTM{n}/c_i/W"][:] = n + 1.0
    np.savez(tmp_path / "w.npz", **arrays)
    net = prednet.build((3, 16, 16), (3, 16, 16), width=WIDTH, peepholes=True, weights=str(tmp_path / "w.npz"))
    for n in range(4):
        assert (net.stages[f"level{n}"].peephole[0] == n + 1).all()


def test_weights_that_do_not_fit_are_named(tmp_path):
    shapes = (3 * FRAMES, SIZE, SIZE), (3, SIZE, SIZE)
    arrays = published(np.random.default_rng(0))
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(ValueError, match="peepholes=true"):
        prednet.build(*shapes, width=WIDTH, weights=str(tmp_path / "w.npz"))
    with pytest.raises(ValueError, match=r"ConvLSTM0 is \(12, 13, 3, 3\), the network has \(12, 14, 3, 3\)"):
        prednet.build(*shapes, width=5, peepholes=True, weights=str(tmp_path / "w.npz"))
    del arrays["ConvLSTM2/h_f/b"]
    np.savez(tmp_path / "less.npz", **arrays)
    with pytest.raises(ValueError, match="no ConvLSTM2/h_f/b"):
        prednet.build(*shapes, width=WIDTH, peepholes=True, weights=str(tmp_path / "less.npz"))
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="cannot be read"):
        prednet.build(*shapes, weights=str(tmp_path / "text"))


@pytest.mark.parametrize(("size", "out"), [((17, 12), (3, 17, 12)), ((8, 8), (10,)), ((1, 1), (4,))])
def test_any_size_and_any_output(size, out):
    net = prednet.build((6, *size), out, width=2)
    assert net(torch.rand(2, 6, *size)).shape == (2, *out)
    assert list(net.stages) == ["level0", "level1", "level2", "level3", "readout"]


def test_backpropagation_goes_through_time():
    net = prednet.build((9, 8, 8), (3, 8, 8), width=2).double()
    x, target = torch.rand(2, 9, 8, 8, dtype=torch.float64), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    learned = Backprop().learn(net, x, target, MSE)
    loss = MSE.losses(net(x), target).mean()
    whole = dict(zip(dict(net.named_parameters()), torch.autograd.grad(loss, list(net.parameters())), strict=True))
    assert all(torch.allclose(learned.grads[n], g) for n, g in whole.items()) and set(whole) == set(learned.grads)
    # What was seen first moves the prediction: a finite difference of one weight agrees only if time is unrolled.
    weight = net.stages["level2"].rise.weight
    with torch.no_grad():
        weight[0, 0, 1, 1] += 1e-6
        slope = (MSE.losses(net(x), target).mean() - loss) / 1e-6
    assert slope.item() == pytest.approx(whole["stages.level2.rise.weight"][0, 0, 1, 1].item(), rel=1e-3, abs=1e-9)
    assert set(learned.signals) == set(net.stages)


def test_a_rule_for_chains_says_why_it_cannot_train_a_recurrent_network():
    net = prednet.build((9, 8, 8), (3, 8, 8), width=2)
    assert "recurrent" in refusal(FeedbackAlignment(), net, MSE)
    assert refusal(Backprop(), net, MSE) is None
    grads = ReadoutOnly().learn(net, torch.rand(2, 9, 8, 8), torch.rand(2, 3, 8, 8), MSE).grads
    assert set(grads) == {"stages.readout.synapse.weight", "stages.readout.synapse.bias"}


def test_the_change_is_the_predicted_frame_minus_the_last_one():
    torch.manual_seed(0)
    framed = prednet.build((9, 8, 8), (3, 8, 8), width=2)
    changed = prednet.build((9, 8, 8), (3, 8, 8), width=2, predicts="change")
    changed.load_state_dict(framed.state_dict())
    x = torch.randn(2, 9, 8, 8)
    assert torch.allclose(changed(x), framed(x) - x[:, 6:], atol=1e-6)
