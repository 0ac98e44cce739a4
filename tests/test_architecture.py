"""The house: who may import whom, what a wheel holds, what the command line may load, where rules end."""

import ast
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("models", "rules", "training", "evaluation", "experiments")
# What each package may import of ours; `evaluation` sees contracts and data, never a concrete rule or a run.
ALLOWED = {
    "models": ("models",),
    "rules": ("rules", "models.base"),
    "training": ("training", "rules", "models"),
    "evaluation": ("evaluation", "models.base", "rules.base", "training.data"),
    "experiments": PACKAGES,
}


def modules(package):
    return sorted((ROOT / package).rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_import_law(package):
    for path in modules(package):
        for name in imports(path):
            if name.split(".")[0] in PACKAGES and name not in PACKAGES:
                allowed = any(
                    name == a or name.startswith(f"{a}.") or a.startswith(f"{name}.") for a in ALLOWED[package]
                )
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"
            assert name.split(".")[0] != "tests"


def test_nothing_imports_a_concrete_rule_or_architecture_by_name():
    """Adding one is one new file: nothing may list them. The contract's controls are the one exception."""
    rules = {p.stem for p in (ROOT / "rules").glob("[!_]*.py")} - {"base", "contract"}
    models = {p.stem for p in (ROOT / "models").glob("*.py")} - {"__init__", "base"}
    concrete = {f"rules.{r}" for r in rules} | {f"models.{m}" for m in models}
    for package in PACKAGES:
        for path in modules(package):
            named = concrete & set(imports(path))
            if path.name == "_behaviour.py":
                named -= {"rules.untrained", "rules.readout_only"}
            assert not named, f"{path.relative_to(ROOT)} imports {named}"


def test_files_are_short():
    long = {p.name: n for pkg in PACKAGES for p in modules(pkg) if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_the_tree_has_no_other_top_level_package():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {p.split("/")[0] for p in tracked if "/" in p} <= {*PACKAGES, "tests", ".ci"}


def test_listed_packages_are_the_packages_on_disk():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {
        ".".join(p.parent.relative_to(ROOT).parts) for pkg in PACKAGES for p in (ROOT / pkg).rglob("__init__.py")
    }
    assert set(listed) == on_disk


def test_constraints_pin_everything_and_name_no_host():
    text = (ROOT / "constraints.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert all("==" in line for line in lines) and "://" not in text and "@" not in text
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    for requirement in wanted:
        name = requirement.split(">")[0].split("=")[0].split("[")[0].split("!")[0].lower()
        assert name in pinned, name
    assert "torch==2.15.0" in lines


@pytest.mark.slow
def test_a_wheel_holds_the_five_packages_and_nothing_else(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == set(PACKAGES)
    assert "experiments/quick.yaml" in names


def python(code, **env):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], *(["list", k] for k in ("rules", "models", "tasks", "benchmarks"))])
def test_help_and_list_import_nothing_heavy(arguments):
    result = python(f"from experiments.cli import main; main({arguments!r})")
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in result.stderr.splitlines() if "|" in line}
    assert not loaded & {"torch", "pytorch_lightning", "wandb", "numpy", "sklearn", "matplotlib", "pandas"}
    assert "plasticbench" in result.stdout or "backprop" in result.stdout or result.stdout.strip()


def test_importing_any_module_draws_nothing_and_writes_nothing(tmp_path):
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for pkg in PACKAGES for p in modules(pkg)]
    code = (
        "import importlib, random, numpy, torch, torchvision, pytorch_lightning, sklearn.linear_model, matplotlib, wandb\n"
        "import pytorch_lightning.loggers, pytorch_lightning.callbacks, PIL.ImageOps, rich.table, yaml\n"
        "before = torch.random.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()\n"
        f"[importlib.import_module(n) for n in {names!r}]\n"
        "after = torch.random.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()\n"
        "assert torch.equal(before[0], after[0]) and before[1:] == after[1:]"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-1500:]
    assert list(tmp_path.iterdir()) == []


def test_a_shadowing_package_is_named(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    code = "import sys; sys.path.insert(0, sys.argv[1]); from experiments.cli import main; sys.exit(main(['list', 'rules']))"
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode == 2 and "shadows" in result.stderr and str(tmp_path) in result.stderr


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_documents_link_to_files_that_exist(path):
    import re

    text = (ROOT / path).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (ROOT / Path(target)).exists(), target
