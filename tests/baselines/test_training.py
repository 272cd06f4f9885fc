"""The baselines through `antehoc train` and `antehoc evaluate`: the same run as ours, without maps."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import AutoModelForImageClassification

from antehoc_hf.baselines import PlainForImageClassification, SennForImageClassification
from antehoc_hf.cli import main
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.runs.train import train
from antehoc_hf.training.trainer import AnteHocTrainer

OURS = ("--map_eval_samples", "0", "--panel_images", "0")


def flags(images: Path, folder: Path, model_type: str, *more: str) -> list[str]:
    return [
        "--model_type", model_type, "--dataset_name", str(images), "--backbone", "test_resnet", "--image_size", "64",
        "--output_dir", str(folder), "--num_train_epochs", "2", "--per_device_train_batch_size", "8",
        "--validation_fraction", "0.25", "--learning_rate", "0.01", "--use_cpu", "--report_to", "none",
        "--disable_tqdm", "true", "--logging_steps", "1", *more,
    ]  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_plain_network_trains_bit_for_bit_as_the_backbone_of_ours(colours: Path, tmp_path: Path) -> None:
    train(flags(colours, tmp_path / "ours", "antehoc", *OURS))
    results = train(flags(colours, tmp_path / "plain", "plain"))
    ours, plain = weights(tmp_path / "ours"), weights(tmp_path / "plain")
    assert set(plain) == {name for name in ours if not name.startswith("map_head.")}
    for name, value in plain.items():
        assert torch.equal(ours[name], value), name
    assert json.loads((tmp_path / "ours" / "results.json").read_text())["metrics"]["accuracy"] == pytest.approx(
        results["metrics"]["accuracy"]
    )


@pytest.mark.parametrize(
    ("model_type", "parts"),
    [
        ("senn", {"classification_loss", "reconstruction_loss", "sparsity_loss", "robustness_loss"}),
        ("cbah", {"classification_loss", "reconstruction_loss", "fidelity_loss"}),
        ("plain", set()),
    ],
)
def test_a_whole_run(
    model_type: str, parts: set[str], colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    results = train(flags(colours, folder, model_type))
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results, default=str))
    assert results["maps"] is None
    assert 0 <= results["metrics"]["accuracy"] <= 1
    assert ("concept_accuracy" in results["metrics"]) == (model_type == "cbah")
    assert {"loss", "images_per_second", *parts} == set(results["training"]["last_logged"])
    assert results["data"]["images"] == {"train": 18, "validation": 6, "test": 12}
    assert "taps" not in results["model"]
    assert not (folder / "panels").exists()
    assert not (folder / "predictions.png").exists()
    model = AutoModelForImageClassification.from_pretrained(folder)
    assert model.config.id2label == {0: "blue", 1: "green", 2: "red"}
    message = ["evaluate", str(folder), "--dataset_name", str(colours), "--output_dir", str(tmp_path / "evaluated")]
    capsys.readouterr()
    assert main(message) == 0, capsys.readouterr().err
    assert main([*message, "--overwrite", "--mask_column", "mask"]) == 2
    assert f"which a model of type {model_type} does not have" in capsys.readouterr().err
    evaluated = json.loads((tmp_path / "evaluated" / "results.json").read_text())
    assert evaluated["metrics"]["accuracy"] == results["metrics"]["accuracy"]
    assert evaluated["maps"] is None


def test_one_recipe_serves_ours_and_the_baselines(colours: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text(
        "num_attention_maps: 3\ntaps: [layer3]\ninterpretation_batch_share: 0.25\nmask_column: mask\n"
        "model_options: {preset: released_code, num_concepts: 4}\n"
    )
    results = train(
        flags(colours, tmp_path / "run", "cbah", "--recipe", str(recipe), "--max_steps", "1", "--eval_strategy", "no")
    )
    config = AutoModelForImageClassification.from_pretrained(tmp_path / "run").config
    assert (config.num_concepts, config.fidelity, config.fidelity_weight) == (4, "authors_code", 1e-4)
    assert "num_attention_maps" not in results["settings"]
    assert results["settings"]["model_type"] == "cbah"


@pytest.mark.parametrize("model_type", ["senn", "cbah"])
def test_a_resumed_run_is_the_uninterrupted_one(model_type: str, colours: Path, tmp_path: Path) -> None:
    steps = ("--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "5", "--max_steps", "5")
    train(flags(colours, tmp_path / "whole", model_type, *steps))
    torn = flags(colours, tmp_path / "torn", model_type, *steps)
    train(torn)
    for name in ("checkpoint-4", "checkpoint-5"):
        shutil.rmtree(tmp_path / "torn" / name)
    os.remove(tmp_path / "torn" / "model.safetensors")
    train([*torn, "--resume_from_checkpoint", "true"])
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "torn")
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


def test_a_folder_of_another_kind_of_model_is_refused(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *flags(colours, tmp_path / "run", "plain", "--max_steps", "1")]) == 0
    assert main(["train", *flags(colours, tmp_path / "run", "cbah", "--max_steps", "1")]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "holds another run" in message
    assert "CbahForImageClassification" in message


@pytest.mark.parametrize(
    ("model_type", "more", "message"),
    [
        ("plain", ["--interpretation_batch_share", "0.5"], "interpretation_batch_share is about maps or the second"),
        ("senn", ["--reconstruction_weight", "1"], "reconstruction_weight is about maps or the second pass"),
        ("senn", ["--num_attention_maps", "3"], "num_attention_maps is about maps"),
        ("cbah", ["--map_eval_samples", "3"], "which a model of type cbah does not have: leave it out."),
        ("cbah", ["--task", "landmark-detection"], "an image classifier, and this run's task is landmark-detection"),
        ("cbah", ["--label_smoothing_factor", "0.1"], "label_smoothing_factor replaces the loss of --model_type cbah"),
        ("senn", ["--torch_compile", "true"], "torch_compile does not go with --model_type senn"),
        ("antehoc", ["--model_options", '{"num_concepts": 3}'], "model_options has no 'num_concepts'"),
        ("senn", ["--model_options", '{"image_size": 32}'], "must not hold 'image_size', which is an option"),
        ("senn", ["--model_options", '{"num_concept": 3}'], "did you mean 'num_concepts'"),
        ("cbah", ["--image_size", "62"], "multiples of 4 and at least 16: take for example [64, 64]"),
        ("senm", [], "--model_type: invalid choice"),
    ],
)
def test_mistakes_end_in_one_sentence(
    model_type: str, more: list[str], message: str, colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *flags(colours, tmp_path / "run", model_type, *more)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert error.startswith("antehoc train: ")
    assert not (tmp_path / "run").exists()


class _Noise(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {"pixel_values": torch.randn(3, 32, 32, generator=generator), "labels": index % 3}


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    """Of the penalty as of all else: exact, for random signs differ from pass to pass; without batch statistics."""
    learned = []
    for size, accumulation in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        model = SennForImageClassification.from_backbone(
            "test_resnet", num_labels=3, image_size=32, num_concepts=4, relevance_dropout=0.0, robustness="exact",
            robustness_weight=1.0,
        ).double()  # fmt: skip
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.track_running_stats, module.momentum = True, 0.0
                module.forward = module.eval().forward  # type: ignore[method-assign]
                module.train = lambda mode=True, module=module: module  # type: ignore[method-assign,misc]
        args = AnteHocTrainingArguments(
            output_dir=str(tmp_path / str(size)), per_device_train_batch_size=size, max_steps=1, optim="sgd",
            gradient_accumulation_steps=accumulation, learning_rate=0.1, max_grad_norm=0.0, report_to="none",
            disable_tqdm=True, use_cpu=True, save_strategy="no", lr_scheduler_type="constant",
        )  # fmt: skip
        data = _Noise()
        AnteHocTrainer(model, args, train_dataset=data, data_collator=_doubled).train()
        learned.append(model.state_dict())
    for name, value in learned[0].items():
        torch.testing.assert_close(learned[1][name], value, rtol=1e-9, atol=1e-11, msg=name)


def _doubled(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]).double(),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def test_the_trainer_of_one_pass_is_the_stock_trainer(tmp_path: Path) -> None:
    from transformers import Trainer

    learned = []
    for trainer_class in (AnteHocTrainer, Trainer):
        torch.manual_seed(0)
        model = PlainForImageClassification.from_backbone("test_resnet", num_labels=3, image_size=32)
        args = AnteHocTrainingArguments(
            output_dir=str(tmp_path / trainer_class.__name__), per_device_train_batch_size=3, max_steps=4,
            report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no", gradient_accumulation_steps=2,
        )  # fmt: skip
        trainer_class(model=model, args=args, train_dataset=_Noise()).train()  # type: ignore[operator]
        learned.append(model.state_dict())
    for name, value in learned[0].items():
        assert torch.equal(learned[1][name], value), name


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["plain", "senn", "cbah"])
def test_two_epochs_of_shapes(model_type: str, tmp_path: Path) -> None:
    options = '{"image_size": 64, "train": 256, "validation": 32, "test": 64, "seed": 0}'
    more = ("--dataset_name", "shapes", "--dataset_options", options, "--per_device_train_batch_size", "32")
    results = train(flags(tmp_path, tmp_path / "run", model_type, *more))
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert sum(losses[-4:]) < sum(losses[:4])
    assert results["evaluated_images"] == 64
