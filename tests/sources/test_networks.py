"""Networks in memory: the model around one predicts what it does, to the bit, wherever it is loaded again."""

from pathlib import Path
from typing import Any

import networks
import pytest
import timm
import torch
import torchvision
import transformers
from client import Client
from torch import nn

from antehoc_hf import AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.sources import read_classifier
from antehoc_hf.training.attach import FitOptions, fit_map

LOAD = """
from transformers import AutoModelForImageClassification
found = {}
for name in names:
    model = AutoModelForImageClassification.from_pretrained(f"{folder}/{name}", trust_remote_code=remote).eval()
    with torch.no_grad():
        output = model(torch.load(f"{folder}/{name}.pt"))
    found[name] = {"logits": output.logits, "map": output.interpretation_map}
torch.save(found, results_file)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Each network's logits, and a folder with the models around them, fitted where that is so, and the images."""
    folder, expected = tmp_path_factory.mktemp("models"), {}
    for name in networks.NAMES:
        made = networks.network(name)
        pixels = networks.pixels_for(name)
        size = pixels.shape[-1]
        options: dict[str, Any] = {**networks.NORMALISATION, "image_size": size}
        if name in networks.CLOSED_FORM:
            options["map_head"] = {"kind": "contributions", "closed_form": True}
        model = AnteHocForImageClassification.from_classifier(made, **options)
        if name in networks.CLOSED_FORM:
            images = [networks.image_of_noise(size, index) for index in range(20)]
            fit_map(model, images, FitOptions(pairs=1, batch_size=8, precision="float32", progress=False))
        with torch.no_grad():
            output = model(pixels)
        state = {key.removeprefix("network."): value for key, value in model.backbone.state_dict().items()}
        assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items()), name
        assert not any(module.training for module in model.modules()), name
        expected[name] = networks.logits_of(made, pixels), output.logits, output.interpretation_map
        model.save_pretrained(folder / name)
        torch.save(pixels, folder / f"{name}.pt")
    return folder, expected


@pytest.mark.parametrize("name", networks.NAMES)
def test_the_model_predicts_what_the_network_does(saved: Any, name: str) -> None:
    source, ours, map_ = saved[1][name]
    assert torch.equal(source, ours)
    assert map_.shape[1:] == (1, *networks.pixels_for(name).shape[-2:])
    assert map_.flatten(1).std(dim=1).min() > 0


@pytest.mark.parametrize("where", ["installed", "stranger"])
def test_it_does_so_in_another_process_with_and_without_this_project(
    saved: Any, where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder, expected = saved
    names, results = networks.NAMES if where == "installed" else networks.NAMES[::3], tmp_path / "results.pt"
    client: Client = request.getfixturevalue(where)
    remote = where == "stranger"
    done = client.run(LOAD, folder=str(folder), names=list(names), remote=remote, results_file=str(results))
    assert done.error is None, done.error[2]
    found = torch.load(results)
    for name in names:
        assert torch.equal(found[name]["logits"], expected[name][0]), name
        assert torch.equal(found[name]["map"], expected[name][2]), name


def test_a_folder_holds_at_most_sixteen_files_of_code(saved: Any) -> None:
    AnteHocImageProcessor(**networks.NORMALISATION).save_pretrained(saved[0] / "test_resnet")
    assert len(list((saved[0] / "test_resnet").glob("*.py"))) <= 16


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_are_looked_into(wrap: Any) -> None:
    made = networks.network("test_resnet")
    model = AnteHocForImageClassification.from_classifier(wrap(made))
    pixels = networks.pixels_for("test_resnet")
    assert torch.equal(networks.logits_of(made, pixels), networks.logits_of(model, pixels))


def test_the_network_stays_as_it_was() -> None:
    made = networks.network("test_resnet").train()
    made.bn1.eval()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    model = AnteHocForImageClassification.from_classifier(made)
    assert made.training
    assert not made.bn1.training
    with torch.no_grad():
        model.backbone.conv1[0].weight.zero_()
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


def test_eager_attention_stays_eager() -> None:
    config = transformers.ViTConfig(**networks.TRANSFORMERS["ViT"], num_labels=5, attn_implementation="eager")
    made = transformers.ViTForImageClassification(config).eval()
    model = AnteHocForImageClassification.from_classifier(made, **networks.NORMALISATION)
    pixels = networks.pixels_for("ViT")
    assert torch.equal(networks.logits_of(made, pixels), networks.logits_of(model, pixels))


def test_a_classifier_in_a_timm_wrapper() -> None:
    values = {
        "architecture": "test_resnet",
        "num_classes": 5,
        "label_names": networks.CLASSES,
        "pretrained_cfg": {"mean": [0.4] * 3, "std": [0.2] * 3, "input_size": [3, 96, 96], "classifier": "fc"},
    }
    made = transformers.TimmWrapperForImageClassification(transformers.TimmWrapperConfig.from_dict(values)).eval()
    model = AnteHocForImageClassification.from_classifier(made)
    pixels = torch.randn(2, 3, 96, 96)
    assert torch.equal(networks.logits_of(made, pixels), networks.logits_of(model, pixels))
    assert list(model.config.id2label.values()) == networks.CLASSES
    assert model.config.image_mean == [0.4] * 3
    assert model.config.image_size == [96, 96]


def test_names_and_size_of_a_network_of_transformers() -> None:
    found = read_classifier(networks.network("ViT"))
    assert found.names == networks.CLASSES
    assert found.preprocessing.image_size == [64, 64]
    assert found.preprocessing.image_mean is None


def test_a_network_made_with_unknown_options_is_refused_until_they_are_given() -> None:
    torch.manual_seed(0)
    made = timm.create_model("test_resnet", num_classes=7, output_stride=16).eval()
    with pytest.raises(ValueError, match=r"predicts something else: .* Give them as backbone_kwargs"):
        AnteHocForImageClassification.from_classifier(made)
    model = AnteHocForImageClassification.from_classifier(made, backbone_kwargs={"output_stride": 16})
    pixels = networks.pixels_for("test_resnet")
    assert torch.equal(networks.logits_of(made, pixels), networks.logits_of(model, pixels))


class _Home(nn.Module):
    """A network that somebody wrote, with the layers of timm's."""

    def __init__(self) -> None:
        super().__init__()
        self.body = networks.network("test_resnet")

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.body(pixels)


def test_a_network_with_the_weights_of_timms_is_one_when_it_is_named() -> None:
    known = {**networks.NORMALISATION, "image_size": 160}
    model = AnteHocForImageClassification.from_classifier(_Home(), backbone="test_resnet", **known)
    pixels = networks.pixels_for("test_resnet")
    assert torch.equal(networks.logits_of(_Home(), pixels), networks.logits_of(model, pixels))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(3, 3, 3)),
            "Sequential is not a network of timm, torchvision or transformers",
        ),
        (lambda: torchvision.models.squeezenet1_0(num_classes=5), "has no linear classifier"),
        (
            lambda: transformers.ViTModel(transformers.ViTConfig(**networks.TRANSFORMERS["ViT"])),
            "is not an image classifier",
        ),
        (
            lambda: torchvision.models.resnet18(num_classes=5),
            "does not say how its images are prepared: give image_size and image_mean and image_std",
        ),
        (lambda: networks.network("ViT"), "does not say how its images are prepared: give image_mean and image_std"),
    ],
)
def test_what_cannot_be_explained_ends_in_one_sentence(made: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnteHocForImageClassification.from_classifier(made())


def test_another_number_of_names_than_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="predicts 5 classes, but there are 2 names"):
        AnteHocForImageClassification.from_classifier(networks.network("test_resnet"), id2label={0: "a", 1: "b"})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"architecture": 3}, "^The architecture of timm must be a name, not 3: give it with backbone="),
        ({"label_names": 3}, "^label_names of timm's pretrained_cfg must be a list of names, not 3: "),
        ({"label_names": "abcde"}, "must be a list of names, not 'abcde'"),
        (7, "^pretrained_cfg must be a dictionary as timm's, not 7"),
    ],
)
def test_what_timm_cannot_have_written(wrong: Any, message: str) -> None:
    network = networks.network("test_resnet")
    network.pretrained_cfg = {**network.pretrained_cfg, **wrong} if isinstance(wrong, dict) else wrong
    with pytest.raises(ValueError, match=message):
        AnteHocForImageClassification.from_classifier(network)
    with pytest.raises(ValueError, match=r"^id2label=3 must be a dictionary"):
        AnteHocForImageClassification.from_classifier(networks.network("test_resnet"), id2label=3)
