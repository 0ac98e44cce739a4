"""Speed of a training step, side by side: every rule against plain PyTorch in its fastest form.

    python -m experiments.speed [--model cnn] [--shape 3 32 32] [--batch 128] [--repeats 9] [--json] [-- width=64 …]

CPU time of one thread, competitors interleaved, median of the repeats (the minimum beside it): wall time
doubles when a neighbour is busy, CPU time moves by about ±15 %. The denominator is the fastest of
plain ``nn.Sequential`` networks: pooling before or after the nonlinearity, channels first or last.
"""

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from experiments.commands import parse_overrides
from models.base import StagedNet
from rules.base import OBJECTIVES, Rule
from training.catalogue import MODELS, RULES, describe
from training.config import RunConfig, run_config
from training.errors import UserError
from training.module import RuleModule
from training.run import quiet_lightning

CLASSES, LR = 10, 0.01
OBJECTIVE = OBJECTIVES["cross_entropy"]
Step = Callable[[], None]
Network = Callable[[], StagedNet]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    usage = "%(prog)s [option …] [-- key=value …]"  # without the -- an option that takes several values takes them too
    about = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m experiments.speed", usage=usage, description=about)
    parser.add_argument("--model", default="cnn", choices=("cnn", "mlp", "vgg"))
    parser.add_argument("--shape", type=int, nargs=3, default=(3, 32, 32), metavar=("C", "H", "W"))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rules", nargs="+", default=list(RULES.entries()), choices=RULES.entries(), metavar="RULE")
    parser.add_argument("options", nargs="*", metavar="key=value", help="options of the model")
    options = parser.parse_intermixed_args(arguments)
    torch.set_num_threads(1)
    x, target = torch.randn(options.batch, *options.shape), torch.randint(0, CLASSES, (options.batch,))
    network = functools.partial(build, options.model, tuple(options.shape))
    try:
        network = functools.partial(network, model_options(options.model, options.options))
        network()
    except (UserError, TypeError, ValueError) as error:  # a mistake is one line, not a traceback
        parser.error(describe(error))
    plain = {
        f"plain PyTorch, {order}, {layout}": plain_step(network(), x, target, order, layout)
        for order in ("f then pool", "pool then f")
        for layout in ("channels first", "channels last")
    }
    rules = {name: rule_step(network, name, x, target) for name in options.rules}
    times = interleaved({**plain, **rules}, options.repeats)
    fastest = min(plain, key=lambda name: statistics.median(times[name]))
    rows = [
        {
            "step": name,
            "ratio": statistics.median(t) / statistics.median(times[fastest]),
            "ratio_of_minima": min(t) / min(times[fastest]),
            "ms": 1e3 * statistics.median(t),
        }
        for name, t in times.items()
    ]
    rows += harness(network, x, target, options.repeats)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(
            f"{row['step']:<52} {row['ratio']:6.2f} ×  ({row['ratio_of_minima']:.2f} × of minima)  {row['ms']:8.1f} ms"
        )
    print(f"1 × = {fastest}")


def model_options(model: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return the options of a model from ``key=value`` arguments.

    Raises:
        UserError: If one is not of that form, or the model has no such option or not of that type.
    """
    given = parse_overrides([f"model.{text}" for text in texts], ("model",))
    return run_config({"rule": "backprop", "model": model, "task": "digits", "seed": 0, **given}, "speed").model_params


def build(model: str, in_shape: tuple[int, ...], given: Mapping[str, Any]) -> StagedNet:
    """Return the architecture, the same weights every time."""
    torch.manual_seed(0)
    net: StagedNet = MODELS.load(model)(in_shape, (CLASSES,), **given)
    return net


def plain_step(net: StagedNet, x: Tensor, target: Tensor, order: str, layout: str) -> Step:
    """Return a plain training step of the same network written as ``nn.Sequential``."""
    layers: list[nn.Module] = []
    for stage in net.stages.values():
        if isinstance(stage.synapse, nn.Linear) and not any(isinstance(m, nn.Flatten) for m in layers):
            layers.append(nn.Flatten())
        after: list[Any] = [stage.nonlinearity, stage.pool]
        synapse: Any = stage.synapse
        layers += [synapse, *(after if order == "f then pool" else reversed(after))]
    memory = torch.channels_last if layout == "channels last" else torch.contiguous_format
    sequence = nn.Sequential(*(m for m in layers if not isinstance(m, nn.Identity))).to(memory_format=memory)
    x = x.to(memory_format=memory)
    optimizer = torch.optim.SGD(sequence.parameters(), LR)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(sequence(x), target).backward()
        optimizer.step()

    return step


def rule_step(network: Network, name: str, x: Tensor, target: Tensor) -> Step:
    """Return a training step of a rule in a bare loop."""
    net = network()
    rule = attached(name, net)
    parameters = dict(rule.named_parameters()) | dict(net.named_parameters())
    optimizer = torch.optim.SGD(parameters.values(), LR)

    def step() -> None:
        learned = rule.learn(net, x, target, OBJECTIVE)
        for key, parameter in parameters.items():
            parameter.grad = learned.grads.get(key)
        optimizer.step()
        rule.after_step(net)

    return step


def attached(name: str, net: StagedNet) -> Rule:
    """Return a rule attached to a network of that shape."""
    rule: Rule = RULES.load(name)()
    rule.attach(net)
    return rule


def interleaved(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Return the CPU seconds of every step, taken in turns after two rounds of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(repeats + 2):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if round_ >= 2:
                times[name].append(time.process_time() - start)
    return times


class _Clock(pl.Callback):
    """CPU seconds of every epoch but the first."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start."""
        self.start = time.process_time()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop."""
        if trainer.current_epoch > 0:
            self.seconds.append(time.process_time() - self.start)


def harness(network: Network, x: Tensor, target: Tensor, repeats: int, batches: int = 6) -> list[dict[str, Any]]:
    """Return the cost of the Lightning loop over a bare loop, both with ``backprop`` as the rule, in turns."""
    quiet_lightning()
    bare: list[float] = []
    lightning: list[float] = []
    loop = rule_step(network, "backprop", x, target)
    loop()
    for _ in range(max(2, repeats // 3)):
        clock = _Clock()
        net = network()
        config = RunConfig(rule="backprop", model="cnn", task="digits", optimizer="sgd", momentum=0.0, lr=LR)
        module = RuleModule(net, attached("backprop", net), OBJECTIVE, config)
        with tempfile.TemporaryDirectory() as folder:
            trainer = pl.Trainer(
                max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, callbacks=[clock], default_root_dir=folder, log_every_n_steps=1,
            )  # fmt: skip
            trainer.fit(module, DataLoader([(x, target)] * batches, batch_size=None))  # type: ignore[arg-type]
        lightning += clock.seconds
        for _ in clock.seconds:
            start = time.process_time()
            for _ in range(batches):
                loop()
            bare.append(time.process_time() - start)
    return [
        {
            "step": "Lightning harness over a bare loop (backprop)",
            "ratio": statistics.median(lightning) / statistics.median(bare),
            "ratio_of_minima": min(lightning) / min(bare),
            "ms": 1e3 * statistics.median(lightning) / batches,
        }
    ]


if __name__ == "__main__":
    main()
