"""What a W&B run holds, read back from its log with wandb's own records and nothing of ours."""

import csv
import json
import struct

import pytest
from wandb.proto import wandb_internal_pb2

from experiments.cli import main
from training.tracking import CurveLogger

BLOCK, HEADER = 32768, 7


def records(path):
    """Yield wandb's protobuf records from a ``.wandb`` log: LevelDB framing in 32 KiB blocks after a 7-byte file header.

    A chunk is crc (4 bytes), length (2), type (1: whole, 2: first, 3: middle, 4: last), data.
    """
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, parts = HEADER, []
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + HEADER])
        position += HEADER
        parts.append(data[position : position + length])
        position += length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def merged(items):
    values = {}
    for item in items:
        *path, last = [item.key] if item.key else list(item.nested_key)
        place = values
        for part in path:
            place = place.setdefault(part, {})
        place[last] = json.loads(item.value_json)
    return values


def read(folder):
    """Return config, history rows, summary and file names of the one W&B run in a folder."""
    config, history, summary, files = {}, [], {}, set()
    (log,) = folder.rglob("*.wandb")
    for record in records(log):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            config |= merged(record.run.config.update)
        elif kind == "config":
            config |= merged(record.config.update)
        elif kind == "history":
            history.append(merged(record.history.item))
        elif kind == "summary":
            summary |= merged(record.summary.update)
        elif kind == "files":
            files |= {f.path for f in record.files.files}
    return config, history, summary, files


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wandb")
    study = folder / "tiny.yaml"
    study.write_text(
        "name: tiny\nseeds: 1\nrules: [feedback_alignment, untrained]\nmodels: [{name: cnn, width: 4, hidden: 16}]\n"
        "tasks: [{name: shapes, size: 16, train: 64, test: 32, epochs: 2}]\nobservers: []\n"
    )
    assert (
        main(["study", str(study), "--runs", str(folder / "runs"), "--wandb", "offline", "-j", "1", "--no-progress"])
        == 0
    )
    return folder / "runs"


def test_config_curves_scores_and_figures_arrive_in_the_wandb_run(runs):
    (folder,) = runs.glob("feedback_alignment-*")
    config, history, summary, files = read(folder)
    assert config["rule"] == "feedback_alignment" and config["lr"] == 0.001 and config["key"] == folder.name[-12:]
    assert config["task_params"]["size"] == 16
    losses = [h["train_loss"] for h in history if "train_loss" in h]
    with (folder / "metrics.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["train_loss"]]
    assert losses == pytest.approx([float(r["train_loss"]) for r in rows]) and len(losses) == 2
    assert any("credit/angle/conv1" in h for h in history) and any("held_out_accuracy" in h for h in history)
    scores = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    accuracy = next(s for s in scores if s["metric"] == "accuracy")
    assert summary["score/accuracy/accuracy"] == pytest.approx(accuracy["value"])
    index = next(s for s in scores if s["metric"] == "index")
    assert index["gate"] == "n/a" and index["reason"] in summary["score/kanizsa/index"]
    images = [h for h in history if "figures/kanizsa" in h]
    assert images and images[0]["figures/kanizsa"]["_type"] == "image-file"
    picture = images[0]["figures/kanizsa"]["path"]
    stored = list(folder.rglob(picture))
    assert stored and stored[0].read_bytes() == (folder / "figures" / "kanizsa.png").read_bytes()
    assert any("kanizsa" in f for f in files)


def test_the_leaderboard_arrives_as_a_table(runs):
    _, history, _, _ = read(runs / "wandb")
    (entry,) = [h["leaderboard"] for h in history if "leaderboard" in h]
    assert entry["_type"] == "table-file" and entry["nrows"] == 3
    (stored,) = runs.rglob(entry["path"])
    table = json.loads(stored.read_text())
    rules = [row[table["columns"].index("rule")] for row in table["data"]]
    assert rules[0] == "feedback_alignment" and set(rules[1:]) == {"readout_only", "untrained"}
    with (runs / "leaderboard.csv").open() as file:
        board = list(csv.DictReader(file))
    assert [row["accuracy"] for row in board] == [r[table["columns"].index("accuracy")] for r in table["data"]]


def test_curves_before_a_resume_are_kept(tmp_path):
    path = tmp_path / "metrics.csv"
    logger = CurveLogger(path)
    logger.log_metrics({"epoch": 0, "a": 1.0}, step=3)
    logger.log_metrics({"epoch": 0, "b": 2.0}, step=3)
    again = CurveLogger(path)
    again.log_metrics({"epoch": 1, "a": 0.5}, step=7)
    assert path.read_text() == "epoch,step,a,b\n0,3,1.0,2.0\n1,7,0.5,\n"
