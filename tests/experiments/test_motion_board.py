"""The motion table: what is owed to learned motion is paired by seed, and nothing is shown for networks that name images."""

from types import SimpleNamespace

import pytest

from evaluation.statistics import sign_flip_test
from experiments.boards.motion import NUMBERS, across, contrast, order_of, table
from experiments.estimates import Estimate, estimate


def row(task, rule="backprop", **values):
    given = {n: values.get(n, Estimate()) for n in NUMBERS}
    seeds = sorted({s for number in given.values() for s in number.per_seed})
    return SimpleNamespace(rule=rule, model="cnn", task=task, kind="rule", seeds=seeds, pillars={"motion": given})


def test_the_order_of_frames_is_told_from_the_rest_of_the_task():
    assert order_of("next_frame") == ("next_frame", "natural")
    assert order_of("next_frame(order=shuffled)") == ("next_frame", "shuffled")
    assert order_of("next_frame(order=static, train=768)") == ("next_frame(train=768)", "static")
    assert order_of("next_frame(train=768, order=static)") == ("next_frame(train=768)", "static")
    assert order_of("next_frame(train=768)") == ("next_frame(train=768)", "natural")


def test_the_contrast_is_paired_by_seed_and_controls_need_not_see_motion():
    natural = row("next_frame(train=9)", index=estimate({0: 0.05, 1: 0.07, 2: 0.06}), error=Estimate(0.5))
    shuffled = row(
        "next_frame(order=shuffled, train=9)",
        speed=estimate({2: 0.01, 0: 0.02}),
        index=Estimate(reason="sees no motion"),
    )
    assert contrast(natural, shuffled) == pytest.approx({0: 0.03, 2: 0.05})
    header, lines, below = across([natural, shuffled], lambda reason: "*")
    assert header == ["learned motion", "setting", "index", "− shuffled", "− static"]
    ((rule, setting, index, first, second),) = lines
    assert (rule, setting, second) == ("backprop", "next_frame(train=9) × cnn", "")
    assert index.startswith("+0.060") and first.startswith("+0.040 [")
    assert first.endswith(f"p = {sign_flip_test([0.03, 0.05]):.2g}") and "sign-flip" in below[0]


def test_it_is_said_how_many_seeds_stand_behind_a_number():
    blind = "s2: does not see real rotation"
    speed = estimate({0: 0.05, 1: 0.07, 2: 0.01})
    natural = row("next_frame", index=estimate({0: 0.05, 1: 0.07}, blind), speed=speed, error=Estimate(0.5))
    static = row("next_frame(order=static)", speed=estimate({0: 0.0, 1: 0.0, 2: 0.0}))
    ((_, _, index, *_),) = table([natural], lambda reason: "*")[1]
    assert index.endswith("(2 seeds*)")
    _, ((_, _, told, _, against),), _ = across([natural, static], lambda reason: "*")
    assert told.endswith("(2 seeds*)") and "(2 seeds*) p =" in against


def test_a_network_that_may_not_be_judged_has_no_contrast_and_says_why():
    natural = row("next_frame", index=Estimate(reason="does not see real rotation"))
    static = row("next_frame(order=static)", speed=estimate({0: 0.0}))
    marked = []
    _, lines, _ = across([natural, static], lambda reason: marked.append(reason) or "*")
    assert lines[0][2:] == ["n/a*", "", "n/a*"] and set(marked) == {"does not see real rotation"}


def test_two_orders_of_different_rules_are_not_compared():
    rows = [row("next_frame", index=estimate({0: 0.1})), row("next_frame(order=static)", rule="other")]
    assert across(rows, str) == ([], [], [])


def test_columns_stand_beside_their_controls_and_classifiers_have_no_table():
    names = Estimate(reason="it names images and predicts no frames")
    assert table([row("shapes", index=names)], str) == ([], [], [])
    predictor = row("next_frame", error=Estimate(0.62), index=Estimate(0.031), grey=Estimate(-0.002))
    copier = row("next_frame", rule="untrained", error=Estimate(1.4), index=Estimate(reason="no better"))
    header, lines, below = table([predictor, copier], lambda reason: "*")
    assert header == ["motion", "error / copy", "index", "grey"]
    assert lines == [["backprop", "+0.620", "+0.031", "-0.002"], ["untrained", "+1.400", "n/a*", ""]]
    assert "deg/frame" in below[0]
    namer = row("shapes", index=names, readout=Estimate(0.04))
    header, lines, below = table([namer, row("shapes", rule="other", index=names)], str)
    assert header == ["motion", "two-frame"] and lines == [["backprop", "+0.040"]] and "by theory" in below[0]
