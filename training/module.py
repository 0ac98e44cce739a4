"""The Lightning module: the only place that touches ``.grad``, loss scaling, mixed precision and all-reduce."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed
from torch import Tensor, nn

from models.base import StagedNet
from rules.base import Learned, Objective, Rule
from training.config import RunConfig, stream


class RuleModule(pl.LightningModule):
    """Trains one network with one rule under automatic optimisation.

    ``training_step`` asks the rule for gradients, ``backward`` writes them. Lightning zeroes the
    gradients between the two, so that writing them any earlier would lose them without a word.

    Args:
        net: The network.
        rule: The rule, attached to the network.
        objective: The task's loss.
        config: Optimiser, schedule and seed.
    """

    def __init__(self, net: StagedNet, rule: Rule, objective: Objective, config: RunConfig) -> None:
        super().__init__()
        self.net, self.rule, self.objective, self.config = net, rule, objective, config
        self.learned: Learned | None = None

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that a rule may name: the network's and its own."""
        return dict(self.rule.named_parameters()) | dict(self.net.named_parameters())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return a carrier whose value ``backward`` receives, scaled as Lightning scales a loss."""
        x, target = batch
        # A counter, not a running generator: a resumed run draws the same noise.
        step = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        torch.manual_seed(stream(self.config.seed, "noise", step, self.global_rank))
        self.learned = self.rule.learn(self.net, x, target, self.objective)
        self.log("train_loss", self.learned.loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(x))
        if target.dim() == 1:
            hits = (self.learned.output.argmax(1) == target).float().mean()
            self.log("train_accuracy", hits, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(x))
        return torch.ones((), device=x.device, requires_grad=True)

    @torch.no_grad()
    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Write the rule's gradients, scaled by accumulation and loss scaling, averaged over processes."""
        if self.learned is None:
            raise RuntimeError("backward was called before training_step")
        scale = float(loss.detach())
        parameters = self.trained_parameters()
        for name, grad in self.learned.grads.items():
            parameter = parameters[name]
            # A copy in the parameter's own type and memory layout, as autograd would leave it: a rule
            # may return one tensor twice, and norms for clipping are summed in memory order.
            written = torch.empty_like(parameter).copy_(grad)
            if scale != 1.0:
                written *= scale
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                flat = written.as_strided((written.numel(),), (1,))
                torch.distributed.all_reduce(flat)
                flat /= torch.distributed.get_world_size()
            parameter.grad = written if parameter.grad is None else parameter.grad + written
        self.learned = None

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the rule do what must follow a step."""
        super().optimizer_step(*args, **kwargs)
        with torch.no_grad():
            self.rule.after_step(self.net)

    def configure_optimizers(self) -> Any:
        """Return the study's optimiser, or the one that the rule insists on, with its schedule."""
        kind, momentum, weight_decay = optimiser_of(self.rule, self.config)
        config = dataclasses.replace(self.config, momentum=momentum, weight_decay=weight_decay)
        optimizer = OPTIMIZERS[kind](self.parameters(), config)
        if self.config.schedule == "constant":
            return optimizer
        total = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step, total) / total))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def optimiser_of(rule: Rule, config: RunConfig) -> tuple[str, float, float]:
    """Return name, momentum and weight decay of the optimiser that trains a rule: the study's, or its own plain one."""
    if rule.optimizer:
        # The size of such a rule's Δw carries meaning: momentum would multiply it, decay is not in its equation.
        return rule.optimizer, 0.0, 0.0
    return config.optimizer, config.momentum, config.weight_decay


def _sgd(parameters: Any, config: RunConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


OPTIMIZERS: Mapping[str, Callable[[Any, RunConfig], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": lambda p, c: torch.optim.Adam(p, c.lr, weight_decay=c.weight_decay),
    "adamw": lambda p, c: torch.optim.AdamW(p, c.lr, weight_decay=c.weight_decay),
}
