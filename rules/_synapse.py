"""What rules may do to a synapse without knowing the architecture around it.

Both tools are torch function modes: inside ``with``, every ``nn.Linear`` and ``nn.Conv2d`` call of the
network is intercepted, wherever it sits (a plain stage, both convolutions of a residual block, a
shortcut). No layer is copied, no hook is left behind, and no architecture knows a rule.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.base import StagedNet

LINEAR, CONV2D = torch.nn.functional.linear, torch.conv2d


def fed_back(net: StagedNet) -> dict[str, nn.Linear | nn.Conv2d]:
    """Return the synapses through which errors return, under names that a buffer may have.

    These are all but the first: below it no error is needed.
    """
    return {name.replace(".", "_"): synapse for name, synapse in list(net.synapses().items())[1:]}


class _Linear(torch.autograd.Function):
    """``y = x Wᵀ + b`` forwards; the error returns through B instead of W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor) -> Tensor:
        ctx.save_for_backward(x, feedback)
        return LINEAR(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *error: Tensor) -> tuple[Tensor | None, ...]:
        (delta,) = error
        x, feedback = (t.to(delta.dtype) for t in ctx.saved_tensors)
        below, weight, bias, learns_feedback = ctx.needs_input_grad
        correlation = delta.t() @ x if weight or learns_feedback else None
        return (
            delta @ feedback if below else None,
            correlation if weight else None,
            delta.sum(0) if bias else None,
            correlation if learns_feedback else None,
        )


class _Conv2d(torch.autograd.Function):
    """A convolution with W forwards whose error returns through B: the transposed convolution with B."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor, geometry: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, feedback)
        ctx.geometry = geometry
        ctx.bias_size = None if bias is None else [len(bias)]
        return CONV2D(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *error: Tensor) -> tuple[Tensor | None, ...]:
        (delta,) = error
        x, feedback = (t.to(delta.dtype) for t in ctx.saved_tensors)
        stride, padding, dilation, groups = ctx.geometry
        below, weight, bias, learns_feedback, _ = ctx.needs_input_grad
        # The weight's gradient never reads the weight, the input's gradient reads nothing else, so
        # handing B to the framework's own backward is feedback alignment at backprop's cost.
        down, correlation, bias_grad = torch.ops.aten.convolution_backward(
            delta, x, feedback, ctx.bias_size, stride, padding, dilation, False, [0, 0], groups,
            [below, weight or learns_feedback, bias],
        )  # fmt: skip
        return (
            down,
            correlation if weight else None,
            bias_grad,
            correlation if learns_feedback else None,
            None,
        )


def _conv_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    defaults = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


class feedback_through(TorchFunctionMode):
    """Errors return through given feedback weights instead of the forward weights.

    Args:
        feedback: Forward weight to its feedback weight B, of the same shape. Synapses without an
            entry keep their own weights. If B requires a gradient it gets the one of W (Kolen–Pollack).
    """

    def __init__(self, feedback: Mapping[Tensor, Tensor]) -> None:
        super().__init__()
        self.feedback = {id(weight): b for weight, b in feedback.items()}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is CONV2D:
            a = _conv_arguments(args, kwargs)
            b = self.feedback.get(id(a["weight"]))
            if b is not None and not isinstance(a["padding"], str):
                geometry = (_pair(a["stride"]), _pair(a["padding"]), _pair(a["dilation"]), a["groups"])
                return _Conv2d.apply(a["input"], a["weight"], a["bias"], b, geometry)
        elif func is LINEAR:
            b = self.feedback.get(id(args[1]))
            if b is not None:
                return _Linear.apply(args[0], args[1], args[2] if len(args) > 2 else kwargs.get("bias"), b)
        return func(*args, **kwargs)


class cut_at_synapses(TorchFunctionMode):
    """No error crosses a synapse: each one sees its input detached.

    Attributes:
        inputs: The distinct synapse inputs that had a gradient path, in forward order: the
            activities inside a stage that a direct feedback pathway has to reach.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is CONV2D or func is LINEAR:
            x, *rest = args
            if x.requires_grad and not any(x is seen for seen in self.inputs):
                self.inputs.append(x)
            args = (x.detach(), *rest)
        return func(*args, **(kwargs or {}))
