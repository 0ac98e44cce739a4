"""Train in two gloo processes and compare with plain DDP and with one process; run by test_module.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pytorch_lightning as pl
import torch

from rules.backprop import Backprop
from rules.feedback_alignment import FeedbackAlignment
from tests.training.test_module import CE, Plain, config, network
from training.data.base import Images, Task, training_loader
from training.module import RuleModule
from training.run import quiet_lightning

RULES = {"backprop": Backprop, "feedback_alignment": FeedbackAlignment}


def task():
    generator = torch.Generator().manual_seed(1)
    images = Images(torch.rand(64, 1, 8, 8, generator=generator), torch.randint(0, 10, (64,), generator=generator))
    return Task(tuple("0123456789"), images, images)


def rank_loader():
    import torch.distributed as dist

    ready = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if ready else (0, 1)
    return training_loader(task(), 16, 0, rank, world)


def weights(module, devices):
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", devices=devices, strategy="ddp_find_unused_parameters_true" if devices > 1 else "auto",
        logger=False, enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
        num_sanity_val_steps=0, log_every_n_steps=1, use_distributed_sampler=False, gradient_clip_val=0.5,
    )  # fmt: skip
    module.train_dataloader = rank_loader
    trainer.fit(module)
    return torch.cat([p.detach().flatten() for p in module.net.parameters()]), trainer.global_rank


def make(name):
    net = network()
    rule = RULES[name]()
    torch.manual_seed(5)
    rule.attach(net)
    return RuleModule(net, rule, CE, config(lr=0.01, optimizer="sgd"))


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    quiet_lightning()
    torch.set_num_threads(1)
    two, rank = weights(make(name), 2)
    plain, _ = weights(Plain(network(), config(lr=0.01, optimizer="sgd")), 2)
    if rank == 0:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        one, _ = weights(make(name), 1)
        start = torch.cat([p.detach().flatten() for p in network().parameters()])
        torch.save(
            {
                "plain_ddp": (two - plain).abs().max().item(),
                "one_process": (two - one).abs().max().item(),
                "moved": (two - start).abs().max().item(),
            },
            folder / "differences.pt",
        )
    else:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
