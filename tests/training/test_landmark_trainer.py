"""Points are learned as by a plain network, resumed to the bit, and on two processes as on one."""

import copy
import json
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from helpers import run_in_two_processes
from torch import nn
from transformers import Trainer, TrainingArguments

from antehoc_hf.modeling.landmark_detection import landmark_loss
from antehoc_hf.training.tasks.landmark_detection import metrics
from antehoc_hf.training.trainer import AnteHocTrainer

POINTS = 3
HARD_CASE = {"max_grad_norm": 0.05, "weight_decay": 0.1, "warmup_steps": 2, "lr_scheduler_type": "cosine"}


class PlainNetwork(nn.Module):
    """A timm network as anybody would give it to the stock Trainer."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.config = SimpleNamespace()

    def forward(self, pixel_values, labels=None, normalizer=None):
        landmarks = self.network(pixel_values).unflatten(1, (POINTS, 2))
        outputs = {"landmarks": landmarks}
        return outputs if labels is None else {"loss": landmark_loss(landmarks, labels), **outputs}


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_the_network_trains_as_without_a_map(tiny, tmp_path, backbone):
    model = tiny.build_model(backbone, points=POINTS, backbone_kwargs={"drop_path_rate": 0.2})
    plain = PlainNetwork(copy.deepcopy(model.backbone))
    data = tiny.Images(22, augment=True, points=POINTS)
    args = tiny.build_args(tmp_path / "ours", gradient_accumulation_steps=2, **HARD_CASE)
    AnteHocTrainer(model=model, args=args, train_dataset=data).train()
    own = {field.name: getattr(args, field.name) for field in fields(TrainingArguments) if field.init}
    stock_args = {**own, "output_dir": str(tmp_path / "stock"), "ddp_find_unused_parameters": None}
    Trainer(model=plain, args=TrainingArguments(**stock_args), train_dataset=data).train()
    state, expected = model.backbone.state_dict(), plain.network.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def train(tiny, folder, resume=None, **options):
    torch.manual_seed(1234 if resume else 4321)
    trainer = AnteHocTrainer(
        model=tiny.build_model(seed=5, points=POINTS, backbone_kwargs={"drop_path_rate": 0.2}),
        args=tiny.build_args(folder, **{"save_strategy": "steps", "save_steps": 3, "max_steps": 6, **options}),
        train_dataset=tiny.Images(22, augment=True, points=POINTS),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_resumed_to_the_bit(tiny, tmp_path):
    straight = train(tiny, tmp_path)
    resumed = train(tiny, tmp_path, resume=str(tmp_path / "checkpoint-3"), save_steps=100)
    expected = straight.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.model.state_dict().items())


def test_the_normalizer_reaches_the_metrics(tiny, tmp_path):
    """A batch of 3 and one of 2, and images all of whose points are known to one whose first are missing."""
    model = tiny.build_model(points=POINTS).eval()
    args = tiny.build_args(tmp_path, label_names=["labels", "normalizer"], per_device_eval_batch_size=3)
    data = tiny.Images(5, points=POINTS)
    said = AnteHocTrainer(model=model, args=args, compute_metrics=metrics).evaluate(data)
    errors = []
    for index in range(5):
        item = data[index]
        with torch.no_grad():
            found = model(item["pixel_values"][None]).landmarks[0]
        errors.append((found - item["labels"])[index % POINTS :].norm(dim=1).mean())
    assert said["eval_nme_interocular"] == pytest.approx(100 * float(torch.stack(errors).mean()), rel=1e-4)
    assert said["eval_nme_box"] == said["eval_nme_interocular"]


@pytest.mark.slow
def test_two_processes_train_as_one(tiny, tmp_path):
    def spec(name, batch_size, **more):
        return {
            "model": {"backbone": "test_nfnet", "points": POINTS},
            "awake": True,
            "data": {"length": 32, "points": POINTS},
            "args": {
                "output_dir": str(tmp_path / name),
                "per_device_train_batch_size": batch_size,
                "max_steps": 3,
                "optim": "sgd",
                "lr_scheduler_type": "constant",
                "max_grad_norm": 1e6,
            },
            "dump": str(tmp_path / f"{name}.pt"),
            **more,
        }

    path = tmp_path / "specs.json"
    path.write_text(json.dumps([spec("two", 4, processes=2)]))
    run_in_two_processes(tiny, path)
    tiny.run(spec("one", 8))
    two, one = torch.load(tmp_path / "two.pt"), torch.load(tmp_path / "one.pt")
    assert two["processes"] == 2
    assert two["agree"]
    for name, value in one["state"].items():
        assert torch.allclose(two["state"][name], value, atol=1e-6), name
