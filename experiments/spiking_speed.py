"""Speed of spiking learning beside public simulators, per image: SpykeTorch's layers, BindsNET's Diehl & Cook network.

    python -m experiments.spiking_speed [--spyketorch FOLDER] [--bindsnet PYTHON] [--batch 32] [--repeats 9]

FOLDER is a checkout of miladmozafari/SpykeTorch, PYTHON the interpreter of an environment with BindsNET 0.3. CPU time
of one thread, competitors in turns, median of the repeats. Both sides learn from the same input spikes:

- first-spike STDP: 28 × 28 × 6 cells, of which 40 % fire, at a step of 15 drawn at random. First stage 6 → 30 maps of
  5 × 5, five winners; second stage 30 → 250 maps of 3 × 3, eight winners. SpykeTorch runs its first layer again for
  its second one; ours takes the first stage's spikes as kept. Its neurons read the latched spikes, ours integrate them.
- Diehl & Cook: 784 → 400, 250 steps, cells that fire with probability .02 a step. Ours has inhibition without neurons
  of its own, averages over a batch, and learns a readout besides; BindsNET learns after every step.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.speed import CLASSES, OBJECTIVE, Step, interleaved
from models.base import Stage, StagedNet
from training.catalogue import MODELS, RULES

STEPS, CELLS, SILENT = 15, (6, 28, 28), 0.6
MAPS, WINNERS, RADIUS, THRESHOLDS = (30, 250), (5, 8), (3, 1), (15.0, 10.0)
NEURONS, PIXELS, LONG, CHANCE = 400, 784, 250, 0.02

BINDSNET = """
import json, sys, time, torch
from bindsnet.models import DiehlAndCook2015
torch.set_num_threads(1)
neurons, pixels, steps, chance, batch, repeats = json.loads(sys.argv[1])
net = DiehlAndCook2015(n_inpt=pixels, n_neurons=neurons, exc=22.5, inh=17.5, norm=78.4, theta_plus=0.05,
                       nu=(1e-4, 1e-2), batch_size=batch)
spikes = (torch.rand(steps, batch, pixels) < chance).byte()
for repeat in range(repeats + 1):
    if repeat:  # the first run warms up; each other waits for its turn
        sys.stdin.readline()
    start = time.process_time()
    net.run({"X": spikes}, time=steps)
    if repeat:
        print(json.dumps((time.process_time() - start) / batch), flush=True)
    net.reset_state_variables()
"""


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m experiments.spiking_speed", description=__doc__.split("\n")[0])
    parser.add_argument("--spyketorch", type=Path, metavar="FOLDER")
    parser.add_argument("--bindsnet", type=Path, metavar="PYTHON")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(arguments)
    if options.spyketorch and not (options.spyketorch / "SpykeTorch" / "snn.py").exists():
        parser.error(f"--spyketorch {options.spyketorch}: holds no SpykeTorch/snn.py")
    if options.bindsnet and not options.bindsnet.exists():
        parser.error(f"--bindsnet {options.bindsnet}: there is no such interpreter")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    first_spike(options.spyketorch, options.batch, options.repeats)
    diehl_and_cook(options.bindsnet, max(2, options.repeats // 3))


def first_spike(peer: Path | None, batch: int, repeats: int) -> None:
    """Print the times of the two stages."""
    for stage in (0, 1):
        volume = volumes(batch)
        images: dict[str, int] = {}
        steps: dict[str, Step] = {}
        for num in (1, batch):
            name = f"stdp, batch {num}"
            steps[name], images[name] = our_stage(stage, volume[:, :num]), num
        if peer:
            steps["SpykeTorch"], images["SpykeTorch"] = their_layer(peer, stage, volume[:, 0]), 1
        times = {n: statistics.median(t) / images[n] for n, t in interleaved(steps, repeats).items()}
        report(f"first-spike STDP, stage {stage + 1}", times, "SpykeTorch")


def report(what: str, seconds: dict[str, float], base: str) -> None:
    """Print the times of some competitors, and their ratios to one of them if it ran."""
    for name, value in seconds.items():
        ratio = f"{value / seconds[base]:8.2f} ×" if base in seconds else ""
        print(f"{what:<28} {name:<24} {1e3 * value:9.2f} ms per image {ratio}", flush=True)


def volumes(batch: int) -> Tensor:
    """Return latched input spikes ``(T, B, 6, 28, 28)``."""
    latency = torch.randint(0, STEPS, (batch, *CELLS)).masked_fill(torch.rand(batch, *CELLS) < SILENT, STEPS)
    return (latency <= torch.arange(STEPS).view(-1, 1, 1, 1, 1)).float()


def our_stage(stage: int, volume: Tensor) -> Step:
    """Return a learning step of one of two convolutional stages, from the spikes below it."""
    channels, kernels, pads = (CELLS[0], *MAPS), (5, 3), (2, 1)
    stages: dict[str, Stage] = {}
    for k in (0, 1):
        synapse = nn.Conv2d(channels[k], channels[k + 1], kernels[k], padding=pads[k], bias=False)
        nn.init.normal_(synapse.weight, 0.8, 0.05)
        stages[f"conv{k + 1}"] = Stage(synapse, nonlinearity=nn.ReLU(), pool=nn.MaxPool2d(2))
    stages["readout"] = Stage(nn.Linear(MAPS[1] * 7 * 7, CLASSES))
    net = StagedNet(stages, CELLS, (CLASSES,))
    name = net.hidden[stage]
    rule: Any = RULES.load("stdp")(
        steps=STEPS, winners=WINNERS[stage], radius=RADIUS[stage], coactive=1.0, scaling=0.0, soft=False
    )
    rule.attach(net)
    for k, parameter in enumerate(p for n, p in rule.named_parameters() if n.startswith("log_threshold")):
        parameter.data.fill_(THRESHOLDS[k]).log_()
    below, first = volume, stages["conv1"].synapse
    if stage == 1:
        latent = rule.population("conv1")
        for frame in volume:
            latent.integrate(first(frame))
        spikes = torch.stack([(latent.latency <= t).float() for t in range(STEPS)])
        below = nn.functional.max_pool2d(spikes.flatten(0, 1), 2).unflatten(0, spikes.shape[:2])
    parameters = dict(rule.named_parameters()) | dict(net.named_parameters())
    start = {n: p.detach().clone() for n, p in parameters.items()}

    @torch.no_grad()
    def step() -> None:
        for key, grad in rule.learn_stage(net, name, below).items():
            parameters[key].sub_(1e-3 * grad)
        rule.after_step(net)
        for key, value in start.items():  # every repeat does the same work
            parameters[key].copy_(value)

    return step


def their_layer(peer: Path, stage: int, volume: Tensor) -> Step:
    """Return SpykeTorch's learning step of one layer, as in its own example for one image."""
    sys.path.insert(0, str(peer))
    from SpykeTorch import functional as sf
    from SpykeTorch import snn

    layers = [snn.Convolution(CELLS[0], MAPS[0], 5, 0.8, 0.05), snn.Convolution(MAPS[0], MAPS[1], 3, 0.8, 0.05)]
    stdp = snn.STDP(layers[stage], (0.004, -0.003))

    @torch.no_grad()
    def step() -> None:
        below = sf.pad(volume, (2, 2, 2, 2))
        spikes, potential = sf.fire(layers[0](below), THRESHOLDS[0], True)
        if stage == 1:
            below = sf.pad(sf.pooling(spikes, 2, 2), (1, 1, 1, 1))
            _, potential = sf.fire(layers[1](below), THRESHOLDS[1], True)
        potential = sf.pointwise_inhibition(potential)
        spikes = potential.sign()
        winners = sf.get_k_winners(potential, WINNERS[stage], RADIUS[stage], spikes)
        stdp(below, potential, spikes, winners)

    return step


def diehl_and_cook(peer: Path | None, repeats: int) -> None:
    """Print the times of one hidden layer of 400 neurons over 250 steps."""
    for batch in (1, 32):
        ours = our_presentation(batch)
        ours()
        seconds: dict[str, list[float]] = {"trace_stdp": []}
        competitor = bindsnet(peer, batch, repeats) if peer else None
        for _ in range(repeats):
            start = time.process_time()
            ours()
            seconds["trace_stdp"].append((time.process_time() - start) / batch)
            if competitor:
                seconds.setdefault("BindsNET", []).append(competitor())
        median = {n: statistics.median(t) for n, t in seconds.items()}
        report(f"Diehl & Cook, batch {batch}", median, "BindsNET")


def our_presentation(batch: int) -> Step:
    """Return a learning step of `trace_stdp` over 250 steps."""
    net: StagedNet = MODELS.load("mlp")((1, 28, 28), (CLASSES,), width=NEURONS, depth=1)
    rule: Any = RULES.load("trace_stdp")(steps=LONG, max_rate=CHANCE, tau_plus=20.0, tau_minus=20.0, depression=1e-4)
    rule.attach(net)
    images, target = torch.randn(batch, 1, 28, 28), torch.randint(0, CLASSES, (batch,))
    parameters = dict(rule.named_parameters()) | dict(net.named_parameters())

    @torch.no_grad()
    def step() -> None:
        for key, grad in rule.learn(net, images, target, OBJECTIVE).grads.items():
            parameters[key].sub_(1e-3 * grad)
        rule.after_step(net)

    return step


def bindsnet(python: Path, batch: int, repeats: int) -> Callable[[], float]:
    """Return a function that has BindsNET, in its own process, take one more turn, and returns its CPU seconds."""
    given = json.dumps([NEURONS, PIXELS, LONG, CHANCE, batch, repeats])
    process = subprocess.Popen(
        [str(python), "-c", BINDSNET, given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    turns, answers = process.stdin, process.stdout

    def turn() -> float:
        try:
            turns.write("\n")
            turns.flush()
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemExit(f"BindsNET did not run under {python}; its message stands above")
        return float(line)

    return turn


if __name__ == "__main__":
    main()
