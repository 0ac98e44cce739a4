"""From files to scores: folders, RDM files, NIfTI through masker and GLM, MNE epochs, published layouts."""

import csv
import dataclasses
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from evaluation.brain import importers
from evaluation.brain.data import BrainData, Broken, Card, DataMissing, problems
from evaluation.brain.fmri import bids_scans, glm_responses
from evaluation.brain.folder import read, write
from evaluation.brain.images import stimuli_of
from evaluation.brain.importers import NotReadable, array, rdm_vectors, responses
from evaluation.brain.rdm import rdm, square
from evaluation.brain.sets import haxby2001, nsd, things_fmri
from evaluation.brain.simulation import hrf
from training.data.base import Source

NAMES = [f"shape{i:02d}" for i in range(12)]
RESPONSES = np.random.default_rng(3).normal(size=(12, 8))
FLAT = np.where(np.arange(12)[:, None] == 5, 7.25, RESPONSES)  # image 5: the same at every voxel
RANDOM = np.random.default_rng(9).random((12, 66))


def picture_folder(folder, names=NAMES, size=24):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        pixels = np.full((size, size, 3), 128, dtype=np.uint8)
        pixels[2 + i % 10 : 14, 3 : 6 + i] = rng.integers(0, 255, 3)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def images(tmp_path):
    return picture_folder(tmp_path / "images")


@pytest.fixture
def whole(images):
    """Brain data with everything that the format knows."""
    rng = np.random.default_rng(0)
    stimuli, names, _ = stimuli_of(images, None)
    card = Card(
        "mine", "fmri", ("V1", "IT"), 3, "me 2026", "CC0", beside=("behaviour",), distances=(0.0, 60.0), notes="hello"
    )
    return BrainData(
        card, stimuli, names, {"odd": np.arange(12) % 2}, rdms={"behaviour": rng.random((3, 66))},
        responses={r: tuple(rng.normal(size=(12, 7 + s)) for s in range(3)) for r in ("V1", "IT")},
        movie=rng.random((2, 5, 66)), times=np.array([-50.0, 0, 50, 100, 150]),
    )  # fmt: skip


def test_a_folder_gives_back_what_was_written(whole, tmp_path):
    write(whole, tmp_path / "brain")
    back = read(tmp_path / "brain")
    assert back.card == whole.card and back.names == whole.names
    assert np.allclose(back.stimuli, whole.stimuli, atol=1e-6) and np.array_equal(
        back.labels["odd"], whole.labels["odd"]
    )
    assert np.array_equal(back.rdms["behaviour"], whole.rdms["behaviour"])
    assert all(
        np.array_equal(a, b) for r in ("V1", "IT") for a, b in zip(back.responses[r], whole.responses[r], strict=True)
    )
    assert np.array_equal(back.movie, whole.movie) and np.allclose(back.times, whole.times)
    with pytest.raises(FileExistsError, match="already"):
        write(whole, tmp_path / "brain")


def test_files_are_matched_by_name_whatever_their_order(whole, tmp_path):
    """rsatoolbox writes the files with shuffled stimuli, repetitions and shuffled subjects."""
    from rsatoolbox.data import Dataset, TemporalDataset
    from rsatoolbox.rdm import RDMs

    rng = np.random.default_rng(1)
    card = dataclasses.replace(whole.card, rois=("V1",), distances=())
    only = {"V1": whole.responses["V1"]}
    write(dataclasses.replace(whole, responses=only, movie=None, times=None, card=card), tmp_path / "b")
    folder = tmp_path / "b"
    for path in folder.glob("responses_*.h5"):
        path.unlink()
    order = rng.permutation(12)
    names = np.array(whole.names)
    matrix = square(whole.rdms["behaviour"])[[2, 0, 1]][:, order][:, :, order]
    RDMs(
        matrix, rdm_descriptors={"roi": ["behaviour"] * 3, "subject": ["02", "00", "01"]},
        pattern_descriptors={"stimulus": names[order].tolist()},
    ).save(str(folder / "rdms.h5"), file_type="hdf5", overwrite=True)  # fmt: skip
    twice = np.concatenate([order, rng.permutation(12)])
    values = rng.normal(size=(24, 6))
    Dataset(
        values, descriptors={"subject": "a"}, obs_descriptors={"stimulus": names[twice].tolist()},
        channel_descriptors={"roi": ["V1"] * 6},
    ).save(str(folder / "responses_a.h5"), file_type="hdf5")  # fmt: skip
    course = rng.normal(size=(24, 6, 3))
    TemporalDataset(
        course, descriptors={"subject": "a"}, obs_descriptors={"stimulus": names[twice].tolist()},
        channel_descriptors={"name": [f"c{i}" for i in range(6)]}, time_descriptors={"time": [0.0, 0.1, 0.2]},
    ).save(str(folder / "timecourse_a.h5"), file_type="hdf5")  # fmt: skip
    back = read(folder)
    assert np.allclose(back.rdms["behaviour"], whole.rdms["behaviour"])
    expected = np.stack([values[twice == i].mean(0) for i in range(12)])
    assert np.allclose(back.responses["V1"][0], expected)
    assert np.allclose(back.times, [0, 100, 200])
    averaged = np.stack([course[twice == i].mean(0) for i in range(12)])
    assert np.allclose(back.movie[0, 1], rdm(averaged[:, :, 1]))


def test_a_movie_is_rsatoolbox_s(whole, tmp_path):
    from rsatoolbox.data import TemporalDataset
    from rsatoolbox.rdm import calc_rdm_movie

    values = np.random.default_rng(0).normal(size=(12, 9, 4))
    theirs = calc_rdm_movie(
        TemporalDataset(
            values, obs_descriptors={"stimulus": list(whole.names)}, channel_descriptors={"n": list(range(9))},
            time_descriptors={"time": np.arange(4) / 10},
        ), method="correlation", descriptor="stimulus",
    )  # fmt: skip
    assert np.abs(theirs.dissimilarities - rdm(np.moveaxis(values, 2, 0))).max() < 1e-10


@pytest.mark.parametrize(
    "change, message",
    [
        ({"names": ("a",) * 12}, "1 different"),
        ({"labels": {"odd": np.zeros(12, dtype=int)}}, "all images have the same"),
        ({"labels": {"odd": np.arange(3)}}, "3 for 12 images"),
        ({"rdms": {"behaviour": np.ones((2, 66))}}, "equally dissimilar"),
        ({"rdms": {"behaviour": np.full((2, 66), np.nan)}}, "not finite"),
        ({"rdms": {"behaviour": RANDOM[:2, :60]}}, r"\(subjects, 66\)"),
        ({"rdms": {"behaviour": RANDOM[:2], "V9": RANDOM[:2]}}, "V9: not on the card"),
        ({"rdms": {}}, "behaviour: on the card"),
        ({"responses": {}}, "V1: on the card"),
        ({"responses": {"V1": (np.ones((11, 4)),), "IT": (RANDOM[:12, :1],)}}, r"\(12, channels\).*1 channels"),
        ({"responses": {"V1": (RESPONSES[:, :2],), "IT": (RESPONSES,)}}, "V1, subject 0: 2 channels.*at least 3"),
        ({"responses": {"V1": (RESPONSES,), "IT": (FLAT,)}}, "IT, subject 0: 1 images have the same response"),
        ({"responses": {"V1": (RESPONSES,), "IT": (RESPONSES[:1].repeat(12, 0),)}}, "RDM from responses of IT.*equally"),
        ({"times": np.array([0.0, 2, 1, 3, 4])}, "times must increase"),
        ({"times": None}, "no times"),
        ({"card": Card("", "psychic", ("V1", "IT"), 3, "", "x", beside=("behaviour",), distances=(1.0,))},
         r"psychic.*name is empty.*citation.*1 distances for 2 rois"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(whole, change, message):
    import re

    found = "\n".join(problems(dataclasses.replace(whole, **change)))
    assert re.search(message, found, re.DOTALL), found


def test_stimuli_out_of_range_are_named(whole):
    assert "in 0…1" in "\n".join(problems(dataclasses.replace(whole, stimuli=whole.stimuli + 1)))
    assert "expected floats" in "\n".join(problems(dataclasses.replace(whole, stimuli=whole.stimuli[:, :2])))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: (f / "brain.yaml").unlink(), "every brain data set has a card"),
        (lambda f: (f / "brain.yaml").write_text("name: [a"), "cannot be read"),
        (lambda f: (f / "brain.yaml").write_text("name: x\ncolour: red\nsubjects: many"), "modality is missing.*'colour'.*whole number"),
        (lambda f: (f / "stimuli.npy").unlink(), "neither stimuli.npy nor a folder"),
        (lambda f: (f / "rdms.h5").write_bytes(b"nonsense"), "not an rsatoolbox HDF5 file"),
        (lambda f: (f / "stimuli.csv").write_text("stimulus\n" + "\n".join(f"x{i}" for i in range(12))), "has no stimulus 'x0'"),
        (lambda f: (f / "stimuli.csv").write_text("name\na"), "column `stimulus`"),
        (lambda f: np.save(f / "stimuli.npy", np.zeros(5)), r"expected \(N, H, W\)"),
    ],
)  # fmt: skip
def test_a_broken_folder_says_exactly_what_is_wrong(whole, tmp_path, spoil, message):
    import re

    write(whole, tmp_path / "brain")
    spoil(tmp_path / "brain")
    with pytest.raises(Broken) as error:
        read(tmp_path / "brain")
    assert re.search(message, "\n".join(error.value.found), re.DOTALL), error.value.found


def test_rdms_from_any_file(tmp_path):
    vectors = np.random.default_rng(0).random((3, 66))
    np.save(tmp_path / "a.npy", square(vectors))
    np.savez(tmp_path / "a.npz", one=vectors, two=np.zeros(2))
    savemat(tmp_path / "a.mat", {"rdms": square(vectors[0])})
    with h5py.File(tmp_path / "new.mat", "w") as file:  # MATLAB 7.3: axes reversed
        file["rdms"] = square(vectors).T
    assert np.array_equal(rdm_vectors(array(tmp_path / "a.npy")), vectors)
    assert np.array_equal(rdm_vectors(array(tmp_path / "a.npz", "one")), vectors)
    assert np.array_equal(rdm_vectors(array(tmp_path / "a.mat")), vectors[:1])
    assert np.array_equal(rdm_vectors(array(tmp_path / "new.mat")), vectors)
    for call, message in (
        (lambda: array(tmp_path / "a.npz"), "say which"),
        (lambda: array(tmp_path / "a.npz", "three"), "no array 'three'"),
        (lambda: array(tmp_path / "a.txt"), "expected .npy"),
        (lambda: array(tmp_path / "none.npy"), "cannot be read"),
        (lambda: rdm_vectors(np.arange(16.0).reshape(4, 4)), "not symmetric"),
        (lambda: rdm_vectors(np.arange(5.0)), "no RDM"),
        (lambda: responses(np.zeros(3)), "expected"),
    ):
        with pytest.raises(NotReadable, match=message):
            call()


def bids(folder, *, subjects=2, runs=2, noise=0.5):
    """A 4-D NIfTI data set of known responses: voxel (x, y, z) answers to each stimulus with its own weight."""
    import nibabel

    rng = np.random.default_rng(0)
    affine = np.diag([3.0, 3, 3, 1])
    shape, tr, scans = (6, 6, 4), 2.0, 110
    area = np.zeros(shape, dtype=np.int8)
    area[1:3, 1:5, 1:3], area[3:5, 1:5, 1:3] = 1, 2
    for k, roi in ((1, "V1"), (2, "IT")):
        nibabel.save(nibabel.Nifti1Image((area == k).astype(np.int8), affine), folder / f"{roi}.nii.gz")
    truth = {}
    for s in range(1, subjects + 1):
        weights = rng.normal(size=(*shape, len(NAMES)))
        truth[f"{s:02d}"] = weights
        for r in range(1, runs + 1):
            where = folder / f"sub-{s:02d}" / "func"
            where.mkdir(parents=True, exist_ok=True)
            order = rng.permutation(len(NAMES))
            onsets = 6 + 16.0 * np.arange(len(NAMES))
            lag = tr * np.arange(scans)[:, None] - onsets
            events = np.where(lag > 0, hrf(np.maximum(lag, 0)), 0)
            series = 100 + 10 * np.einsum("te,xyze->xyzt", events, weights[..., order])
            series = series + noise * rng.normal(size=series.shape)
            image = nibabel.Nifti1Image(series.astype(np.float32), affine)
            image.header.set_zooms((3, 3, 3, tr))
            stem = f"sub-{s:02d}_task-see_run-{r}"
            nibabel.save(image, where / f"{stem}_bold.nii.gz")
            with (where / f"{stem}_events.tsv").open("w", newline="") as file:
                writer = csv.writer(file, delimiter="\t")
                writer.writerow(["onset", "duration", "trial_type", "stim_file"])
                writer.writerows(
                    [t, 1.0, "picture", f"images/{NAMES[i]}.png"] for t, i in zip(onsets, order, strict=True)
                )
    return truth, area


def test_bold_goes_through_masker_and_glm(tmp_path):
    """Responses come back in proportion to the weights that made the series, in the right voxels."""
    truth, area = bids(tmp_path)
    scans = bids_scans(tmp_path)
    assert scans[0].subject == "01" and scans[0].bold.name == "sub-01_task-see_run-1_bold.nii.gz" and len(scans) == 4
    found = glm_responses(scans, {"V1": tmp_path / "V1.nii.gz", "IT": tmp_path / "IT.nii.gz"}, NAMES)
    for k, roi in ((1, "V1"), (2, "IT")):
        for subject, values in zip(sorted(truth), found[roi], strict=True):
            expected = truth[subject][area == k].T
            assert values.shape == expected.shape
            # nilearn's Glover response differs a little from ours in shape: proportional, not equal.
            assert np.corrcoef(values.ravel(), expected.ravel())[0, 1] > 0.97
    with pytest.raises(NotReadable, match="no event of 'shape99'"):
        glm_responses(scans[:1], {"V1": tmp_path / "V1.nii.gz"}, [*NAMES, "shape99"])
    with pytest.raises(NotReadable, match="is not there"):
        glm_responses(scans[:1], {"V1": tmp_path / "nowhere.nii.gz"}, NAMES)
    next((tmp_path / "sub-01" / "func").glob("*run-1_events.tsv")).unlink()
    with pytest.raises(NotReadable, match=r"_events\.tsv beside it"):
        bids_scans(tmp_path)
    with pytest.raises(NotReadable, match="no sub-"):
        bids_scans(tmp_path / "sub-02" / "func" / "nothing")


def test_epochs_become_rdms_over_time(tmp_path):
    mne = pytest.importorskip("mne")
    rng = np.random.default_rng(0)
    codes = np.tile(np.arange(12), 3)
    values = rng.normal(size=(36, 8, 50))
    info = mne.create_info([f"MEG{i}" for i in range(8)], 100.0, "mag")
    events = np.column_stack([np.arange(36), np.zeros(36, int), codes + 1])
    paths = []
    for s in range(2):
        epochs = mne.EpochsArray(values + s, info, events, tmin=-0.1, verbose="error")
        paths.append(tmp_path / f"sub-{s}-epo.fif")
        epochs.save(paths[-1], verbose="error", overwrite=True)
    (tmp_path / "codes.csv").write_text("event,stimulus\n" + "\n".join(f"{i + 1},{n}" for i, n in enumerate(NAMES)))
    named = importers.event_names(tmp_path / "codes.csv")
    movie, times = importers.epochs_movie(paths, named, NAMES)
    assert movie.shape == (2, 50, 66) and np.allclose(times[[0, -1]], [-100, 390])
    averaged = np.stack([values[codes == i].mean(0) for i in range(12)])
    assert np.allclose(movie[0, 7], rdm(averaged[:, :, 7]), atol=1e-5)  # epochs are stored in single precision
    binned, coarse = importers.epochs_movie(paths, named, NAMES, bin_ms=50)
    assert binned.shape == (2, 10, 66) and np.allclose(coarse[2], 20)
    with pytest.raises(NotReadable, match="no epoch of 'other'"):
        importers.epochs_movie(paths, named, [*NAMES, "other"])
    with pytest.raises(NotReadable, match="cannot be read as MNE epochs"):
        (tmp_path / "x-epo.fif").write_bytes(b"no")
        importers.epochs_movie([tmp_path / "x-epo.fif"], named, NAMES)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # MNE's own call of pandas
def test_the_layout_of_things_meg(tmp_path):
    """A copy of the published layout: two subjects, five test images seen three times among training trials."""
    mne = pytest.importorskip("mne")
    import pandas as pd

    from evaluation.brain.sets import things_meg

    rng = np.random.default_rng(0)
    folder = tmp_path / "things_meg"
    shown = [f"images_test_meg/dog/dog_{i:02d}.jpg" for i in range(5)]
    picture_folder(folder / "images" / "dog", [f"dog_{i:02d}" for i in range(5)])
    for path in (folder / "images" / "dog").glob("*.png"):
        path.rename(path.with_suffix(".jpg"))
    trials = [*shown, "images_meg/cat/cat_01.jpg"] * 3
    kinds = ["test" if p in shown else "exp" for p in trials]
    values = rng.normal(size=(2, len(trials), 6, 40))
    for s in (1, 2):
        info = mne.create_info([f"MEG{i}" for i in range(6)], 200.0, "mag")
        events = np.column_stack([np.arange(18), np.zeros(18, int), np.ones(18, int)])
        table = pd.DataFrame({"trial_type": kinds, "image_path": trials})
        made = mne.EpochsArray(values[s - 1], info, events, tmin=-0.05, metadata=table, verbose="error")
        made.save(folder / f"preprocessed_P{s}-epo.fif", verbose="error")
    data = things_meg.build(Source(tmp_path))
    assert problems(data) == [] and data.names == tuple(shown) and data.movie.shape == (2, 20, 10)
    now = -50 + 5.0 * np.arange(40)
    bins = np.floor(now / 10 + 1e-9)
    assert np.allclose(data.times, [now[bins == b].mean() for b in np.unique(bins)])
    mean = np.stack([values[1, i::6].mean(0) for i in range(5)])  # image i, its three repetitions
    for k, b in enumerate(np.unique(bins)):
        expected = 1 - np.corrcoef(mean[..., bins == b].mean(-1))[np.triu_indices(5, 1)]
        assert np.allclose(data.movie[1, k], expected, atol=1e-5)  # epochs are stored in single precision
    with pytest.raises(DataMissing, match="ds004212"):
        things_meg.build(Source(tmp_path / "nowhere"))


def test_the_layout_of_things_fmri(tmp_path):
    """A copy of the published layout with 6 test images seen twice in each of two sessions."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "things_fmri"
    names = [f"dog_{i:02d}s.jpg" for i in range(6)]
    for concept in ("dog",):
        picture_folder(folder / "images" / concept, [n.removesuffix(".jpg") for n in names])
        for n in names:
            (folder / "images" / concept / n.replace(".jpg", ".png")).rename(folder / "images" / concept / n)
    (folder / "betas_csv").mkdir()
    for s in ("01", "02"):
        trials = [("train", 1, "cat_01.jpg", "cat")] + [("test", k, n, "dog") for k in (1, 2) for n in names * 2]
        with (folder / "betas_csv" / f"sub-{s}_StimulusMetadata.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("trial_type", "session", "stimulus", "concept"), *trials])
        betas = rng.normal(size=(15, len(trials)))
        with h5py.File(folder / "betas_csv" / f"sub-{s}_ResponseData.h5", "w") as file:
            file.create_group("ResponseData")["block0_values"] = betas
        with (folder / "betas_csv" / f"sub-{s}_VoxelMetadata.csv").open("w", newline="") as file:
            rows = [[v, *(int(v % 5 == k) for k in range(5))] for v in range(15)]
            csv.writer(file).writerows([["voxel_id", "V1", "V2", "V3", "hV4", "IT"], *rows])
    data = things_fmri.build(Source(tmp_path))
    assert problems(data) == [] and data.card.rois == ("V1", "V2", "V3", "V4", "IT") and len(data) == 6
    test = betas[:, 1:]
    z = np.concatenate(
        [(p - p.mean(1, keepdims=True)) / p.std(1, keepdims=True) for p in (test[:, :12], test[:, 12:])], 1
    )
    expected = np.stack([z[[4, 9, 14]][:, i::6].mean(1) for i in range(6)])
    assert np.allclose(data.responses["IT"][1], expected)
    with pytest.raises(DataMissing, match="figshare"):
        things_fmri.build(Source(tmp_path / "nowhere"))


def test_the_layout_of_nsd(tmp_path):
    """A copy of the published layout: two subjects, one session each, five images seen by both three times."""
    import nibabel

    rng = np.random.default_rng(0)
    folder = tmp_path / "nsd"
    for part in ("nsddata/experiments/nsd", "nsddata_stimuli/stimuli/nsd"):
        (folder / part).mkdir(parents=True)
    shared = np.array([3, 10, 11, 20, 28])
    ordering = np.tile(np.arange(1, 10001), 3)
    subjectim = np.stack([np.concatenate([shared + 1, 100 + s * 1000 + np.arange(9995)]) for s in range(8)])
    ordering[:750] = np.concatenate([np.tile(np.arange(1, 6), 3), np.arange(6, 741)])
    savemat(folder / "nsddata/experiments/nsd/nsd_expdesign.mat", {"masterordering": ordering, "subjectim": subjectim})
    with h5py.File(folder / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = rng.integers(0, 255, (40, 16, 16, 3), dtype=np.uint8)
    prf = np.zeros((3, 4, 5))
    prf[0], prf[1, :2], prf[1, 2:], prf[2, 0] = 1, 4, 5, 7
    streams = np.zeros_like(prf)
    streams[2, 2:] = 5
    kept = []
    for s in (1, 2):
        roi = folder / f"nsddata/ppdata/subj{s:02d}/func1pt8mm/roi"
        roi.mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(prf, np.eye(4)), roi / "prf-visualrois.nii.gz")
        nibabel.save(nibabel.Nifti1Image(streams, np.eye(4)), roi / "streams.nii.gz")
        where = folder / f"nsddata_betas/ppdata/subj{s:02d}/func1pt8mm/betas_fithrf_GLMdenoise_RR"
        where.mkdir(parents=True)
        betas = rng.integers(-3000, 3000, (750, 3, 4, 5))
        kept.append(betas)
        with h5py.File(where / "betas_session01.hdf5", "w") as file:
            file["betas"] = np.transpose(betas, (0, 3, 2, 1)).astype(np.int16)  # MATLAB's axes, reversed
    data = nsd.build(Source(tmp_path))
    assert problems(data) == [] and data.names == tuple(f"nsd{i:05d}" for i in shared)
    v1 = kept[1][:, 0].reshape(750, -1).astype(float)
    z = (v1 - v1.mean(0)) / v1.std(0)
    expected = np.stack([z[i:15:5].mean(0) for i in range(5)])
    ours = data.responses["V1"][1]
    assert ours.shape == (5, 20) and np.allclose(np.sort(ours, 1), np.sort(expected, 1))
    assert [data.responses[r][0].shape[1] for r in ("V2", "V3", "V4", "ventral")] == [10, 10, 5, 10]
    shutil.rmtree(folder / "nsddata/ppdata/subj02")
    with pytest.raises(DataMissing, match="naturalscenesdataset"):
        nsd.build(Source(tmp_path))


def test_haxby_s_blocks(tmp_path):
    """The block average on a series made for it; the data themselves come through nilearn's fetcher."""
    import nibabel

    labels = [c for _ in range(2) for c in haxby2001.CATEGORIES for c in ["rest"] * 4 + [c] * 6]
    chunks = [0] * 80 + [1] * 80
    weights = np.random.default_rng(0).normal(size=(8, 2, 2, 2))
    series = np.zeros((2, 2, 2, 160))
    for t in range(2, 160):
        if chunks[t] == chunks[t - 2] and labels[t - 2] != "rest":
            series[..., t] = weights[haxby2001.CATEGORIES.index(labels[t - 2])]
    nibabel.save(nibabel.Nifti1Image(series.astype(np.float32), np.eye(4)), tmp_path / "bold.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.ones((2, 2, 2), np.int8), np.eye(4)), tmp_path / "mask.nii.gz")
    (tmp_path / "labels.txt").write_text(
        "labels chunks\n" + "\n".join(f"{a} {b}" for a, b in zip(labels, chunks, strict=True))
    )
    found = haxby2001.block_responses(tmp_path / "bold.nii.gz", tmp_path / "labels.txt", tmp_path / "mask.nii.gz")
    assert found.shape == (8, 8)
    for voxel in range(8):
        assert np.corrcoef(found[:, voxel], weights.reshape(8, 8)[:, voxel])[0, 1] > 0.999
    with pytest.raises(DataMissing, match="--download"):
        haxby2001.build(Source(tmp_path / "nowhere"))


def test_images_that_do_not_fit_are_named(images, tmp_path):
    (tmp_path / "t.csv").write_text("stimulus\nshape00\nghost")
    with pytest.raises(Broken, match="no image for 'ghost'"):
        stimuli_of(images, tmp_path / "t.csv")
    Image.new("RGB", (5, 5)).save(images / "small.png")
    with pytest.raises(Broken, match="different sizes"):
        stimuli_of(images, None)
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8)))
    with pytest.raises(Broken, match="2 lines for 3 images"):
        stimuli_of(tmp_path / "x.npy", tmp_path / "t.csv")
