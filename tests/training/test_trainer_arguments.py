"""Arguments and set-ups that cannot work end at once in one sentence."""

import dataclasses

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import HfArgumentParser, TrainingArguments

from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.card import describe_training
from antehoc_hf.training.objectives import CoalitionObjective, EnergyObjective
from antehoc_hf.training.objectives.coalitions import CoalitionOptions
from antehoc_hf.training.objectives.energy import EnergyOptions
from antehoc_hf.training.options import flags_of
from antehoc_hf.training.trainer import AnteHocTrainer


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"interpretation_learning_rate": 0.0}, "interpretation_learning_rate must be a number above 0, not 0.0"),
        ({"interpretation_learning_rate": float("nan")}, "must be a number above 0, not nan"),
        ({"interpretation_weight_decay": -1.0}, "interpretation_weight_decay must be a number of at least 0"),
        ({"interpretation_max_grad_norm": -1.0}, "interpretation_max_grad_norm must be a number of at least 0"),
        ({"interpretation_batch_share": 0.0}, r"must be a number in \(0, 1\], not 0.0"),
        ({"interpretation_batch_share": 1.5}, r"must be a number in \(0, 1\], not 1.5"),
        ({"interpretation_interval": 0}, "whole number of at least 1, not 0"),
        ({"update_order": "both"}, "update_order='both' is not one of 'simultaneous', 'sequential'"),
        ({"update_order": "sequential", "fp16": True}, "use bf16 or update_order='simultaneous'"),
        ({"ddp_find_unused_parameters": False}, "would stop distributed training: leave it out"),
        ({"ddp_static_graph": True}, "does not fit two passes a step"),
        ({"deepspeed": "zero2.json"}, "use DDP or FSDP2 instead"),
        ({"learning_rate": -1.0}, "learning_rate must be a number of at least 0, not -1.0"),
        ({"learning_rate": float("inf")}, "learning_rate must be a number of at least 0, not inf"),
        ({"weight_decay": -0.1}, "weight_decay must be a number of at least 0"),
        ({"num_train_epochs": 0}, "num_train_epochs must be a number above 0, not 0"),
        ({"max_steps": 0}, "max_steps must be -1, for as many as the epochs have, or a whole number of at least 1"),
        ({"max_steps": -5}, "max_steps must be -1"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size must be a whole number of at least 1"),
        ({"per_device_eval_batch_size": -4}, "per_device_eval_batch_size must be a whole number of at least 1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be a whole number of at least 1"),
        ({"adam_beta1": 1.0}, r"adam_beta1 must be a number in \[0, 1\), not 1.0"),
        ({"label_smoothing_factor": 2.0}, r"label_smoothing_factor must be a number in \[0, 1\]"),
        ({"seed": -1}, r"seed must be a whole number in \[0, 4294967296\), not -1"),
        ({"dataloader_num_workers": -1}, "dataloader_num_workers must be a whole number of at least 0"),
        ({"eval_steps": 0}, "eval_steps must be a number above 0, not 0"),
        ({"debug": "underflow"}, "debug='underflow' is not one of underflow_overflow, tpu_metrics_debug"),
        ({"optim": "lomo"}, "optim='lomo' updates the parameters during the backward pass"),
    ],
)
def test_senseless_arguments_are_refused(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        AnteHocTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_defaults_are_the_stock_ones_and_the_papers(tmp_path):
    args = AnteHocTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    stock = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    differing = {name for name, value in stock.to_dict().items() if args.to_dict()[name] != value}
    assert differing <= {"ddp_find_unused_parameters", "logging_dir"}
    assert args.ddp_find_unused_parameters is True
    assert EnergyOptions() == EnergyOptions(target="probabilities", joint_weight=0.0, batch_norm="eval")


def test_the_command_line_knows_every_argument():
    parser = HfArgumentParser(AnteHocTrainingArguments)
    options = ["--output_dir", "x", "--use_cpu", "--interpretation_start", "0.5", "--overwrite_run"]
    (args,) = parser.parse_args_into_dataclasses([*options, "--update_order", "sequential"])
    assert (args.interpretation_start, args.update_order, args.overwrite_run) == (0.5, "sequential", True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"joint_weight": float("inf")}, "joint_weight must be a number of at least 0, not inf"),
        ({"reconstruction_weight": -0.1}, "reconstruction_weight must be"),
        ({"area_weight": -0.1}, "area_weight must be"),
        ({"tv_weight": -0.1}, "tv_weight must be"),
        ({"entropy_weight": float("nan")}, "entropy_weight must be"),
        ({"target": "logit"}, "target='logit' is not one of 'probabilities', 'logits', 'kl'"),
        ({"batch_norm": "train"}, "is not one of 'eval', 'batch', 'update'"),
        ({"tv_wieght": 1.0}, "EnergyOptions has no option 'tv_wieght': did you mean 'tv_weight'"),
    ],
)
def test_senseless_options_of_the_energy_objective_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        EnergyObjective(**options)


def test_options_are_an_object_or_keywords_or_both():
    options = EnergyOptions(area_weight=0.5)
    assert EnergyObjective(options).options is not None
    assert EnergyObjective(options, tv_weight=0.1).options == EnergyOptions(area_weight=0.5, tv_weight=0.1)
    assert EnergyObjective(tv_weight=0.1).options == EnergyOptions(tv_weight=0.1)
    with pytest.raises(ValueError, match="options must be EnergyOptions, not CoalitionOptions"):
        EnergyObjective(CoalitionOptions())


@pytest.mark.parametrize(
    ("options", "args", "sentence"),
    [
        ({"joint_weight": 1.0}, {"update_order": "sequential"}, "use update_order='simultaneous' with it"),
        ({"joint_weight": 1.0}, {"train_task": False}, r"EnergyObjective\(joint_weight=1.0\) trains them"),
        ({"batch_norm": "update"}, {"train_task": False}, "batch_norm='update' changes its statistics"),
    ],
)
def test_objective_and_arguments_must_fit(tiny, tmp_path, options, args, sentence):
    with pytest.raises(ValueError, match=sentence):
        AnteHocTrainer(tiny.build_model(), tiny.build_args(tmp_path, **args), objective=EnergyObjective(**options))


def test_a_model_without_a_map_head_has_no_objective(tiny, tmp_path):
    assert AnteHocTrainer(model=nn.Linear(2, 2), args=tiny.build_args(tmp_path)).objective is None
    with pytest.raises(ValueError, match="Linear has no map head that an objective could teach"):
        AnteHocTrainer(model=nn.Linear(2, 2), args=tiny.build_args(tmp_path), objective="energy")
    with pytest.raises(ValueError, match="belong to a training with an objective"):
        AnteHocTrainer(model=nn.Linear(2, 2), args=tiny.build_args(tmp_path, train_task=False))


def test_a_new_head_is_announced_and_not_explained_before_it_is_trained(tiny, tmp_path, caplog):
    save_file(timm.create_model("test_resnet", num_classes=7).state_dict(), tmp_path / "seven.safetensors")
    weights = str(tmp_path / "seven.safetensors")
    model = tiny.build_model(map_head="contributions", num_labels=10, pretrained=weights)
    assert "have 7 classes, and the model has 10: its classifier is new and random" in caplog.text
    with pytest.raises(ValueError, match="train_task=False would explain a classifier of random values"):
        tiny.build_trainer(model, tmp_path / "run", train_task=False)
    tiny.build_trainer(model, tmp_path / "run", tiny.Images(4), max_steps=1).train()
    tiny.build_trainer(model, tmp_path / "other", train_task=False)  # the head has been trained since


@pytest.mark.parametrize("map_head", ["contributions", "energy"])
def test_a_map_learns_from_images_without_labels(tiny, tmp_path, map_head):
    images = [{"pixel_values": tiny.Images()[index]["pixel_values"]} for index in range(8)]
    trainer = tiny.build_trainer(tiny.build_model(map_head=map_head), tmp_path, images, max_steps=2, train_task=False)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("map_head") for name in changed)
    steps = [entry for entry in trainer.state.log_history if "interpretation_loss" in entry]
    assert len(steps) == 2
    assert not any({"loss", "grad_norm", "learning_rate"} & entry.keys() for entry in steps)


def test_stock_arguments_are_refused(tiny, tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ValueError, match="args must be AnteHocTrainingArguments, not TrainingArguments"):
        AnteHocTrainer(model=tiny.build_model(), args=args)


def test_a_frozen_backbone_is_refused(tiny, tmp_path):
    model = tiny.build_model()
    model.backbone.requires_grad_(False)
    with pytest.raises(ValueError, match="set train_task=False"):
        AnteHocTrainer(model=model, args=tiny.build_args(tmp_path))


def test_a_divergence_of_plain_numbers_is_refused(tiny, tmp_path):
    model = tiny.build_model(problem_type="regression")
    with pytest.raises(ValueError, match="this model predicts plain numbers"):
        AnteHocTrainer(model=model, args=tiny.build_args(tmp_path), objective=EnergyObjective(target="kl"))


def test_an_optimizer_without_the_weight_network_is_refused(tiny, tmp_path):
    model = tiny.build_model()
    trainer = AnteHocTrainer(
        model=model,
        args=tiny.build_args(tmp_path),
        train_dataset=tiny.Images(8),
        optimizers=(torch.optim.SGD(model.backbone.parameters(), lr=0.1), None),
    )
    with pytest.raises(ValueError, match=r"does not hold the map head's parameters"):
        trainer.train()


def test_an_optimizer_of_ones_own_trains_both(tiny, tmp_path):
    model = tiny.build_model()
    before = {name: p.clone() for name, p in model.named_parameters()}
    trainer = AnteHocTrainer(
        model=model,
        args=tiny.build_args(tmp_path),
        train_dataset=tiny.Images(8),
        optimizers=(torch.optim.Adam(model.parameters(), lr=0.01), None),
    )
    trainer.train()
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("objective", [EnergyObjective(), CoalitionObjective()], ids=["energy", "coalitions"])
def test_every_option_is_on_the_card(tmp_path, objective):
    stock = {field.name for field in dataclasses.fields(TrainingArguments)}
    own = {field.name for field in dataclasses.fields(AnteHocTrainingArguments)} - stock - {"overwrite_run"}
    args = AnteHocTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    # What is off by default is left out; here all that may be on is.
    args.train_task, args.partial_image_share, args.interpretation_start = False, 0.5, 0.25
    described = describe_training(args, objective)
    flags = set(flags_of(objective.options_class).values())
    assert own | flags <= {*described["passes"]["task"], *described["passes"]["interpretation"]}
    assert described["objective"]["name"] == objective.name
