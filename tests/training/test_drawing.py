"""Drawing against independent geometry: areas in closed form, point-in-polygon by matplotlib, exact symmetries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from training.data.drawing import Canvas, bar, box, contrasting, disc, outline, paint, polygon, stamp, wedge


def one(value):
    return torch.tensor([float(value)])


def frame(canvas, angle=0.0, centre=(0.0, 0.0)):
    return canvas.frame(torch.tensor([centre]), one(angle))


@settings(max_examples=40, deadline=None)
@given(
    corners=st.integers(3, 9), radius=st.floats(4, 14), angle=st.floats(0, 6.3), x=st.floats(-2, 2), y=st.floats(-2, 2)
)
def test_polygon_covers_its_exact_area_wherever_it_stands(corners, radius, angle, x, y):
    canvas = Canvas(36, 4)
    covered = canvas.coverage(polygon(*frame(canvas, angle, (x, y)), one(corners), one(radius))).sum().item()
    area = 0.5 * corners * radius**2 * math.sin(2 * math.pi / corners)
    assert covered == pytest.approx(area, abs=0.02 * 2 * corners * radius * math.sin(math.pi / corners) + 0.05)


@pytest.mark.parametrize("corners", [3, 4, 5, 6])
@pytest.mark.parametrize("supersample", [1, 4])
def test_coverage_agrees_with_dense_point_in_polygon(corners, supersample):
    canvas, radius, angle, centre, dense = Canvas(24, supersample), 8.3, 0.37, (0.6, -0.4), 16
    drawn = canvas.coverage(polygon(*frame(canvas, angle, centre), one(corners), one(radius)))[0].numpy()
    turns = angle + 2 * np.pi * np.arange(corners) / corners
    shape = Outline(np.stack([centre[0] + radius * np.cos(turns), centre[1] + radius * np.sin(turns)], 1))
    axis = (np.arange(24 * dense) + 0.5) / dense - 12
    points = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    exact = shape.contains_points(points).reshape(24, dense, 24, dense).mean((1, 3))
    # One sample per pixel rounds the pixel of a sharp corner; everywhere else it is exact to a few percent.
    assert np.abs(drawn - exact).max() < (0.25 if supersample == 1 else 0.04)
    assert np.sort(np.abs(drawn - exact).ravel())[-corners - 1] < (0.15 if supersample == 1 else 0.04)
    assert np.abs(drawn - exact).mean() < (0.006 if supersample == 1 else 0.002)


def test_signed_distance_is_the_euclidean_distance_to_the_edge():
    """Outside and inside, against the distance to a densely sampled outline."""
    canvas, corners, radius = Canvas(24), 5, 7.0
    x, y = frame(canvas)
    distance = polygon(x, y, one(corners), one(radius))[0]
    turns = 2 * math.pi * torch.arange(corners + 1) / corners
    vertices = radius * torch.stack([turns.cos(), turns.sin()], 1)
    steps = torch.linspace(0, 1, 2000)[:, None]
    edge = torch.cat([vertices[i] + steps * (vertices[i + 1] - vertices[i]) for i in range(corners)])
    points = torch.stack([x[0].flatten(), y[0].flatten()], 1)
    nearest = torch.cdist(points, edge).amin(1).view(24, 24)
    outside = distance > 0
    assert torch.allclose(distance[outside], nearest[outside], atol=0.01)
    near = (~outside) & (distance > -3)
    assert torch.allclose(-distance[near], nearest[near], atol=0.01)


def test_disc_bar_and_wedge_have_their_areas():
    canvas = Canvas(40, 4)
    x, y = frame(canvas, 0.3, (0.5, -1.0))
    assert canvas.coverage(disc(x, y, one(9))).sum().item() == pytest.approx(math.pi * 81, rel=2e-3)
    area = 12 * 3 + math.pi * 1.5**2
    assert canvas.coverage(bar(x, y, one(12), one(3))).sum().item() == pytest.approx(area, rel=5e-3)
    pie = torch.maximum(disc(x, y, one(9)), wedge(x, y, one(1.2)))
    assert canvas.coverage(pie).sum().item() == pytest.approx(0.5 * 81 * 1.2, rel=5e-3)


def test_outline_is_the_band_inside_the_edge():
    canvas = Canvas(40, 4)
    whole = disc(*frame(canvas), one(12))
    ring = canvas.coverage(outline(whole, 2.0))
    assert ring.sum().item() == pytest.approx(math.pi * (144 - 100), rel=5e-3)
    assert (ring <= canvas.coverage(whole) + 1e-6).all()


def test_a_quarter_turn_of_the_figure_is_a_quarter_turn_of_the_image():
    canvas = Canvas(20, 2)
    a = canvas.coverage(polygon(*frame(canvas, 0.3), one(5), one(7)))
    b = canvas.coverage(polygon(*frame(canvas, 0.3 + math.pi / 2), one(5), one(7)))
    assert torch.allclose(torch.rot90(a, -1, (1, 2)), b, atol=1e-4)


def test_paint_is_opaque():
    image = torch.full((1, 4, 4), 0.2)
    painted = paint(image, torch.eye(4)[None], one(0.9))
    assert torch.allclose(painted, torch.where(torch.eye(4)[None] > 0, 0.9, 0.2))


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_contrasting_luminances_keep_their_distance_in_both_directions(seed):
    generator = torch.Generator().manual_seed(seed)
    background = torch.rand(500, generator=generator)
    figure = contrasting(background, 0.3, generator)
    assert ((figure - background).abs() >= 0.3 - 1e-6).all()
    assert (figure >= 0).all() and (figure <= 1).all()
    assert (figure > background).any() and (figure < background).any()


@settings(max_examples=20, deadline=None)
@given(x=st.floats(-14, 14), y=st.floats(-14, 14), angle=st.floats(0, 6.3))
def test_a_stamp_is_the_figure_painted_on_the_whole_canvas_also_across_the_border(x, y, angle):
    canvas, centre = Canvas(24, 4), torch.tensor([[x, y]])
    length, width = one(7.3), one(3.1)
    image = torch.zeros(1, 24, 24)
    stamp(image, lambda a, b: box(a, b, length, width), centre, one(angle), math.hypot(7.3, 3.1) / 2, one(-0.4), 4)
    whole = canvas.coverage(box(*canvas.frame(centre, one(angle)), length, width))
    assert torch.allclose(image, -0.4 * whole, atol=1e-4)


def test_a_box_has_its_area_and_euclidean_distances():
    canvas = Canvas(40, 4)
    x, y = frame(canvas, 0.4, (0.3, -0.2))
    assert canvas.coverage(box(x, y, one(14), one(5))).sum().item() == pytest.approx(70, rel=5e-3)
    distance = box(torch.tensor([[[10.0, 0.0, 7.0]]]), torch.tensor([[[6.5, 0.0, 0.0]]]), one(14), one(5))
    assert distance[0, 0].tolist() == pytest.approx([5.0, -2.5, 0.0])  # 3-4-5 from the corner; inside; on the edge
