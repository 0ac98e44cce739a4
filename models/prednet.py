"""PredNet (Lotter, Kreiman & Cox 2017, arXiv 1605.08104), in the variant of Watanabe et al. 2018 if asked for.

A predictive *architecture*, trained by backpropagation through time: not the learning rule called predictive coding.
For every frame, upwards and then downwards, with P_l = 0 and R_l = 0 at the start:

    A_0 = frame        A_l = pool(relu(ConvA_l(E_{l-1})))        E_l = [relu(A_l − P_l), relu(P_l − A_l)]
    R_l = ConvLSTM_l(E_l, up(R_{l+1}))                            P_l = relu(ConvP_l(R_l))

P_0 after the last frame is the prediction of the next. The loss is that of this one frame, so that one input is one
clip and every rule's contract holds; the published networks also sum the errors of the frames before it.

Weights as the Watanabe group publishes them (chainer's ``.npz`` layout, by any file name) can be loaded:

    ConvP0/W, /b                            → the readout's convolution; ConvP{l} → level{l}.predict
    ConvA{l}/W, /b                          → level{l}.rise
    ConvLSTM{l}/x_{g}0/W, x_{g}1/W, h_{g}/W → level{l}.cell, gates g = i, f, c, o in this order along the outputs,
                                              inputs E_l, up(R_{l+1}), R_l in this order
    ConvLSTM{l}/h_{g}/b                     → the cell's bias
    ConvLSTM{l}/c_{g}/W                     → level{l}.peephole, g = i, f, o; resampled where maps have another size

The group's later version for torch is another network, whose weights have no place here: its peepholes are
convolutions, it has no relu below the pooling, and its errors come in the other order.

Shapes: inputs are clips ``(B, frames · C, H, W)``, the oldest frame first.
"""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.base import Stage, StagedNet, image_shape, initialise, predicts_images

LEVELS = 4
GATES = ("i", "f", "c", "o")
PEEPHOLES = ("i", "f", "o")
Predicts = Literal["frame", "change"]


class Level(nn.Module):
    """One level: what rises into it, its recurrent cell, and what the cell predicts.

    Args:
        below: Channels of the error below; 0 for the lowest level, into which frames rise as they are.
        channels: Channels of A, of P and of the state R.
        above: Channels of the state above; 0 for the highest level.
        predicts: Whether it holds the convolution of its prediction; the readout holds that of frames.
        peepholes: Size of the map where the gates see the cell's memory at their own place, or nothing.
    """

    def __init__(
        self, below: int, channels: int, above: int, *, predicts: bool, peepholes: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.rise = nn.Conv2d(below, channels, 3, padding=1) if below else None
        self.cell = nn.Conv2d(2 * channels + above + channels, 4 * channels, 3, padding=1)
        self.predict = nn.Conv2d(channels, channels, 3, padding=1) if predicts else None
        self.channels = channels
        self.peephole: nn.Parameter | None = None
        if peepholes:
            std = 1 / math.sqrt(channels * peepholes[0] * peepholes[1])
            self.peephole = nn.Parameter(std * torch.randn(3, channels, *peepholes))

    def target(self, error: Tensor) -> Tensor:
        """Return A of this level from the error of the level below."""
        assert self.rise is not None
        return F.max_pool2d(self.rise(error).relu(), 2, ceil_mode=True)

    def advance(self, inputs: list[Tensor], state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cell's next state R and memory, ``(B, channels, h, w)``."""
        i, f, c, o = self.cell(torch.cat([*inputs, state], 1)).chunk(4, 1)
        if self.peephole is not None:
            seen = self.peephole * memory[:, None]
            i, f, o = i + seen[:, 0], f + seen[:, 1], o + seen[:, 2]
        memory = f.sigmoid() * memory + i.sigmoid() * c.tanh()
        return o.sigmoid() * memory.tanh(), memory


class PredNet(StagedNet):
    """Levels and a readout. The activity of a level is its state R after the last frame."""

    recurrent = True

    def __init__(
        self,
        stages: dict[str, nn.Module],
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        frames: int,
        predicts: Predicts = "frame",
    ) -> None:
        super().__init__(stages, in_shape, out_shape)
        self.frames, self.predicts = frames, predicts

    @property
    def levels(self) -> list[Level]:
        """The levels, from the lowest upwards."""
        return [level for level in self.stages.values() if isinstance(level, Level)]

    def trace(self, x: Tensor) -> dict[str, Tensor]:
        """Return R of every level after the last frame, and the output."""
        levels = self.levels
        readout = self.stages[self.readout]
        sizes = [tuple(x.shape[2:])]
        while len(sizes) < len(levels):
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        states = [x.new_zeros(len(x), level.channels, *size) for level, size in zip(levels, sizes, strict=True)]
        memories, predictions = list(states), list(states)
        for frame in x.chunk(self.frames, 1):
            errors: list[Tensor] = []
            for level, prediction in zip(levels, predictions, strict=True):
                target = level.target(errors[-1]) if errors else frame
                errors.append(torch.cat([(target - prediction).relu(), (prediction - target).relu()], 1))
            for n in reversed(range(len(levels))):
                inputs = [errors[n]]
                if n + 1 < len(levels):
                    inputs.append(F.interpolate(states[n + 1], sizes[n], mode="nearest"))
                states[n], memories[n] = levels[n].advance(inputs, states[n], memories[n])
                predict = levels[n].predict
                predictions[n] = readout(states[n]) if predict is None else predict(states[n]).relu()
        if levels[0].predict is None:
            output = predictions[0] - frame if self.predicts == "change" else predictions[0]
        else:
            output = readout(torch.cat([state.flatten(1) for state in states], 1))
        return dict(zip(self.stages, [*states, self.shaped(output)], strict=True))


def build(
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    *,
    width: int = 16,
    pixels: Literal["linear", "unit"] = "linear",
    peepholes: bool = False,
    weights: str = "",
    predicts: Predicts = "frame",
) -> StagedNet:
    """Return levels ``level0 … level3`` of C, w, 2w and 4w channels (C: of one frame) and the readout.

    Where no image of the input's size is predicted, the readout is dense, over the states of all levels, and the input
    is one frame.

    Args:
        in_shape: ``(frames · C, H, W)``.
        out_shape: ``(C, H, W)`` of the next frame, or of another output.
        width: Channels of level 1; 48 in the published networks.
        pixels: Whether predicted pixels are cut off at 0 and 1, as published, which wants ``inputs=unit``, or not.
        peepholes: Whether gates see the cell's memory, each at its own place and weight, as in Watanabe's variant.
        weights: File of weights in the layout above; the options must be those of the network they were trained in.
        predicts: ``change`` for a task that wants the change from the last frame: the last frame is subtracted.

    Raises:
        ValueError: If an option is out of range, or the weights do not fit.
    """
    channels, *size = image_shape(in_shape, "prednet")
    if width < 1 or pixels not in ("linear", "unit") or predicts not in ("frame", "change"):
        raise ValueError(
            f"prednet needs width >= 1, pixels linear or unit and predicts frame or change, got {width=}, {pixels=}, "
            f"{predicts=}"
        )
    frames = 1
    if predicts_images(in_shape, out_shape) and channels % out_shape[0] == 0:
        frames, channels = channels // out_shape[0], out_shape[0]
    of_images = predicts_images(in_shape, out_shape) and channels == out_shape[0]
    plan = [channels, width, 2 * width, 4 * width]
    stages: dict[str, nn.Module] = {}
    units, below = 0, 0
    for n, own in enumerate(plan):
        above = plan[n + 1] if n + 1 < LEVELS else 0
        place = (size[0], size[1]) if peepholes else None
        stages[f"level{n}"] = Level(below, own, above, predicts=n > 0 or not of_images, peepholes=place)
        units += own * size[0] * size[1]
        size, below = [-(-s // 2) for s in size], 2 * own
    if of_images:
        cut_off = nn.Hardtanh(0.0, 1.0) if pixels == "unit" else None
        stages["readout"] = Stage(nn.Conv2d(channels, channels, 3, padding=1), nonlinearity=cut_off)
    else:
        stages["readout"] = Stage(nn.Linear(units, math.prod(out_shape)))
    net = PredNet(stages, in_shape, out_shape, frames, predicts)
    initialise(net)
    if weights:
        load(net, Path(weights).expanduser())
    return net


def load(net: PredNet, path: Path) -> None:
    """Load weights of the published layout, documented above, into a network of the same channels.

    Raises:
        ValueError: If the file cannot be read, or an array is missing or has another shape.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            # A network saved within chainer's Classifier has its names below that of its place there.
            arrays = {name.removeprefix("predictor/"): torch.from_numpy(file[name]) for name in file.files}
    except Exception as error:  # numpy raises OSError, ValueError, zipfile.BadZipFile, …
        raise ValueError(f"weights {path}: cannot be read ({' '.join(str(error).split())[:100]})") from error

    def take(name: str) -> Tensor:
        if name not in arrays:
            raise ValueError(f"weights {path}: no {name}; the layout is documented in models/prednet.py")
        return arrays[name]

    def put(parameter: Tensor | None, values: Tensor, name: str) -> None:
        if parameter is None or parameter.shape != values.shape:
            own = None if parameter is None else tuple(parameter.shape)
            raise ValueError(f"weights {path}: {name} is {tuple(values.shape)}, the network has {own}")
        with torch.no_grad():
            parameter.copy_(values)

    readout = net.stages[net.readout]
    assert isinstance(readout, Stage)
    for n, level in enumerate(net.levels):
        predict = readout.synapse if level.predict is None else level.predict
        for name, convolution in ((f"ConvP{n}", predict), (f"ConvA{n}", level.rise)):
            if isinstance(convolution, nn.Conv2d):
                put(convolution.weight, take(f"{name}/W"), name)
                put(convolution.bias, take(f"{name}/b"), name)
        cell = f"ConvLSTM{n}"
        inputs = ("x_{}0", "h_{}") if n + 1 == LEVELS else ("x_{}0", "x_{}1", "h_{}")
        gates = [torch.cat([take(f"{cell}/{i.format(g)}/W") for i in inputs], 1) for g in GATES]
        put(level.cell.weight, torch.cat(gates), cell)
        put(level.cell.bias, torch.cat([take(f"{cell}/h_{g}/b") for g in GATES]), cell)
        if level.peephole is not None:
            maps = torch.cat([take(f"{cell}/c_{g}/W") for g in PEEPHOLES])
            size = (level.peephole.shape[2], level.peephole.shape[3])
            if maps.shape[2:] != size:
                maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
            put(level.peephole, maps, f"{cell}/c_i")
        elif f"{cell}/c_i/W" in arrays:
            raise ValueError(f"weights {path}: hold peepholes; build the network with peepholes=true")
