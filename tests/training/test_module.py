"""Gradients that the module writes equal plain training bit for bit, with everything Lightning does around them."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from models import cnn
from rules.backprop import Backprop
from rules.base import OBJECTIVES, Learned, Rule
from rules.feedback_alignment import FeedbackAlignment
from training.config import RunConfig
from training.module import RuleModule
from training.run import quiet_lightning

CE = OBJECTIVES["cross_entropy"]
OPTIONS = {
    "plain": {},
    "clip": {"gradient_clip_val": 0.1},
    "accumulate": {"accumulate_grad_batches": 4},
    "bf16": {"precision": "bf16-mixed"},
    "all": {"gradient_clip_val": 0.1, "accumulate_grad_batches": 4, "precision": "bf16-mixed"},
}


class Plain(pl.LightningModule):
    """What anyone would write: return the loss, let Lightning do the rest."""

    def __init__(self, net, config):
        super().__init__()
        self.net, self.config = net, config

    def training_step(self, batch, batch_idx):
        return CE.losses(self.net(batch[0]), batch[1]).mean()

    configure_optimizers = RuleModule.configure_optimizers
    rule = Backprop()


def network():
    torch.manual_seed(0)
    return cnn.build((1, 8, 8), (10,), width=4, hidden=16)


def batches(num=8, size=16):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 1, 8, 8, generator=generator), torch.randint(0, 10, (size,), generator=generator))
        for _ in range(num)
    ]


def fit(module, tmp_path, data=None, **options):
    quiet_lightning()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=False, default_root_dir=tmp_path, num_sanity_val_steps=0, log_every_n_steps=1, **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data or batches(), batch_size=None))
    return {n: p.detach().clone() for n, p in module.net.named_parameters()}


def config(**fields):
    return RunConfig(rule="backprop", model="cnn", task="digits", **fields)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_backprop_as_a_rule_is_plain_training_bit_for_bit(options, optimizer, tmp_path):
    settings = config(optimizer=optimizer, lr=0.01)
    start = {n: p.detach().clone() for n, p in network().named_parameters()}
    ours = fit(RuleModule(network(), Backprop(), CE, settings), tmp_path, **options)
    plain = fit(Plain(network(), settings), tmp_path, **options)
    for name, weight in plain.items():
        assert torch.equal(ours[name], weight), name
        assert not torch.equal(weight, start[name])


def test_it_equals_a_bare_loop(tmp_path):
    settings = config(optimizer="sgd", lr=0.05, schedule="constant")
    ours = fit(RuleModule(network(), Backprop(), CE, settings), tmp_path)
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    for _ in range(2):
        for x, target in batches():
            optimizer.zero_grad()
            CE.losses(net(x), target).mean().backward()
            optimizer.step()
    for name, parameter in net.named_parameters():
        assert torch.equal(ours[name], parameter)


def test_tied_feedback_alignment_trains_as_backprop_does_under_autocast(tmp_path):
    net = network()
    rule = FeedbackAlignment()
    rule.attach(net)

    class Tied(FeedbackAlignment):
        def learn(self, net, x, target, objective):
            self.tie_feedback(net)
            return super().learn(net, x, target, objective)

    rule.__class__ = Tied
    settings = config(lr=0.01)
    ours = fit(RuleModule(net, rule, CE, settings), tmp_path, precision="bf16-mixed")
    plain = fit(Plain(network(), settings), tmp_path, precision="bf16-mixed")
    for name, weight in plain.items():
        assert torch.allclose(ours[name], weight, atol=2e-2), name


def test_parameters_that_a_rule_does_not_train_stay_put_even_under_weight_decay(tmp_path):
    class ReadoutAlone(Backprop):
        def learn(self, net, x, target, objective):
            learned = super().learn(net, x, target, objective)
            own = {n: g for n, g in learned.grads.items() if n.startswith("stages.readout")}
            return Learned(own, learned.loss, learned.output)

    net = network()
    before = copy.deepcopy(net.state_dict())
    after = fit(RuleModule(net, ReadoutAlone(), CE, config(optimizer="adamw", weight_decay=0.1)), tmp_path)
    for name, weight in after.items():
        assert torch.equal(weight, before[name]) != name.startswith("stages.readout")


def test_a_rule_that_insists_on_sgd_gets_it_and_after_step_follows_every_step(tmp_path):
    class Bounded(Rule):
        optimizer = "sgd"
        steps = 0

        def learn(self, net, x, target, objective):
            grads = {n: torch.full_like(p, -1.0) for n, p in net.named_parameters()}  # −Δw
            return Learned(grads, torch.zeros(()), net(x).detach())

        def after_step(self, net):
            self.steps += 1
            for p in net.parameters():
                p.clamp_(max=0.25)

    rule = Bounded()
    module = RuleModule(network(), rule, CE, config(lr=0.1, momentum=0.0, schedule="constant"))
    weights = fit(module, tmp_path, accumulate_grad_batches=4)
    assert rule.steps == 4  # 2 epochs of 8 batches, one step for 4 batches
    assert all(w.max() <= 0.25 for w in weights.values())
    bias = weights["stages.readout.synapse.bias"]  # began at 0, +0.1 per step, bounded
    assert torch.allclose(bias, torch.full_like(bias, 0.25))


def test_feedback_weights_of_the_rule_are_stepped_by_the_same_optimiser(tmp_path):
    class LearnsItsOwn(Backprop):
        def __init__(self):
            super().__init__()
            self.own = torch.nn.Parameter(torch.zeros(3))

        def learn(self, net, x, target, objective):
            learned = super().learn(net, x, target, objective)
            return Learned(learned.grads | {"own": torch.ones(3)}, learned.loss, learned.output)

    rule = LearnsItsOwn()
    fit(RuleModule(network(), rule, CE, config(optimizer="sgd", lr=0.1, momentum=0.0, schedule="constant")), tmp_path)
    assert torch.allclose(rule.own, torch.full((3,), -0.1 * 16))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["backprop", "feedback_alignment"])
def test_two_processes_equal_plain_ddp_and_one_process_on_the_joined_batch(name, tmp_path):
    script = Path(__file__).with_name("ddp_script.py")
    result = subprocess.run(
        [sys.executable, str(script), name, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    differences = torch.load(tmp_path / "differences.pt", weights_only=True)
    if name == "backprop":
        assert differences["plain_ddp"] == 0.0
    assert differences["one_process"] < 1e-6
    assert differences["moved"] > 1e-3
