"""The speed table: mistakes on its command line are one line, and what it is asked for is what it builds."""

import json

import pytest

from experiments import clip_speed, speed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules", "backprop", "--", "foo=1"], "foo"),
        (["--", "widht=3"], "did you mean 'width'?"),
        (["width=abc"], "width"),
        (["--", "width=-1"], "width"),
        (["--", "width"], "expected key=value"),
        (["--rules", "backprop", "width=3"], "invalid choice: 'width=3'"),
    ],
)
def test_mistakes_are_one_line_and_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        speed.main(arguments)
    error = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and message in error[-1] and error[-1].startswith("python -m experiments.speed: error:")
    assert error[0] == "usage: python -m experiments.speed [option …] [-- key=value …]" and len(error) == 2


def test_options_behind_the_two_dashes_reach_the_model(capsys):
    speed.main([
        "--model", "mlp", "--shape", "1", "4", "4", "--batch", "4", "--repeats", "1", "--json",
        "--rules", "backprop", "--", "width=8", "depth=1",
    ])  # fmt: skip
    steps = [row["step"] for row in json.loads(capsys.readouterr().out)]
    assert "backprop" in steps and sum(s.startswith("plain PyTorch") for s in steps) == 4
    assert speed.model_options("mlp", ["width=8"])["width"] == 8
    assert speed.build("mlp", (1, 4, 4), {"width": 8}).stages["hidden1"].synapse.weight.shape == (8, 16)


def test_the_cost_of_clips_is_compared_for_both_kinds(capsys):
    assert clip_speed.main(["--clips", "8", "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["natural_motion", "moving_shapes"]
    assert all(float(line.split()[-1]) > 0 for line in lines)
    with pytest.raises(SystemExit) as end:
        clip_speed.main(["--clips", "0"])
    assert end.value.code == 2
