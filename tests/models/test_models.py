"""Architectures: shapes, initial weights, and torchvision as the oracle of the residual stages."""

import math

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from models import cnn, lenet, mlp, resnet, vgg
from models.base import NONLINEARITIES, Stage, StagedNet, initialise


@pytest.mark.parametrize("in_shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 17, 40), (2, 5, 5), (1, 1, 1)])
@pytest.mark.parametrize("out_shape", [(10,), (3, 9, 7)])
def test_any_image_in_any_shape_out(build, in_shape, out_shape):
    net = build(in_shape, out_shape)
    x = torch.randn(2, *in_shape)
    trace = net.trace(x)
    assert net(x).shape == (2, *out_shape)
    assert list(trace) == list(net.stages) == [*net.hidden, net.readout]
    assert torch.equal(trace[net.readout], net(x))


def test_mlp_takes_vectors_and_convolutions_say_that_they_do_not():
    assert mlp.build((7,), (3,))(torch.randn(2, 7)).shape == (2, 3)
    for module in (cnn, lenet, vgg, resnet):
        with pytest.raises(ValueError, match="use mlp"):
            module.build((7,), (3,))


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        (mlp, ["hidden1", "hidden2", "readout"]),
        (cnn, ["conv1", "conv2", "conv3", "hidden", "readout"]),
        (vgg, ["conv1", "conv2", "conv3", "conv4", "conv5", "readout"]),
        (lenet, ["conv1", "conv2", "conv3", "hidden", "readout"]),
        (resnet, ["stem", *[f"block{i}" for i in range(1, 9)], "readout"]),
    ],
)
def test_stage_names(module, stages):
    assert list(module.build((3, 32, 32), (10,)).stages) == stages


def test_parameters_belong_to_exactly_one_stage(build):
    net = build()
    owned = [name for stage in net.stages for name in net.parameters_of(stage)]
    assert sorted(owned) == sorted(dict(net.named_parameters()))


def test_same_seed_same_weights_other_seed_other_weights(build):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build().parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


def test_pooling_before_a_monotone_nonlinearity_changes_nothing():
    x = torch.randn(4, 2, 9, 9)
    for name in NONLINEARITIES:
        f = NONLINEARITIES[name]()
        stage = Stage(nn.Conv2d(2, 5, 3, padding=1), nonlinearity=f, pool=nn.MaxPool2d(2))
        assert torch.allclose(stage(x), nn.functional.max_pool2d(f(stage.synapse(x)), 2), atol=1e-6)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_resnet_is_torchvisions_resnet18_with_the_cifar_stem(norm):
    net = resnet.build((3, 32, 32), (10,), width=64, norm=norm, activation="relu")
    theirs = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=10, norm_layer=nn.Identity if norm == "none" else None)
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=norm == "none")
    theirs.maxpool = nn.Identity()
    # The parts come in the same order; copy them one by one.
    ours = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d)]
    others = [m for m in theirs.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d)]
    assert [type(m) for m in ours] == [type(m) for m in others]
    for a, b in zip(ours, others, strict=True):
        b.load_state_dict(a.state_dict())
    x = torch.randn(2, 3, 32, 32)
    net.eval(), theirs.eval()
    assert torch.allclose(net(x), theirs(x), atol=1e-4)


def test_initial_activity_keeps_its_scale_over_depth():
    """He's gain keeps the second moment of rectified activity at that of the input (He et al. 2015, eq. 10)."""
    stages = {f"s{i}": Stage(nn.Linear(1000, 1000), nonlinearity=nn.ReLU()) for i in range(6)}
    stages["readout"] = Stage(nn.Linear(1000, 10))
    torch.manual_seed(0)
    net = initialise(StagedNet(stages, (1000,), (10,)))
    x = torch.randn(500, 1000)
    moments = [net.trace(x)[name].square().mean().item() for name in net.hidden]
    assert all(0.75 < m < 1.3 for m in moments), moments


def test_residual_stream_does_not_blow_up_without_normalisation():
    torch.manual_seed(0)
    net = resnet.build((3, 32, 32), (10,), width=16, activation="relu")
    activity = net.trace(torch.randn(8, 3, 32, 32))
    first, last = activity["stem"].std().item(), activity["block7"].std().item()
    assert 0.2 < last / first < 5


def test_initial_weights_have_the_standard_deviation_that_is_promised():
    torch.manual_seed(0)
    net = cnn.build((3, 32, 32), (10,), activation="relu")
    for name, stage in net.stages.items():
        weight = stage.synapse.weight
        gain = 1.0 if name == "readout" else math.sqrt(2)
        expected = gain / math.sqrt(weight[0].numel())
        assert weight.std().item() == pytest.approx(expected, rel=0.1)
        assert not stage.synapse.bias.any()


@pytest.mark.parametrize("bad", [{"width": 0}, {"activation": "swish"}, {"norm": "layer"}])
def test_options_out_of_range_are_named(bad):
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        cnn.build((1, 8, 8), (10,), **bad)


def test_lenet_has_the_published_sizes_and_takes_small_images():
    """LeCun et al. 1998: 61,706 parameters without its sparse table; conv3 sees all that is left."""
    for shape in ((1, 28, 28), (1, 32, 32)):
        net = lenet.build(shape, (10,))
        assert net.trace(torch.zeros(1, *shape))["conv3"].shape == (1, 120, 1, 1)
        assert sum(p.numel() for p in net.parameters()) == 61706
    for shape in ((1, 8, 8), (3, 17, 40), (2, 5, 5), (1, 1, 1)):
        assert lenet.build(shape, (4,))(torch.zeros(2, *shape)).shape == (2, 4)


def test_mlp_of_given_widths():
    net = mlp.build((1, 28, 28), (10,), widths=(32, 16))
    assert [s.synapse.out_features for s in net.stages.values()] == [32, 16, 10]
    with pytest.raises(ValueError, match="at least 1"):
        mlp.build((4,), (2,), widths=(3, 0))
