"""What every learning rule must satisfy: the checks behind ``plasticbench check``.

Three kinds, in the manner of scikit-learn's ``check_estimator``: *structure* (what ``learn`` returns and leaves
alone), *oracle* (the limit in which the rule says it equals backprop, in float64), and *behaviour*
(hidden stages move; the rule beats both controls on real handwriting at equal budget). Each failure says
what was expected, what was found, and what to do.
"""

import copy
import functools
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from rules._behaviour import (
    CLASSES,
    IN_SHAPE,
    Failure,
    check_beats_controls,
    check_exact_limit,
    check_hidden_stages_move,
)
from rules._case import Build, Case, out_shape
from rules.base import OBJECTIVES, Learned, Rule, refusal


@dataclass(frozen=True)
class Outcome:
    """Result of one check on one network: ``pass``, ``fail`` or ``skip``, with the reason."""

    check: str
    network: str
    result: str
    message: str = ""


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
    # One loss for either kind of target, class indices and images; the others differ by their error alone.
    for objective in (OBJECTIVES["cross_entropy"], OBJECTIVES["mean_squared_error"]):
        where = f"{name}, {objective.name}"
        try:
            reason = refusal(make(), build(IN_SHAPE, out_shape(objective)), objective)
        except Exception as error:
            yield Outcome("supports", where, "fail", f"raised {type(error).__name__}: {error}")
            continue
        if reason:
            yield Outcome("structure", where, "skip", f"n/a: {reason}")
            continue
        for check in STRUCTURE:
            case = Case(make, build, objective)
            yield _outcome(check.__name__.removeprefix("check_"), where, functools.partial(check, case))


def check_constructor(make: Callable[[], Rule]) -> None:
    """Hyper-parameters are keyword-only, have defaults, and can be written as JSON; the docstring names a source."""
    if not inspect.isclass(make):
        return
    for p in list(inspect.signature(make.__init__).parameters.values())[1:]:
        if p.kind is not inspect.Parameter.KEYWORD_ONLY or p.default is inspect.Parameter.empty:
            raise Failure(
                "keyword-only hyper-parameters with defaults", f"{p}", "write def __init__(self, *, name=1.0)"
            )
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
    """A signal has its stage's shape and is that of each image's own loss, whatever else is in the batch."""
    net, rule = case.attached()
    x, target = case.data()
    learned = case.learn(net, rule, x, target)
    for stage, signal in learned.signals.items():
        if stage not in net.stages:
            raise Failure("signals keyed by stage", repr(stage), f"use {', '.join(net.stages)}")
        shape = net.trace(x)[stage].shape
        if signal.shape != shape:
            raise Failure(
                f"signal of {stage} shaped {tuple(shape)}", f"{tuple(signal.shape)}", "one per unit and image"
            )
    net, rule = case.attached()
    alone = case.learn(net, rule, x[:1], target[:1])
    for stage, signal in alone.signals.items():
        if not torch.allclose(signal[0], learned.signals[stage][0], rtol=1e-3, atol=1e-6):
            raise Failure(
                "the same signal for an image alone and in a batch", f"{stage} differs",
                "a signal is the gradient of the image's own loss: do not divide it by the batch",
            )  # fmt: skip


def check_attach_leaves_the_network_alone(case: Case) -> None:
    """``supports`` and ``attach`` change nothing of the network, which every rule starts from alike."""
    torch.manual_seed(0)
    net = case.build(IN_SHAPE, out_shape(case.objective)).eval()
    before = copy.deepcopy(net.state_dict())
    rule = case.make()
    rule.supports(net, case.objective)
    rule.attach(net)
    if any(not torch.equal(v, before[k]) for k, v in net.state_dict().items()) or _hooks(net):
        raise Failure("an untouched network after attach", "a change", "allocate on the rule, not on the network")


def check_leaves_no_trace(case: Case) -> None:
    """``learn`` changes no weight, touches no ``.grad``, leaves no hook, no graph, no new attribute on the network."""
    net, rule = case.attached()
    before = copy.deepcopy(net.state_dict())
    hooks, names = _hooks(net), set(vars(net))
    case.learn(net, rule, *case.data())
    for name, value in net.state_dict().items():
        if not torch.equal(value, before[name]):
            raise Failure(
                "weights untouched by learn", f"{name} changed", "return the change; the optimiser applies it"
            )
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


def check_labels_stay_out_of_inference(case: Case) -> None:
    """What was learned from other targets, weights untouched, changes no bit of ``predict`` and ``activations``.

    Targets reach inference through the weights alone, which the optimiser has not moved here.
    """
    x, target = case.data()
    other = (target + 1) % CLASSES if target.dim() == 1 else target.flip(0)
    answers = []
    for labels in (target, other):
        net, rule = case.attached()
        case.learn(net, rule, x, labels)
        net.eval()
        rule.eval()
        torch.manual_seed(4)
        output = rule.predict(net, x).detach()
        torch.manual_seed(4)
        answers.append({"predict": output, **rule.activations(net, x)})
    for name, answer in answers[0].items():
        if not torch.equal(answer, answers[1][name]):
            where = name if name == "predict" else f"activations of {name}"
            raise Failure(
                "the same inference whatever the targets of the last batch were", f"{where} differ",
                "labels must not reach inference: keep nothing of the target between learn and predict",
            )  # fmt: skip


def check_unsupervised_stages_are_blind_to_labels(case: Case) -> None:
    """Where tags say ``supervised=False``, other targets change neither updates nor signals of hidden stages."""
    x, target = case.data()
    net, rule = case.attached()
    if rule.tags.supervised:
        return
    other = (target + 1) % CLASSES if target.dim() == 1 else target.flip(0)
    ours, theirs = (case.learn(*case.attached(), x, labels) for labels in (target, other))
    for stage in net.hidden:
        names = [n for n in net.parameters_of(stage) if n in ours.grads]
        pairs = [(ours.grads[n], theirs.grads[n]) for n in names]
        if stage in ours.signals:
            pairs.append((ours.signals[stage], theirs.signals[stage]))
        if any(not torch.equal(a, b) for a, b in pairs):
            raise Failure(
                "the same updates of hidden stages whatever the targets, as supervised=False claims",
                f"{stage} differs", "keep targets to the readout, or say supervised=True",
            )  # fmt: skip


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
    check_attach_leaves_the_network_alone, check_returned_gradients, check_signals, check_leaves_no_trace,
    check_repeatable, check_mean_reduction, check_predict, check_labels_stay_out_of_inference,
    check_unsupervised_stages_are_blind_to_labels, check_state_round_trip,
)  # fmt: skip


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
