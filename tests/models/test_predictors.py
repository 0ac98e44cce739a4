"""Networks that predict an image as large as their input."""

import pytest
import torch
from torch import nn

from evaluation.base import TrainedObserver
from models import cnn, lenet, mlp, resnet, shallow, vgg
from models.base import Stage, StagedNet
from rules.base import OBJECTIVES
from rules.direct_feedback_alignment import DirectFeedbackAlignment
from rules.untrained import Untrained
from training.data.base import Images, Preprocess

CONVOLUTIONS = {
    "cnn": lambda i, o: cnn.build(i, o, width=2, hidden=4),
    "lenet": lenet.build,
    "resnet": lambda i, o: resnet.build(i, o, width=2),
    "shallow": lambda i, o: shallow.build(i, o, width=2, expand=2),
    "vgg": lambda i, o: vgg.build(i, o, width=2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize(("side", "map_side"), [((16, 12), (8, 6)), ((9, 12), (9, 12)), ((1, 1), (1, 1))])
def test_a_predictor_is_convolutional_at_one_resolution(name, side, map_side):
    net = CONVOLUTIONS[name]((6, *side), (3, *side))
    trace = net.trace(torch.randn(2, 6, *side))
    assert trace[net.readout].shape == (2, 3, *side)
    assert {tuple(trace[s].shape[2:]) for s in net.hidden} == {map_side}
    assert all(isinstance(m, nn.Conv2d) for m in net.synapses().values())
    classifier = CONVOLUTIONS[name]((6, *side), (7,))
    assert list(classifier.stages) == list(net.stages)


def test_what_is_no_image_of_the_inputs_size_keeps_its_dense_readout():
    for out_shape in ((10,), (3, 9, 7)):
        assert isinstance(cnn.build((6, 16, 16), out_shape, width=2).stages["readout"].synapse, nn.Linear)
    assert isinstance(mlp.build((6, 16, 16), (3, 16, 16), width=4).stages["readout"].synapse, nn.Linear)


def test_pixels_are_laid_out_where_the_first_stage_saw_them():
    """Weights that pick each of the 2 × 2 pixels under a position, and write them back, copy the image."""
    net = cnn.build((1, 8, 8), (1, 8, 8), width=4, hidden=4, activation="identity")
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        for i in range(4):
            net.stages["conv1"].synapse.weight[i, 0, 1 + i // 2, 1 + i % 2] = 1
            for name in ("conv2", "conv3", "readout"):
                net.stages[name].synapse.weight[i, i, 1, 1] = 1
            net.stages["hidden"].synapse.weight[i, i, 0, 0] = 1
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(net(x), x)


def copier(frames=3, size=8):
    """A network that repeats the last of ``frames`` colour frames."""
    keep = nn.Conv2d(3 * frames, 3, 1, bias=False)
    again = nn.Conv2d(3, 3, 1, bias=False)
    with torch.no_grad():
        keep.weight.zero_()[:, -3:, 0, 0] = torch.eye(3)
        again.weight[:, :, 0, 0] = torch.eye(3)
    stages = {"keep": Stage(keep), "readout": Stage(again)}
    return StagedNet(stages, (3 * frames, size, size), (3, size, size))


@pytest.mark.parametrize("encoding", ["srgb", "linear"])
def test_an_observer_predicts_frames_as_stimuli_which_can_be_fed_back(encoding):
    net = copier()
    preprocess = Preprocess(net.in_shape, (0.3, 0.4, 0.5) * 3, (0.2, 0.25, 0.3) * 3, encoding, 3)
    held_out = Images(torch.rand(5, 9, 8, 8), torch.rand(5, 3, 8, 8))
    observer = TrainedObserver(
        "untrained", net, Untrained(), net, Untrained(), OBJECTIVES["mean_squared_error"], preprocess, (), held_out,
        "next_frame", {"order": "shuffled"},
    )  # fmt: skip
    clip = torch.rand(4, 9, 8, 8)
    assert torch.allclose(observer.predict(clip), clip[:, -3:], atol=1e-5)
    assert torch.allclose(observer.predict(clip[:, :3]), clip[:, :3], atol=1e-5)  # a still image
    fed_back = torch.cat([clip[:, 3:], observer.predict(clip)], 1)
    assert torch.allclose(observer.predict(fed_back), clip[:, -3:], atol=1e-5)
    assert (observer.out_shape, observer.frames, observer.task_params["order"]) == ((3, 8, 8), 3, "shuffled")
    x, target = observer.probe(2)
    assert torch.allclose(target, preprocess.target(held_out.targets[:2])) and x.shape == (2, 9, 8, 8)
    expected = preprocess.target(held_out.images[:, -3:])
    assert torch.allclose(observer.predict_held_out(), expected, atol=1e-5)


def test_direct_feedback_of_an_image_is_local_and_has_the_length_that_is_promised():
    net = cnn.build((6, 32, 32), (3, 32, 32), width=8, hidden=16)
    rule = DirectFeedbackAlignment(scale=2.0)
    assert rule.supports(net.eval(), OBJECTIVES["mean_squared_error"]) is None
    rule.attach(net)
    # An error at one pixel reaches the 3 × 3 positions around its own, in a map of half the size, and no others.
    error = torch.zeros(1, 3, 32, 32)
    error[0, :, 17, 10] = 1.0
    activity = net.trace(torch.zeros(1, 6, 32, 32))
    for name in net.hidden:
        signal = rule._feed_back(error, name, activity[name])
        assert signal.shape == activity[name].shape
        rows, columns = signal[0].abs().sum(0).nonzero().unbind(1)
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 9, 4, 6)
    errors = torch.zeros(64, 3, 32, 32)
    errors[:, :, 4:-4, 4:-4] = torch.randn(64, 3, 24, 24)
    for name in net.hidden:
        ratio = rule._feed_back(errors, name, activity[name]).norm() / errors.norm()
        assert ratio.item() == pytest.approx(2.0, rel=0.15)


def test_direct_feedback_of_a_large_image_fits():
    net = cnn.build((12, 64, 64), (3, 64, 64), width=8, hidden=16).eval()
    assert DirectFeedbackAlignment().supports(net, OBJECTIVES["mean_squared_error"]) is None
