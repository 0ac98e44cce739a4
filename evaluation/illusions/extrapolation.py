"""What a predictor of frames makes of a still image: repeat it, then feed the predictions back (Watanabe et al. 2018).

    clip = image × T;   p₁ = f(clip);   p_{n+1} = f(the last T frames of clip, p₁ … p_n)

T is the length of the clips that the network was trained on, for recurrent networks too, which begin anew with every
window; in the published analyses the state goes on through 10 or 20 repetitions and the predictions after them.

The turn is that between *successive predictions*, ring by ring: between the input and the first prediction, blur and
saturation would count as motion. Whatever the observer turns everywhere alike is removed by its own answer to the
mirror image: half the difference of the two is the speed, half the sum the bias.

Shapes: ``B`` images, ``T`` frames, ``S`` extrapolated steps, ``R`` rings; clips are ``(B, T, C, H, W)`` in linear
luminance. Speeds are degrees per frame, counter-clockwise positive.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from evaluation.illusions import polar_flow
from evaluation.illusions.snakes_stimuli import Disc, render
from training.data.base import LUMINANCE

STEPS = 8  # predictions; the speed is that between them
# Below these a ring of a prediction no longer shows what the image does, and its turn means nothing: contrast relative
# to the image's, and correlation with the image at the best turn.
LEAST_CONTRAST, LEAST_LIKENESS = 0.05, 0.5
CALIBRATION = 0.25  # deg by which a disc is turned to calibrate the flow
PHASES = 4  # phases of the disc that is turned


class Predictor(Protocol):
    """Anything that predicts the next frame: an observer, or a map."""

    def predict(self, stimuli: Tensor) -> Tensor:
        """Return the frame ``(B, C, H, W)`` after clips whose frames are stacked along the channels, oldest first."""


@dataclass(frozen=True)
class View:
    """How an observer sees frames, and how its predictions are read.

    Attributes:
        frames: T.
        channels: Channels of one frame.
        height: Of a frame.
        width: Of a frame.
        disc: The disc that its frames can show best.
        gain: ``(R,)`` turn that the flow finds for every degree that the disc really turns at this size.
    """

    frames: int
    channels: int
    height: int
    width: int
    disc: Disc
    gain: Tensor

    @property
    def size(self) -> int:
        """Side of the stimuli that are drawn for it."""
        return max(self.height, self.width)

    @property
    def radius(self) -> Tensor:
        """Middle radius of every ring, by which rings are weighted, ``(R,)``."""
        return torch.tensor([sum(edge) / 2 for edge in self.disc.edges], dtype=torch.float64)

    def fit(self, images: Tensor) -> Tensor:
        """Return stimuli ``(B, 1 or 3, size, size)`` with the observer's channels and size."""
        if images.shape[1] == 3 and self.channels == 1:
            images = (images * images.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)
        if images.shape[1] == 1:
            images = images.expand(-1, self.channels, -1, -1)
        if images.shape[-2:] != (self.height, self.width):
            shape = (self.height, self.width)
            images = F.interpolate(images, shape, mode="bilinear", antialias=True, align_corners=False)
        return images

    def still(self, images: Tensor) -> Tensor:
        """Return clips in which every frame is the image."""
        return self.fit(images)[:, None].expand(-1, self.frames, -1, -1, -1)

    def turn(self, before: Tensor, after: Tensor) -> Tensor:
        """Return by how many degrees every ring turned between frames ``(B, C, H, W)``, calibrated, ``(B, R)``."""
        return polar_flow.rotation(before, after, self.disc.edges, self.disc.period / 2) / self.gain


def view(observer: Any, disc: Disc) -> View:
    """Return how an observer sees discs of that geometry; the flow is calibrated on one that really turns."""
    channels, height, width = observer.in_shape
    frames = getattr(observer, "frames", 1)
    plain = View(frames, channels // frames, height, width, disc, torch.ones(disc.rings, dtype=torch.float64))
    phase = disc.period * torch.arange(PHASES) / PHASES + 0.37
    back, forth = (plain.fit(render(disc, plain.size, phase + s * CALIBRATION / 2)) for s in (-1, 1))
    gain = (plain.turn(back, forth) / CALIBRATION).mean(0)
    return View(frames, channels // frames, height, width, disc, gain)


def extrapolate(observer: Predictor, clips: Tensor, steps: int = STEPS) -> Tensor:
    """Return the predictions after a clip, each fed back, ``(B, S, C, H, W)``.

    Args:
        observer: Predicts the frame after a clip whose frames are stacked along the channels.
        clips: In linear luminance, at the observer's size.
        steps: Number of predictions.
    """
    window, predictions = clips, []
    for _ in range(steps):
        predictions.append(observer.predict(window.flatten(1, 2)))
        window = torch.cat([window[:, 1:], predictions[-1][:, None]], 1)
    return torch.stack(predictions, 1)


@dataclass(frozen=True)
class Motion:
    """What was seen in images, as the difference to their mirror images.

    Attributes:
        speed: Half the difference, ``(B, S − 1, R)``; nan from the step on at which a ring has lost its pattern.
        bias: Half the sum.
        contrast: Contrast of every prediction relative to the image's, ``(B, S, R)``.
        radius: Of every ring, ``(R,)``.
    """

    speed: Tensor
    bias: Tensor
    contrast: Tensor
    radius: Tensor

    @property
    def by_step(self) -> Tensor:
        """Speed at every step ``(B, S − 1)``, rings weighted by their radius."""
        return (self.speed * self.radius).sum(2) / self.radius.sum()

    @property
    def by_image(self) -> Tensor:
        """Speed of every image ``(B,)`` over the steps at which it has its pattern; nan where there are none."""
        return self.by_step.nanmean(1)


def motion(observer: Predictor, seen: View, clips: Tensor, steps: int = STEPS) -> Motion:
    """Return what an observer sees in clips: the mirror difference of the turns between its successive predictions.

    Args:
        observer: Predicts frames.
        seen: How it sees them.
        clips: ``(B, T, C, H, W)``.
        steps: Predictions fed back.
    """
    turns, contrasts = [], []
    for both in (clips, clips.flip(-1)):
        every = torch.cat([both[:, -1:], extrapolate(observer, both, steps)], 1)
        series = polar_flow.spectra(every.nan_to_num(posinf=0, neginf=0).flatten(0, 1), seen.disc.edges)
        level = polar_flow.contrast(series).unflatten(0, every.shape[:2])
        level = (level[:, 1:] / level[:, :1]).nan_to_num(0)
        series = series.unflatten(0, every.shape[:2])
        found = [polar_flow.turn(series[:, n], series[:, n + 1], seen.disc.period / 2) for n in range(1, steps)]
        like = torch.stack(
            [polar_flow.likeness(series[:, 0], series[:, n], seen.disc.period / 2) for n in range(1, steps + 1)], 1
        )
        gone = ((level < LEAST_CONTRAST) | (like < LEAST_LIKENESS)).cummax(1).values[:, 1:]
        turns.append(torch.where(gone, torch.nan, torch.stack(found, 1) / seen.gain))
        contrasts.append(level)
    speed, bias, contrast = (turns[0] - turns[1]) / 2, (turns[0] + turns[1]) / 2, (contrasts[0] + contrasts[1]) / 2
    return Motion(speed, bias, contrast, seen.radius)
