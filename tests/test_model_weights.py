"""Weights that are not the model's end every command with one sentence."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from antehoc_hf import AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.cli import main
from antehoc_hf.demo.models import load_demo_model
from antehoc_hf.model_cards.card import weights_digest
from antehoc_hf.model_cards.travel import FolderError, travelling_files
from antehoc_hf.sources import read_classifier


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


def test_networks_of_others_that_predict_nan(folder, capsys):
    """Finite weights with a variance below zero: "LABEL_0 nan %"."""
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    network = ResNetForImageClassification(config).eval()
    network.resnet.embedder.embedder.normalization.running_var.fill_(-1)
    network.save_pretrained(folder / "model2")
    ConvNextImageProcessor(size={"shortest_edge": 64}).save_pretrained(folder / "model2")
    command = ["explain", str(folder / "photo.png"), "--model", str(folder / "model2"), "-o", str(folder / "out")]
    assert main([*command, "--explainers", "grad-cam"]) == 2
    said(capsys, "predicts NaN or infinity")
    for source in (network, str(folder / "model2")):
        with pytest.raises(ValueError, match="predicts NaN or infinity"):
            read_classifier(source).model(image_size=64, image_mean=[0.5] * 3, image_std=[0.5] * 3)


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


def led_out(folder, how):
    """The model's weights, or another of its files, taken out of its folder, which still names them."""
    model, kept = folder / "model", folder / "kept"
    kept.mkdir()
    if how.startswith("link "):
        file = how.removeprefix("link ")
        (model / file).rename(kept / file)
        (model / file).symlink_to(kept / file)
        return
    (model / "model.safetensors").rename(kept / "x.safetensors")
    (model / "by-link").symlink_to(kept)
    place = {"upwards": "../kept", "absolute": str(kept), "by a linked folder": "by-link"}[how] + "/x.safetensors"
    weight_map = dict.fromkeys(load_file(kept / "x.safetensors"), place)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "how", ["upwards", "absolute", "by a linked folder", "link model.safetensors", "link config.json"]
)
def test_no_file_of_a_model_leads_out_of_its_folder(folder, capsys, how):
    led_out(folder, how)
    with pytest.raises(OSError, match=r"leads out of it, to .*kept"):
        AnteHocForImageClassification.from_pretrained(folder / "model")
    for command in commands(folder):
        assert main(command) in (1, 2), command
        said(capsys, "leads out of it, to ")
    with pytest.raises(FolderError, match=r"lacks its weights|leads out"):
        travelling_files(folder / "model")


def test_a_card_that_is_a_link_is_not_pushed(folder):
    (folder / "secret").write_text("do not publish")
    (folder / "model" / "README.md").symlink_to(folder / "secret")
    with pytest.raises(FolderError, match=r"README.md in .* leads out of it"):
        travelling_files(folder / "model")


def test_models_of_others_that_name_weights_elsewhere(folder, capsys):
    network = TimmWrapperForImageClassification(TimmWrapperConfig(architecture="test_resnet", num_labels=3))
    network.save_pretrained(folder / "model2")
    torch.save(network.timm_model.state_dict(), folder / "secret.pth")
    config = json.loads((folder / "model2" / "config.json").read_text())
    config["model_args"] = {"checkpoint_path": str(folder / "secret.pth")}
    (folder / "model2" / "config.json").write_text(json.dumps(config))
    assert (
        main(["explain", str(folder / "photo.png"), "--model", str(folder / "model2"), "-o", str(folder / "o")]) == 2
    )
    said(capsys, "names weights elsewhere (model_args: checkpoint_path)")


def test_a_repository_in_the_cache_of_the_hub_is_one_folder(folder):
    """There every file is a link to a blob."""
    snapshot, blobs = folder / "models--a--b" / "snapshots" / "0123", folder / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate((folder / "model").iterdir()):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    (folder / "by-link").symlink_to(snapshot)
    for place in (snapshot, folder / "by-link"):
        AnteHocForImageClassification.from_pretrained(place)
        assert "model.safetensors" in travelling_files(place)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(folder / "photo.png")
    with pytest.raises(OSError, match=r"config.json in .* leads out of it"):
        AnteHocForImageClassification.from_pretrained(snapshot)


def test_a_download_may_link_to_the_cache_of_the_hub(folder):
    weights, blobs = folder / "model" / "model.safetensors", Path(HF_HUB_CACHE) / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    try:
        weights.rename(blobs / "0123")
        weights.symlink_to(blobs / "0123")
        AnteHocForImageClassification.from_pretrained(folder / "model")
    finally:
        shutil.rmtree(blobs.parent)
