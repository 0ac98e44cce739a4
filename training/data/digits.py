"""scikit-learn's 1,797 handwritten digits (8×8 pixels, 16 grey levels); they ship with scikit-learn."""

import torch

from training.data.base import Images, Source, Task


def build(source: Source, *, test: float = 0.2) -> Task:
    """Return the task of naming the digit; the split into training and test set is the same for every seed.

    Args:
        source: Not needed; the data are on disk.
        test: Share of the images held out.

    Raises:
        ValueError: If ``test`` is not between 0 and 1.
    """
    from sklearn.datasets import load_digits

    del source
    if not 0 < test < 1:
        raise ValueError(f"test must be between 0 and 1, got {test}")
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16.0
    targets = torch.from_numpy(digits.target).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    cut = int(len(images) * test)
    held_out, kept = order[:cut], order[cut:]
    return Task(
        tuple(str(d) for d in range(10)),
        Images(images[kept], targets[kept]),
        Images(images[held_out], targets[held_out]),
    )
