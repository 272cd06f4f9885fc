"""Saved, and loaded in a process of its own by the Auto classes and a pipeline: the very same numbers."""

from pathlib import Path

import pytest
import torch
from client import Client
from PIL import Image

from antehoc_hf.baselines import BASELINES, CbahForImageClassification
from antehoc_hf.modeling import AnteHocImageProcessor

LOAD = """
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
results = []
for folder in folders:
    model, processor = (a.from_pretrained(folder) for a in (AutoModelForImageClassification, AutoImageProcessor))
    with torch.no_grad():
        outputs = model(torch.load(f"{folder}/pixels.pt"))
    labelled = pipeline("image-classification", model=folder)(Image.open(f"{folder}/photo.png"))
    outputs = {name: value for name, value in outputs.items()}
    size = processor(Image.open(f"{folder}/photo.png"), return_tensors="pt")["pixel_values"].shape
    results.append({"class": type(model).__name__, "outputs": outputs, "labels": labelled, "size": tuple(size)})
torch.save(results, results_file)
"""


def test_another_process_gives_the_same_numbers(tmp_path: Path, installed: Client) -> None:
    expected, folders = [], []
    # Blur kernels, in resnetblur, are buffers that no checkpoint holds.
    for name, backbone in (*((name, "test_resnet") for name in BASELINES), ("cbah", "resnetblur18")):
        torch.manual_seed(3)
        labels = {"id2label": {0: "cat", 1: "dog", 2: "cow"}, "label2id": {"cat": 0, "dog": 1, "cow": 2}}
        model = BASELINES[name].from_backbone(backbone, image_size=32, **labels).eval()
        folder = tmp_path / f"{name}-{backbone}"
        model.save_pretrained(folder)
        AnteHocImageProcessor.from_backbone(backbone, image_size=32).save_pretrained(folder)
        Image.new("RGB", (40, 50), (200, 30, 90)).save(folder / "photo.png")
        pixels = torch.randn(2, 3, 32, 32)
        torch.save(pixels, folder / "pixels.pt")
        with torch.no_grad():
            expected.append((type(model).__name__, dict(model(pixels))))
        folders.append(str(folder))
        assert [path.suffix for path in folder.glob("*.*") if path.suffix in (".bin", ".safetensors")] == [
            ".safetensors"
        ]
    output = tmp_path / "results.pt"
    done = installed.run(LOAD, folders=folders, results_file=str(output))
    assert done.error is None, done.error[2]
    for (name, outputs), found in zip(expected, torch.load(output), strict=True):
        assert found["class"] == name
        assert set(found["outputs"]) == set(outputs)
        for key, value in outputs.items():
            assert torch.equal(found["outputs"][key], value), (name, key)
        assert {entry["label"] for entry in found["labels"]} == {"cat", "dog", "cow"}
        assert found["size"] == (1, 3, 32, 32)


def test_a_checkpoint_without_the_concepts_starts_them_anew(tmp_path: Path) -> None:
    """A head of another size is made anew, and the backbone is kept."""
    model = BASELINES["cbah"].from_backbone("test_resnet", num_labels=3, image_size=32)
    model.save_pretrained(tmp_path)
    other = CbahForImageClassification.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert other.concept_classifier.weight.shape == (5, 10)
    assert torch.isfinite(other.concept_classifier.weight).all()
    assert torch.equal(other.backbone.conv1[0].weight, model.backbone.conv1[0].weight)


def test_pretrained_weights_are_taken_from_a_file(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = BASELINES["plain"].from_backbone("test_resnet", num_labels=7, image_size=32)
    path = tmp_path / "weights.safetensors"
    save_file(source.backbone.state_dict(), path)
    for name, model_class in BASELINES.items():
        model = model_class.from_backbone("test_resnet", pretrained=str(path), num_labels=3, image_size=32)
        assert torch.equal(model.backbone.conv1[0].weight, source.backbone.conv1[0].weight), name
    with pytest.raises(OSError, match="is not a file of weights"):
        model_class.from_backbone("test_resnet", pretrained=str(tmp_path / "none"), num_labels=3, image_size=32)
