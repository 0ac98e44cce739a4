"""MNIST: 70,000 handwritten digits, 28×28 grey (LeCun et al. 1998), through torchvision."""

from torchvision.datasets import MNIST

from training.data._torchvision import torchvision_task
from training.data.base import Augment, Source, Task


def build(source: Source, *, augment: Augment = "none", train: int = 0) -> Task:
    """Return the task of naming the class.

    Args:
        source: Where to look, and whether to download.
        augment: Random changes of training images.
        train: Use only the first so many training images; 0 for all.
    """
    return torchvision_task(MNIST, source, augment=augment, train=train)
