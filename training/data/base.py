"""A task in memory, its preprocessing, and batches whose order depends on the seed and the epoch alone.

Shapes: images are ``(N, C, H, W)``, uint8 in 0…255 or float32 in 0…1, grey (C = 1) or colour (C = 3).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.config import Inputs, stream

Encoding = Literal["linear", "srgb"]
Augment = Literal["none", "flip", "flip_crop"]
Predicts = Literal["frame", "change"]
LUMINANCE = (0.2126, 0.7152, 0.0722)  # weights of linear R, G, B (Rec. 709)


@dataclass(frozen=True)
class Source:
    """Where a task may look for data, and the seed of what it generates."""

    root: Path
    download: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Images:
    """Images and their targets: class indices ``(N,)`` or images ``(N, C, H, W)``."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Preprocess:
    """From images to what the network was trained on.

    Attributes:
        shape: ``(C, H, W)`` of the network's input.
        mean: Mean of the training images per channel, in 0…1.
        std: Standard deviation per channel.
        encoding: Whether the training images are linear in luminance or sRGB-encoded photographs.
        frames: Frames of a clip that one input holds, stacked along its channels, the oldest first; 1 for images.
        predicts: Whether outputs are the next frame of a clip, or its change from the last frame.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    encoding: Encoding
    frames: int = 1
    predicts: Predicts = "frame"

    def __call__(self, images: Tensor) -> Tensor:
        """Standardise images that are already in the training encoding and shape."""
        return self._standardised(images, self.shape[0])

    def target(self, targets: Tensor) -> Tensor:
        """Return class indices as they are, and frames ``(N, C, H, W)``, or changes, standardised as an input's are."""
        if targets.dim() == 1:
            return targets
        return self._standardised(targets, targets.shape[1], centred=self.predicts == "frame")

    def stimulus(self, images: Tensor) -> Tensor:
        """Fit stimuli in linear luminance to the network: size, channels, encoding, then standardise.

        Where inputs are clips, stimuli are clips of as many frames, grey or colour, or still images, grey or colour,
        which then are every frame. Three channels for a network of three colour frames are a still image.
        """
        x = images.float()
        if self.frames > 1:
            if x.shape[1] == self.shape[0] or x.shape[1] in {self.frames, 3 * self.frames} - {1, 3}:
                x = x.unflatten(1, (self.frames, -1)).flatten(0, 1)
            else:
                x = x.repeat_interleave(self.frames, 0)
        channels = self.shape[0] // self.frames
        if x.shape[-2:] != self.shape[1:]:
            x = F.interpolate(x, self.shape[1:], mode="bilinear", antialias=True, align_corners=False)
        if x.shape[1] == 1 and channels == 3:
            x = x.expand(-1, 3, -1, -1)
        elif x.shape[1] == 3 and channels == 1:
            x = (x * x.new_tensor(LUMINANCE)[:, None, None]).sum(1, keepdim=True)
        x = to_srgb(x) if self.encoding == "srgb" else x
        return self(x.unflatten(0, (-1, self.frames)).flatten(1, 2) if self.frames > 1 else x)

    def shown(self, output: Tensor, x: Tensor) -> Tensor:
        """Return the frames ``(N, C, H, W)`` that an output predicts, in 0…1 as the training frames are encoded.

        Args:
            output: Of the network, or what ``target`` returns.
            x: The network's input, to whose last frame a predicted change is added.
        """
        channels = output.shape[1]
        mean, std = (output.new_tensor(values[:channels])[:, None, None] for values in (self.mean, self.std))
        if self.predicts == "change":
            output = output + x[:, -channels:]
        return output * std + mean

    def frame(self, output: Tensor, x: Tensor) -> Tensor:
        """Return what ``shown`` returns as stimuli: in linear luminance, within 0…1."""
        frames = self.shown(output, x).clamp(0, 1)
        return to_linear(frames) if self.encoding == "srgb" else frames

    def _standardised(self, images: Tensor, channels: int, *, centred: bool = True) -> Tensor:
        x = images if images.is_floating_point() else images.float().div_(255)
        mean, std = (x.new_tensor(values[:channels])[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std if centred else x / std


def to_srgb(linear: Tensor) -> Tensor:
    """Encode linear light in 0…1 as sRGB (IEC 61966-2-1)."""
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-8) ** (1 / 2.4) - 0.055)


def to_linear(encoded: Tensor) -> Tensor:
    """Decode sRGB in 0…1 to linear light: the inverse of ``to_srgb``."""
    encoded = encoded.clamp(0, 1)
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


@dataclass(frozen=True)
class Task:
    """What a network is trained to do.

    Attributes:
        classes: Names of the classes, by index; empty where the next frame of a clip is predicted. Images then are
            clips, their frames stacked along the channels, the oldest first, and targets are frames.
        objective: Name of the loss.
        train: Training set.
        test: Held-out set.
        encoding: Of the images.
        augment: Random changes of training images: mirror, or mirror and shift by up to 4 pixels.
        inputs: Whether networks see images standardised by the training set, or in 0…1.
        predicts: Whether targets are next frames, or their changes from the last frame.
    """

    classes: tuple[str, ...]
    train: Images
    test: Images
    encoding: Encoding = "linear"
    augment: Augment = "none"
    objective: str = "cross_entropy"
    inputs: Inputs = "standardised"
    predicts: Predicts = "frame"

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Shape of one input."""
        c, h, w = self.train.images.shape[1:]
        return c, h, w

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output."""
        return (len(self.classes),) if self.classes else tuple(self.train.targets.shape[1:])

    @property
    def frames(self) -> int:
        """Frames in one input."""
        return 1 if self.classes else self.in_shape[0] // self.out_shape[0]

    def for_validation(self, share: float, seed: int) -> "Task":
        """Return the task with a random share of its training set held out in place of the test set, which is dropped.

        Args:
            share: Of the training set, between 0 and 1.
            seed: The run's seed; one seed is one split, for every rule.

        Raises:
            ValueError: If the share leaves nothing to train on, or nothing to measure.
        """
        num, held_out = len(self.train), round(share * len(self.train))
        if not 0 < held_out < num:
            raise ValueError(f"validation={share:g} of {num} training images leaves one side of the split empty")
        order = torch.randperm(num, generator=torch.Generator().manual_seed(stream(seed, "validation")))
        test, train = (
            Images(self.train.images[i], self.train.targets[i])
            for i in (order[:held_out].sort().values, order[held_out:].sort().values)
        )
        return replace(self, train=train, test=test)

    def preprocess(self) -> Preprocess:
        """Return the standardisation that the training images define, or none."""
        if self.inputs == "unit":
            channels = self.in_shape[0]
            none, one = (0.0,) * channels, (1.0,) * channels
            return Preprocess(self.in_shape, none, one, self.encoding, self.frames, self.predicts)
        chunks = self.train.images.split(4096)
        scale = 255.0 if self.train.images.dtype == torch.uint8 else 1.0
        count = self.train.images[:, 0].numel()
        mean = sum(c.double().sum((0, 2, 3)) for c in chunks) / count / scale
        square = sum(c.double().square().sum((0, 2, 3)) for c in chunks) / count / scale**2
        # The same for every frame of a clip: a still image is then the same in all of them.
        mean, square = (m.view(self.frames, -1).mean(0).repeat(self.frames) for m in (mean, square))
        std = (square - mean.square()).clamp(min=0).sqrt().clamp(min=1e-3)
        mean, std = tuple(mean.tolist()), tuple(std.tolist())
        return Preprocess(self.in_shape, mean, std, self.encoding, self.frames, self.predicts)


class BatchOrder(Sampler[tuple[int, int, list[int]]]):
    """Batches in an order that depends on ``(seed, epoch)`` alone, so that a resumed run repeats it.

    Args:
        num_images: Size of the training set.
        batch_size: Images per batch over all processes; the last, smaller batch is left out.
        seed: The run's seed.
        rank: This process; it takes its share of every batch.
        world: Number of processes.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.num_images, self.batch_size = num_images, min(batch_size, num_images)
        if self.batch_size % world:
            raise ValueError(f"a batch of {self.batch_size} cannot be shared equally by {world} processes")
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls it, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_images // self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int, list[int]]]:
        generator = torch.Generator().manual_seed(stream(self.seed, "order", self.epoch))
        order = torch.randperm(self.num_images, generator=generator).tolist()
        for step in range(len(self)):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self.epoch, step, batch[self.rank :: self.world]


class TrainingBatches(Dataset[tuple[Tensor, Tensor]]):
    """Whole batches of a task's training set, augmented and standardised."""

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed = task, seed
        self.preprocess = task.preprocess()

    def __getitem__(self, batch: tuple[int, int, list[int]]) -> tuple[Tensor, Tensor]:
        epoch, step, indices = batch
        images = self.task.train.images[indices]
        if self.task.augment != "none":
            generator = torch.Generator().manual_seed(stream(self.seed, "augment", epoch, step, indices[0]))
            images = augment(images, self.task.augment, generator)
        return self.preprocess(images), self.preprocess.target(self.task.train.targets[indices])


def training_loader(task: Task, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> DataLoader:
    """Return the training batches of one process; one item is one whole batch."""
    order = BatchOrder(len(task.train), batch_size, seed, rank, world)
    return DataLoader(TrainingBatches(task, seed), sampler=order, batch_size=None)


def augment(images: Tensor, kind: Augment, generator: torch.Generator) -> Tensor:
    """Mirror half of the images; with ``flip_crop`` also shift each by up to 4 pixels, zero-padded."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    if kind == "flip_crop":
        height, width = images.shape[-2:]
        padded = F.pad(images, (4, 4, 4, 4))
        top, left = torch.randint(0, 9, (2, len(images)), generator=generator)
        rows = (top[:, None] + torch.arange(height))[:, :, None]
        columns = (left[:, None] + torch.arange(width))[:, None, :]
        image = torch.arange(len(images))[:, None, None]
        images = padded.permute(0, 2, 3, 1)[image, rows, columns].permute(0, 3, 1, 2)
    return images
