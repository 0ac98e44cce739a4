"""The whole examination: what it returns for the generating model, for networks, for observers it cannot judge."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from evaluation.brain import models as rows
from evaluation.brain.features import Spec, precise
from evaluation.brain.inference import Row, align, on_images
from evaluation.brain.losses import SEED
from evaluation.brain.rdm import square
from evaluation.brain.reports import _chosen, halves
from evaluation.brain.sets.objects92 import Objects92
from evaluation.brain.sets.simulated_ventral_stream import SimulatedVentralStream
from evaluation.brain.simulation import VentralStream
from models import cnn
from models.base import Stage, StagedNet
from rules.backprop import Backprop
from rules.readout_only import ReadoutOnly
from rules.spiking_readout_only import SpikingReadoutOnly
from rules.stdp import STDP
from rules.untrained import Untrained
from tests.evaluation.brain.conftest import observer_of
from tests.evaluation.brain.examined import OnData, by_name, examine
from training.data.base import Source


@pytest.fixture(scope="module")
def generating():
    return SimulatedVentralStream(resamples=40, encoding=True).measure(VentralStream())


def test_the_generating_model_passes_the_positive_control(generating):
    for metric in ("activation_spatial", "activation_spatial_soft", "activation_temporal", "encoding_spatial"):
        (score,) = by_name(generating, metric)
        assert score.raw >= 0.95 and score.reason.startswith("simulated"), metric
    (bh,) = by_name(generating, "bh_score")
    assert bh.raw > 0.7
    for area in ("V1", "V2", "V4", "IT"):
        own = by_name(generating, "activation", target=area)
        assert max(own, key=lambda s: s.raw).stage == area
        for s in own:
            assert s.ceiling_low < s.ceiling_high and s.raw < s.ceiling_high + 0.05
            assert s.ci_low < s.raw < s.ci_high and s.n_stimuli == 64
        r = max(by_name(generating, "encoding_r", target=area), key=lambda s: s.raw)
        assert r.stage == area and r.raw < r.ceiling_high


def test_reversed_regions_reverse_the_score(stream):
    card = dataclasses.replace(stream.card, rois=stream.card.rois[::-1])
    data = dataclasses.replace(stream, card=card, movie=None, times=None, responses={}, rdms=dict(stream.targets))
    (score,) = by_name(examine(data, VentralStream()), "activation_spatial")
    assert score.raw <= -0.95


def test_it_says_why_there_is_no_signal(generating):
    assert {s.reason for s in by_name(generating, "signal_label")} == {"the rule gives no learning signal"}
    assert {s.reason for s in by_name(generating, "signal_pseudo_label")} == {"its output is an image, not an answer"}
    assert all(s.raw is None for s in by_name(generating, "signal_label"))


@pytest.fixture(scope="module")
def scored(few):
    torch.manual_seed(0)
    observer = observer_of(cnn.build((3, 16, 16), (4,), width=2, hidden=8), Backprop(), size=16)
    return examine(few, observer, scales=(2.0,))


def test_every_mandatory_row_is_there(scored):
    found = {s.metric for s in scored}
    assert {
        "activation", "activation_of_mean", "activation_given_low_level", "activation_given_label", "activation_best",
        "signal_pseudo_label", "signal_label", "signal_label_given_label", "signal_label_given_activation",
        "signal_label_given_all", "signal_shuffled_label", "untrained_activation", "untrained_signal_label",
        "control_pixels", "control_luminance", "control_gabor", "control_silhouette", "control_label_shape",
        "control_output_error_label", "control_output_error_pseudo_label", "activation_at_32px", "activation_spatial",
        "untrained_activation_at_32px",
    } <= found  # fmt: skip
    stages = {s.stage for s in by_name(scored, "activation")}
    assert stages == {"conv1", "conv2", "conv3", "hidden", "readout"}
    assert all(s.raw is not None or s.reason for s in scored)
    assert len({(s.metric, s.stage, s.target) for s in scored}) == len(scored)  # one number in one place


def test_the_control_before_training_is_the_network_before_training(few):
    """One network was changed: its own rows change with it, the untrained ones are those of the one it came from."""
    torch.manual_seed(0)
    start = observer_of(cnn.build((3, 16, 16), (4,), width=2, hidden=8), Backprop(), size=16)
    changed = cnn.build((3, 16, 16), (4,), width=2, hidden=8)  # other weights
    before = examine(few, start)
    after = examine(few, dataclasses.replace(start, net=changed))
    alone = examine(few, observer_of(changed, Backprop(), size=16))
    compared = 0
    for family in ("activation", "signal_label", "activation_given_label", "signal_label_given_label"):
        for s in by_name(before, family):
            where = {"stage": s.stage, "target": s.target}
            (own,), (initial,) = by_name(after, family, **where), by_name(after, f"untrained_{family}", **where)
            (expected,) = by_name(alone, family, **where)
            if s.raw is None or own.raw is None:
                continue
            assert initial.raw == pytest.approx(s.raw, abs=1e-9), (family, where)
            assert own.raw == pytest.approx(expected.raw, abs=1e-9), (family, where)
            compared += abs(own.raw - initial.raw) > 1e-3
    assert compared > 40  # of 80 cells, all but those where both networks happen to agree


def test_the_best_stage_is_chosen_on_other_images(scored):
    """Scores that are noise, anew in every half: the best stage of one half is nothing special in the other."""
    for first, second in halves(21, 30):
        assert not set(first) & set(second) and set(first) | set(second) == set(range(21)) and len(first) == 10
    assert len({tuple(a) for a, _ in halves(21)}) == 50
    noise = np.random.default_rng(0).normal(size=(400, 2, 1, 5, 1))
    every = np.ones((1, 5), dtype=bool)
    found = _chosen(noise, every)
    assert found.shape == (800, 1, 1) and abs(found.mean()) < 0.15  # the maximum of five is 1.16 on average
    expected = [noise[k, h, 0, noise[k, 1 - h, 0, :, 0].argmax(), 0] for k in range(400) for h in range(2)]
    assert np.array_equal(found[:, 0, 0], expected)
    true = np.array([0.0, 0.1, 0.9, 0.2, 0.3])  # one stage is best in every half
    assert np.allclose(_chosen(np.broadcast_to(true[:, None], (6, 2, 1, 5, 1)), every), 0.9)
    assert len(by_name(scored, "activation_best")) == 4


def test_the_stage_is_chosen_among_those_that_have_the_row():
    """Given activations, a stage whose activations are silent has no row: the next best takes its place."""
    raw, left = np.array([0.1, 0.9, 0.5]), np.array([0.2, np.nan, 0.3])
    there = np.array([[True, True, True], [True, False, True]])
    found = _chosen(np.broadcast_to(np.stack([raw, left])[..., None], (6, 2, 2, 3, 1)), there)
    assert np.allclose(found[:, 0], 0.9) and np.allclose(found[:, 1], 0.3)


def test_some_images_alone_score_as_data_of_these_images(few):
    rows = [Row("a"), Row("a", ("b",))]
    rng = np.random.default_rng(0)
    models = {n: rng.random(120) for n in "ab"}
    index = np.array([1, 4, 5, 9, 11, 13, 15])
    i, j = np.triu_indices(7, 1)
    part = align({n: square(v)[index[i], index[j]] for n, v in models.items()}, few.select(index).targets, rows,
                 resamples=0)  # fmt: skip
    assert np.allclose(on_images(models, few.targets, rows, "spearman")(index), part.score, atol=1e-12)


def test_the_order_of_images_in_the_files_does_not_matter(few, small):
    """Splits, shuffled labels and bootstrap draw by number: the images are put in the order of their names first."""
    order = np.random.default_rng(1).permutation(16)
    for one, other in zip(examine(few, small), examine(few.select(order), small), strict=True):
        assert (one.metric, one.stage, one.target) == (other.metric, other.stage, other.target)
        for attribute in ("raw", "ci_low", "ci_high", "ceiling_low"):
            a, b = getattr(one, attribute), getattr(other, attribute)
            assert a is b or a == pytest.approx(b, abs=1e-9), one.metric


def test_shuffled_labels_have_a_null_of_many_shuffles(scored, few, small):
    """Mean and range are those of the readout's error, (p - y) R', written out for every shuffle."""
    found = by_name(scored, "signal_shuffled_label_null")
    assert {s.stage for s in found} == {"conv1", "conv2", "conv3", "hidden", "readout"} and len(found) == 5 * 4
    assert all(s.reason.endswith("mean and 95 % range over 40 of 40 shuffles") for s in found)
    assert all(s.ci_low < s.raw < s.ci_high for s in found)
    target = next(iter(few.rdms))
    observer, values = precise(small), []
    shown = small.preprocess.stimulus(few.stimuli).double()
    labels = few.labels["shape"]
    for k in range(40):
        z = observer.net(shown).detach()
        mixed = np.random.default_rng(SEED + k).permutation(labels)
        readout = torch.randn(4, len(set(labels)), generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
        readout = readout / 2
        wanted = torch.nn.functional.one_hot(
            torch.from_numpy(np.unique(mixed, return_inverse=True)[1]), readout.shape[1]
        )
        signal = ((z @ readout).softmax(1) - wanted) @ readout.T
        i, j = np.triu_indices(16, 1)
        model = 1 - np.corrcoef(signal.numpy())[i, j]
        values.append(np.mean([spearmanr(model, person).statistic for person in few.rdms[target]]))
    (score,) = by_name(examine(few, small), "signal_shuffled_label_null", stage="readout", target=target)
    assert score.raw == pytest.approx(np.mean(values), abs=1e-3)
    assert (score.ci_low, score.ci_high) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))), abs=5e-3)


@pytest.mark.parametrize("rule", [STDP(coactive=0.3), SpikingReadoutOnly(), Backprop()], ids=lambda r: type(r).__name__)
def test_the_null_of_a_local_rule_is_the_one_that_it_learns(rule, few, monkeypatch):
    """What is taken over from two shuffles is, to the last bit, what all six give by learning."""
    torch.manual_seed(0)
    observer = precise(observer_of(cnn.build((3, 32, 32), (4,), width=4, hidden=16), rule))
    learned = []
    learn = type(rule).learn
    monkeypatch.setattr(type(rule), "learn", lambda *args: learned.append(0) or learn(*args))
    short = rows._null(observer, few, Spec(), 6)
    calls = len(learned)
    monkeypatch.setattr(rows, "TRIED", 7)
    whole = rows._null(observer, few, Spec(), 6)
    assert short.keys() == whole.keys() and "readout" in whole
    for stage, vectors in whole.items():
        assert np.array_equal(short[stage], vectors, equal_nan=True)
    share = calls / (len(learned) - calls)
    assert share == pytest.approx(1 if isinstance(rule, Backprop) else 2 / 6)


def test_low_level_controls_are_held_constant_together_and_one_by_one(scored):
    for family in ("activation", "signal_pseudo_label", "signal_label"):
        for kind in ("low_level", "pixels", "gabor", "silhouette"):
            stages = {s.stage for s in by_name(scored, f"{family}_given_{kind}")}
            assert stages == {"conv1", "conv2", "conv3", "hidden", "readout"}, (family, kind)
            assert by_name(scored, f"{family}_given_{kind}_best")


def test_what_a_local_rule_learns_whatever_the_loss_is_no_loss_s(few):
    """Hebb's rule is given at the hidden stages, the gradient at the readout: only this one is the label's."""

    class Hebbian(Backprop):
        def learn(self, net, x, target, objective):
            learned = super().learn(net, x, target, objective)
            signals = {n: (a if n != net.readout else learned.signals[n]) for n, a in net.trace(x).items()}
            return dataclasses.replace(learned, signals=signals)

    torch.manual_seed(0)
    observer = observer_of(cnn.build((3, 16, 16), (4,), width=2, hidden=8), Hebbian(), size=16)
    scores = examine(few, observer)
    hidden = ["conv1", "conv2", "conv3", "hidden"]
    for prefix in ("", "untrained_"):
        for loss in ("label", "pseudo_label"):
            for stage in hidden:
                (said,) = by_name(scores, f"{prefix}signal_{loss}", stage=stage)
                assert said.raw is None and said.reason == "does not depend on the loss; see signal_unsupervised"
            assert all(s.raw is not None for s in by_name(scores, f"{prefix}signal_{loss}", stage="readout"))
        free = [s for s in by_name(scores, f"{prefix}signal_unsupervised") if s.raw is not None]
        assert {s.stage for s in free} == set(hidden)
        for s in free:  # Hebb's signal here is the activity itself
            (same,) = by_name(scores, f"{prefix}activation", stage=s.stage, target=s.target)
            assert s.raw == pytest.approx(same.raw, abs=1e-12)
    assert all(s.raw is not None for s in by_name(scores, "signal_unsupervised_best"))
    assert all("1 of its stages" in s.reason for s in by_name(scores, "signal_label_best"))


def test_the_signals_of_backprop_depend_on_the_loss_everywhere(scored):
    assert not by_name(scored, "signal_unsupervised")


def test_what_the_categories_determine_is_not_zero(few):
    """A stage that says nothing but the category, given the categories: n/a, with the reason."""
    torch.manual_seed(0)
    observer = observer_of(cnn.build((3, 16, 16), (4,), width=2, hidden=8), Backprop(), size=16)
    label = torch.from_numpy(next(iter(few.labels.values())))
    seen = {tuple(x.flatten()[:50].tolist()): k for x, k in zip(few.stimuli, label.tolist(), strict=True)}

    class Categories:
        def __getattr__(self, name):
            return getattr(observer, name)

        def activations(self, stimuli):
            which = [seen.get(tuple(x.flatten()[:50].tolist()), 0) for x in stimuli]
            own = torch.nn.functional.one_hot(torch.tensor(which), int(label.max()) + 1).double()
            return observer.activations(stimuli) | {"hidden": own}

    scores = examine(few, Categories())
    found = by_name(scores, "activation_given_label", stage="hidden")
    assert len(found) == 4 and all(s.raw is None and s.reason == "nothing is left of it" for s in found)
    assert all(s.raw is not None for s in by_name(scores, "activation", stage="hidden"))


def test_broken_data_fail_no_run(few, small):
    target = next(iter(few.rdms))
    spoilt = {**few.rdms, target: np.where(np.arange(120) == 7, np.nan, few.rdms[target])}
    (score,) = examine(dataclasses.replace(few, rdms=spoilt), small)
    assert score.raw is None and f"RDM of {target}: holds values that are not finite" in score.reason


@pytest.mark.parametrize("rule, stages", [(Untrained, 0), (ReadoutOnly, 1)])
def test_controls_have_the_signals_that_they_have(few, rule, stages):
    torch.manual_seed(0)
    observer = observer_of(cnn.build((3, 16, 16), (4,), width=2, hidden=8), rule(), size=16)
    scores = examine(few, observer)
    assert len({s.stage for s in by_name(scores, "signal_label") if s.raw is not None}) == stages
    assert by_name(scores, "activation")


def test_every_loss_has_its_row_before_training(few, small):
    class Every(OnData):
        losses = ("pseudo_label", "entropy", "label", "instance")

    bench = Every()
    bench.data = few
    found = {s.metric for s in bench.measure(small)}
    assert {f"{p}signal_{x}" for x in Every.losses for p in ("", "untrained_")} <= found


class Stubborn(nn.BatchNorm2d):
    """Normalises with the batch's statistics, always."""

    def forward(self, x):
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True)


def test_a_network_that_is_not_in_evaluation_mode_is_not_scored(few):
    stages = {
        "conv": Stage(nn.Conv2d(3, 4, 3, padding=1), norm=Stubborn(4), nonlinearity=nn.Tanh(), pool=nn.MaxPool2d(4)),
        "readout": Stage(nn.Linear(64, 4)),
    }
    scores = examine(few, observer_of(StagedNet(stages, (3, 16, 16), (4,)), Backprop(), size=16))
    assert all(s.raw is None and "stages.conv.norm" in s.reason for s in scored_only(scores)) and scores


def scored_only(scores):
    return [s for s in scores if s.gate != "pass"]


def test_an_observer_without_stages_is_not_judged():
    from dataclasses import make_dataclass

    observer = make_dataclass("Flat", ["name", "classes", "in_shape"])("flat", (), (1, 8, 8))
    observer.activations = lambda stimuli: {}
    scores = SimulatedVentralStream(resamples=2).measure(observer)
    assert [s.reason for s in scores] == ["it has no stages"]


def test_data_that_are_not_there_are_not_zero(tmp_path, small):
    bench = Objects92(resamples=2)
    bench.source = Source(tmp_path)
    scores = bench.measure(small)
    assert {s.metric for s in scores} == {"data", "activation_slope"}
    assert all(s.raw is None and "--download" in s.reason for s in scores)
    assert "--download" in bench.absent() and bench.draw(tmp_path, {"x": small}) == []


@pytest.mark.slow
def test_every_picture_is_drawn(tmp_path, stream, objects, small):
    from PIL import Image

    for bench, data in ((SimulatedVentralStream(resamples=10), stream), (Objects92(resamples=10, scales=()), objects)):
        bench.source = Source(Path("/nonexistent"))
        bench.load = lambda source, data=data: data
        bench.measure(small)
        paths = bench.draw(tmp_path, {"small": small})
        names = {p.name.removeprefix(f"brain_{bench.name}_") for p in paths}
        assert "matrix.png" in names and ({"stages.png", "controls.png"} <= names) == (not data.card.simulated)
        assert ("time.png" in names) == (data.movie is not None) and ("cortex.png" in names) == (
            not data.card.simulated
        )
        for path in paths:
            with Image.open(path) as image:
                assert min(image.size) > 200 and len(np.unique(np.asarray(image.convert("L").resize((64, 64))))) > 8
    table = (tmp_path / "brain_simulated_ventral_stream_time.csv").read_text().splitlines()
    assert table[0].startswith("family,stage,subject,-100,-90") and len(table[0].split(",")) == 3 + 51
    assert sum(line.startswith("activation,conv1,") for line in table) == 8


def test_cortex_with_labels_of_one_s_own():
    from evaluation.brain import cortex

    left = np.zeros(cortex.VERTICES, dtype=np.int64)
    left[:100] = 7
    found = cortex.regions(["V1"], cortex.Labels(left, left * 0, {7: "V1"}))
    assert found["V1"]["left"].sum() == 100 and found["V1"]["right"].sum() == 0
    with pytest.raises(ValueError, match="10242"):
        cortex.Labels(left[:5], left, {})
    patches = cortex.regions(["V1", "V2", "V4", "IT"])
    for sides in patches.values():
        assert all(10 < m.sum() < 1500 for m in sides.values())
    assert not (patches["V1"]["left"] & patches["V2"]["left"]).any()


def annotations(folder, vertices=10242):
    """FreeSurfer annotations in which EVC and IT lie in known places, under tables of different order."""
    from nibabel.freesurfer import write_annot

    folder.mkdir(parents=True)
    for file, names, evc, it in (("lh.annot", ["none", "EVC", "IT"], 1, 2), ("rh.annot", ["IT", "none", "EVC"], 2, 0)):
        values = np.full(vertices, names.index("none"))
        values[100:200], values[300:350] = evc, it
        table = np.array([[10 * k, 20, 30, 0] for k in range(3)])
        write_annot(str(folder / file), values, table, names, fill_ctab=True)


def test_regions_on_the_cortex_come_from_the_user_s_annotations(tmp_path):
    from evaluation.brain import cortex

    annotations(tmp_path / "cortex")
    labels = cortex.read_labels(tmp_path / "cortex")
    assert cortex.drawable(["EVC", "IT"], labels) and not cortex.drawable(["V1", "V2"], labels)
    for sides in (found := cortex.regions(["EVC", "IT"], labels)).values():
        assert set(sides) == {"left", "right"}
    for side in ("left", "right"):
        assert np.flatnonzero(found["EVC"][side]).tolist() == list(range(100, 200))
        assert np.flatnonzero(found["IT"][side]).tolist() == list(range(300, 350))
    (tmp_path / "cortex" / "rh.annot").write_bytes(b"no annotation")
    with pytest.raises(ValueError, match=r"cortex/rh\.annot"):
        cortex.read_labels(tmp_path / "cortex")


def test_unreadable_annotations_are_said_before_anything_is_measured(tmp_path, few):
    """Not only when the picture is drawn, after minutes."""
    annotations(tmp_path / "cortex")
    (tmp_path / "cortex" / "lh.annot").write_bytes(b"no annotation")
    (score,) = examine(dataclasses.replace(few, cortex=tmp_path / "cortex"), VentralStream())
    assert score.raw is None and "cortex/lh.annot" in score.reason


def test_a_folder_says_what_is_wrong_with_its_annotations(tmp_path, stream):
    from evaluation.brain.data import Broken
    from evaluation.brain.folder import read, write

    write(stream, tmp_path / "data")
    annotations(tmp_path / "data" / "cortex")
    data = read(tmp_path / "data")
    assert data.cortex == tmp_path / "data" / "cortex"
    assert data.select(np.arange(len(data))[::-1].copy()).in_order().cortex == data.cortex  # in any order of the images
    (tmp_path / "data" / "cortex" / "lh.annot").unlink()
    with pytest.raises(Broken, match=r"cortex/lh\.annot"):
        read(tmp_path / "data")


def test_records_are_json(scored):
    assert json.loads(json.dumps([dataclasses.asdict(s) for s in scored], allow_nan=False))
