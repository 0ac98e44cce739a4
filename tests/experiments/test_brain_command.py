"""``plasticbench brain`` and the brain pillar, from files to the board."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from experiments.cli import main
from tests.evaluation.brain.test_importers import NAMES, bids, picture_folder
from training.directory import run_directories


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of a tiny network, examined with everything that every run is examined with."""
    root = tmp_path_factory.mktemp("runs")
    arguments = ["run", "--rule", "backprop", "--task", "digits", "epochs=1", "model.width=2", "model.hidden=8"]
    assert main([*arguments, "--runs", str(root), "--wandb", "off", "--data", str(root / "data")]) == 0
    return root


def records(root, benchmark):
    (directory,) = run_directories(root)
    return [s for s in directory.scores() if s["benchmark"] == benchmark]


def test_every_run_is_examined_on_the_simulated_stream(run):
    found = records(run, "simulated_ventral_stream")
    assert any(s["metric"] == "activation_spatial" and s["gate"] == "pass" for s in found)
    assert all(s["reason"].startswith("simulated") for s in found if s["gate"] == "pass")
    assert records(run, "objects92") == []  # on request
    figures = {p.name for p in next(iter(run_directories(run))).figures.iterdir()}
    assert "brain_simulated_ventral_stream_matrix.png" in figures


def test_a_benchmark_without_its_data_says_so(run, tmp_path, capsys):
    assert main(["evaluate", str(run), "--benchmark", "objects92", "--data", str(tmp_path), "--wandb", "off"]) == 0
    (reason,) = {s["reason"] for s in records(run, "objects92")}
    assert "data not there" in reason and "--download" in reason
    assert main(["evaluate", str(run), "--benchmark", "objects92", "--data", str(tmp_path), "--wandb", "off"]) == 0
    assert "0 benchmarks measured" in capsys.readouterr().out
    main(["leaderboard", str(run)])
    assert "data not there" in capsys.readouterr().out


@pytest.mark.slow
def test_it_is_measured_once_the_data_are_there(run, tmp_path, data_folder, capsys):
    (directory,) = run_directories(run)
    assert main(["evaluate", str(run), "--benchmark", "objects92", "--data", str(tmp_path), "--wandb", "off"]) == 0
    if not (data_folder / "objects92").is_dir():
        pytest.skip("no objects92 in PLASTICBENCH_DATA")
    assert main(["evaluate", str(run), "--benchmark", "objects92", "--data", str(data_folder), "--wandb", "off"]) == 0
    found = records(run, "objects92")
    assert not any(s["metric"] == "data" for s in found)
    assert any(s["metric"] == "activation_best" and s["target"] == "IT" and s["gate"] == "pass" for s in found)
    capsys.readouterr()
    main(["leaderboard", str(run)])
    board = capsys.readouterr().out
    assert "(sim.)" in board and "label animacy +0.255" in board and "→" in board and "SIMULATED" in board
    main(["leaderboard", str(run), "--markdown"])
    table = capsys.readouterr().out  # here no column is broken over lines
    assert "| brain | EVC: activation → left | IT: activation → left |" in table and "| signal: space (sim.) |" in table
    main(["leaderboard", str(run), "--csv"])
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    # Animacy has two categories: at the stage that matches best, the signal is the categories', and nothing is left.
    assert float(row["brain_label_signal"]) > 0.2 and row["brain_label_signal_left"] == ""
    assert row["brain_label_signal_left_reason"] == "nothing is left of it in 100 of 100 halves"
    assert directory.status()["state"] == "done"


def test_fmri_from_nifti_to_scores(run, tmp_path, capsys):
    """A 4-D NIfTI data set goes through masker, GLM, import, check and scoring."""
    picture_folder(tmp_path / "images")
    bids(tmp_path / "data" if (tmp_path / "data").mkdir() is None else None)
    folder = tmp_path / "mine"
    assert main([
        "brain", "import", str(folder), "--stimuli", str(tmp_path / "images"), "--bids", str(tmp_path / "data"),
        "--masks", f"V1={tmp_path / 'data' / 'V1.nii.gz'}", f"IT={tmp_path / 'data' / 'IT.nii.gz'}",
        "--citation", "me", "--licence", "CC0",
    ]) == 0  # fmt: skip
    assert main(["brain", "check", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "mine: fmri, 12 images" in said and "V1: 2 subjects, 32 channels, hierarchy 1" in said
    assert main(["brain", "score", str(run), "--on", str(folder), "--set", "resamples=20", "--wandb", "off"]) == 0
    found = records(run, "mine(resamples=20)")
    metrics = {s["metric"] for s in found if s["gate"] == "pass"}
    assert {"activation", "signal_pseudo_label", "encoding_r", "cka", "activation_slope", "control_pixels"} <= metrics


def test_rdms_from_arrays_to_a_folder(tmp_path, capsys):
    picture_folder(tmp_path / "images")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "v1.npz", rdms=rng.random((4, 66)), other=np.zeros(3))
    np.save(tmp_path / "it.npy", rng.normal(size=(4, 12, 9)))
    (tmp_path / "labels.csv").write_text("stimulus,half\n" + "\n".join(f"{n},{i < 6}" for i, n in enumerate(NAMES)))
    folder = tmp_path / "mine"
    common = [
        "brain",
        "import",
        str(folder),
        "--stimuli",
        str(tmp_path / "images"),
        "--labels",
        str(tmp_path / "labels.csv"),
    ]
    assert main([*common, "--rdms", f"V1={tmp_path / 'v1.npz'}:rdms", "--responses", f"IT={tmp_path / 'it.npy'}"]) == 0
    assert main(["brain", "check", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "labels half: 2 categories" in said and "IT: 4 subjects, 36 channels, hierarchy 2" in said
    assert main([*common, "--rdms", f"V1={tmp_path / 'v1.npz'}:rdms"]) == 2
    assert "already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["brain", "check", "nowhere"], "unknown brain data set 'nowhere'"),
        (["brain", "import", "x"], "--stimuli is missing"),
        (["brain", "import", "x", "--stimuli", "."], "give --rdms, --responses, --bids or --epochs"),
        (["brain", "import", "x", "--stimuli", "images", "--rdms", "V1"], "expected ROI=FILE"),
        (["brain", "import", "x", "--stimuli", "images", "--bids", "."], "--bids needs --masks"),
        (["brain", "import", "x", "--stimuli", "images", "--rdms", "V1=none.npy"], "cannot be read"),
        (["brain", "import", "x", "--stimuli", "images", "--rdms", "V1=short.npy"], r"instead of \(subjects, 66\)"),
        (["brain", "score", "runs", "--on", "simulated_ventral_stream", "--set", "resample=3"], "did you mean 'resamples'"),
        (["brain", "score", "runs", "--on", "simulated_ventral_stream", "--set", "pooling=max"], "unknown pooling 'max'"),
        (["brain", "score", "runs", "--on", "nsd"], "naturalscenesdataset.org"),
        (["list", "brain"], "did you mean 'brains'"),
        (["brain", "import", "x", "--name", "accuracy"], "--name: 'accuracy' is the name of a benchmark"),
        (["brain", "import", "objects92", "--set", "simulated_ventral_stream"], "'objects92' is the name of a benchmark"),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line(arguments, message, tmp_path, monkeypatch, capsys):
    import re

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLASTICBENCH_DATA", str(tmp_path))
    picture_folder(tmp_path / "images")
    np.save("short.npy", np.random.default_rng(0).random((2, 10)))
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    "given, message",
    [
        ("method=foo", "unknown method 'foo'; choose from spearman, rho-a, corr"),
        ("resamples=abc", "resamples must be a whole number of at least 2, got 'abc'"),
        ("resamples=-3", "at least 2, got -3"),
        ("resamples=0", "at least 2, got 0"),
        ("resamples=true", "at least 2, got True"),
        ("seed=x", "seed must be a whole number of at least 0, got 'x'"),
        ("components=a", "components must be a whole number of at least 1, got 'a'"),
        ("scales=2", r"scales must be a list of numbers above 0, such as \[1.5, 2.0\], got 2"),
        ("scales=[1, -2]", r"got \(1, -2\)"),
        ("scales=[1", "the value is no YAML"),
        ("encoding=maybe", "encoding must be true or false, got 'maybe'"),
        ("banded=1", "banded must be true or false, got 1"),
        ("pooling=[a]", "unknown pooling"),
        ("=3", "expected key=value"),
    ],
)
def test_options_out_of_range_are_one_clear_line(given, message, tmp_path, capsys):
    import re

    arguments = ["brain", "score", str(tmp_path), "--on", "simulated_ventral_stream", "--data", str(tmp_path)]
    assert main([*arguments, "--set", given, "--wandb", "off"]) == 2
    err = capsys.readouterr().err
    assert re.search(message, err) and "Traceback" not in err


def test_a_set_cannot_take_the_name_of_a_benchmark(tmp_path, capsys):
    """Its scores would stand for that benchmark's on the board."""
    folder = tmp_path / "mine"
    assert main(["brain", "import", str(folder), "--set", "simulated_ventral_stream"]) == 0
    card = folder / "brain.yaml"
    assert "name: mine" in card.read_text()
    for taken in ("accuracy", "objects92", "nsd"):
        card.write_text(card.read_text().replace("name: mine", f"name: {taken}"))
        for arguments in (["brain", "check", str(folder)], ["brain", "score", str(tmp_path), "--on", str(folder)]):
            assert main(arguments) == 2
            assert f"brain.yaml: name: '{taken}' is the name of a benchmark; choose another" in capsys.readouterr().err
        card.write_text(card.read_text().replace(f"name: {taken}", "name: mine"))


def test_a_folder_that_is_wrong_is_told_line_by_line(tmp_path, capsys):
    folder = tmp_path / "brain"
    folder.mkdir()
    assert main(["brain", "check", str(folder)]) == 2
    assert "holds no brain.yaml" in capsys.readouterr().err
    (folder / "brain.yaml").write_text(
        "name: x\nmodality: fmri\nrois: V1\nsubjects: 2\ncitation: me\nlicence: CC0\nextra: 1\n"
    )
    assert main(["brain", "check", str(folder)]) == 2
    err = capsys.readouterr().err
    assert "unknown key 'extra'" in err and "rois must be a list" in err
    (folder / "stimuli").mkdir()
    for n in NAMES[:5]:
        Image.new("RGB", (8, 8)).save(folder / "stimuli" / f"{n}.png")
    (folder / "brain.yaml").write_text("name: x\nmodality: fmri\nrois: [V1]\nsubjects: 2\ncitation: me\nlicence: CC0\n")
    assert main(["brain", "check", str(folder)]) == 2
    assert "V1: on the card, but neither RDMs nor responses are there" in capsys.readouterr().err


def test_one_s_own_data_are_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PLASTICBENCH_DATA", str(tmp_path))
    assert main(["brain", "import", str(tmp_path / "brains" / "mine"), "--set", "simulated_ventral_stream"]) == 0
    assert main(["list", "brains"]) == 0
    said = capsys.readouterr().out
    assert "objects92" in said and "mine" in said and str(tmp_path / "brains" / "mine") in said
    assert main(["brain", "check", "mine"]) == 0
    assert "SIMULATED" in capsys.readouterr().out


def test_a_study_asks_for_benchmarks_by_name(tmp_path, capsys):
    study = tmp_path / "s.yaml"
    text = "name: s\nseeds: 1\nrules: [untrained]\nmodels: [{name: cnn, width: 2}]\ntasks: [digits]\nobservers: [ventral_stream]\n"
    study.write_text(text + "benchmarks: [objects93]\n")
    assert main(["study", str(study)]) == 2
    assert "did you mean 'objects92'" in capsys.readouterr().err
    from experiments.study import read_study

    study.write_text(text + "benchmarks: [objects92]\n")
    assert read_study(study).benchmarks == ("objects92",)
    assert {c.rule_name for c in read_study(study).configs} == {"untrained", "readout_only", "ventral_stream"}


def test_the_brain_study_is_the_one_of_the_readme():
    from experiments.study import read_study
    from tests.conftest import ROOT

    plan = read_study(ROOT / "experiments" / "brain.yaml")
    assert plan.benchmarks == ("objects92",) and {c.seed for c in plan.configs} == set(range(5))
    assert {c.rule_name for c in plan.configs} >= {
        "backprop", "feedback_alignment", "predictive_coding", "untrained", "readout_only", "ventral_stream",
    }  # fmt: skip
    assert {c.task for c in plan.configs} == {"shapes", "image_folder"}


def test_versions_of_what_computes_the_numbers_are_recorded(run):
    assert json.dumps(records(run, "simulated_ventral_stream")[0]["versions"]).count("himalaya") == 1
