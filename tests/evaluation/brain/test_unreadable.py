"""Files that are not what they should be: one message that names the file, never a traceback."""

import gzip
import re

import numpy as np
import pytest

from evaluation.brain.data import Broken
from evaluation.brain.fmri import bids_scans, glm_responses, read_events
from evaluation.brain.folder import read
from evaluation.brain.images import read_table
from evaluation.brain.importers import NotReadable, event_names
from experiments.cli import main
from tests.evaluation.brain.test_importers import NAMES, bids, picture_folder


@pytest.fixture
def scans(tmp_path):
    bids(tmp_path, subjects=1, runs=1)
    return tmp_path


def masks(folder):
    return {"V1": folder / "V1.nii.gz", "IT": folder / "IT.nii.gz"}


def save(array, path, affine=None):
    import nibabel

    nibabel.save(nibabel.Nifti1Image(array, np.diag([3.0, 3, 3, 1]) if affine is None else affine), path)


def bold(folder):
    return next(folder.rglob("*_bold.nii.gz"))


def cut(folder):
    """Half of an image: its header can be read, its data cannot."""
    path = bold(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: bold(f).write_bytes(b"garbage"), r"_bold.nii.gz: cannot be read as NIfTI"),
        (lambda f: bold(f).write_bytes(gzip.compress(b"garbage" * 200)), r"_bold.nii.gz: cannot be read as NIfTI"),
        (cut, r"_bold.nii.gz: cannot be read"),
        (lambda f: save(np.zeros((6, 6, 4), np.int8), bold(f)), r"_bold.nii.gz: 3 axes \(6, 6, 4\); expected 4"),
        (lambda f: (f / "IT.nii.gz").write_bytes(b"garbage"), r"IT.nii.gz: cannot be read as NIfTI"),
        (lambda f: save(np.ones((5, 6, 4), np.int8), f / "IT.nii.gz"), r"mask of IT: .*IT.nii.gz .*\(5, 6, 4\)"),
        (lambda f: save(np.ones((6, 6, 4), np.int8), f / "IT.nii.gz", np.eye(4)), r"mask of IT: .*affine other than"),
        (lambda f: save(np.zeros((6, 6, 4), np.int8), f / "IT.nii.gz"), r"mask of IT: .*IT.nii.gz is empty"),
        (lambda f: save(np.ones((6, 6, 4, 2), np.int8), f / "IT.nii.gz"), r"IT.nii.gz: 4 axes"),
    ],
)
def test_images_that_cannot_be_read_are_named(scans, spoil, message):
    spoil(scans)
    with pytest.raises(NotReadable, match=message):
        glm_responses(bids_scans(scans), masks(scans), NAMES)


def test_an_events_file_with_a_short_line_is_named(tmp_path):
    path = tmp_path / "x_events.tsv"
    path.write_text("onset\tduration\tstimulus\n1\t2\ta\n3\t4\n")
    with pytest.raises(NotReadable, match=r"x_events\.tsv, line 3: fewer values"):
        read_events(path)
    path.write_text("onset\tduration\tstimulus\n1\t2\ta\nsoon\t4\tb\n")
    with pytest.raises(NotReadable, match=r"x_events\.tsv, line 3: .*soon"):
        read_events(path)
    path.write_bytes("onset\tduration\tstimulus\n1\t2\té\n".encode("latin-1"))
    with pytest.raises(NotReadable, match=r"x_events\.tsv: cannot be read"):
        read_events(path)


def test_tables_of_spreadsheets_are_read_and_ragged_ones_named(tmp_path):
    """Spreadsheets write a byte-order mark before the first column's name."""
    path = tmp_path / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbfstimulus,animal\na,1\nb,0\n")
    names, labels = read_table(path)
    assert names == ("a", "b") and labels["animal"].tolist() == [1, 0]
    for text, message in (
        ("stimulus,animal\na,1\nb\n", "labels.csv, line 3: fewer"),
        ("stimulus,animal\na,1,2\nb,0\n", "labels.csv, line 2: more"),
    ):
        path.write_text(text)
        with pytest.raises(Broken, match=message):
            read_table(path)
    path.write_bytes(b"\xef\xbb\xbfevent,stimulus\n1,a\n")
    assert event_names(path) == {1: "a"}
    path.write_text("event,stimulus\n1\n")
    with pytest.raises(NotReadable, match="line 2 is too short"):
        event_names(path)
    path.write_bytes(b"\xef\xbb\xbfonset\tduration\tstimulus\n1\t2\ta\n")
    assert read_events(path) == [{"onset": 1.0, "duration": 2.0, "trial_type": "a"}]


def dataset(folder, name, subject="a", *, times=None, roi="V1", images=12):
    """An rsatoolbox file with random data of one subject."""
    from rsatoolbox.data import Dataset, TemporalDataset

    rng = np.random.default_rng(len(name))
    described = {
        "descriptors": {} if subject is None else {"subject": subject},
        "obs_descriptors": {"stimulus": NAMES[:images]}, "channel_descriptors": {"roi": [roi] * 6},
    }  # fmt: skip
    if times is None:
        made = Dataset(rng.normal(size=(images, 6)), **described)
    else:
        made = TemporalDataset(
            rng.normal(size=(images, 6, len(times))), time_descriptors={"time": list(times)}, **described
        )
    made.save(str(folder / name), file_type="hdf5")


def movie(folder, *, times, people):
    from rsatoolbox.rdm import RDMs

    rng = np.random.default_rng(0)
    RDMs(
        rng.random((len(times), 66)), rdm_descriptors={"time": list(times), "subject": list(people)},
        pattern_descriptors={"stimulus": NAMES},
    ).save(str(folder / "movie.h5"), file_type="hdf5")  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Brain data of subjects a and b in V1, in the format of users' own data."""
    root = tmp_path / "brain"
    root.mkdir()
    picture_folder(root / "stimuli")
    card = "name: x\nmodality: fmri\nrois: [V1]\nsubjects: 2\ncitation: me\nlicence: CC0\n"
    (root / "brain.yaml").write_text(card)
    for subject in "ab":
        dataset(root, f"responses_{subject}.h5", subject)
    return root


def test_people_are_known_by_name(folder):
    """Also where files are in another order, and in another region."""
    dataset(folder, "responses_0.h5", "b", roi="IT")
    dataset(folder, "responses_1.h5", "a", roi="IT")
    card = folder / "brain.yaml"
    card.write_text(card.read_text().replace("[V1]", "[V1, IT]"))
    data = read(folder)
    assert data.people == {"V1": ("a", "b"), "IT": ("a", "b")}
    alone = np.random.default_rng(len("responses_1.h5")).normal(size=(12, 6))
    assert np.allclose(data.responses["IT"][0], alone)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: dataset(f, "timecourse_a.h5"), r"timecourse_a.h5: expected a TemporalDataset .*got Dataset \(12, 6\)"),
        (lambda f: dataset(f, "responses_c.h5", "c", times=[0, 0.1]), r"responses_c.h5: expected a Dataset .*\(12, 6, 2\)"),
        (lambda f: dataset(f, "responses_c.h5", "a"), r"responses_c.h5: a second file of subject a with V1"),
        (lambda f: dataset(f, "responses_c.h5", None), r"responses_c.h5: no descriptor 'subject'"),
        (lambda f: dataset(f, "responses_c.h5", "c"), r"subjects: 2, but there are data of 3"),
        (lambda f: (f / "responses_b.h5").unlink(), r"subjects: 2, but there are data of 1"),
        (lambda f: [dataset(f, f"timecourse_{n}.h5", "a", times=[0, 0.1, 0.2]) for n in "xy"],
         r"timecourse_y.h5: a second time course of subject a"),
        (lambda f: dataset(f, "timecourse_a.h5", "a", times=[-0.3, -0.2, -0.1]), r"ends at -100 ms, before the stimulus"),
        (lambda f: movie(f, times=[-0.3, -0.2], people="aa"), r"ends at -200 ms, before the stimulus"),
        (lambda f: movie(f, times=[0, 0.1, 0.1], people="aaa"), r"movie.h5: two RDMs of subject a at 100 ms"),
        (lambda f: movie(f, times=["x", "y"], people="aa"), r"movie.h5: time must be a number of seconds"),
    ],
)  # fmt: skip
def test_a_folder_with_wrong_files_is_told(folder, spoil, message, capsys):
    assert main(["brain", "check", str(folder)]) == 0
    spoil(folder)
    assert main(["brain", "check", str(folder)]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err), err


def test_the_command_says_it_in_one_line(tmp_path, capsys):
    picture_folder(tmp_path / "images")
    (tmp_path / "data").mkdir()
    bids(tmp_path / "data", subjects=1, runs=1)
    bold(tmp_path / "data").write_bytes(b"garbage")
    arguments = ["brain", "import", str(tmp_path / "x"), "--stimuli", str(tmp_path / "images"), "--bids"]
    assert main([*arguments, str(tmp_path / "data"), "--masks", f"V1={tmp_path / 'data' / 'V1.nii.gz'}"]) == 2
    err = capsys.readouterr().err
    assert "bold.nii.gz: cannot be read as NIfTI" in err and "Traceback" not in err
