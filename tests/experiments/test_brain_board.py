"""The brain pillar's table: what is simulated says so wherever it is written, and controls are those of no network."""

from types import SimpleNamespace

from experiments.boards.brain import NUMBERS, REAL_COLUMNS, SIMULATED, SIMULATED_COLUMNS, numbers, table
from experiments.estimates import Estimate
from experiments.leaderboard import Row
from experiments.render import _flat


def row(rule, **values):
    given = {n: Estimate(values.get(n)) for n in NUMBERS}
    return SimpleNamespace(rule=rule, kind="rule", pillars={"brain": given})


def test_everything_simulated_is_marked_in_columns_and_keys():
    for name, (benchmark, *_) in NUMBERS.items():
        assert name.startswith("simulated_") == (benchmark == SIMULATED), name
    for column, names in (REAL_COLUMNS | SIMULATED_COLUMNS).items():
        assert column.endswith("(sim.)") == all(NUMBERS[n][0] == SIMULATED for n in names), column
        assert column == column.strip()
    kinds = ["".join(c for c in column if c.isalpha()) for column in REAL_COLUMNS | SIMULATED_COLUMNS]
    assert len(set(kinds)) == len(kinds)  # told apart by their words


def test_exported_keys_of_simulated_numbers_say_so():
    brain = {n: Estimate(1.0 if benchmark == SIMULATED else 2.0) for n, (benchmark, *_) in NUMBERS.items()}
    empty = {"hidden_change": Estimate()}
    record = _flat(Row("r", "m", "t", "rule", [0], {}, [], empty, {}, {}, {}, pillars={"brain": brain}))
    for key, value in record.items():
        if key.startswith("brain_") and value is not None:
            assert key.startswith("brain_simulated_") == (value == 1.0), key
    assert record["brain_simulated_space"] == 1.0 and record["brain_simulated_signal_time"] == 1.0


def test_a_network_s_own_output_error_stands_in_its_own_row():
    """It is p − y of a trained network: one number per rule, and not among what is the same for all."""
    rows = [
        row("first", activation=0.3, output_error=0.11, control_pixels=0.05),
        row("second", activation=0.2, output_error=0.22, control_pixels=0.05),
    ]
    header, lines, below = table(rows, lambda reason: "*")
    column = header.index("its output error")
    assert [line[column] for line in lines] == ["+0.110", "+0.220"]
    assert below[0] == "IT without any network, the same for every row: pixels +0.050"
    assert not any(
        metric.startswith("control_output_error") for n, (_, metric, *_) in NUMBERS.items() if "control" in n
    )


def test_brain_data_of_one_s_own_get_columns_of_their_own_with_what_is_left():
    seen = [("mine", "activation", "V1"), ("mine", "activation_best", "V1"), ("mine", "activation_best", "V4"),
            ("mine", "activation_spatial", ""), ("objects92", "activation_best", "IT")]  # fmt: skip
    places = numbers(seen)
    assert places["mine_V4_activation"] == ("mine", "activation_best", "V4") and "mine_slope" not in places
    given = {n: Estimate() for n in places}
    given |= {
        "mine_V1_activation": Estimate(0.2),
        "mine_V1_activation_left": Estimate(0.05),
        "mine_spatial": Estimate(1.0),
    }
    header, (line,), _ = table([SimpleNamespace(rule="r", kind="rule", pillars={"brain": given})], lambda reason: "*")
    shown = dict(zip(header, line, strict=True))
    assert shown["mine_V1: activation → left"] == "+0.200 → +0.050"
    assert not any(column.startswith("IT") for column in header)
    given["mine_V1_activation"] = Estimate(0.2, said="simulated; at conv2")
    header, _, _ = table([SimpleNamespace(rule="r", kind="rule", pillars={"brain": given})], lambda reason: "*")
    assert "mine_V1: activation (sim.) → left" in header and "mine_spatial" in header


def test_signals_that_no_loss_changes_have_a_column_where_a_rule_has_some():
    rows = [row("first", activation=0.3), row("local", activation=0.2, local_signal=0.03, local_signal_left=0.01)]
    header, lines, _ = table(rows, lambda reason: "*")
    column = header.index("IT: local signal → left")
    assert [line[column] for line in lines] == ["", "+0.030 → +0.010"]
    assert not any("local" in c for c in table(rows[:1], lambda reason: "*")[0])


def test_noise_ceilings_stand_below_the_table():
    ceilings = {"ceiling_EVC_low": 0.249, "ceiling_EVC_high": 0.4, "ceiling_IT_low": 0.459, "ceiling_IT_high": 0.549}
    _, _, below = table([row("first", activation=0.3, **ceilings)], lambda reason: "*")
    assert below[0].endswith("EVC 0.249 to 0.400, IT 0.459 to 0.549")
