"""Tasks: what the pictures promise, what broken folders answer, and an order that the seed alone decides."""

import math
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from training.catalogue import TASKS
from training.data import digits, image_folder, shapes
from training.data.base import Images, Preprocess, Source, Task, augment, to_srgb, training_loader
from training.errors import UserError

NOWHERE = Source(root=__import__("pathlib").Path("/nonexistent"))


class TestShapes:
    def test_same_seed_same_images_and_the_test_set_is_the_same_for_all(self):
        a, b, c = (shapes.build(Source(NOWHERE.root, seed=s), train=40, test=20) for s in (1, 1, 2))
        assert torch.equal(a.train.images, b.train.images) and torch.equal(a.train.targets, b.train.targets)
        assert not torch.equal(a.train.images, c.train.images)
        assert torch.equal(a.test.images, c.test.images)

    def test_classes_are_balanced_and_in_no_order(self):
        targets = shapes.draw(512, 32).targets
        assert torch.bincount(targets).tolist() == [128] * 4
        assert targets[:8].tolist() != sorted(targets[:8].tolist())

    def test_no_figure_has_the_luminance_of_its_background(self):
        """A polygon in background luminance over other things would be a Kanizsa figure."""
        figures = shapes.sample(4096, 32, torch.Generator().manual_seed(0))
        assert ((figures.figure - figures.background).abs() >= shapes.CONTRAST - 1e-6).all()

    def test_variety_that_is_promised_is_there(self):
        f = shapes.sample(4096, 32, torch.Generator().manual_seed(0))
        assert 0.45 < f.filled.float().mean() < 0.55
        assert 0.4 < (f.figure > f.background).float().mean() < 0.6
        assert f.radius.min() < 0.27 * 32 and f.radius.max() > 0.44 * 32
        assert f.angle.min() < 0.1 and f.angle.max() > 2 * math.pi - 0.1
        assert f.centre.std() > 1

    def test_figures_stay_inside_the_image(self):
        f = shapes.sample(4096, 32, torch.Generator().manual_seed(0))
        assert (f.centre.abs().amax(1) + f.radius <= 16).all()

    def test_without_noise_and_clutter_two_luminances_and_their_mixtures_at_the_edge(self):
        f = shapes.sample(64, 48, torch.Generator().manual_seed(3))
        images = shapes.render(f, 48, 0, 0.0, torch.Generator())
        low, high = torch.minimum(f.figure, f.background), torch.maximum(f.figure, f.background)
        assert (images >= low[:, None, None] - 1e-5).all() and (images <= high[:, None, None] + 1e-5).all()
        pure = ((images - f.figure[:, None, None]).abs() < 1e-4) | ((images - f.background[:, None, None]).abs() < 1e-4)
        mixed = 1 - pure.float().mean((1, 2))
        assert (mixed > 0).all() and mixed.max() < 0.35  # anti-aliased, and only at edges

    def test_filled_figures_have_the_area_of_their_polygon(self):
        f = shapes.sample(256, 48, torch.Generator().manual_seed(4))
        images = shapes.render(f, 48, 0, 0.0, torch.Generator())
        share = ((images - f.background[:, None, None]) / (f.figure - f.background)[:, None, None]).sum((1, 2))
        corners = torch.tensor(shapes.CORNERS)[f.target].float()
        area = 0.5 * corners * f.radius**2 * torch.sin(2 * math.pi / corners)
        assert torch.allclose(share[f.filled], area[f.filled], rtol=0.03)
        assert (share[~f.filled] < 0.85 * area[~f.filled]).all()

    @pytest.mark.parametrize("bad", [{"size": 8}, {"train": 0}, {"noise": -1.0}, {"clutter": -1}])
    def test_options_out_of_range(self, bad):
        with pytest.raises(UserError, match="shapes needs"):
            shapes.build(NOWHERE, **bad)


class TestValidation:
    def task(self, num):
        """A task whose images and targets carry their own number, and whose test set is poison."""
        number = torch.arange(num)
        train = Images(number.float()[:, None, None, None].expand(num, 1, 2, 2) / num, number)
        return Task(("a",), train, Images(torch.full((5, 1, 2, 2), math.nan), torch.full((5,), -1)))

    @settings(max_examples=50, deadline=None)
    @given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 2**31))
    def test_the_two_sides_are_disjoint_and_together_the_training_set(self, num, share, seed):
        assume(0 < round(num * share) < num)
        split = self.task(num).for_validation(share, seed)
        assert len(split.test) == round(num * share)
        assert sorted([*split.test.targets.tolist(), *split.train.targets.tolist()]) == list(range(num))
        for side in (split.train, split.test):  # every image keeps its own target
            assert torch.allclose(side.images[:, 0, 0, 0] * num, side.targets.float(), atol=1e-3)

    def test_the_seed_alone_decides(self):
        a, b, c = (self.task(100).for_validation(0.2, s).test.targets.tolist() for s in (1, 1, 2))
        assert a == b != c

    def test_every_image_is_held_out_as_often_as_the_share_says(self):
        """Binomial over seeds: 400 draws with p = 0.2 have a standard deviation of 8; 5 of them for 50 images."""
        counts = torch.zeros(50)
        for seed in range(400):
            counts[self.task(50).for_validation(0.2, seed).test.targets] += 1
        assert ((counts - 80).abs() < 40).all() and counts.std() > 3

    def test_standardisation_comes_from_what_is_left_to_train_on(self):
        split = self.task(100).for_validation(0.3, 0)
        rest = np.setdiff1d(np.arange(100), split.test.targets.numpy()) / 100
        preprocess = split.preprocess()
        assert preprocess.mean[0] == pytest.approx(rest.mean(), abs=1e-6)
        assert preprocess.std[0] == pytest.approx(rest.std(), abs=1e-6)

    @pytest.mark.parametrize("share", [0.001, 0.999])
    def test_a_share_that_leaves_nothing_is_refused(self, share):
        with pytest.raises(ValueError, match="leaves one side of the split empty"):
            self.task(100).for_validation(share, 0)


def test_digits_are_all_there_and_split_without_overlap():
    task = digits.build(NOWHERE)
    assert len(task.train) + len(task.test) == 1797 and task.in_shape == (1, 8, 8) and len(task.classes) == 10
    pixels = {tuple(i.flatten().tolist()) for i in task.train.images}
    shared = sum(tuple(i.flatten().tolist()) in pixels for i in task.test.images)
    assert shared <= 2  # the data set itself holds a few duplicates
    with pytest.raises(ValueError, match="between 0 and 1"):
        digits.build(NOWHERE, test=1.5)


def test_real_mnist_is_whole(data_folder):
    if not (data_folder / "torchvision" / "MNIST").is_dir():
        pytest.skip("no MNIST in PLASTICBENCH_DATA")
    task = TASKS.load("mnist")(Source(data_folder))
    assert (len(task.train), len(task.test), task.in_shape) == (60000, 10000, (1, 28, 28))
    assert torch.bincount(task.test.targets)[0] == 980
    statistics = task.preprocess()
    assert statistics.mean[0] == pytest.approx(0.1307, abs=1e-4) and statistics.std[0] == pytest.approx(
        0.3081, abs=1e-4
    )


def test_missing_torchvision_data_says_where_and_how(tmp_path):
    with pytest.raises(UserError, match=r"PLASTICBENCH_DATA.*--download"):
        TASKS.load("mnist")(Source(tmp_path))


class TestImageFolder:
    def write(self, folder, classes=("cat", "dog"), num=5, **kwargs):
        rng = np.random.default_rng(0)
        for c in classes:
            (folder / c).mkdir(parents=True)
            for i in range(num):
                Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / c / f"{i}.png")
        return folder

    def build(self, path, **options):
        return image_folder.build(NOWHERE, path=str(path), **{"size": 16, **options})

    def test_folder_zip_and_wrapped_zip_are_the_same_task(self, tmp_path):
        folder = self.write(tmp_path / "set")
        plain, wrapped = tmp_path / "a.zip", tmp_path / "b.zip"
        for archive, prefix in ((plain, ""), (wrapped, "set/")):
            with zipfile.ZipFile(archive, "w") as z:
                for file in sorted(folder.rglob("*.png")):
                    z.write(file, prefix + str(file.relative_to(folder)))
                z.writestr(prefix + "cat/._junk.png", b"resource fork")
        tasks = [self.build(p) for p in (folder, plain, wrapped)]
        for task in tasks:
            assert task.classes == ("cat", "dog") and (len(task.train), len(task.test)) == (8, 2)
            assert torch.equal(task.train.images, tasks[0].train.images)

    def test_the_first_images_are_of_every_class(self, tmp_path):
        task = self.build(self.write(tmp_path / "set", classes=tuple("abcdefgh"), num=40))
        for images in (task.train, task.test):
            assert len(set(images.targets[:32].tolist())) >= 6

    def test_train_and_val_folders_are_the_split(self, tmp_path):
        self.write(tmp_path / "train", num=4)
        self.write(tmp_path / "val", num=3)
        task = self.build(tmp_path)
        assert (len(task.train), len(task.test)) == (8, 6)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F"])
    @pytest.mark.parametrize("size", [(16, 16), (1, 40), (100, 3)])
    def test_images_of_any_mode_and_size(self, tmp_path, mode, size):
        folder = self.write(tmp_path / "set")
        suffix = "tiff" if mode in ("CMYK", "F", "I;16", "I") else "png"
        Image.new(mode, size).save(folder / "cat" / f"odd.{suffix}")
        for grey in (False, True):
            task = self.build(folder, grey=grey)
            assert task.in_shape == (1 if grey else 3, 16, 16) and task.train.images.dtype == torch.uint8

    @pytest.mark.parametrize(
        ("content", "message"), [(b"", "cannot be decoded"), (b"not an image", "cannot be decoded"), (None, "decoded")]
    )
    def test_a_broken_image_is_named(self, tmp_path, content, message):
        folder = self.write(tmp_path / "set")
        whole = (folder / "cat" / "0.png").read_bytes()
        (folder / "cat" / "broken.png").write_bytes(whole[: len(whole) // 2] if content is None else content)
        with pytest.raises(UserError, match=message) as caught:
            self.build(folder)
        assert "broken.png" in str(caught.value) and "\n" not in str(caught.value)

    def test_nothing_there_nothing_in_it_one_class_not_a_zip(self, tmp_path):
        with pytest.raises(UserError, match="no such folder"):
            self.build(tmp_path / "absent")
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match="holds no image"):
            self.build(tmp_path / "empty")
        with pytest.raises(UserError, match="at least two class folders"):
            self.build(self.write(tmp_path / "single", classes=("cat",)))
        (tmp_path / "bad.zip").write_bytes(b"PK nonsense")
        with pytest.raises(UserError, match="cannot be read"):
            self.build(tmp_path / "bad.zip")
        self.write(tmp_path / "half" / "train")
        self.write(tmp_path / "half" / "val", classes=("cat",))
        with pytest.raises(UserError, match="no test image of class 'dog'"):
            self.build(tmp_path / "half")

    def test_more_than_memory_is_refused_before_decoding(self, tmp_path, monkeypatch):
        monkeypatch.setattr(image_folder, "MEMORY", 1000)
        with pytest.raises(UserError, match="choose a smaller size"):
            self.build(self.write(tmp_path / "set"))


class TestOrder:
    def task(self, num=50):
        return Task(("a", "b"), Images(torch.arange(num).float().view(-1, 1, 1, 1), torch.zeros(num).long()), Images(
            torch.zeros(2, 1, 1, 1), torch.zeros(2).long()))  # fmt: skip

    def order(self, seed=0, epoch=0, rank=0, world=1, batch=8):
        loader = training_loader(self.task(), batch, seed, rank, world)
        loader.sampler.set_epoch(epoch)
        return [indices for _, _, indices in loader.sampler]

    def test_seed_and_epoch_decide_and_each_image_comes_at_most_once(self):
        assert self.order() == self.order()
        assert self.order() != self.order(epoch=1) != self.order(seed=1)
        flat = [index for batch in self.order() for index in batch]
        assert len(flat) == len(set(flat)) == 48

    def test_processes_share_every_batch(self):
        whole, parts = self.order(), [self.order(rank=r, world=2) for r in (0, 1)]
        assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(b) for b in whole]

    def test_a_batch_larger_than_the_set_is_the_set(self):
        assert len(self.order(batch=1000)) == 1 and len(self.order(batch=1000)[0]) == 50


class TestPreprocess:
    def test_standardised_training_images_have_mean_0_and_deviation_1(self):
        task = shapes.build(NOWHERE, train=600, test=4)
        x = task.preprocess()(task.train.images)
        assert abs(x.mean().item()) < 1e-3 and x.std().item() == pytest.approx(1, abs=1e-3)

    def test_stimuli_are_fitted_in_size_channels_and_encoding(self):
        grey = Preprocess((1, 8, 8), (0.0,), (1.0,), "linear")
        colour = Preprocess((3, 8, 8), (0.0,) * 3, (1.0,) * 3, "srgb")
        red = torch.zeros(1, 3, 16, 16)
        red[:, 0] = 1
        assert torch.allclose(grey.stimulus(red), torch.full((1, 1, 8, 8), 0.2126), atol=1e-5)
        half = torch.full((1, 1, 16, 16), 0.5)
        assert torch.allclose(colour.stimulus(half), torch.full((1, 3, 8, 8), 0.7354), atol=1e-3)
        assert torch.equal(grey.stimulus(half), torch.full((1, 1, 8, 8), 0.5))

    def test_srgb_is_the_standards_curve(self):
        linear = torch.tensor([0.0, 0.0031308, 0.21404, 0.5, 1.0])
        assert torch.allclose(to_srgb(linear), torch.tensor([0.0, 0.04045, 0.5, 0.73536, 1.0]), atol=1e-4)


def test_augmentation_only_mirrors_and_shifts_and_the_generator_decides():
    images = torch.arange(5 * 64).view(5, 1, 8, 8).to(torch.uint8)
    a, b = (augment(images, "flip_crop", torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(a, b) and a.shape == images.shape and a.dtype == torch.uint8
    flipped = augment(images, "flip", torch.Generator().manual_seed(1))
    for i in range(5):
        assert torch.equal(flipped[i], images[i]) or torch.equal(flipped[i], images[i].flip(2))
        padded = torch.nn.functional.pad(flipped[i], (4, 4, 4, 4))
        found = [torch.equal(a[i], padded[:, y : y + 8, x : x + 8]) for y in range(9) for x in range(9)]
        assert any(found)
