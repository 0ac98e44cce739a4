"""The search: equal budgets, paired draws, nothing run twice, and a winner that a pencil would choose too."""

import dataclasses
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.stats
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import tune
from experiments.cli import main
from experiments.study import expand, read_study
from experiments.tune import Outcome, Search, chosen, draw, outcome, ranked, searches, trial_config
from tests.conftest import ROOT
from tests.experiments.test_leaderboard import score
from training.catalogue import RULES
from training.config import RunConfig, run_config
from training.directory import RunDirectory, run_directories
from training.errors import UserError

QUIET = ["--wandb", "off", "--no-progress", "-j", "1"]
STUDY = {
    "name": "t", "seeds": 1, "rules": ["backprop", "feedback_alignment"], "models": [{"name": "mlp", "width": 8}],
    "tasks": [{"name": "digits", "epochs": 1}], "observers": [],
}  # fmt: skip
LEARNING = sorted(n for n in RULES.entries() if RULES.load(n).tags.learns)
# What it does depends on the drawn mode: learn, diverge, or crash.
MOODY = '''"""A rule (for this test)."""
from rules.base import Learned, Rule, differentiate


class Moody(Rule):
    search_space = {"mode": lambda rng: rng.integers(0, 3)}

    def __init__(self, *, mode: int = 0):
        super().__init__()
        self.mode = mode

    def learn(self, net, x, target, objective):
        d = differentiate(net, x, target, objective)
        if self.mode == 2:
            raise RuntimeError("no mood to learn")
        factor = float("nan") if self.mode == 1 else 1.0
        return Learned({n: g * factor for n, g in d.grads.items()}, d.loss, d.output, d.signals)
'''


def base(rule="backprop", **fields):
    return run_config({"rule": rule, "model": "mlp", "task": "digits", "validation": 0.2} | fields)


def write_study(folder, **changes):
    path = folder / "t.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes))
    return path


def run(folder, *arguments):
    return main(["tune", str(folder / "t.yaml"), "--runs", str(folder / "runs"), *QUIET, *arguments])


def stamps(folder):
    return {p: p.stat().st_mtime_ns for p in folder.glob("runs/*/scores.jsonl")}


class TestDraws:
    def test_trial_0_is_the_configuration_as_it_stands(self):
        assert trial_config(base(lr=0.007), 0) == base(lr=0.007)

    def test_the_learning_rate_is_the_golden_sequence_from_the_start_of_its_stream(self):
        """Computed here anew: sha256 of the stream's name seeds numpy; low · (high / low)^u, u = frac(u_0 + 0.618… k)."""
        seed = int.from_bytes(hashlib.sha256(b"0:tune:lr").digest()[:8], "big") >> 1
        first = np.random.default_rng(seed).random()
        for trial in range(1, 30):
            u = math.modf(first + trial * 0.6180339887498949)[0]
            assert trial_config(base(), trial).lr == pytest.approx(3e-4 * (1e-2 / 3e-4) ** u, rel=5e-3)

    @pytest.mark.parametrize("rule", ["backprop", "stdp"])  # the common range, and a rule's own
    def test_learning_rates_spread_over_the_logarithmic_range_however_few_they_are(self, rule):
        """n successive points of the sequence leave no gap above 1.894 / n (independent draws: about ln n / n)."""
        lrs = np.array([draw(base(rule), k)["lr"] for k in range(1, 201)])
        low, high = (3e-4, 1e-2) if rule == "backprop" else (1e-4, 1e-2)
        share = np.log(lrs / low) / np.log(high / low)
        assert share.min() > -1e-3 and share.max() < 1 + 1e-3
        for n in (4, 7, 20, 50, 200):
            for start in range(0, 201 - n, n):
                u = np.sort(share[start : start + n])
                assert np.diff(np.append(u, u[0] + 1)).max() * n < 1.894 + n * 2e-3  # three digits are kept
        assert scipy.stats.qmc.discrepancy(share[:, None]) < 0.02 / 200  # independent draws: 1 / (6 n) on average

    def test_five_trials_span_the_range(self):
        """Four drawn ones leave the gap 0.382 at most: a factor of 8.7 of 33 at least, and none close to another."""
        lrs = np.array([draw(base(), k)["lr"] for k in range(1, 5)])
        places = np.sort(np.log(lrs))
        whole = math.log(1e-2 / 3e-4)
        assert (places[-1] - places[0]) / whole > 0.61 and np.diff(places).min() / whole > 0.14

    @pytest.mark.parametrize("trial", range(1, 6))
    def test_a_trial_has_one_learning_rate_for_all_rules_and_seeds(self, trial):
        configs = [trial_config(base(rule, seed=seed), trial) for rule in LEARNING for seed in (0, 3)]
        adam = {c.lr for c in configs if not RULES.load(c.rule).optimizer}
        assert len(adam) == 1

    def test_under_sgd_the_same_draw_is_taken_from_its_own_range(self, tmp_path):
        path = tmp_path / "hebb.py"
        path.write_text(
            '"""A rule."""\nfrom rules.backprop import Backprop\n\n\nclass Hebb(Backprop):\n    optimizer = "sgd"\n'
        )
        for trial in range(1, 20):
            own, adam = trial_config(base(str(path)), trial).lr, trial_config(base(), trial).lr
            assert 1e-3 <= own <= 0.3
            u = math.log(adam / 3e-4) / math.log(1e-2 / 3e-4)
            assert math.log(own / 1e-3) / math.log(0.3 / 1e-3) == pytest.approx(u, abs=3e-3)
            assert trial_config(base(optimizer="sgd"), trial).lr == own

    @settings(max_examples=40, deadline=None)
    @given(st.sampled_from(LEARNING), st.integers(1, 10_000))
    def test_every_rule_can_be_sampled_and_its_samples_construct(self, rule, trial):
        config = trial_config(base(rule), trial)
        space = RULES.load(rule).search_space
        RULES.load(rule)(**config.rule_params)
        low, high = (1e-4, 1e-2) if RULES.load(rule).optimizer else (3e-4, 1e-2)
        assert low <= config.lr <= high and config.validation == 0.2 and config.trials == 0
        changed = {n for n, v in config.rule_params.items() if v != base(rule).rule_params[n]}
        assert changed <= set(space)
        for value in [config.lr, *config.rule_params.values()]:
            assert not isinstance(value, float) or value == float(f"{value:.3g}")
        assert trial_config(base(rule), trial) == config

    def test_every_searched_option_really_varies(self):
        for rule in LEARNING:
            for name in RULES.load(rule).search_space:
                trials = [trial_config(base(rule), k) for k in range(1, 30)]
                assert len({t.lr if name == "lr" else t.rule_params[name] for t in trials}) > 1, (rule, name)

    @pytest.mark.parametrize(
        ("space", "message"),
        [
            ('{"scale": lambda rng: rng.nothing()}', "search_space['scale']: AttributeError"),
            ('{"scale": 1.0}', "search_space['scale']: TypeError"),
            ('{"scales": lambda rng: 1.0}', "unknown option of rule"),
            ('{"scale": lambda rng: "big"}', "expected float, got 'big'"),
        ],
    )
    def test_a_broken_search_space_is_one_clear_line(self, tmp_path, capsys, space, message):
        (tmp_path / "mine.py").write_text(
            '"""A rule."""\nfrom rules.backprop import Backprop\n\n\nclass Mine(Backprop):\n'
            f"    search_space = {space}\n\n    def __init__(self, *, scale: float = 1.0):\n        super().__init__()\n"
        )
        write_study(tmp_path, rules=["mine.py"])
        assert run(tmp_path, "--trials", "2") == 2
        error = capsys.readouterr().err
        assert message in error and "mine" in error and error.count("\n") == 1
        assert not (tmp_path / "runs").exists()


class TestSearches:
    def test_every_rule_that_learns_on_every_model_and_task_and_the_trained_control(self):
        study = expand(STUDY | {"seeds": 2, "models": ["mlp", "cnn"], "observers": ["pixels"]}, "x", default_name="x")
        found = searches(study)
        cells = sorted((s.base.rule, s.base.model) for s in found)
        assert cells == sorted(
            (r, m) for r in ("backprop", "feedback_alignment", "readout_only") for m in ("mlp", "cnn")
        )
        assert all([c.seed for c in s.configs] == [0, 1] and s.base.validation == 0.2 for s in found)

    def test_the_study_may_set_the_share(self):
        study = expand(STUDY | {"training": {"validation": 0.4}}, "x", default_name="x")
        assert {s.base.validation for s in searches(study)} == {0.4}

    @pytest.mark.parametrize("name", ["tuning_mlp", "tuning_cnn"])
    def test_the_shipped_searches_are_on_validation_data_and_can_be_written(self, name, tmp_path):
        study = read_study(ROOT / "experiments" / f"{name}.yaml")
        assert not any(c.is_null for c in study.configs)
        found = searches(study)
        tune.check_write(found, tmp_path / "new.yaml")
        assert {s.base.validation for s in found} == {0.2} and "readout_only" in {s.base.rule for s in found}
        for s in found:
            assert len({c.key for k in range(10) for c in s.trial(k)}) == 10  # ten trials are ten different runs


class TestChoice:
    def outcomes(self, *scores, metric="accuracy"):
        return [Outcome(k, base(), s, metric, "done" if s is not None else "failed") for k, s in enumerate(scores)]

    def test_the_best_wins_a_tie_goes_to_the_lower_trial_and_failures_to_the_end(self):
        outcomes = self.outcomes(None, 0.5, 0.9, 0.9, 0.7)
        assert [o.trial for o in ranked(outcomes)] == [2, 3, 4, 1, 0]
        assert chosen(outcomes).trial == 2
        assert chosen(self.outcomes(None, 0.0)).trial == 1  # the worst score still beats none
        assert chosen(self.outcomes(None, None)) is None

    def test_an_error_is_better_the_lower_it_is(self):
        assert [o.trial for o in ranked(self.outcomes(0.3, 0.1, None, 0.2, metric="mean_squared_error"))] == [
            1,
            3,
            0,
            2,
        ]

    @settings(deadline=None)
    @given(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=12))
    def test_the_choice_is_the_first_maximum(self, scores):
        config, known = RunConfig("backprop", "mlp", "digits"), [s for s in scores if s is not None]
        outcomes = [Outcome(k, config, s, "accuracy", "") for k, s in enumerate(scores)]
        found = chosen(outcomes)
        assert (found and found.trial) == (scores.index(max(known)) if known else None)

    def record(self, runs, config, *scores, state="done", reason=""):
        directory = RunDirectory(runs / config.directory)
        directory.write_config(config)
        directory.set_status(state, reason)
        directory.add_scores([score(config, *s) for s in scores])

    def test_the_score_is_the_mean_over_seeds(self, tmp_path):
        search = Search((base(seed=0), base(seed=1)))
        for config, accuracy in zip(search.trial(1), (0.8, 0.6), strict=True):
            self.record(tmp_path, config, ("accuracy", "accuracy", accuracy), ("learned", "hidden_change", 0.1))
        o = outcome(search, 1, tmp_path)
        assert o.score == pytest.approx(0.7) and o.state == "done" and o.still == ""

    def test_a_seed_without_a_score_is_a_trial_without_one(self, tmp_path):
        search = Search((base(seed=0), base(seed=1)))
        first, second = search.trial(0)
        self.record(tmp_path, first, ("accuracy", "accuracy", 1.0), ("learned", "hidden_change", 0.1))
        assert (outcome(search, 0, tmp_path).score, outcome(search, 0, tmp_path).state) == (None, "not run")
        self.record(tmp_path, second, state="unsupported", reason="too wide")
        assert outcome(search, 0, tmp_path).reason == "too wide"

    @pytest.mark.parametrize(
        ("scores", "reason"),
        [
            ([("accuracy", "accuracy", None, "", "", "its output is not finite")], "its output is not finite"),
            ([("accuracy", "accuracy", 0.9), ("accuracy", "most_frequent_answer", 1.0)], "answers the same to every image"),
            ([("learned", "hidden_change", 0.1)], "not measured"),
        ],
    )  # fmt: skip
    def test_diverged_and_collapsed_trials_have_failed(self, tmp_path, scores, reason):
        self.record(tmp_path, base(), *scores)
        o = outcome(Search((base(),)), 0, tmp_path)
        assert (o.score, o.state) == (None, "failed") and reason in o.reason

    def test_image_targets_are_compared_by_their_error_and_old_versions_do_not_count(self, tmp_path):
        self.record(tmp_path, base(), ("accuracy", "mean_squared_error", 0.25))
        directory = RunDirectory(tmp_path / base().directory)
        directory.add_scores([directory.scores()[0] | {"benchmark_version": 2, "value": 0.125}])
        o = outcome(Search((base(),)), 0, tmp_path)
        assert (o.metric, o.score) == ("mean_squared_error", 0.125)

    def test_stages_that_did_not_move_are_told(self, tmp_path, capsys):
        search = Search((base("feedback_alignment"),))
        still = ("learned", "hidden_change", None, "", "", "did not move: hidden1")
        self.record(tmp_path, search.base, ("accuracy", "accuracy", 0.5), still)
        tune.print_report(search, [outcome(search, 0, tmp_path)])
        out = capsys.readouterr().out
        assert (
            "taught its hidden stages nothing: did not move: hidden1" in out and "50.00%" in out and "◀ chosen" in out
        )


class TestCommand:
    def test_it_resumes_and_more_trials_or_rules_run_only_what_is_new(self, tmp_path, capsys):
        write_study(tmp_path)
        assert run(tmp_path, "--trials", "2") == 0
        first = stamps(tmp_path)
        assert len(first) == 3 * 2
        assert capsys.readouterr().out.count("◀ chosen") == 3
        assert run(tmp_path, "--trials", "2") == 0
        assert stamps(tmp_path) == first and "6 of 6 runs are finished" in capsys.readouterr().out
        assert run(tmp_path, "--trials", "3") == 0
        more = stamps(tmp_path)
        assert len(more) == 3 * 3 and {p: more[p] for p in first} == first
        write_study(tmp_path, rules=["sign_symmetry", "feedback_alignment", "backprop"])
        assert run(tmp_path, "--trials", "3") == 0
        assert {p: stamps(tmp_path)[p] for p in more} == more and len(stamps(tmp_path)) == 4 * 3

    def test_a_trial_is_measured_by_what_selects_alone_on_the_validation_share(self, tmp_path):
        write_study(tmp_path, rules=["backprop"])
        assert run(tmp_path, "--trials", "1") == 0
        directory = next(d for d in run_directories(tmp_path / "runs") if d.config().rule == "backprop")
        assert {s["benchmark"] for s in directory.scores()} == {"accuracy", "learned"}
        assert "credit" not in directory.metrics.read_text()
        # 1797 digits, of which the task itself holds out a fifth; a fifth of the rest selects.
        (accuracy,) = [s for s in directory.scores() if s["metric"] == "accuracy"]
        training = 1797 - round(0.2 * 1797)
        assert abs(accuracy["n_stimuli"] - 0.2 * training) <= 1
        main(["evaluate", str(directory.path), "--wandb", "off"])
        assert {s["benchmark"] for s in directory.scores()} == {"accuracy", "learned"}

    def test_failed_and_diverged_trials_stay_visible_and_one_that_learned_is_chosen(self, tmp_path, capsys):
        (tmp_path / "moody.py").write_text(MOODY)
        write_study(tmp_path, rules=["moody.py"])
        modes = {k: draw(base(str(tmp_path / "moody.py")), k)["mode"] for k in range(1, 6)}
        assert set(modes.values()) == {0, 1, 2}
        assert run(tmp_path, "--trials", "6") == 0
        out = capsys.readouterr().out
        search = next(s for s in searches(read_study(tmp_path / "t.yaml")) if s.base.rule_name == "moody")
        outcomes = [outcome(search, k, tmp_path / "runs") for k in range(6)]
        for k, mode in modes.items():
            assert outcomes[k].state == ("done" if mode == 0 else "failed"), (k, mode)
            assert {0: "", 1: "not finite", 2: "no mood to learn"}[mode] in outcomes[k].reason
        best = chosen(outcomes)
        assert (
            best.score == max(o.score for o in outcomes if o.score is not None) and best.config.rule_params["mode"] == 0
        )
        assert "no mood to learn" in out and "not finite" in out
        # The trials are on the board too, as a setting of their own.
        main(["leaderboard", str(tmp_path / "runs")])
        assert "digits, validation 0.2 × mlp(width=8)" in capsys.readouterr().out

    def test_a_rule_without_any_score_is_code_1_and_an_unsupported_one_is_not(self, tmp_path, capsys):
        (tmp_path / "crashes.py").write_text(MOODY.replace("self.mode == 2", "True"))
        write_study(tmp_path, rules=["crashes.py"])
        assert run(tmp_path, "--trials", "1") == 1
        assert "nothing to choose from" in capsys.readouterr().out
        (tmp_path / "picky.py").write_text(
            MOODY + '\n    def supports(self, net, objective):\n        return "only on Sundays"\n'
        )
        write_study(tmp_path, rules=["picky.py"])
        assert run(tmp_path, "--trials", "1") == 0
        assert "only on Sundays" in capsys.readouterr().out

    def test_seeds_are_the_studys(self, tmp_path):
        write_study(tmp_path, rules=["backprop"], seeds=[2, 5])
        assert run(tmp_path, "--trials", "1") == 0
        configs = [d.config() for d in run_directories(tmp_path / "runs")]
        assert sorted(c.seed for c in configs if c.rule == "backprop") == [2, 5]

    @pytest.mark.parametrize(
        ("changes", "arguments", "message"),
        [
            ({}, ["--trials", "0"], "--trials must be at least 1, got 0"),
            ({}, ["-j", "-1"], "--jobs must be at least 1"),
            ({"rules": ["bakprop"]}, [], "did you mean 'backprop'?"),
            ({"training": {"validation": 1}}, [], "validation must be at least 0 and below 1"),
            ({"tasks": ["digits", "shapes"]}, ["--write", "w.yaml"], "the study has several tasks: digits"),
            ({"models": ["mlp", {"name": "mlp", "width": 9}]}, ["--write", "w.yaml"], "several backprop × mlp"),
            ({}, ["--write", "t.yaml"], "t.yaml: is not a file of tuned hyper-parameters"),
        ],
    )
    def test_mistakes_are_one_line_before_anything_is_trained(
        self, tmp_path, monkeypatch, capsys, changes, arguments, message
    ):
        monkeypatch.chdir(tmp_path)
        text = write_study(tmp_path, **changes).read_text()
        assert run(tmp_path, *arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
        assert not (tmp_path / "runs").exists() and (tmp_path / "t.yaml").read_text() == text

    @pytest.mark.slow
    def test_a_search_that_is_terminated_writes_nothing_and_goes_on(self, tmp_path):
        write_study(tmp_path, rules=["backprop"], tasks=[{"name": "digits", "epochs": 20}])
        command = [
            sys.executable, "-c", "import sys; from experiments.cli import main; sys.exit(main())", "tune", "t.yaml",
            "--trials", "3", "--write", "w.yaml", *QUIET,
        ]  # fmt: skip
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            if list((tmp_path / "runs").glob("*/last.ckpt")):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
        assert not (tmp_path / "w.yaml").exists()
        result = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert result.returncode == 0, result.stderr
        assert set(yaml.safe_load((tmp_path / "w.yaml").read_text())["tuned"]["mlp"]) == {"backprop", "readout_only"}
        assert all(d.status()["state"] == "done" for d in run_directories(tmp_path / "runs"))


def test_the_same_split_for_every_rule_and_another_for_another_seed():
    import torch

    from training.config import Execution
    from training.run import build, load_task

    execution = Execution()
    a, b = (build(base(rule, seed=4), execution).task for rule in ("backprop", "readout_only"))
    other = load_task(base(seed=5), execution)
    assert torch.equal(a.test.images, b.test.images) and torch.equal(a.train.images, b.train.images)
    assert not torch.equal(a.test.images, other.test.images)


def test_a_search_cannot_see_the_test_set(tmp_path):
    """The same training images beside two different test sets: not a bit of the search differs."""
    from PIL import Image

    rng = np.random.default_rng(0)
    training = rng.integers(0, 256, (2, 20, 8, 8, 3), dtype=np.uint8)
    weights, numbers = [], []
    for name in ("one", "two"):
        held_out = rng.integers(0, 256, (2, 5, 8, 8, 3), dtype=np.uint8)
        for part, images in (("train", training), ("val", held_out)):
            for c, of_class in enumerate(images):
                folder = tmp_path / name / part / f"class{c}"
                folder.mkdir(parents=True)
                for i, pixels in enumerate(of_class):
                    Image.fromarray(pixels).save(folder / f"{i}.png")
        task = {"name": "image_folder", "path": str(tmp_path / name), "size": 8, "epochs": 3, "batch_size": 8}
        write_study(tmp_path / name, rules=["backprop"], tasks=[task])
        assert run(tmp_path / name, "--trials", "2") == 0
        import torch

        directories = run_directories(tmp_path / name / "runs")
        assert len(directories) == 4
        order = sorted(directories, key=lambda d: (d.config().rule, d.config().lr))
        weights.append([torch.load(d.checkpoint, weights_only=True)["state_dict"] for d in order])
        numbers.append([[(s["metric"], s["stage"], s["value"]) for s in d.scores()] for d in order])
        curves = [d.metrics.read_text() for d in order]
        numbers[-1].append(curves)
    assert numbers[0] == numbers[1]
    for one, two in zip(*weights, strict=True):
        assert all(torch.equal(one[n], two[n]) for n in one)


def test_runs_from_before_the_new_fields_are_still_the_same_runs(tmp_path):
    config = RunConfig(rule="backprop", model="mlp", task="digits")
    directory = RunDirectory(tmp_path / config.directory)
    directory.write_config(config)
    path = directory.path / "config.json"
    record = json.loads(path.read_text())
    del record["validation"], record["trials"]
    path.write_text(json.dumps(record))
    assert directory.config() == config and directory.config().key == config.key
    del record["lr"]
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="do not match"):
        directory.config()
    assert dataclasses.replace(config, validation=0.2).key != config.key != dataclasses.replace(config, trials=1).key
