"""Next-frame prediction: what a clip is, how it moves, the training controls, footage of one's own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.data import next_frame
from training.data._motion import TEST, TRAIN, Motion, natural_motion, photographs, render
from training.data._moving_shapes import cover, moving_shapes
from training.data.base import Preprocess, Source, to_linear, to_srgb, training_loader
from training.data.drawing import Canvas, disc, polygon
from training.errors import UserError

NOWHERE = Source(Path("/nonexistent"))


def task(source=NOWHERE, **options):
    return next_frame.build(source, **{"train": 12, "test": 6, "size": 16, "frames": 3} | options)


def clips_of(images):
    """Clips with their target as the last frame, ``(N, T, C, H, W)``."""
    channels = images.targets.shape[1]
    return torch.cat([images.images.unflatten(1, (-1, channels)), images.targets[:, None]], 1)


@pytest.mark.parametrize("clips", ["natural_motion", "moving_shapes"])
@pytest.mark.parametrize("grey", [False, True])
def test_a_sample_is_stacked_frames_and_the_next_one_in_the_same_normalisation(clips, grey):
    channels = 1 if grey else 3
    made = task(clips=clips, grey=grey, order="static", size=20)
    assert made.in_shape == (3 * channels, 20, 20) and made.out_shape == (channels, 20, 20)
    assert made.frames == 3 and made.classes == () and made.objective == "mean_squared_error"
    x, target = next(iter(training_loader(made, 4, seed=0)))
    assert x.shape == (4, 3 * channels, 20, 20) and target.shape == (4, channels, 20, 20)
    # A frame that is repeated is its own next frame: input and target must then be equal number by number.
    assert torch.allclose(x[:, -channels:], target, atol=1e-6)
    assert torch.allclose(x[:, :channels], target, atol=1e-6)
    frames = clips_of(made.train)[:, :-1].float() / 255
    preprocess = made.preprocess()
    expected = (frames[:, 0] - frames.mean((0, 1, 3, 4))[:, None, None]) / frames.transpose(1, 2).transpose(
        0, 1
    ).flatten(1).std(1, correction=0)[:, None, None]
    assert torch.allclose(preprocess(made.train.images)[:, :channels], expected, atol=1e-4)


@pytest.mark.parametrize("clips", ["natural_motion", "moving_shapes", "folder"])
def test_training_controls_hold_the_same_frames_and_leave_the_held_out_clips_alone(clips, tmp_path):
    write_frames(tmp_path, 40)
    path = str(tmp_path) if clips == "folder" else ""
    natural, shuffled, static = (task(clips=clips, path=path, order=o) for o in ("natural", "shuffled", "static"))
    for other in (shuffled, static):
        assert torch.equal(other.test.images, natural.test.images)
        assert torch.equal(other.test.targets, natural.test.targets)
    a, b, c = (clips_of(t.train).flatten(2).long() for t in (natural, shuffled, static))
    key = torch.randint(1, 1000, a.shape[2:], generator=torch.Generator().manual_seed(0))
    sums = [(x * key).sum(2).sort(1).values for x in (a, b)]
    assert torch.equal(*sums) and not torch.equal(a, b)
    for clip, repeated in zip(a, c, strict=True):
        assert (repeated == repeated[0]).all() and any(torch.equal(f, repeated[0]) for f in clip)


def test_shuffling_takes_every_frame_to_every_place():
    clips = torch.arange(4)[None, :, None, None, None].expand(4000, 4, 1, 1, 1)
    mixed = next_frame.reorder(clips, "shuffled", torch.Generator().manual_seed(0))[..., 0, 0, 0]
    assert (mixed.sort(1).values == torch.arange(4)).all()
    for place in range(4):  # a quarter each; 4 standard deviations of a share of 4000 are 0.027
        assert (mixed[:, place].bincount() / 4000 - 0.25).abs().max() < 0.03


def test_seeds_draw_the_training_clips_and_never_the_held_out_ones():
    one, same, other = task(), task(), task(Source(Path("/nonexistent"), seed=1))
    assert torch.equal(one.train.images, same.train.images)
    assert not torch.equal(one.train.images, other.train.images)
    assert torch.equal(one.test.images, other.test.images)


def test_photographs_that_are_held_out_are_not_trained_on():
    assert not set(TRAIN) & set(TEST)
    train, test = photographs(False, 16, False), photographs(True, 16, False)
    assert len(train) == 2 * len(TRAIN) and len(test) == 2 * len(TEST)
    assert all(p.shape[0] == 3 and min(p.shape[1:]) >= 32 for p in (*train, *test))
    assert not {"color.png", "chessboard_RGB.png", "phantom.png"} & {*TRAIN, *TEST}  # no rings, no drawings


def test_a_view_of_a_linear_ramp_is_where_the_motion_says():
    """Bilinear interpolation is exact on I(x, y) = a x + b y, so that the equation of the motion can be checked."""
    a, b, size = 0.5, 0.25, 8
    height, width = 60, 80
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    ramp = (a * x + b * y[:, None])[None]
    time = torch.arange(3.0)
    shift = torch.stack([2.5 * time, -1.0 * time], 1)[None]
    motion = Motion(torch.tensor([0]), torch.tensor([[0.5, 0.5]]), shift, 0.1 * time[None], 1.05 ** time[None])
    seen = render((ramp,), motion, size)[0, :, 0]
    u = torch.arange(size) + 0.5 - size / 2
    for t in range(3):
        cos, sin, scale = np.cos(0.1 * t), np.sin(0.1 * t), 1.05**t
        px = width / 2 + 2.5 * t + scale * (cos * u[None] - sin * u[:, None])
        py = height / 2 - 1.0 * t + scale * (sin * u[None] + cos * u[:, None])
        assert torch.allclose(seen[t], (a * px + b * py).float(), atol=1e-3)


def test_a_still_view_stands_still_and_pans_are_bounded():
    clips = natural_motion(60, 4, 16, seed=3).float()
    still = (clips[:, 1:] == clips[:, :-1]).flatten(1).all(1)
    assert (
        0 < still.sum() < 20
    )  # 3.75 % of the clips have no motion at all and no occluder, and some photographs are flat
    assert clips.std() > 20


def test_moving_shapes_are_flat_saturated_and_move():
    clips = moving_shapes(8, 4, 32, seed=0).float() / 255
    assert (clips[:, 1:] != clips[:, :-1]).flatten(1).any(1).all()
    flat = (clips[..., 1:] == clips[..., :-1]).all(2).float().mean()
    assert flat > 0.8  # only edges change colour
    assert (clips.amax(2) - clips.amin(2)).mean() > 0.25


@pytest.mark.parametrize("size", [16, 33, 64])
def test_a_shape_drawn_in_its_patch_is_the_shape_drawn_on_the_whole_frame(size):
    generator = torch.Generator().manual_seed(size)
    centre = 1.2 * (torch.rand(40, 2, generator=generator) - 0.5) * size  # some lie half outside
    turn, radius = 6.3 * torch.rand(40, generator=generator), (0.1 + 0.2 * torch.rand(40, generator=generator)) * size
    corners = torch.arange(40) % 5 + 2
    canvas = Canvas(size)
    x, y = canvas.frame(centre, turn)
    edges = torch.where((corners == 2)[:, None, None], disc(x, y, radius), polygon(x, y, corners.clamp(min=3), radius))
    assert torch.equal(cover(size, centre, turn, corners, radius), canvas.coverage(edges))


def test_stimuli_are_clips_or_still_images():
    preprocess = Preprocess((9, 8, 8), (0.4, 0.5, 0.6) * 3, (0.2, 0.3, 0.4) * 3, "srgb", 3)
    still = torch.rand(2, 3, 8, 8)
    as_clip = preprocess.stimulus(still.repeat(1, 3, 1, 1))
    assert torch.allclose(preprocess.stimulus(still), as_clip) and as_clip.shape == (2, 9, 8, 8)
    assert torch.allclose(preprocess.frame(as_clip[:, 3:6], as_clip), still, atol=1e-5)
    clip = torch.rand(2, 9, 16, 16)
    last = preprocess.stimulus(clip)[:, -3:]
    alone = Preprocess((3, 8, 8), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "srgb").stimulus(clip[:, -3:])
    assert torch.allclose(last, alone, atol=1e-6)


def test_srgb_is_undone():
    x = torch.linspace(0, 1, 500, dtype=torch.float64)
    assert torch.allclose(to_linear(to_srgb(x)), x, atol=1e-7)


def write_frames(folder, num, colour=0, name="frame{}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(num):
        Image.new("RGB", (24, 18), (colour, i, 0)).save(folder / name.format(i))


def test_frames_of_a_folder_follow_by_their_numbers(tmp_path):
    write_frames(tmp_path / "drive", 40)
    made = task(clips="folder", path="drive", source=Source(tmp_path), train=1000, test=1000)
    numbers = clips_of(made.train)[:, :, 1, 0, 0].long()
    assert (numbers.diff(dim=1) == 1).all()
    held_out = clips_of(made.test)[:, :, 1, 0, 0]
    assert numbers.max() < 32 <= held_out.min() and len(made.train) == 29 and len(made.test) == 5  # a fifth of 40
    sparse = task(clips="folder", path="drive", source=Source(tmp_path), skip=2, train=2)
    assert (clips_of(sparse.train)[:, :, 1, 0, 0].long().diff(dim=1) == 2).all() and len(sparse.train) == 2


def test_sequences_are_held_out_whole_and_never_mixed(tmp_path):
    for i in range(5):
        write_frames(tmp_path / f"drive{i}", 6, colour=40 * i)
    made = task(clips="folder", path=str(tmp_path), train=100, test=100)
    colours = clips_of(made.train)[:, :, 0, 0, 0], clips_of(made.test)[:, :, 0, 0, 0]
    assert all((c == c[:, :1]).all() for c in colours)
    assert set(colours[0].unique().tolist()) == {0, 40, 80, 120} and set(colours[1].unique().tolist()) == {160}


def test_train_and_test_folders_are_kept_apart(tmp_path):
    write_frames(tmp_path / "test" / "a", 5, colour=10)
    write_frames(tmp_path / "train" / "b", 5, colour=200)
    made = task(clips="folder", path=str(tmp_path))
    assert made.train.targets[:, 0].unique().tolist() == [200] and made.test.targets[:, 0].unique().tolist() == [10]


def test_animated_gifs_are_videos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.gif", "b.gif"):
        frames = [Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)) for _ in range(6)]
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    made = task(clips="folder", path=str(tmp_path), grey=True)
    assert made.in_shape == (3, 16, 16) and len(made.train) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "frames"), ({"size": 8}, "size"), ({"path": "x"}, "clips=folder"),
        ({"clips": "folder"}, "path="), ({"clips": "folder", "path": "gone"}, "no such folder"),
        ({"train": 10**7}, "GiB"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(options, message):
    with pytest.raises(UserError, match=message) as error:
        task(**options)
    assert "\n" not in str(error.value)


def test_a_folder_without_sequences_and_broken_frames_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no train sequence of 4 frames"):
        task(clips="folder", path=str(tmp_path / "empty"))
    write_frames(tmp_path / "short", 3)
    with pytest.raises(UserError, match="no train sequence"):
        task(clips="folder", path=str(tmp_path / "short"))
    write_frames(tmp_path / "broken", 9)
    (tmp_path / "broken" / "frame4.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"frame4\.png: cannot be decoded"):
        task(clips="folder", path=str(tmp_path / "broken"))
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match="pip install av"):
        task(clips="folder", path=str(tmp_path / "film.mp4"))


@pytest.mark.parametrize("clips", ["natural_motion", "moving_shapes"])
def test_a_change_is_the_next_frame_minus_the_last_and_gives_the_frame_back(clips):
    framed, changed = (task(clips=clips, predicts=p) for p in ("frame", "change"))
    assert torch.equal(framed.train.images, changed.train.images)
    one, other = framed.preprocess(), changed.preprocess()
    for a, b in ((framed.train, changed.train), (framed.test, changed.test)):
        x = one(a.images)
        # In units of the input, so that errors of changes and of frames are the same numbers.
        assert torch.allclose(other.target(b.targets), one.target(a.targets) - x[:, -3:], atol=1e-5)
        assert torch.allclose(other.shown(other.target(b.targets), x), a.targets.float() / 255, atol=1e-5)
    still = task(clips=clips, predicts="change", order="static")
    assert not still.train.targets.any() and still.train.targets.dtype == torch.int16


def test_unknown_outputs_are_refused():
    with pytest.raises(UserError, match="predicts"):
        task(predicts="nothing")
