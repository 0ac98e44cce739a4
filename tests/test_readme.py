"""What the README says works as it says."""

import re
import shlex

import pytest
import yaml

from experiments.cli import parser
from experiments.study import expand
from rules.contract import check_rule
from tests.conftest import ROOT, SMALL
from training.catalogue import RULES

TEXT = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def rule_file(tmp_path):
    (code,) = blocks("python")
    path = tmp_path / "my_rule.py"
    path.write_text(code)
    return path


def test_the_rule_in_the_readme_keeps_the_contract(rule_file):
    outcomes = check_rule(RULES.load(str(rule_file)), {n: SMALL[n] for n in ("mlp", "cnn")}, behaviour=False)
    assert [o for o in outcomes if o.result == "fail"] == []


def test_the_rule_in_the_readme_follows_the_gradient_on_average(rule_file):
    import torch

    from rules.base import OBJECTIVES, differentiate

    torch.set_default_dtype(torch.float64)
    net, rule = SMALL["mlp"](), RULES.load(str(rule_file))(epsilon=1e-5)
    x, target, objective = torch.randn(8, 1, 8, 8), torch.randint(0, 10, (8,)), OBJECTIVES["cross_entropy"]
    name = "stages.readout.synapse.weight"
    mean = sum(rule.learn(net, x, target, objective).grads[name] for _ in range(3000)) / 3000
    gradient = differentiate(net, x, target, objective).grads[name]
    assert torch.cosine_similarity(mean.flatten(), gradient.flatten(), 0) > 0.8


def test_the_study_in_the_readme_is_a_study(rule_file):
    (text,) = blocks("yaml")
    study = expand(yaml.safe_load(text), "README", default_name="x", folder=rule_file.parent)
    assert len({c.rule_name for c in study.configs}) == 6 and len({c.seed for c in study.configs}) == 5


def test_every_command_in_the_readme_parses():
    lines = [line.split("#")[0].strip() for block in blocks("") for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("plasticbench ")]
    assert len(commands) >= 6
    for command in commands:
        parser().parse_args(command)


def test_every_make_target_in_the_documents_exists():
    makefile = (ROOT / "Makefile").read_text()
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"make ([a-z][a-z-]+)", (ROOT / name).read_text()):
            if f"`make {target}" in (ROOT / name).read_text() or f"\nmake {target}" in (ROOT / name).read_text():
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_no_placeholder_is_left_and_every_picture_is_there():
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        assert not re.search(r"^(NUMBERS|READING)$|SPEED\.|\(MINUTES\)", text, re.MULTILINE), name
        for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
            assert (ROOT / picture).stat().st_size > 1000, picture
