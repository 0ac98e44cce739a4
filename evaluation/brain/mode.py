"""Whether a network is truly in evaluation mode: no normalisation or dropout that depends on the batch or on chance."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from evaluation.base import TrainedObserver, evaluating


class NotInEvaluationMode(AssertionError):
    """A normalisation or dropout still depends on the batch or on chance."""


def assert_evaluation_mode(observer: TrainedObserver) -> None:
    """Make sure that no normalisation or dropout depends on the batch or on chance, in inference or in ``learn``.

    A class may override ``eval()``, or ignore it, and a rule may switch the mode. So the flag of every module whose
    class, or a base of it, is a BatchNorm or a Dropout is read whenever it runs; and each is run on one
    image alone and among others.

    Raises:
        NotInEvaluationMode: Naming the module.
    """
    net, rule = copy.deepcopy((observer.net, observer.rule))
    x, target = observer.probe(4)
    x, target = torch.cat([x, -x]), torch.cat([target, target])  # also where there is a single held-out image
    watched = {**_depending(net, ""), **_depending(rule, "rule.")}
    seen: dict[str, Tensor] = {}
    handles = [m.register_forward_hook(_checked(seen, n)) for n, m in watched.items()]
    with evaluating(net, rule), torch.random.fork_rng(devices=[]):
        rule.predict(net, x)
        rule.activations(net, x)
    for module in (*net.modules(), *rule.modules()):
        module.training = False
    with torch.random.fork_rng(devices=[]):
        rule.learn(net, x, target, observer.objective)
    for handle in handles:
        handle.remove()
    with evaluating(net, rule), torch.random.fork_rng(devices=[]):
        for name, given in seen.items():
            together, alone = watched[name](given)[:1], watched[name](given[:1])
            scale = together.abs().max().clamp(min=1e-6)
            if not bool(((together - alone).abs() <= 1e-4 * scale).all()):
                raise NotInEvaluationMode(
                    f"{name} ({type(watched[name]).__name__}) gives an image another answer among others than alone: "
                    "it uses the batch's statistics or chance in evaluation mode"
                )


def _depending(owner: nn.Module, prefix: str) -> dict[str, nn.Module]:
    """Return every module whose class or one of its bases is a BatchNorm or a Dropout, by type or by name."""
    found = {}
    for name, module in owner.named_modules():
        kinds = " ".join(c.__name__.lower() for c in type(module).__mro__)
        if "batchnorm" in kinds or "dropout" in kinds:
            found[prefix + name] = module
    return found


def _checked(seen: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del output
        if module.training:
            raise NotInEvaluationMode(f"{name} ({type(module).__name__}) runs in training mode")
        if len(inputs[0]) > 1:
            seen.setdefault(name, inputs[0].detach())

    return hook
