"""The real 92 objects: the published numbers, the order of the images, and the label confound."""

import hashlib

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from evaluation.brain.controls import control_rdms
from evaluation.brain.data import DataMissing, problems
from evaluation.brain.features import Spec, patterns, precise, reducer_for, signals_of, stage_rdms
from evaluation.brain.inference import Row, align, noise_ceiling
from evaluation.brain.losses import probe
from evaluation.brain.models import collect
from evaluation.brain.rdm import compare, rdm
from evaluation.brain.sets import objects92
from models import cnn
from rules.backprop import Backprop
from tests.evaluation.brain.conftest import observer_of
from training.data.base import Source


def against_mean(vector, data, target):
    return float(compare(vector[None], data.rdms[target].mean(0)[None])[0, 0])


def test_the_data_are_whole(objects):
    assert problems(objects) == [] and len(objects) == 92
    assert {n: len(v) for n, v in objects.rdms.items()} == {
        "EVC": 15, "IT": 15, "human_IT_2008": 4, "monkey_IT": 1, "behaviour": 16,
    }  # fmt: skip


@pytest.mark.parametrize("target, low, high", [("EVC", 0.249, 0.400), ("IT", 0.459, 0.549)])
def test_noise_ceilings_are_the_published_ones(objects, target, low, high):
    from rsatoolbox.inference import boot_noise_ceiling
    from rsatoolbox.rdm import RDMs

    theirs = boot_noise_ceiling(RDMs(objects.rdms[target]), "corr")
    assert noise_ceiling(objects.rdms[target], "corr") == pytest.approx(theirs, abs=1e-10)
    assert theirs == pytest.approx((low, high), abs=0.002)


def test_the_order_of_images_is_the_same_in_every_file(objects):
    """Categories from the image file, RDMs from three others: only in the right order do they fit each other."""
    group = objects.labels["group"]
    names = ("human_bodypart", "human_face", "nonhuman_bodypart", "nonhuman_face", "natural", "artificial")
    for g, expected in enumerate(names[:4]):
        assert {n[3:] for n in np.array(objects.names)[group == g]} == {expected}
    assert objects.labels["animacy"].tolist() == (group < 4).astype(int).tolist()
    assert objects.labels["face"].sum() == 24 and set(group[objects.labels["face"] == 1]) == {1, 3}
    assert np.bincount(group).tolist() == [12, 12, 12, 12, 23, 21]
    animate = control_rdms(objects)[0]["label_animacy"]
    expected = {"EVC": 0.056, "IT": 0.467, "monkey_IT": 0.453, "human_IT_2008": 0.588, "behaviour": 0.588}
    for target, value in expected.items():
        assert against_mean(animate, objects, target) == pytest.approx(value, abs=0.002)
    rng = np.random.default_rng(0)
    for _ in range(5):
        shuffled = objects.select(rng.permutation(92))
        assert abs(against_mean(animate, shuffled, "IT")) < 0.1
    mean = {t: objects.rdms[t].mean(0) for t in ("IT", "human_IT_2008", "monkey_IT")}
    assert compare(mean["IT"][None], mean["human_IT_2008"][None])[0, 0] == pytest.approx(0.557, abs=0.002)
    assert compare(mean["IT"][None], mean["monkey_IT"][None])[0, 0] == pytest.approx(0.486, abs=0.002)


def test_silhouettes_and_animacy_dissociate_doubly(objects):
    controls, missing = control_rdms(objects)
    assert not missing
    silhouette, animacy = controls["silhouette"], controls["label_animacy"]
    assert against_mean(silhouette, objects, "EVC") - against_mean(silhouette, objects, "IT") > 0.2
    assert against_mean(animacy, objects, "IT") - against_mean(animacy, objects, "EVC") > 0.3


def test_images_are_on_the_grey_of_the_scanner(objects):
    grey = ((128 / 255 + 0.055) / 1.055) ** 2.4
    share = (objects.stimuli - grey).abs().amax(1).lt(1e-4).float().mean()
    assert 0.5 < share < 0.56  # about 53 % of all pixels


@pytest.fixture(scope="module")
def confound(objects):
    """An untrained network's gradients of the animacy loss, and of shuffled labels, over three seeds."""
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        net = cnn.build((3, 64, 64), (10,), width=16, hidden=64, activation="relu")
        observer = precise(observer_of(net, Backprop(), size=64, classes=10))
        reducer = reducer_for(observer, Spec(), signals=True)
        own = {}
        for loss in ("label", "shuffled_label"):
            source = signals_of(observer, objects.stimuli, probe(loss, observer, objects))
            own[loss] = stage_rdms(source, 92, reducer)
        found.append(own)
    return found


def test_an_untrained_network_s_label_gradients_match_it_in_every_stage(objects, confound):
    """The confound: nothing was learned, and the signal 'predicts IT', flat over stages, because of the labels."""
    animacy = control_rdms(objects)[0]["label_animacy"]
    mean = objects.rdms["IT"].mean(0)[None]
    for stage in confound[0]["label"]:
        raw, left = [], []
        for own in confound:
            models = {"signal": own["label"][stage], "animacy": animacy}
            found = align(models, {"IT": mean}, [Row("signal"), Row("signal", ("animacy",))], resamples=0)
            raw.append(found.score[0, 0])
            # Two categories' gradients are parallel at a late stage: the RDM is the categories', and nothing is left.
            if abs(spearmanr(own["label"][stage], animacy).statistic) > 1 - 1e-9:
                assert np.isnan(found.score[1, 0])
            else:
                left.append(found.score[1, 0])
        assert 0.3 < np.mean(raw) < 0.5, (stage, raw)
        assert not left or abs(np.mean(left)) < 0.05, (stage, left)


def test_shuffled_labels_match_nothing(objects, confound):
    for stage in confound[0]["shuffled_label"]:
        assert abs(np.mean([against_mean(own["shuffled_label"][stage], objects, "IT") for own in confound])) < 0.05


def test_scores_are_rsatoolbox_s_called_directly(objects, small):
    """From the network's float64 patterns on, every step by rsatoolbox instead of by us."""
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import RDMs, calc_rdm
    from rsatoolbox.rdm import compare as rsa_compare

    exact = precise(small)
    rows = collect(exact, objects, ("pseudo_label",), Spec())
    found = align(rows.rdms, objects.targets, [e.row for e in rows.entries], resamples=0)
    ready = probe("pseudo_label", exact, objects)
    reducer = reducer_for(exact, Spec(), signals=True)
    signals = patterns(signals_of(exact, objects.stimuli, ready), 92, reducer)
    activations = {s: x.flatten(1).numpy() for s, x in exact.activations(objects.stimuli).items()}
    for family, values in (("activation", activations), ("signal_pseudo_label", signals)):
        for stage, x in values.items():
            theirs = calc_rdm(Dataset(x), method="correlation")
            (i,) = [k for k in rows.where(family) if rows.entries[k].stage == stage]
            for t, target in enumerate(found.targets):
                expected = rsa_compare(theirs, RDMs(objects.rdms[target]), "spearman").mean()
                assert found.score[i, t] == pytest.approx(expected, abs=1e-8)


@pytest.mark.slow
def test_scores_do_not_depend_on_batch_size_or_image_order(objects, small, monkeypatch):
    exact = precise(small)
    spec, losses = Spec(), ("pseudo_label", "label")
    reference = align(*_inputs(collect(exact, objects, losses, spec), objects), resamples=0)
    monkeypatch.setattr("evaluation.base.BATCH", 7)
    monkeypatch.setattr("evaluation.brain.features.BLOCK", 11)
    order = np.random.default_rng(1).permutation(92)
    shuffled = objects.select(order)
    for data in (objects, shuffled):
        rows = collect(exact, data, ("pseudo_label", "label"), spec)
        found = align(*_inputs(rows, data), resamples=0)
        for i, entry in enumerate(rows.entries):
            if "shuffled" not in entry.metric:  # which label an image gets there depends on its place
                assert np.allclose(found.score[i], reference.score[i], atol=1e-8, equal_nan=True), entry


def _inputs(rows, data):
    return rows.rdms, data.targets, [e.row for e in rows.entries]


def test_a_file_that_is_not_the_published_one_is_refused(objects, tmp_path, data_folder):
    import shutil

    shutil.copytree(data_folder / "objects92", tmp_path / "objects92")
    path = tmp_path / "objects92" / "fmri_IT_RDMs.npz"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataMissing, match="sha256 differs"):
        objects92.build(Source(tmp_path))


def test_the_hashes_are_those_of_the_files(objects, data_folder):
    for name, remote in objects92.FILES.items():
        assert hashlib.sha256((data_folder / "objects92" / name).read_bytes()).hexdigest() == remote.sha256
        assert remote.url.startswith("https://raw.githubusercontent.com/")


def test_without_the_data_it_says_how_to_get_them(tmp_path):
    with pytest.raises(DataMissing, match="--download"):
        objects92.build(Source(tmp_path))


def test_rdm_of_masks_needs_the_correlation_distance(objects):
    """With the Euclidean distance the first dissociation fails: the distance is part of the claim."""
    from evaluation.brain.controls import resized, silhouettes

    masks = silhouettes(resized(objects.stimuli)).flatten(1).numpy()
    euclidean = rdm(masks, "euclidean")
    assert against_mean(euclidean, objects, "EVC") - against_mean(euclidean, objects, "IT") < 0.2


def test_early_and_late_regions_are_of_the_same_people(objects):
    """Cichy et al.'s fifteen; neither those of 2008, nor the judges, nor the monkeys are among them."""
    people = objects.names_of_people
    assert people["EVC"] == people["IT"] and len(people["IT"]) == 15
    others = {p for t in ("human_IT_2008", "monkey_IT", "behaviour") for p in people[t]}
    assert len(others) == 4 + 1 + 16 and not others & set(people["IT"])
