"""Files that are not what they should be: one message that names the file, never a traceback."""

import gzip

import numpy as np
import pytest

from evaluation.brain.data import Broken
from evaluation.brain.fmri import bids_scans, glm_responses, read_events
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


def test_the_command_says_it_in_one_line(tmp_path, capsys):
    picture_folder(tmp_path / "images")
    (tmp_path / "data").mkdir()
    bids(tmp_path / "data", subjects=1, runs=1)
    bold(tmp_path / "data").write_bytes(b"garbage")
    arguments = ["brain", "import", str(tmp_path / "x"), "--stimuli", str(tmp_path / "images"), "--bids"]
    assert main([*arguments, str(tmp_path / "data"), "--masks", f"V1={tmp_path / 'data' / 'V1.nii.gz'}"]) == 2
    err = capsys.readouterr().err
    assert "bold.nii.gz: cannot be read as NIfTI" in err and "Traceback" not in err
