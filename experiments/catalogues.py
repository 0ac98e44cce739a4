"""Everything that is found by file, in one place. Imports no torch."""

import functools
import importlib
from types import ModuleType

from training.catalogue import MODELS, RULES, TASKS, Catalogue, class_derived_from, function_named

BENCHMARKS = Catalogue("benchmark", "evaluation", class_derived_from("Benchmark", "evaluation"))
OBSERVERS = Catalogue("observer", "evaluation.observers", function_named("build"))
BOARDS = Catalogue("board", "experiments.boards", function_named("table"))
BRAINS = Catalogue("brain data set", "evaluation.brain.sets", function_named("build"))
CATALOGUES = {
    "rules": RULES, "models": MODELS, "tasks": TASKS, "benchmarks": BENCHMARKS, "observers": OBSERVERS,
    "brains": BRAINS,
}  # fmt: skip


@functools.cache
def boards() -> dict[str, ModuleType]:
    """Return the tables below the leaderboard by name."""
    return {name: importlib.import_module(entry.module) for name, entry in BOARDS.entries().items()}
