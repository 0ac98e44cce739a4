"""Everything that is found by file, in one place. Imports no torch."""

from training.catalogue import MODELS, RULES, TASKS, Catalogue, class_derived_from, function_named

BENCHMARKS = Catalogue("benchmark", "evaluation", class_derived_from("Benchmark", "evaluation"))
OBSERVERS = Catalogue("observer", "evaluation.observers", function_named("build"))
BRAINS = Catalogue("brain data set", "evaluation.brain.sets", function_named("build"))
CATALOGUES = {
    "rules": RULES, "models": MODELS, "tasks": TASKS, "benchmarks": BENCHMARKS, "observers": OBSERVERS,
    "brains": BRAINS,
}  # fmt: skip
