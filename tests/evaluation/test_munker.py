"""Munker: the church is the same pixels in both pictures; filters get the known verdicts; colour is needed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2lab

from evaluation.illusions import munker
from evaluation.illusions.munker import Munker, b_star
from evaluation.illusions.munker_stimuli import (
    DISPLAYS,
    STRIPES,
    TARGETS,
    YELLOWER,
    church,
    lab,
    pairs,
    yellow_blue,
)
from evaluation.illusions.surface import gaussian
from evaluation.observers import blur, pixel_map
from evaluation.observers._filter import filtered
from training.data.base import Images, Task


def colour_task(size, encoding="linear"):
    images = torch.rand(32, 3, size, size, generator=torch.Generator().manual_seed(0))
    data = Images(images, torch.zeros(32, dtype=torch.long))
    return Task(("a", "b"), data, data, encoding=encoding, inputs="unit")


@pytest.fixture(scope="module")
def filters():
    """Scores of every filter at 64 pixels, by name of the filter."""
    bench = Munker(num=12, training=240)
    modules = (pixel_map, blur)
    return {m.__name__.rsplit(".", 1)[-1]: bench.measure(m.build(colour_task(64))) for m in modules}


def of(scores, metric, stage=None, target=None):
    return next(s for s in scores if s.metric == metric and stage in (None, s.stage) and target in (None, s.target))


@settings(max_examples=20, deadline=None)
@given(
    display=st.sampled_from(sorted(DISPLAYS)),
    size=st.sampled_from([16, 32, 48, 64]),
    seed=st.integers(0, 1000),
    change=st.sampled_from([-0.05, 0.0, 0.05]),
)
def test_the_church_is_the_same_pixels_in_both_pictures_and_the_stripes_change_places(display, size, seed, change):
    two = pairs(display, size, 6, seed, change)
    for i, (first, second, mask) in enumerate(zip(two.first, two.second, two.mask, strict=True)):
        colour = torch.tensor(list(TARGETS.values())[i % 3]) + change * torch.tensor(YELLOWER)
        seen = (first == colour[:, None, None]).all(0)
        assert mask.any() and (seen | ~mask).all() and torch.equal(first[:, seen], second[:, seen])
        yellow, blue = (torch.tensor(c) for c in STRIPES[i // 3])
        assert torch.allclose((first + second)[:, ~seen], (yellow + blue)[:, None])
    again = pairs(display, size, 6, seed, change)
    assert torch.equal(two.first, again.first) and torch.equal(two.second, again.second)


@pytest.mark.parametrize("display", sorted(DISPLAYS))
def test_stripes_in_front_are_yellow_in_the_first_picture_and_the_only_neighbours_where_it_is_read(display):
    size = 64
    two = pairs(display, size, 6, 1)
    for i in range(6):
        yellow, blue = (torch.tensor(c) for c in STRIPES[i // 3])
        near = F.max_pool2d(two.mask[i][None, None].float(), 3, 1, 1)[0, 0].bool()
        colour = torch.tensor(list(TARGETS.values())[i % 3])
        for image, front in ((two.first[i], yellow), (two.second[i], blue)):
            around = image[:, near]
            is_front, is_church = ((around == c[:, None]).all(0) for c in (front, colour))
            assert (is_front | is_church).all() and is_front.any()
            inside = church(size)[4:-4, 4:-4] & ~(image == colour[:, None, None]).all(0)[4:-4, 4:-4]
            assert (image[:, 4:-4, 4:-4][:, inside] == front[:, None]).all(0).float().mean() > 0.8  # it may be moved


def test_the_silhouette_is_a_church():
    """One piece; the spire is the highest point, above the tower; the gable's ridge is lower and above the nave."""
    from skimage.measure import label

    shape = church(128).numpy()
    assert label(shape).max() == 1
    top = np.argmax(shape, 0).astype(float)
    top[~shape.any(0)] = np.nan
    tower, nave = np.nanargmin(top), 64 + np.nanargmin(top[64:])
    assert tower < 60 < nave and top[tower] < 10 and 40 < top[nave] < 55 and np.nanmax(top[70:110]) > top[nave] + 10
    assert 0.2 < shape.mean() < 0.5
    assert torch.equal(church(64, down=3, right=-2)[5:-5, 5:-5], church(64)[2:-8, 7:-3])


def test_the_change_is_along_yellow_blue_at_constant_luminance():
    change = torch.tensor([YELLOWER])
    assert yellow_blue(change).item() == pytest.approx(1.0)
    assert (change @ torch.tensor([0.2126, 0.7152, 0.0722])).item() == pytest.approx(0, abs=1e-4)
    assert yellow_blue(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])).tolist() == [1, -1]


def test_lab_is_that_of_an_encoded_colour_and_an_effect_has_its_b_star():
    lightness, a, b = lab((0.2140, 0.2140, 0.2140))  # sRGB 0.5
    assert lightness == pytest.approx(rgb2lab(np.full((1, 1, 3), 0.5))[0, 0, 0], abs=0.05)
    assert abs(a) < 0.1 and abs(b) < 0.1
    assert lab(STRIPES[0][0])[2] > 50 and lab(STRIPES[0][1])[2] < -40
    assert b_star(0.05) > 0 > b_star(-0.05) and b_star(0.0) == 0
    assert b_star(0.05) == pytest.approx(5 * b_star(0.01), rel=0.05)


def test_pixels_are_subject_to_no_illusion_exactly(filters):
    effects = [s for s in filters["pixel_map"] if s.metric == "effect"]
    assert len(effects) == len(DISPLAYS) and all(s.raw == 0.0 for s in effects)
    assert of(filters["pixel_map"], "index", "").raw <= 0


def test_blur_draws_the_church_towards_the_stripes_more_for_thin_ones_and_does_not_exceed_itself(filters):
    scores = filters["blur"]
    assert of(scores, "thin_minus_thick", "blur2").raw > 0
    for stage, display in (("blur2", "church_thick"), ("blur2", "church_thin"), ("blur4", "church_thick")):
        assert of(scores, "effect", stage, display).raw > 0.5 and of(scores, "effect_b_star", stage, display).raw > 0.5
        assert of(scores, "excess", stage, display).raw == pytest.approx(0.0, abs=1e-6)
    assert of(scores, "excess", "blur4", "church_thin").gate == "n/a"  # 6 px are not wider than two cells of 4
    assert of(scores, "index", "blur4").raw <= 1e-6
    assert of(scores, "index", "blur8").gate == "n/a"  # and stripes of 10 px are not wider than two cells of 8


def test_a_contrast_cell_of_the_stripes_own_width_pushes_the_church_away_from_them():
    """Its surround reaches into the stripes in front and no further; one that covers several averages them away."""
    task = colour_task(64)
    near = filtered("near", task, {"near": lambda x: x - 0.3 * gaussian(x, 4.0)})
    scores = Munker(num=12, training=240).measure(near)
    assert of(scores, "effect", None, "church_thick").raw < -1 and of(scores, "index", "").raw < 0


def test_an_observer_of_grey_or_of_tiny_images_is_not_judged():
    class Grey:
        in_shape, classes = (1, 32, 32), ()

    class Tiny:
        in_shape, classes = (3, 8, 8), ()

    assert "no colour" in Munker().measure(Grey())[0].reason and "too small" in Munker().measure(Tiny())[0].reason


def test_photographs_in_their_own_encoding_are_read_too_and_equally_twice():
    task = colour_task(32, "srgb")
    a, b = (Munker(num=6, training=200).measure(pixel_map.build(task)) for _ in range(2))
    assert a == b and of(a, "readout_r2").raw > 0.9 and of(a, "effect").raw == 0.0


def test_unknown_displays_and_images_too_small():
    with pytest.raises(ValueError, match="church_thin"):
        pairs("chapel", 32, 1)
    with pytest.raises(ValueError, match="at least 16"):
        pairs("church_thin", 8, 1)


def test_the_figure_and_the_sheet_are_drawn(tmp_path):
    observer = blur.build(colour_task(64))
    bench = Munker(num=6, training=100)
    bench.measure(observer)
    (path,) = bench.draw(tmp_path, {"blur": observer})
    assert path.stat().st_size > 5000
    images, rows, columns = munker.sheet(32)
    assert images.shape == (6, 6, 3, 32, 32) and len(rows) == 6 and len(columns) == 6
    for row in range(6):
        for column, (yellow, blue) in ((0, STRIPES[0]), (1, STRIPES[0]), (3, STRIPES[1]), (4, STRIPES[1])):
            colours = images[row, column].flatten(1).t().unique(dim=0)
            church = torch.tensor(list(TARGETS.values())[row % 3])
            assert all((colours == torch.tensor(c)).all(1).any() for c in (yellow, blue)) and church in colours
