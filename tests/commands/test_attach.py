"""`antehoc attach`: a finished classifier gets a map from unlabelled images, and predicts what it did."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForImageClassification

from antehoc_hf import attach
from antehoc_hf.attaching import AttachOptions
from antehoc_hf.attaching.images import load_pictures
from antehoc_hf.attaching.verdict import METRIC, judge
from antehoc_hf.cli import main
from antehoc_hf.evaluation.bootstrap import Estimate
from antehoc_hf.evaluation.results import MapReport, MapRow
from antehoc_hf.training.attach import FitOptions


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A file of weights and a folder of nested photos."""
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "net.safetensors")
    draw = np.random.default_rng(0)
    for index in range(40):
        folder = tmp_path / "photos" / str(index % 3)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path


def _command(place: Path, *more: str) -> list[str]:
    known = ["--backbone", "test_resnet", "--image_size", "64"]
    images = ["--images", str(place / "photos"), "-o", str(place / "out")]
    return ["attach", str(place / "net.safetensors"), *images, *known, "--pairs", "2", *more]


NORMALISED = ("--image_mean", "0.5", "0.5", "0.5", "--image_std", "0.5", "0.5", "0.5")


def test_a_file_of_weights_explains_itself(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = place / "names.txt"
    names.write_text("ant\nbee\ncow\n")
    assert main(_command(place, *NORMALISED, "--class_names", str(names))) == 0
    assert "The network's predictions are the same to the bit." in capsys.readouterr().out
    model = AutoModelForImageClassification.from_pretrained(place / "out").eval()
    assert list(model.config.id2label.values()) == ["ant", "bee", "cow"]
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        outputs = model(pixels)
        assert torch.equal(outputs.logits, network(pixels))
    assert outputs.interpretation_map.shape == (2, 1, 64, 64)
    assert {"README.md", "results.json", "predictions.png"} <= {path.name for path in (place / "out").iterdir()}
    assert len(list((place / "out").glob("*.py"))) <= 16


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_network_of_labels_that_exclude_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], outputs: int
) -> None:
    save_file(timm.create_model("test_resnet", num_classes=outputs).state_dict(), place / "net.safetensors")
    if outputs == 1:
        assert main(_command(place, *NORMALISED)) == 2
        assert (
            "net.safetensors predicts numbers, as far as it says, and attach explains classes"
            in capsys.readouterr().err
        )
        assert not (place / "out").exists()
    assert main(_command(place, *NORMALISED, "--problem_type", "multi_label_classification")) == 0
    assert f"test_resnet, {outputs} class" in capsys.readouterr().out
    found = json.loads((place / "out" / "results.json").read_text())
    # Each label's own probability, whatever the others have: one output alone would have 1 everywhere by softmax.
    rows = {row["name"]: row["scores"]["insertion_minus_deletion"]["value"] for row in found["maps"]["rows"]}
    assert rows["antehoc"] != 0
    model = AutoModelForImageClassification.from_pretrained(place / "out").eval()
    assert model.config.problem_type == "multi_label_classification"
    assert (place / "out" / "predictions.png").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ((), "does not say how its images are prepared: give image_mean and image_std"),
        ((*NORMALISED, "--images", "nowhere"), "nowhere"),
        (
            (*NORMALISED, "--images", "{}/empty"),
            "There is no image and no table in '{}/empty' that can be read (it is empty)",
        ),
        ((*NORMALISED, "--images", "{}/few"), "There are 3 images in {}/few: a map needs at least 40"),
        ((*NORMALISED, "--images", "{}/broken"), "None of the 3 images in {}/broken can be read; the first: "),
        ((*NORMALISED, "--backbone", "resnet18"), "do not fit 'resnet18'"),
        ((*NORMALISED, "--class_names", "{}/names.txt"), "line 2 of {}/names.txt is empty"),
        ((*NORMALISED, "--seed", "-1"), "must be at least 0"),
        ((*NORMALISED, "--split", "left"), "'left' is not a folder of images in {}/photos: there are '0', '1', '2'"),
        ((*NORMALISED, "--images", "{}/few", "--split", "left"), "in {}/few: it holds no folders of images"),
        ((*NORMALISED, "--backbone", "test_resnett"), "Did you mean test_resnet"),
    ],
)
def test_mistakes(place: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], sentence: str) -> None:
    (place / "names.txt").write_text("ant\n\ncow\n")
    for name in ("empty", "few", "broken"):
        (place / name).mkdir()
    for number in range(3):
        Image.new("RGB", (48, 48)).save(place / "few" / f"{number}.png")
        (place / "broken" / f"{number}.png").write_bytes(b"no image")
    assert main(_command(place, *(word.replace("{}", str(place)) for word in more))) == 2
    said = capsys.readouterr().err
    assert sentence.replace("{}", str(place)) in said
    assert "Traceback" not in said
    assert not (place / "out").exists()


def _noise() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(3, 64, 64, generator=draw) for _ in range(48)]


def test_fitting_choosing_and_judging_are_done_on_different_images() -> None:
    pictures = load_pictures(_noise(), None, held_out=9, choosing=True)
    parts = [[row["pixel_values"] for row in part] for part in (pictures.fitted, pictures.held_out, pictures.choosing)]
    assert [len(part) for part in parts] == [30, 9, 9]
    assert len({float(pixels.sum()) for part in parts for pixels in part}) == 48


@pytest.mark.slow
def test_the_best_of_several_maps_is_kept_and_judged_elsewhere(place: Path) -> None:
    options = AttachOptions(until="good", rounds=2, held_out=8, progress=False, fit=FitOptions(pairs=1))
    known = {"backbone": "test_resnet", "image_size": 64, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    done = attach(place / "net.safetensors", _noise(), options=options, **known)
    assert done.results["data"]["images"] == {"fitted": 32, "chosen on": 8, "held out": 8}
    assert done.results["rounds"][0]["pairs"] == 1
    best = max(done.results["rounds"], key=lambda one: one["score"])
    assert done.results["fit"]["seconds"] == best["seconds"]
    assert done.results["evaluated_images"] == 8


@pytest.mark.parametrize(
    ("ours", "rival", "control", "trust", "words"),
    [
        (0.4, 0.3, 0.1, "more", "The map may be trusted more than Grad-CAM"),
        (0.3, 0.4, 0.1, "less", "The map may be trusted less than Grad-CAM"),
        (0.1, 0.1, 0.2, "nothing", "The map is not to be trusted"),
        (2e-5, 1e-5, 0.0, "nothing", "These maps explain nothing: on 9 images that it had not seen hardly anything"),
    ],
)
def test_whether_a_map_may_be_trusted(ours: float, rival: float, control: float, trust: str, words: str) -> None:
    def row(name: str, kind: str, value: float) -> MapRow:
        behind = ours - value
        scores, paired = Estimate(value, value, value, 9), Estimate(behind, behind, behind, 9)
        return MapRow(name, kind, {METRIC: scores}, behind_first={METRIC: paired})

    rows = [row("antehoc", "model", ours), row("grad-cam", "explainer", rival), row("center", "control", control)]
    found = judge(MapReport(9, 9, 0, rows, {}, {}))
    assert found.trust == trust
    assert found.sentence.startswith(words)
