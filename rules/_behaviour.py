"""The contract's oracle and its behaviour checks: does a rule equal backprop where it says so, and does it learn?"""

import importlib
from collections.abc import Callable

import torch
from torch import nn

from models.base import Stage, StagedNet, initialise
from rules.base import OBJECTIVES, Rule, differentiate
from rules.untrained import Untrained

IN_SHAPE, CLASSES = (1, 8, 8), 10
STEPS, BATCH, LR = 600, 32, 2e-3
HIDDEN = 24  # units per stage: few, so that random features alone do poorly


class Failure(AssertionError):
    """A broken promise: expected, found, fix."""

    def __init__(self, expected: str, found: str, fix: str) -> None:
        super().__init__(f"expected {expected}; found {found}; fix: {fix}")


def check_exact_limit(make: Callable[[], Rule]) -> str | None:
    """In its declared limit the rule equals backprop to 1e-10 in float64."""
    rule = make()
    if rule.tags.exact_limit is None:
        return "declares no limit"
    depth = rule.tags.exact_depth or 3
    torch.manual_seed(0)
    net = small_mlp(IN_SHAPE, (CLASSES,), depth=depth).double()
    rule.attach(net)
    rule.double()
    getattr(rule, rule.tags.exact_limit)(net)
    x, target = torch.randn(6, *IN_SHAPE, dtype=torch.float64), torch.randint(0, CLASSES, (6,))
    objective = OBJECTIVES["cross_entropy"]
    learned, reference = rule.learn(net, x, target, objective), differentiate(net, x, target, objective)
    for name, grad in reference.grads.items():
        if name not in learned.grads:
            raise Failure("every gradient in the exact limit", f"none for {name}", "return it")
        error = (learned.grads[name] - grad).abs().max().item() / (grad.abs().max().item() + 1e-30)
        if error > 1e-10:
            raise Failure(f"backprop's gradient of {name} to 1e-10", f"{error:.1e}", "compare with the rule's equation")
    return None


def check_hidden_stages_move(make: Callable[[], Rule]) -> str | None:
    """Every hidden stage changes by more than 0.1 % in a short training."""
    rule = make()
    if not rule.tags.learns or rule.tags.control:
        return "a control"
    net, _ = _trained(make)
    start = _network()
    for stage in net.hidden:
        now, before = net.parameters_of(stage), start.parameters_of(stage)
        change = sum((now[n] - before[n]).norm().item() for n in now) / sum(p.norm().item() for p in before.values())
        if change < 1e-3:
            raise Failure("every hidden stage to move by 0.1 %", f"{stage}: {change:.1e}", "its updates do not arrive")
    return None


def check_beats_controls(make: Callable[[], Rule]) -> str | None:
    """Held-out accuracy on handwritten digits is above ``untrained`` and the rule's own baseline at equal budget."""
    if make().tags.control:
        return "a control"
    ours = _trained(make)[1]
    for control in (Untrained, _control(make().baseline)):
        theirs = _trained(control)[1]
        if ours <= theirs:
            raise Failure(
                f"more than {control.__name__}'s {theirs:.1%} on held-out digits", f"{ours:.1%}",
                "the hidden stages learn nothing useful: check sign, scale and locality of their updates",
            )  # fmt: skip
    return None


def _control(name: str) -> type[Rule]:
    """Return the rule in the file of that name.

    Raises:
        Failure: If there is none, or it is no control.
    """
    try:
        module = importlib.import_module(f"rules.{name}")
    except ImportError:
        raise Failure("a baseline among the controls in rules/", repr(name), "name a file there") from None
    found = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Rule)]
    controls = [c for c in found if c.__module__ == module.__name__ and c.tags.control]
    if not controls:
        raise Failure("a baseline that is a control", repr(name), "name one whose tags say control=True")
    return controls[0]


def small_mlp(in_shape: tuple[int, ...], out_shape: tuple[int, ...], *, depth: int = 2) -> StagedNet:
    """Return a small network of ``depth`` hidden stages with tanh."""
    stages: dict[str, Stage] = {}
    fan_in = torch.Size(in_shape).numel()
    for i in range(depth):
        stages[f"hidden{i + 1}"] = Stage(nn.Linear(fan_in, HIDDEN), nonlinearity=nn.Tanh())
        fan_in = HIDDEN
    stages["readout"] = Stage(nn.Linear(fan_in, torch.Size(out_shape).numel()))
    return initialise(StagedNet(stages, in_shape, out_shape))


def _network() -> StagedNet:
    torch.manual_seed(0)
    return small_mlp(IN_SHAPE, (CLASSES,))


def _trained(make: Callable[[], Rule]) -> tuple[StagedNet, float]:
    """Train on scikit-learn's handwritten digits and return the network and its held-out accuracy."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 8.0 - 1.0
    targets = torch.from_numpy(digits.target).long()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[360:], order[:360]
    net, rule = _network(), make()
    torch.manual_seed(1)
    rule.attach(net)
    kind = torch.optim.SGD if rule.optimizer == "sgd" else torch.optim.Adam
    parameters = dict(rule.named_parameters()) | dict(net.named_parameters())
    optimizer = kind(list(parameters.values()), lr=LR)
    generator = torch.Generator().manual_seed(2)
    for step in range(STEPS if rule.tags.learns else 0):
        batch = train[torch.randint(0, len(train), (BATCH,), generator=generator)]
        torch.manual_seed(step)
        learned = rule.learn(net, images[batch], targets[batch], OBJECTIVES["cross_entropy"])
        for name, parameter in parameters.items():
            parameter.grad = learned.grads.get(name)
        optimizer.step()
        with torch.no_grad():
            rule.after_step(net)
    net.eval()
    rule.eval()
    hits = rule.predict(net, images[test]).argmax(1) == targets[test]
    return net, hits.float().mean().item()
