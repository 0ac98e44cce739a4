"""Inducers behind polygons: there in every class alike, never a Kanizsa figure, and the polygons are those of shapes."""

from pathlib import Path

import pytest
import torch

from training.data import shapes, shapes_familiar
from training.data.base import Source
from training.errors import UserError

SOURCE = Source(Path("/nowhere"), seed=3)


def pair(**options):
    options = {"size": 32, "train": 400, "test": 100} | options
    return shapes_familiar.build(SOURCE, **options), shapes.build(
        SOURCE, **{k: v for k, v in options.items() if k != "inducers"}
    )


def test_polygons_are_those_of_shapes_and_without_inducers_so_are_the_images():
    familiar, plain = pair()
    assert torch.equal(familiar.train.targets, plain.train.targets) and familiar.classes == plain.classes
    none, _ = pair(inducers=0)
    assert torch.equal(none.train.images, plain.train.images) and torch.equal(none.test.images, plain.test.images)
    # What differs is inducers; where the polygon is painted over them nothing does.
    differs = (familiar.train.images - plain.train.images).abs() > 1e-6
    assert 0.02 < differs.float().mean() < 0.3
    figures = shapes.sample(400, 32, torch.Generator().manual_seed(0))
    assert differs.flatten(1).any(1).float().mean() > 0.95 and len(figures.target) == 400


def test_inducers_tell_nothing_about_the_class():
    """Equally much of every class's images is covered, by the standard error of 100 images each."""
    familiar, plain = pair(train=1600, clutter=0, noise=0.0)
    covered = ((familiar.train.images - plain.train.images).abs() > 1e-6).flatten(1).float().mean(1)
    figure_free = [covered[plain.train.targets == c] for c in range(4)]
    error = covered.std() / 20
    means = torch.stack([g.mean() for g in figure_free])
    # Larger polygons hide more: the means may differ a little, by their area, not by the number of inducers.
    assert (means.max() - means.min()) < 6 * error + 0.03
    alone = shapes_familiar.paint_inducers(
        torch.full((50, 32, 32), 0.5), torch.full((50,), 0.5), num=1, generator=torch.Generator().manual_seed(0)
    )
    contrast = (alone - 0.5).abs().flatten(1).amax(1)
    assert (contrast[contrast > 0.05] > 0.2).all()


def test_one_seed_is_one_data_set_and_options_are_checked():
    a, b = pair()[0], pair()[0]
    assert torch.equal(a.train.images, b.train.images)
    with pytest.raises(UserError, match="inducers >= 0"):
        pair(inducers=-1)
    with pytest.raises(UserError, match="size >= 16"):
        pair(size=8)
