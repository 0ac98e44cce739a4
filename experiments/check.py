"""``plasticbench check``: run the contract on every architecture and say what to mend."""

import functools
from collections import Counter

import torch

from rules.contract import check_rule
from training.catalogue import MODELS, RULES
from training.errors import UserError

SMALL: dict[str, dict[str, int | str]] = {
    "mlp": {"width": 12},
    "lenet": {"activation": "tanh"},
    "shallow": {"width": 2, "expand": 2},
    "cnn": {"width": 2, "hidden": 12},
    "vgg": {"width": 2},
    "resnet": {"width": 2},
    "prednet": {"width": 2},
}


def report(name: str, *, behaviour: bool) -> int:
    """Check a rule, print every outcome that is not a plain pass, and return 0 or 1.

    Raises:
        UserError: If the rule cannot be constructed with its defaults.
    """
    torch.set_num_threads(1)
    rule = RULES.load(name)
    try:
        rule()
    except Exception as error:
        raise UserError(f"rule {name}: cannot be constructed without arguments ({error})") from error
    networks = {n: functools.partial(MODELS.load(n), **SMALL.get(n, {})) for n in MODELS.entries()}
    outcomes = check_rule(rule, networks, behaviour=behaviour)
    for o in outcomes:
        if o.result != "pass":
            where = f" ({o.network})" if o.network else ""
            print(f"{o.result}  {o.check}{where}: {o.message}")
    counts = Counter(o.result for o in outcomes)
    print(f"{name}: {counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped")
    return 1 if counts["fail"] else 0
