"""``plasticbench new-rule``: a file that runs, to be changed into the rule its author has in mind."""

import keyword
from pathlib import Path

from training.catalogue import RULES
from training.errors import UserError

TEMPLATE = '''"""{title}: one line that says what it is (Author, Year, journal or arXiv number).

    dW_l = ...                     the update equation, as in the paper

What an update reads besides its own synapse's two sides, and what is not local.
"""

import torch
from torch import Tensor

from models.base import StagedNet
from rules.base import Learned, Objective, Rule, Tags, loguniform


class {cls}(Rule):
    """As it stands: the output error reaches every hidden stage through fixed random weights.

    Args:
        scale: Standard deviation of the random weights, relative to 1 / sqrt(units).
    """

    tags = Tags(locality="presynaptic activity and a random projection of the output error")
    search_space = {{"scale": loguniform(0.1, 10.0)}}

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def attach(self, net: StagedNet) -> None:
        """Draw what is fixed, as buffers: they are saved with the network and moved with it."""
        with torch.no_grad():
            activity = net.trace(torch.zeros(1, *net.in_shape))
        for name in net.hidden:
            shape = activity[net.readout].numel(), activity[name].numel()
            self.register_buffer(name, torch.randn(shape) * self.scale / shape[1] ** 0.5)

    def learn(self, net: StagedNet, x: Tensor, target: Tensor, objective: Objective) -> Learned:
        """Return gradients of the mean loss (or minus the weight change), and each image's learning signal."""
        with torch.enable_grad():
            activity = {{}}
            for name, stage in net.stages.items():
                x = activity[name] = stage(x.detach())          # no error crosses a stage's border
            output = activity[net.readout] = net.shaped(x)
            loss = objective.losses(output, target).mean()
            error = objective.error(output.detach(), target)    # per image, not divided by the batch
            signals = {{net.readout: error}}
            for name in net.hidden:
                signals[name] = (error.flatten(1) @ self.get_buffer(name)).view_as(activity[name])
            parameters = dict(net.named_parameters())
            grads = torch.autograd.grad(
                list(activity.values()),
                list(parameters.values()),
                [signals[name] / len(x) for name in activity],
            )
        return Learned(dict(zip(parameters, grads, strict=True)), loss.detach(), output.detach(), signals)
'''


def write_rule(name: str, folder: Path) -> Path:
    """Write ``NAME.py`` and return its path.

    Raises:
        UserError: If the name is not a Python name, is taken, or the file exists.
    """
    stem = name.removesuffix(".py")
    if not stem.isidentifier() or keyword.iskeyword(stem) or stem.startswith("_"):
        raise UserError(f"{name!r}: a rule's name is a Python name without a leading underscore, such as my_rule")
    name_of_class = "".join(w.capitalize() for w in stem.split("_"))
    if name_of_class in ("Learned", "Objective", "Rule", "StagedNet", "Tags", "Tensor"):
        raise UserError(f"{stem!r}: {name_of_class} is a name of the contract; choose another")
    if stem in RULES.entries():
        raise UserError(f"{stem!r} is a rule already; choose another name")
    path = folder / f"{stem}.py"
    if path.exists():
        raise UserError(f"{path} exists; choose another name or move it away")
    words = stem.split("_")
    path.write_text(
        TEMPLATE.format(title=" ".join(words).capitalize(), cls=name_of_class),
        encoding="utf-8",
    )
    return path
