"""Numbers over seeds: what is said of seeds that have none."""

from experiments.estimates import over


def record(value=None, reason=""):
    return [{"stage": "", "target": "", "gate": "n/a" if value is None else "pass", "value": value, "reason": reason}]


def test_every_reason_why_seeds_lack_a_number_is_told_with_its_seeds():
    found = over({0: record(0.5), 1: record(reason="blind"), 2: record(reason="deaf"), 3: record(reason="blind")})
    assert found.value == 0.5 and found.per_seed == {0: 0.5}
    assert found.reason == "s1, s3: blind; s2: deaf"


def test_a_reason_that_all_lacking_seeds_share_stands_alone():
    assert over({0: record(0.5), 1: record(reason="blind"), 2: record(reason="blind")}).reason == "blind"
    assert over({0: record(reason="blind")}).reason == "blind"
    assert over({0: record(0.5), 1: record(0.7)}).reason == ""
