"""What tests of the examination share: data of their own, silent networks, scores by name."""

import torch

from evaluation.brain._examination import BrainBenchmark
from models import cnn
from rules.backprop import Backprop
from tests.evaluation.brain.conftest import observer_of


def by_name(scores, metric, **where):
    return [s for s in scores if s.metric == metric and all(getattr(s, k) == v for k, v in where.items())]


class OnData(BrainBenchmark):
    """The examination on data that a test gives."""

    name = "on_data"
    losses = ("pseudo_label", "label")
    resamples = 20
    data = None

    def load(self, source):
        return self.data


def examine(data, observer, **options):
    bench = OnData(**options)
    bench.data = data
    return bench.measure(observer)


def silent(*stages, rule=None):
    """A network of which some stages give zero whatever is shown, as spiking ones do that never reach threshold."""
    torch.manual_seed(0)
    net = cnn.build((3, 16, 16), (4,), width=2, hidden=8)
    observer = observer_of(net, rule or Backprop(), size=16)

    class Silent:
        def __getattr__(self, name):
            return getattr(observer, name)

        def activations(self, stimuli):
            return {n: a * 0 if n in stages else a for n, a in observer.activations(stimuli).items()}

    return Silent()
