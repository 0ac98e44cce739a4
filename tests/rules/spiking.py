"""What the tests of spiking rules share: a batch, a rule on its network, one step of training, populations by hand."""

import torch

from rules._neurons import Population
from rules.base import OBJECTIVES

CE = OBJECTIVES["cross_entropy"]
UNIT = 1e-3  # the learning rate at which amplitudes are what they say


def batch(num=8):
    return torch.randn(num, 1, 8, 8), torch.randint(0, 10, (num,))


def attached(rule, net):
    rule.attach(net.eval())
    return rule


def step(rule, net, x, target, lr=UNIT):
    learned = rule.learn(net, x, target, CE)
    with torch.no_grad():
        for name, parameter in (dict(rule.named_parameters()) | dict(net.named_parameters())).items():
            if name in learned.grads:
                parameter -= lr * learned.grads[name]
    rule.after_step(net)
    return learned


def learn(rule, net, x, target):
    """Return what a rule learns, and the seed of the spikes that it learned from."""
    torch.manual_seed(5)
    learned = rule.learn(net, x, target, CE)
    torch.manual_seed(5)
    return learned, int(torch.randint(2**31, ()))


def population(latency, overshoot, steps=10):
    p = Population("n", torch.ones(latency.shape[1]), steps, "first_spike", 1.0)
    p.waited, p.overshoot = latency, overshoot
    return p


def arrived(current, threshold):
    """Return the step at which integrators V(t) = Σ I / T first exceed their thresholds, T if never, ``(B, F)``."""
    above = current.cumsum(0) / len(current) > threshold
    return torch.where(above.any(0), above.double().argmax(0), len(current))
