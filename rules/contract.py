"""What every learning rule must satisfy: the checks behind ``plasticbench check``.

Three kinds, in the manner of scikit-learn's ``check_estimator``: *structure* (what ``learn`` returns and leaves
alone), *oracle* (the limit in which the rule says it equals backprop, in float64), and *behaviour*
(hidden stages move; the rule beats both controls on real handwriting at equal budget). Each failure says
what was expected, what was found, and what to do.
"""

import copy
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.base import Stage, StagedNet, initialise
from rules.base import OBJECTIVES, Learned, Objective, Rule, differentiate
from rules.readout_only import ReadoutOnly
from rules.untrained import Untrained

Build = Callable[[tuple[int, ...], tuple[int, ...]], StagedNet]
IN_SHAPE, CLASSES = (1, 8, 8), 10
STEPS, BATCH, LR = 600, 32, 2e-3  # of the behaviour checks
HIDDEN = 24  # units of their network: few, so that random features alone do poorly


@dataclass(frozen=True)
class Outcome:
    """Result of one check on one network: ``pass``, ``fail`` or ``skip``, with the reason."""

    check: str
    network: str
    result: str
    message: str = ""


class Failure(AssertionError):
    """A broken promise: expected, found, fix."""

    def __init__(self, expected: str, found: str, fix: str) -> None:
        super().__init__(f"expected {expected}; found {found}; fix: {fix}")


def check_rule(make: Callable[[], Rule], networks: Mapping[str, Build], *, behaviour: bool = True) -> list[Outcome]:
    """Run every check and return the outcomes.

    Args:
        make: Returns a new rule with default hyper-parameters; usually its class.
        networks: Name → builder (in_shape, out_shape) of the networks to check on.
        behaviour: Whether to train, which takes most of the time.
    """
    outcomes = [_outcome("constructor", "", lambda: check_constructor(make))]
    for name, build in networks.items():
        outcomes += _on_network(make, name, build)
    outcomes.append(_outcome("exact_limit", "float64", lambda: check_exact_limit(make)))
    if behaviour:
        outcomes += [
            _outcome("hidden_stages_move", "digits", lambda: check_hidden_stages_move(make)),
            _outcome("beats_controls", "digits", lambda: check_beats_controls(make)),
        ]
    return outcomes


def _outcome(check: str, network: str, run: Callable[[], str | None]) -> Outcome:
    try:
        reason = run()
        return Outcome(check, network, "skip" if reason else "pass", reason or "")
    except Failure as failure:
        return Outcome(check, network, "fail", str(failure))
    except Exception as error:
        return Outcome(check, network, "fail", f"raised {type(error).__name__}: {error}")


def _on_network(make: Callable[[], Rule], name: str, build: Build) -> Iterator[Outcome]:
    for objective in OBJECTIVES.values():
        where = f"{name}, {objective.name}"
        try:
            reason = make().supports(build(IN_SHAPE, _out_shape(objective)), objective)
        except Exception as error:
            yield Outcome("supports", where, "fail", f"raised {type(error).__name__}: {error}")
            continue
        if reason:
            yield Outcome("structure", where, "skip", f"n/a: {reason}")
            continue
        for check in STRUCTURE:
            case = Case(make, build, objective)
            yield _outcome(check.__name__.removeprefix("check_"), where, lambda c=check, k=case: c(k))


@dataclass(frozen=True)
class Case:
    """One rule on one network and objective; every call builds them afresh from the same seed."""

    make: Callable[[], Rule]
    build: Build
    objective: Objective

    def attached(self) -> tuple[StagedNet, Rule]:
        """Return a network and the rule attached to it."""
        torch.manual_seed(0)
        net = self.build(IN_SHAPE, _out_shape(self.objective))
        rule = self.make()
        torch.manual_seed(1)
        rule.attach(net)
        return net, rule

    def data(self, num: int = 6) -> tuple[Tensor, Tensor]:
        """Return inputs and targets."""
        generator = torch.Generator().manual_seed(2)
        x = torch.randn(num, *IN_SHAPE, generator=generator)
        if self.objective.name == "cross_entropy":
            return x, torch.randint(0, CLASSES, (num,), generator=generator)
        return x, torch.rand(num, *_out_shape(self.objective), generator=generator)

    def learn(self, net: StagedNet, rule: Rule, x: Tensor, target: Tensor, seed: int = 3) -> Learned:
        """Return ``rule.learn`` from a given random state."""
        torch.manual_seed(seed)
        return rule.learn(net, x, target, self.objective)


def _out_shape(objective: Objective) -> tuple[int, ...]:
    return (CLASSES,) if objective.name == "cross_entropy" else IN_SHAPE


def check_constructor(make: Callable[[], Rule]) -> None:
    """Hyper-parameters are keyword-only, have defaults, and can be written as JSON; the docstring names a source."""
    if not inspect.isclass(make):
        return
    for p in list(inspect.signature(make.__init__).parameters.values())[1:]:
        if p.kind is not inspect.Parameter.KEYWORD_ONLY or p.default is inspect.Parameter.empty:
            raise Failure("keyword-only hyper-parameters with defaults", f"{p}", "write def __init__(self, *, name=1.0)")
        try:
            json.dumps(p.default)
        except TypeError:
            raise Failure("defaults that JSON can hold", f"{p}", "use numbers, strings, booleans or lists") from None
    module = inspect.getmodule(make)
    if not (module and module.__doc__):
        raise Failure("a docstring of the file", "none", "say what the rule is, its equation and its source")


def check_returned_gradients(case: Case) -> None:
    """Gradients name parameters and have their shape and type; all is finite and detached, also for one black image."""
    net, rule = case.attached()
    known = dict(net.named_parameters()) | dict(rule.named_parameters())
    for x, target in (case.data(), case.data(1), (torch.zeros(1, *IN_SHAPE), case.data(1)[1])):
        learned = case.learn(net, rule, x, target)
        for name, grad in learned.grads.items():
            if name not in known:
                raise Failure("names of parameters", repr(name), "use the names of net.named_parameters()")
            if grad.shape != known[name].shape or grad.dtype != known[name].dtype:
                raise Failure(
                    f"{name} of {tuple(known[name].shape)}, {known[name].dtype}",
                    f"{tuple(grad.shape)}, {grad.dtype}",
                    "return one gradient per parameter, shaped like it",
                )
        parts = {**learned.grads, **learned.signals, "loss": learned.loss, "output": learned.output}
        for name, part in parts.items():
            if not torch.isfinite(part).all():
                raise Failure("finite numbers", f"{name} is not", "look for a division by zero or a blow-up")
            if part.requires_grad:
                raise Failure("detached tensors", f"{name} has a graph", "call .detach() or work under no_grad")
        if learned.loss.dim() != 0 or learned.output.shape != (len(x), *net.out_shape):
            raise Failure("a scalar loss and one output per image", f"{tuple(learned.output.shape)}", "see Learned")


def check_signals(case: Case) -> None:
    """A signal belongs to a stage, has its shape, and is that of each image's own loss, whatever else is in the batch."""
    net, rule = case.attached()
    x, target = case.data()
    learned = case.learn(net, rule, x, target)
    for stage, signal in learned.signals.items():
        if stage not in net.stages:
            raise Failure("signals keyed by stage", repr(stage), f"use {', '.join(net.stages)}")
        shape = net.trace(x)[stage].shape
        if signal.shape != shape:
            raise Failure(f"signal of {stage} shaped {tuple(shape)}", f"{tuple(signal.shape)}", "one per unit and image")
    net, rule = case.attached()
    alone = case.learn(net, rule, x[:1], target[:1])
    for stage, signal in alone.signals.items():
        if not torch.allclose(signal[0], learned.signals[stage][0], rtol=1e-3, atol=1e-6):
            raise Failure(
                "the same signal for an image alone and in a batch", f"{stage} differs",
                "a signal is the gradient of the image's own loss: do not divide it by the batch",
            )  # fmt: skip


def check_leaves_no_trace(case: Case) -> None:
    """``learn`` changes no weight, touches no ``.grad``, leaves no hook, no graph, no new attribute on the network."""
    net, rule = case.attached()
    before = copy.deepcopy(net.state_dict())
    hooks, names = _hooks(net), set(vars(net))
    case.learn(net, rule, *case.data())
    for name, value in net.state_dict().items():
        if not torch.equal(value, before[name]):
            raise Failure("weights untouched by learn", f"{name} changed", "return the change; the optimiser applies it")
    if any(p.grad is not None for p in [*net.parameters(), *rule.parameters()]):
        raise Failure("no .grad written", "a .grad", "use torch.autograd.grad and return the result")
    if _hooks(net) != hooks or set(vars(net)) != names:
        raise Failure("no hooks or attributes left on the network", "some", "remove handles; keep state on the rule")


def check_repeatable(case: Case) -> None:
    """The same seed gives the same gradients: in a new rule, and in the same rule called again."""
    x, target = case.data()
    net, rule = case.attached()
    first = case.learn(net, rule, x, target)
    stateless = not list(rule.buffers()) or not _changes_state(case)
    other = case.learn(*case.attached(), x, target)
    _same(first, other, "gradients from the same seed", "draw randomness from torch's global generator only")
    if stateless:
        again = case.learn(net, rule, x, target)
        _same(first, again, "gradients on a second call", "keep what changes between calls in registered buffers")


def check_mean_reduction(case: Case) -> None:
    """Every image twice gives the same gradients: they are means over the batch, not sums."""
    x, target = case.data()
    once = case.learn(*case.attached(), x, target)
    twice = case.learn(*case.attached(), torch.cat([x, x]), torch.cat([target, target]))
    for name, grad in once.grads.items():
        scale = grad.abs().max().item() + 1e-8
        if (grad - twice.grads[name]).abs().max().item() > 1e-3 * scale:
            raise Failure(
                "gradients of the mean loss", f"{name} changes when every image stands in the batch twice",
                "divide by the batch once, at the end",
            )  # fmt: skip


def check_predict(case: Case) -> None:
    """``predict`` takes no labels, changes nothing, and gives each image its own output whatever the batch."""
    net, rule = case.attached()
    if list(inspect.signature(rule.predict).parameters) != ["net", "x"]:
        raise Failure("predict(net, x)", str(inspect.signature(rule.predict)), "labels must not reach predict")
    net.eval()
    rule.eval()
    x, _ = case.data()
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(4)
    output = rule.predict(net, x).detach()
    if output.shape != (len(x), *net.out_shape):
        raise Failure(f"output {(len(x), *net.out_shape)}", f"{tuple(output.shape)}", "return one output per image")
    torch.manual_seed(4)
    if not torch.allclose(output[:1], rule.predict(net, x[:1]).detach(), rtol=1e-3, atol=1e-5):
        raise Failure("an image's output alone and in a batch to agree", "it differs", "no statistics over the batch")
    if any(not torch.equal(v, before[k]) for k, v in net.state_dict().items()):
        raise Failure("weights untouched by predict", "they changed", "work on a copy")
    for stage, activity in rule.activations(net, x).items():
        if stage not in net.stages or len(activity) != len(x):
            raise Failure("activations keyed by stage, one per image", stage, "see Rule.activations")


def check_state_round_trip(case: Case) -> None:
    """A rule restored from its state dict goes on as the original: everything it needs is a parameter or a buffer."""
    net, rule = case.attached()
    x, target = case.data()
    case.learn(net, rule, x, target)
    rule.after_step(net)
    state = copy.deepcopy(rule.state_dict())
    torch.manual_seed(99)
    fresh = case.make()
    fresh.attach(net)
    fresh.load_state_dict(state)
    _same(
        case.learn(net, rule, x, target), case.learn(net, fresh, x, target),
        "the same gradients after a state-dict round trip", "register what learn needs as parameter or buffer",
    )  # fmt: skip


STRUCTURE: tuple[Callable[[Case], None], ...] = (
    check_returned_gradients, check_signals, check_leaves_no_trace, check_repeatable, check_mean_reduction,
    check_predict, check_state_round_trip,
)  # fmt: skip


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
    if not rule.tags.learns or isinstance(rule, ReadoutOnly):
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
    """Held-out accuracy on handwritten digits is above ``untrained`` and ``readout_only`` at equal budget."""
    if make().tags.control:
        return "a control"
    ours = _trained(make)[1]
    for control in (Untrained, ReadoutOnly):
        theirs = _trained(control)[1]
        if ours <= theirs:
            raise Failure(
                f"more than {control.__name__}'s {theirs:.1%} on held-out digits", f"{ours:.1%}",
                "the hidden stages learn nothing useful: check sign, scale and locality of their updates",
            )  # fmt: skip
    return None


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


def _hooks(net: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in net.modules() for kind in kinds)


def _changes_state(case: Case) -> bool:
    """Return whether ``learn`` itself moves the rule's buffers (traces, mirror phases), which is allowed."""
    net, rule = case.attached()
    before = copy.deepcopy(rule.state_dict())
    case.learn(net, rule, *case.data())
    return any(not torch.equal(v, before[k]) for k, v in rule.state_dict().items())


def _same(a: Learned, b: Learned, expected: str, fix: str) -> None:
    if set(a.grads) != set(b.grads):
        raise Failure(expected, "gradients for other parameters", fix)
    for name, grad in a.grads.items():
        if not torch.equal(grad, b.grads[name]):
            raise Failure(expected, f"{name} differs by {(grad - b.grads[name]).abs().max().item():.1e}", fix)
