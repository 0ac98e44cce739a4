"""The leaderboard: aggregation from score files written by hand, and every broken file named."""

import csv
import io
import json

import numpy as np
import pytest

from experiments import render
from experiments.cli import main
from experiments.leaderboard import read_rows
from training.config import RunConfig
from training.directory import RunDirectory

ACCURACY = {"backprop": [0.9, 0.92, 0.94], "feedback_alignment": [0.8, 0.86, 0.83], "readout_only": [0.5, 0.6, 0.55]}


def score(config, benchmark, metric, value, stage="", target="", reason=""):
    return {
        "run_key": config.key, "benchmark": benchmark, "benchmark_version": 1, "metric": metric, "value": value,
        "raw": value, "stage": stage, "target": target, "gate": "n/a" if value is None else "pass", "reason": reason,
    }  # fmt: skip


def write(root, rule, seed, scores=(), state="done", reason="", **fields):
    config = RunConfig(rule=rule, model="cnn" if "null" not in rule else "none", task="shapes", seed=seed, **fields)
    directory = RunDirectory(root / config.directory)
    directory.write_config(config)
    directory.set_status(state, reason)
    directory.add_scores([score(config, *s) for s in scores])
    return directory


@pytest.fixture
def board(tmp_path):
    for rule, values in ACCURACY.items():
        for seed, accuracy in enumerate(values):
            hidden = 0.3 if rule != "readout_only" else None
            write(
                tmp_path, rule, seed,
                [
                    ("accuracy", "accuracy", accuracy), ("learned", "hidden_change", hidden, "", "", "did not move: conv1"),
                    ("kanizsa", "index", 0.1 * (seed + 1) if rule == "backprop" else None, "", "OUT", "cannot name"),
                    ("kanizsa", "index_vs", 0.2, "", "DISC"), ("credit", "cosine", 0.4, "conv1", "final"),
                    ("credit", "cosine", 0.1, "conv1", "initial"), ("credit", "hidden_cosine", 0.4),
                    ("cost", "flops_ratio", 1.0),
                ],
            )  # fmt: skip
    write(tmp_path, "untrained", 0, [("accuracy", "accuracy", 0.25)])
    write(tmp_path, "direct_feedback_alignment", 0, state="unsupported", reason="too wide")
    write(tmp_path, "null:pixels", 0, [("kanizsa", "index", None, "", "", "cannot name real polygons")])
    return tmp_path


def by_rule(root):
    return {r.rule: r for r in read_rows(root)}


def test_rows_hold_the_interquartile_mean_and_paired_differences(board):
    rows = by_rule(board)
    fa = rows["feedback_alignment"]
    assert fa.estimates["accuracy"].value == pytest.approx(np.mean(ACCURACY["feedback_alignment"]))
    assert fa.estimates["accuracy"].per_seed == {0: 0.8, 1: 0.86, 2: 0.83}
    assert fa.difference.per_seed == pytest.approx({0: -0.1, 1: -0.06, 2: -0.11})
    assert fa.p_value == pytest.approx(2 / 8)
    assert fa.above_readout.per_seed == pytest.approx({0: 0.3, 1: 0.26, 2: 0.28})
    assert fa.learned == "yes" and rows["backprop"].difference.value is None
    assert fa.cosines["conv1"].value == pytest.approx(0.4) and fa.contrasts["DISC"].value == pytest.approx(0.2)


def test_no_interval_for_one_seed_and_reasons_for_what_is_missing(board):
    rows = by_rule(board)
    assert rows["untrained"].estimates["accuracy"].low is None
    assert rows["feedback_alignment"].estimates["kanizsa"].value is None
    assert rows["feedback_alignment"].estimates["kanizsa"].reason == "cannot name"
    assert rows["direct_feedback_alignment"].reasons == ["s0 unsupported: too wide"]
    notes = render.Notes()
    assert render.cells(rows["direct_feedback_alignment"], notes)[2] == "n/a¹"
    assert notes.lines() == ["¹ unsupported: too wide"]
    assert render.cells(rows["feedback_alignment"], notes)[5] == "n/a²" and notes.reasons[1] == "cannot name"
    assert "[" not in render.cells(rows["untrained"], notes)[2]


def test_a_row_whose_inference_is_unstable_is_marked_above_one_percent(tmp_path):
    for rule, share in (("predictive_coding", 0.59), ("error_predictive_coding", 0.008)):
        for seed in range(2):
            write(tmp_path, rule, seed, [("accuracy", "accuracy", 0.8), ("inference", "unstable_share", share)])
    write(tmp_path, "backprop", 0, [
        ("accuracy", "accuracy", 0.9), ("inference", "unstable_share", None, "", "", "its inference has no iterations")])  # fmt: skip
    rows, notes = by_rule(tmp_path), render.Notes()
    assert render.cells(rows["error_predictive_coding"], notes)[0] == "error_predictive_coding"
    assert render.cells(rows["backprop"], notes)[0] == "backprop"
    marked = render.cells(rows["predictive_coding"], notes)[0]
    number = notes.lines().index(next(n for n in notes.lines() if "unstable" in n)) + 1
    assert marked == "predictive_coding" + str(number).translate(render.SUPERSCRIPTS)
    assert notes.reasons[number - 1] == "its inference is unstable on 59% of images: their energy rises"
    assert "its inference is unstable on 59% of images" in render.markdown(list(rows.values()))


def test_rules_first_then_controls_then_null_observers_always_there(board):
    assert [r.kind for r in read_rows(board)] == ["rule"] * 3 + ["control"] * 2 + ["null"]
    assert [r.rule for r in read_rows(board)][:2] == ["backprop", "feedback_alignment"]


def test_a_rule_not_above_the_readout_or_with_still_stages_has_not_learned(tmp_path):
    for seed in range(3):
        write(tmp_path, "readout_only", seed, [("accuracy", "accuracy", 0.6)])
        write(tmp_path, "backprop", seed, [("accuracy", "accuracy", 0.5), ("learned", "hidden_change", 0.2)])
        write(tmp_path, "feedback_alignment", seed, [
            ("accuracy", "accuracy", 0.9), ("learned", "hidden_change", None, "", "", "did not move: conv2")])  # fmt: skip
    rows = by_rule(tmp_path)
    assert rows["backprop"].learned == "no (not above readout_only)"
    assert rows["feedback_alignment"].learned == "no (did not move: conv2)"


def test_other_training_is_another_row_compared_with_its_own_reference(tmp_path):
    write(tmp_path, "backprop", 0, [("accuracy", "accuracy", 0.9)])
    write(tmp_path, "untrained", 0, [("accuracy", "accuracy", 0.1)])
    write(tmp_path, "backprop", 0, [("accuracy", "accuracy", 0.7)], lr=0.1)
    write(tmp_path, "feedback_alignment", 0, [("accuracy", "accuracy", 0.8)])
    write(tmp_path, "feedback_alignment", 0, [("accuracy", "accuracy", 0.6)], lr=0.1)
    rows = by_rule(tmp_path)
    assert len(rows) == 5
    slow = next(r for name, r in rows.items() if name.startswith("feedback") and "lr=0.1" in name)
    assert slow.difference.value == pytest.approx(-0.1)


def test_all_formats_say_the_same(board, capsys):
    rows = read_rows(board)
    data = json.loads(render.to_json(rows))["rows"]
    assert [d["rule"] for d in data] == [r.rule for r in rows]
    assert data[0]["estimates"]["accuracy"]["per_seed"] == {"0": 0.9, "1": 0.92, "2": 0.94}
    flat = list(csv.DictReader(io.StringIO(render.to_csv(rows))))
    assert [float(f["accuracy"]) for f in flat if f["accuracy"]] == pytest.approx(
        [d["estimates"]["accuracy"]["value"] for d in data if d["estimates"]["accuracy"]["value"] is not None]
    )
    text = render.markdown(rows)
    assert all(r.rule in text for r in rows) and "92.0%" in text
    for form in ("--json", "--csv", "--markdown"):
        assert main(["leaderboard", str(board), form]) == 0
    assert main(["leaderboard", str(board)]) == 0
    out = capsys.readouterr().out
    assert "feedback_alignment" in out and "(control)" in out and "(null observer)" in out


@pytest.mark.parametrize("sort", render.SORTS)
def test_sorting(board, sort, capsys):
    assert main(["leaderboard", str(board), "--sort", sort, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 6


def test_unknown_sort_no_folder_no_runs(board, tmp_path, capsys):
    assert main(["leaderboard", str(board), "--sort", "acuracy"]) == 2
    assert "did you mean 'accuracy'?" in capsys.readouterr().err
    assert main(["leaderboard", str(tmp_path / "absent")]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["leaderboard", str(tmp_path / "empty")]) == 0


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("scores.jsonl", lambda t: t[:-40], "line 8 is not a whole record"),
        ("scores.jsonl", lambda t: t + "[]\n", "line 9 is not a whole record"),
        ("config.json", lambda t: t[: len(t) // 2], "broken"),
        ("config.json", lambda t: t.replace('"schema_version": 1', '"schema_version": 99'), "version 99"),
        ("config.json", lambda t: t.replace('"epochs": 5', '"epochs": 6'), "edited by hand"),
        ("status.json", lambda t: "", "broken"),
    ],
)
def test_a_damaged_file_is_one_line_and_code_2_and_nothing_changes(board, capsys, name, damage, message):
    path = next(board.glob("backprop-*s0*")) / name
    path.write_text(damage(path.read_text()))
    before = {p: p.read_bytes() for p in board.rglob("*") if p.is_file()}
    assert main(["leaderboard", str(board)]) == 2
    error = capsys.readouterr().err
    assert message in error and str(path.parent) in error and error.count("\n") == 1
    assert {p: p.read_bytes() for p in board.rglob("*") if p.is_file()} == before


def test_only_the_newest_version_of_a_benchmark_counts(tmp_path):
    new = write(tmp_path, "backprop", 0, [("accuracy", "accuracy", 0.9)])
    write(tmp_path, "backprop", 1, [("accuracy", "accuracy", 0.8)])
    record = new.scores()[0]
    new.add_scores([record | {"benchmark_version": 2, "value": None, "gate": "n/a", "reason": "new gate"}])
    accuracy = by_rule(tmp_path)["backprop"].estimates["accuracy"]
    assert accuracy.value is None and accuracy.reason == "new gate"


def test_two_states_of_one_rule_file_are_told_apart(tmp_path):
    for source in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
        write(tmp_path, "mine.py", 0, [("accuracy", "accuracy", 0.5)], rule_source=source)
    assert set(by_rule(tmp_path)) == {"mine #aaaaaa", "mine #bbbbbb"}


def test_two_seeds_are_not_enough_to_say_that_a_rule_learned(tmp_path):
    for seed in range(2):
        write(tmp_path, "readout_only", seed, [("accuracy", "accuracy", 0.5)])
        write(tmp_path, "backprop", seed, [("accuracy", "accuracy", 0.9), ("learned", "hidden_change", 0.2)])
    write(tmp_path, "feedback_alignment", 0, [("accuracy", "accuracy", 0.9)])
    rows = by_rule(tmp_path)
    assert rows["backprop"].learned == "unsure (2 of 3 seeds that the gate needs)"
    assert rows["feedback_alignment"].learned == "n/a (not measured)"


def test_enough_seeds_that_overlap_with_the_readout_are_unsure_for_that_reason(tmp_path):
    for seed, gain in enumerate((0.2, -0.15, 0.1)):
        write(tmp_path, "readout_only", seed, [("accuracy", "accuracy", 0.5)])
        write(tmp_path, "backprop", seed, [("accuracy", "accuracy", 0.5 + gain), ("learned", "hidden_change", 0.2)])
    assert by_rule(tmp_path)["backprop"].learned == "unsure (the interval of its gain over readout_only contains 0)"


@pytest.mark.parametrize(
    ("seeds", "rules", "least"), [(5, 1, 2 / 32), (5, 3, 6 / 32), (8, 3, 6 / 256), (3, 5, 1.0), (1, 2, None)]
)
def test_a_setting_says_below_which_p_it_cannot_get(tmp_path, seeds, rules, least):
    """Every rule below backprop at every seed: the most extreme data there are, and the p that the board gives them."""
    names = ["feedback_alignment", "kolen_pollack", "sign_symmetry", "weight_mirror", "predictive_coding"][:rules]
    for seed in range(seeds):
        write(tmp_path, "backprop", seed, [("accuracy", "accuracy", 0.9)])
        for i, rule in enumerate(names):
            write(tmp_path, rule, seed, [("accuracy", "accuracy", 0.5 + 0.01 * i + 0.001 * seed)])
    rows = read_rows(tmp_path)
    found = [r.p_value for r in rows if r.p_value is not None]
    assert found == pytest.approx([least] * rules if least else [])
    line = f"no p can be below {least:.2g}" if least else "no p can be"
    assert (line in render.markdown(rows)) == (least is not None and least > 0.05)


def test_backprop_with_options_is_not_called_equivalent_to_itself(tmp_path):
    for rule in ("backprop", "fixed_prediction"):
        scores = [("accuracy", "accuracy", 0.9), ("credit", "hidden_cosine", 1.0), ("credit", "bp_equivalent", 1.0)]
        write(tmp_path, rule, 0, scores)
        write(tmp_path, rule, 0, scores, lr=0.1)
    column = render.HEADER.index("cos to BP")
    shown = {name: render.cells(row, render.Notes())[column] for name, row in by_rule(tmp_path).items()}
    assert len(shown) == 4
    for name, cell in shown.items():
        assert cell == ("+1.00" if name.startswith("backprop") else "+1.00 BP-equivalent"), name


def test_cosines_stand_below_the_board_stage_by_stage_for_rules_alone(board, capsys):
    write(board, "kolen_pollack", 0, [
        ("accuracy", "accuracy", 0.8), ("credit", "hidden_cosine", 0.5), ("credit", "cosine", 0.93, "conv1", "final"),
        ("credit", "cosine", 0.07, "conv2", "final"), ("credit", "cosine", None, "readout", "final", "vanished")])  # fmt: skip
    text = render.markdown(read_rows(board))
    assert "| cos to BP | conv1 | conv2 | readout |" in text
    assert "| kolen_pollack | +0.93 | +0.07 | n/a |" in text
    assert "| feedback_alignment | +0.40 | n/a | n/a |" in text and "| readout_only | +0.40" not in text
    assert main(["leaderboard", str(board)]) == 0
    out = capsys.readouterr().out
    assert "by stage" in out and "+0.93" in out and "+0.07" in out


def test_a_killed_run_says_that_it_is_not_finished_and_a_failed_benchmark_hides_no_accuracy(tmp_path):
    write(tmp_path, "backprop", 0, state="running")
    write(tmp_path, "feedback_alignment", 0, [("accuracy", "accuracy", 0.9)], state="failed", reason="a new benchmark")
    rows = by_rule(tmp_path)
    assert rows["backprop"].reasons == ["s0 running: not finished"]
    assert render.cells(rows["feedback_alignment"], render.Notes())[2] == "90.0%"


def test_labels_show_what_is_not_at_its_default(tmp_path):
    write(tmp_path, "feedback_alignment", 0, rule_params={"scale": 1.0}, model_params={"width": 16, "kernel": 3})
    write(tmp_path, "feedback_alignment", 0, rule_params={"scale": 2.0}, model_params={"width": 16, "kernel": 3})
    rows = read_rows(tmp_path)
    assert {r.rule for r in rows} == {"feedback_alignment", "feedback_alignment(scale=2.0)"}
    assert {r.model for r in rows} == {"cnn(width=16)"}


def test_one_rule_file_in_two_places_is_one_row(tmp_path):
    for seed, place in enumerate(("p", "q")):
        write(tmp_path, f"{place}/mine.py", seed, [("accuracy", "accuracy", 0.5)], rule_source="aaaaaaaaaaaa")
    (row,) = read_rows(tmp_path)
    assert row.rule == "mine" and row.seeds == [0, 1]


def test_validation_runs_are_a_setting_of_their_own(board):
    before = {r.rule: r for r in read_rows(board)}
    for rule, accuracy in (("backprop", 0.3), ("feedback_alignment", 0.2)):
        for seed in range(3):
            write(board, rule, seed, [("accuracy", "accuracy", accuracy)], validation=0.2)
    rows = read_rows(board)
    assert {r.rule: r for r in rows if r.task == "shapes"} == before
    searched = {r.rule: r for r in rows if r.task == "shapes, validation 0.2"}
    assert set(searched) == {"backprop", "feedback_alignment"}
    assert searched["feedback_alignment"].difference.per_seed == pytest.approx({0: -0.1, 1: -0.1, 2: -0.1})
    assert ("shapes, validation 0.2", "cnn") in render.settings(rows)


def test_trials_are_shown_and_tuned_rules_are_compared_with_tuned_ones(tmp_path):
    """Each tuned rule has a learning rate of its own; its partner is what the same budget made of backprop."""
    accuracies = {("backprop", 0): 0.7, ("backprop", 10): 0.9, ("readout_only", 0): 0.3, ("readout_only", 10): 0.5,
                  ("feedback_alignment", 0): 0.6, ("feedback_alignment", 10): 0.8}  # fmt: skip
    lr = {"backprop": 0.003, "readout_only": 0.01, "feedback_alignment": 0.005}
    for (rule, trials), accuracy in accuracies.items():
        tuned = {"trials": trials, "lr": lr[rule]} if trials else {}
        write(tmp_path, rule, 0, [("accuracy", "accuracy", accuracy)], **tuned)
    rows = {(r.rule.split("(")[0], r.trials): r for r in read_rows(tmp_path)}
    assert len(rows) == 6
    assert rows["feedback_alignment", 10].difference.value == pytest.approx(0.8 - 0.9)
    assert rows["feedback_alignment", 10].above_readout.value == pytest.approx(0.8 - 0.5)
    assert rows["feedback_alignment", 0].difference.value == pytest.approx(0.6 - 0.7)
    assert rows["feedback_alignment", 0].above_readout.value == pytest.approx(0.6 - 0.3)
    column = render.HEADER.index("trials")
    shown = {key: render.cells(row, render.Notes())[column] for key, row in rows.items()}
    assert shown["backprop", 10] == "10¹" and shown["backprop", 0] == "–"  # of a search that is not the shipped one
    flat = list(csv.DictReader(io.StringIO(render.to_csv(list(rows.values())))))
    assert sorted(f["trials"] for f in flat) == ["0"] * 3 + ["10"] * 3
    for row in rows.values():
        assert len(render.cells(row, render.Notes())) == len(render.HEADER)


def test_where_no_learning_rate_is_usual_every_row_says_its_own(tmp_path):
    for rule, lr in (("backprop", 0.1), ("feedback_alignment", 0.2), ("readout_only", 0.3)):
        write(tmp_path, rule, 0, [("accuracy", "accuracy", 0.5)], lr=lr)
    assert set(by_rule(tmp_path)) == {"backprop(lr=0.1)", "feedback_alignment(lr=0.2)", "readout_only(lr=0.3)"}


def test_a_spiking_rule_is_compared_with_the_control_of_its_own_inference(tmp_path):
    for seed in range(3):
        write(tmp_path, "readout_only", seed, [("accuracy", "accuracy", 0.8)])
        write(tmp_path, "stdp", seed, [("accuracy", "accuracy", 0.7), ("learned", "hidden_change", 0.3)])
        write(tmp_path, "trace_stdp", seed, [("accuracy", "accuracy", 0.9), ("learned", "hidden_change", 0.3)])
        write(tmp_path, "spiking_readout_only", seed, [("accuracy", "accuracy", 0.6 + 0.01 * seed)])
    rows = by_rule(tmp_path)
    assert rows["stdp"].learned == "yes" and rows["spiking_readout_only"].kind == "control"
    assert rows["stdp"].above_readout.per_seed == pytest.approx({0: 0.1, 1: 0.09, 2: 0.08})
    assert rows["trace_stdp"].learned == "unsure (no trace_readout_only beside it)"


def test_among_settings_of_a_control_the_one_with_the_rules_own_options_counts(tmp_path):
    for seed in range(3):
        for target, control, rule in ((0.2, 0.5, 0.6), (0.4, 0.7, 0.65)):
            options = {"rule_params": {"target": target}}
            write(tmp_path, "spiking_readout_only", seed, [("accuracy", "accuracy", control)], **options)
            write(
                tmp_path, "stdp", seed, [("accuracy", "accuracy", rule), ("learned", "hidden_change", 0.3)], **options
            )
    rows = by_rule(tmp_path)
    assert {r: row.learned for r, row in rows.items() if r.startswith("stdp")} == {
        "stdp(target=0.2)": "yes", "stdp": "no (not above spiking_readout_only)",
    }  # fmt: skip


def test_what_is_said_of_the_network_counts_and_not_what_is_said_of_its_stages(tmp_path):
    """In whatever order a benchmark writes them; a stage's number stands only where there is none of the whole."""
    write(tmp_path, "backprop", 0, [
        ("accuracy", "accuracy", 0.9), ("lightness", "index", 2.0, "", "conv1"), ("lightness", "index", -5.0, "conv2")])  # fmt: skip
    write(tmp_path, "backprop", 1, [
        ("accuracy", "accuracy", 0.9), ("lightness", "index", 3.0, "conv1"), ("lightness", "index", None, "", "", "why")])  # fmt: skip
    write(tmp_path, "backprop", 2, [("accuracy", "accuracy", 0.9), ("motion_readout", "index", 0.5, "conv2")])
    (row,) = read_rows(tmp_path)
    lightness = row.pillars["surfaces"]["lightness"]
    assert lightness.per_seed == {0: 2.0} and lightness.reason == "why" and lightness.at == "conv1"
    assert row.pillars["motion"]["readout"].per_seed == {2: 0.5} and row.pillars["motion"]["readout"].at == "conv2"
    assert "+2.00 (1 seed¹) conv1" in render.markdown([row])
