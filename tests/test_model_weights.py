"""Weights that are not the model's end every command with one sentence."""

import json
import os

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import ConvNextConfig, ConvNextForImageClassification, ConvNextImageProcessor

from antehoc_hf import AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.cli import main
from antehoc_hf.demo.models import load_demo_model
from antehoc_hf.model_cards.card import weights_digest


@pytest.fixture
def folder(tmp_path):
    model = AnteHocForImageClassification.from_backbone("test_resnet", num_labels=3, image_size=64)
    model.save_pretrained(tmp_path / "model")
    AnteHocImageProcessor.from_backbone("test_resnet", image_size=64).save_pretrained(tmp_path / "model")
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    photo.save(tmp_path / "photo.png")
    return tmp_path


def changed(folder, change):
    path = folder / "model" / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def commands(folder):
    model, out = str(folder / "model"), str(folder / "out")
    return [
        ["explain", str(folder / "photo.png"), "--model", model, "-o", out],
        ["evaluate", "--model", model, "--dataset_name", "shapes", "--output_dir", out],
        ["export", model, "--output", f"{out}.onnx"],
        ["regions", str(folder / "photo.png"), "--model", model, "-o", out],
    ]


def said(capsys, words):
    lines = [line for line in capsys.readouterr().err.splitlines() if words in line]
    assert len(lines) == 1
    assert "Traceback" not in lines[0]


CHANGES = {
    "few": (lambda weights: dict(list(weights.items())[:20]), "are not those of this model: 86 of 106 tensors"),
    "one lost": (lambda weights: dict(list(weights.items())[1:]), "are not those of this model: 1 of 106 tensors"),
    "all NaN": (
        lambda weights: {name: value * float("nan") for name, value in weights.items()},
        "hold NaN or infinity, such as",
    ),
    "one NaN": (
        lambda weights: {**weights, "backbone.fc.bias": torch.tensor([0.0, float("nan"), 0.0])},
        "1 of 106 tensors in",
    ),
    "one infinite": (
        lambda weights: {**weights, "backbone.fc.bias": torch.tensor([0.0, float("inf"), 0.0])},
        "1 of 106 tensors in",
    ),
    "an infinite statistic": (
        lambda weights: {**weights, "backbone.bn1.running_var": weights["backbone.bn1.running_var"] / 0},
        "1 of 106 tensors in",
    ),
    "integers": (
        lambda weights: {**weights, "backbone.fc.weight": (weights["backbone.fc.weight"] * 99).to(torch.int8)},
        "are stored as integers, such as backbone.fc.weight",
    ),
    "a negative variance": (
        lambda weights: {**weights, "backbone.bn1.running_var": -1 - weights["backbone.bn1.running_var"]},
        "predicts NaN or infinity",
    ),
    "an overflow": (
        lambda weights: {name: value * 1e30 if value.ndim == 4 else value for name, value in weights.items()},
        "predicts NaN or infinity",
    ),
    "another shape": (lambda weights: {**weights, "backbone.fc.bias": torch.zeros(7)}, "have another shape"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_command_refuses_them(folder, capsys, name):
    change, words = CHANGES[name]
    changed(folder, change)
    for command in (*commands(folder), ["push", str(folder / "model"), "--repo_id", "jane/model"]):
        assert main(command) == 2, command
        said(capsys, words)
    with pytest.raises(ValueError, match=words):
        load_demo_model(str(folder / "model"))


def test_integers_in_one_of_several_files(folder, capsys):
    model = AnteHocForImageClassification.from_pretrained(folder / "model")
    (folder / "model" / "model.safetensors").unlink()
    model.save_pretrained(folder / "model", max_shard_size="200KB")
    path = next(path for path in folder.glob("model/*.safetensors") if "backbone.fc.weight" in load_file(path))
    assert main(commands(folder)[0]) == 0
    weights = load_file(path)
    save_file({**weights, "backbone.fc.weight": (weights["backbone.fc.weight"] * 99).to(torch.int8)}, path)
    assert main([*commands(folder)[0], "--overwrite"]) == 2
    said(capsys, "are stored as integers, such as backbone.fc.weight")


def test_weights_that_are_not_those_measured_are_mentioned(folder, caplog):
    measured = {"training": {"weights_sha256": weights_digest(folder / "model")}}
    (folder / "model" / "results.json").write_text(json.dumps(measured))
    command = [*commands(folder)[0], "--overwrite"]
    assert main(command) == 0
    assert caplog.messages == []
    changed(folder, lambda weights: {**weights, "backbone.fc.bias": weights["backbone.fc.bias"] + 1})
    assert main(command) == 0
    assert "results.json was measured on other weights than those that lie there now" in caplog.text
    (folder / "model" / "results.json").write_text("[")
    assert main(command) == 0


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", "[1]", "config.json is damaged"),
        ("config.json", "[" * 100_000, "config.json is damaged"),
        ("config.json", '{"model_type": 3}', "cannot be loaded"),
        ("preprocessor_config.json", "[]", "preprocessor_config.json is missing or damaged"),
        ("preprocessor_config.json", "[" * 100_000, "preprocessor_config.json is missing or damaged"),
        ("model.safetensors.index.json", "[]", "its config.json or its weights are damaged"),
    ],
)
def test_damaged_files_end_every_command_with_one_sentence(folder, capsys, file, content, words):
    (folder / "model" / file).write_text(content)
    if "index" in file:
        (folder / "model" / "model.safetensors").unlink()
    for command in commands(folder):
        assert main(command) == 2, command
        said(capsys, "preprocessor_config.json is damaged" if words[:3] == "pre" and command[0] == "export" else words)


def test_models_of_others_as_well(tmp_path, folder, capsys):
    config = ConvNextConfig(num_stages=1, hidden_sizes=[8], depths=[1], num_labels=2, image_size=32)
    ConvNextForImageClassification(config).save_pretrained(folder / "model2")
    ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(folder / "model2")
    path = folder / "model2" / "model.safetensors"
    weights = load_file(path)
    save_file({name: value for name, value in weights.items() if "classifier" not in name}, path, {"format": "pt"})
    arguments = ["explain", str(folder / "photo.png"), "--model", str(folder / "model2"), "-o", str(folder / "out")]
    assert main([*arguments, "--explainers", "integrated-gradients"]) == 2
    said(capsys, "are not those of this model: 2 of")


@pytest.mark.parametrize("options", [[], ["--train_task", "false"]])
def test_a_training_does_not_start_from_them(tmp_path, capsys, options):
    network = timm.create_model("test_resnet", num_classes=2)
    save_file({key: value * float("nan") for key, value in network.state_dict().items()}, tmp_path / "w.safetensors")
    for kind in ("a", "b"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "pets" / kind / f"{number}.png")
    command = ["train", "--dataset_name", str(tmp_path / "pets"), "--backbone", "test_resnet", "--image_size", "64"]
    command += ["--pretrained_file", str(tmp_path / "w.safetensors"), "--output_dir", str(tmp_path / "out"), *options]
    assert main([*command, "--max_steps", "1", "--use_cpu"]) == 2
    said(capsys, "hold NaN or infinity, such as backbone.conv1.0.weight")


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("content", ["weights", "code"])
def test_pickles_are_not_loaded(folder, capsys, content):
    ran = folder / "ran"
    weights = load_file(folder / "model" / "model.safetensors")
    (folder / "model" / "model.safetensors").unlink()
    torch.save(weights if content == "weights" else Harmful(ran), folder / "model" / "pytorch_model.bin")
    for command in commands(folder):
        assert main(command) in (1, 2), command
        said(capsys, "are pickled (pytorch_model.bin), and a pickle can run any code")
    with pytest.raises(OSError, match="are pickled") as caught:
        AnteHocForImageClassification.from_pretrained(folder / "model")
    assert "weights_only" not in str(caught.value)
    assert not ran.exists()


def test_a_pickle_with_code_as_pretrained_weights(tmp_path):
    torch.save({"a": Harmful(tmp_path / "ran")}, tmp_path / "weights.pth")
    with pytest.raises(OSError, match="holds more than tensors") as caught:
        AnteHocForImageClassification.from_backbone("test_resnet", pretrained=str(tmp_path / "weights.pth"))
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
