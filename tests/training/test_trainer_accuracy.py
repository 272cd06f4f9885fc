"""The explanation costs no accuracy: backbone and head train, bit for bit, as without a map."""

import copy
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Trainer, TrainingArguments


class PlainNetwork(nn.Module):
    """A timm network as anybody would give it to the stock Trainer."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.config = SimpleNamespace()

    def forward(self, pixel_values, labels=None):
        logits = self.network(pixel_values)
        outputs = {"logits": logits}
        return outputs if labels is None else {"loss": F.cross_entropy(logits, labels), **outputs}

    def activation_checkpointing_enable(self, **options):
        self.network.set_grad_checkpointing(True)


HARD_CASE = {
    "max_grad_norm": 0.05,
    "weight_decay": 0.1,
    "warmup_steps": 2,
    "lr_scheduler_type": "cosine",
    "max_steps": 5,
}


def train_both(tiny, tmp_path, backbone, options, network_options=None):
    """(our backbone, the plain network, our log, the plain log) after the same training."""
    model = tiny.build_model(backbone, backbone_kwargs=network_options)
    plain = PlainNetwork(copy.deepcopy(model.backbone))
    data = tiny.Images(22, augment=True)
    held_out = tiny.Images(10)
    parts = {"eval_dataset": held_out}
    args = tiny.build_trainer(model, tmp_path / "ours", data, parts, **options).args
    stock_args = TrainingArguments(
        **{field.name: getattr(args, field.name) for field in fields(TrainingArguments) if field.init}
        | {"output_dir": str(tmp_path / "stock"), "ddp_find_unused_parameters": None}
    )
    # Made after all arguments: making them resets what trainers share.
    trainer = tiny.build_trainer(model, tmp_path / "ours", data, parts, **options)
    trainer.train()
    stock = Trainer(model=plain, args=stock_args, train_dataset=data, eval_dataset=held_out)
    stock.train()
    return model.backbone, plain.network, trainer.state.log_history, stock.state.log_history


def assert_identical(ours, stock):
    for (name, value), (_, expected) in zip(ours.state_dict().items(), stock.state_dict().items(), strict=True):
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_backbone_and_head_train_as_without_a_map(tiny, tmp_path, backbone, accumulation):
    options = {**HARD_CASE, "gradient_accumulation_steps": accumulation}
    drop = {"drop_rate": 0.3, "drop_path_rate": 0.3}
    ours, stock, log, stock_log = train_both(tiny, tmp_path, backbone, options, network_options=drop)
    assert_identical(ours, stock)
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [row[name] for row in log[:-1]] == [row[name] for row in stock_log[:-1]], name
    fresh = tiny.build_model(backbone, backbone_kwargs=drop).backbone
    changed = [not torch.equal(a, b) for a, b in zip(fresh.parameters(), ours.parameters(), strict=True)]
    assert all(changed), "a training that changes nothing proves nothing"


@pytest.mark.parametrize(
    "options",
    [
        {"max_grad_norm": 0.0},
        {"optim": "sgd", "optim_args": "momentum=0.9"},
        {"interpretation_batch_norm": "batch"},
        {"target_eval": True},
        {"update_order": "sequential", "gradient_accumulation_steps": 2},
        {"interpretation_interval": 3, "interpretation_batch_share": 0.5},
        {"area_weight": 1.0, "tv_weight": 1.0, "entropy_weight": 1.0, "reconstruction_weight": 1.0},
        {"label_smoothing_factor": 0.1},
        {"eval_strategy": "steps", "eval_steps": 2},  # takes random numbers, as many as the stock Trainer's
        {"activation_checkpointing": True},
        {"bf16": True},
    ],
    ids=lambda options: "-".join(options),
)
def test_no_option_of_the_second_pass_reaches_the_backbone(tiny, tmp_path, options):
    ours, stock, *_ = train_both(
        tiny, tmp_path, "test_resnet", {**HARD_CASE, **options}, network_options={"drop_path_rate": 0.3}
    )
    assert_identical(ours, stock)
