"""Every method on every kind of model: maps of one form, the model as it was, clear words where something is wrong."""

import copy
import gc
import re
from typing import Any

import pytest
import timm
import torch
import torchvision
from helpers import ATTENTION, QUICK, assert_as_it_was, state_of
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from antehoc_hf import AnteHocForImageClassification, AnteHocModel
from antehoc_hf.evaluation.maps import minmax_maps
from antehoc_hf.explainers import EXPLAINERS, Explainer, Question, RawMaps, load_explainer, measured_explainers

OF_ANY_NETWORK = [name for name in EXPLAINERS if name not in ATTENTION]
METHODS = [name for name in OF_ANY_NETWORK if name not in ("antehoc", "constant", "random", "center", "sobel")]
USUAL = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}


def images(count: int = 2, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    return AnteHocForImageClassification.from_backbone("test_resnet", num_labels=5, image_size=64).eval()


def small_resnet():
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5)
    return ResNetForImageClassification(config)


def small_vit():
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=64, num_labels=5
    )
    return ViTForImageClassification(config)


MODELS = {
    "timm": lambda: timm.create_model("test_resnet", num_classes=5),
    "timm, tokens": lambda: timm.create_model("test_vit", num_classes=5, img_size=64),
    "timm, channels last": lambda: timm.create_model("test_convnext", num_classes=5),
    "torchvision": lambda: torchvision.models.squeezenet1_1(num_classes=5),
    "transformers": small_resnet,
    "transformers, tokens": small_vit,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", MODELS)
def test_every_method_takes_every_model_and_leaves_it_as_it_was(kind: str, method: str) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]().train()
    next(model.children()).eval()  # a mode of its own
    first = next(model.parameters())
    first.requires_grad_(False)
    list(model.parameters())[-1].grad = torch.ones_like(list(model.parameters())[-1])
    before = state_of(model)
    explained = load_explainer(method, model, **USUAL, **QUICK.get(method, {})).explain(images())
    assert explained.maps.shape == (2, 1, 64, 64)
    assert explained.maps.dtype == torch.float32
    assert not explained.maps.requires_grad
    assert float(explained.maps.min()) >= 0
    shown = ~explained.degenerate
    assert shown.any(), "no evidence found in either image"
    assert torch.allclose(explained.maps[shown].amax(dim=(1, 2, 3)), torch.ones(int(shown.sum())))
    assert_as_it_was(model, before)


@pytest.mark.parametrize("method", OF_ANY_NETWORK)
def test_our_own_models_with_images_that_are_not_square(ours: nn.Module, method: str) -> None:
    maps = load_explainer(method, ours, **QUICK.get(method, {}))(images(1, 64, 96))
    assert maps.shape == (1, 1, 64, 96)


def test_the_models_own_map(ours) -> None:
    with torch.no_grad():
        expected = ours(images()).interpretation_map
    assert torch.allclose(load_explainer("antehoc", ours)(images()), expected, atol=1e-5)
    with pytest.raises(ValueError, match="is not an ante-hoc model"):
        load_explainer("antehoc", small_resnet())


@pytest.mark.parametrize("method", METHODS)
def test_a_target_for_each_image(ours, method: str) -> None:
    explainer = load_explainer(method, ours, **QUICK.get(method, {}))
    both = explainer(images(), [3, 1])
    alone = torch.cat([explainer(images()[:1], 3), explainer(images()[1:], torch.tensor([1]))])
    assert torch.allclose(both, alone, atol=2e-3)
    with torch.no_grad():
        own = ours(images()).logits.argmax(dim=1)
    assert torch.allclose(explainer(images()), explainer(images(), own), atol=1e-5)
    # Score-CAM's softmax over channels makes nearly the same of different scores.
    least = 1e-5 if method == "score-cam" else 1e-2
    assert not torch.allclose(explainer(images(), 0), explainer(images(), 4), atol=least)


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "integrated-grad-cam", "sise", "integrated-gradients"])
def test_frozen_networks_and_activations_in_place(method: str) -> None:
    torch.manual_seed(0)

    class Small(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3, 4, 1)
            self.act = nn.ReLU(inplace=inplace)
            self.head = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.act(self.conv(x)).mean(dim=(2, 3)))

    plain, inplace = Small(False), Small(True)
    inplace.load_state_dict(plain.state_dict())
    options = {**USUAL, **QUICK.get(method, {}), **({} if method == "integrated-gradients" else {"layer": "conv"})}
    expected = load_explainer(method, plain, **options)(images())
    inplace.requires_grad_(False)
    assert torch.allclose(load_explainer(method, inplace, **options)(images()), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["grad-cam", "sise", "integrated-grad-cam"])
def test_half_precision(ours, method: str) -> None:
    half = copy.deepcopy(ours).bfloat16()
    maps = load_explainer(method, half, **QUICK.get(method, {}))(images())
    full = load_explainer(method, ours, **QUICK.get(method, {}))(images())
    assert maps.dtype == torch.float32
    together = torch.stack([maps.flatten(), full.flatten()])
    assert float(torch.corrcoef(together)[0, 1]) > 0.8


def tensors() -> int:
    """How many tensors Python holds."""
    gc.collect()
    return sum(type(thing) in (torch.Tensor, nn.Parameter) for thing in gc.get_objects())


def check_nothing_piles_up(model: nn.Module, methods: dict[str, dict[str, Any]], calls: int) -> None:
    explainers = [load_explainer(name, model, **USUAL, **options) for name, options in methods.items()]
    one, before = images(1, 32, 32), state_of(model)
    for explainer in explainers:
        explainer(one)
    count = tensors()
    for _ in range(calls):
        for explainer in explainers:
            explainer(one)
    assert tensors() <= count + 2
    assert_as_it_was(model, before)


class FourChannels(nn.Sequential):
    """So small that a thousand calls of any method take seconds."""

    def __init__(self) -> None:
        first, second = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3, stride=2)
        super().__init__(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def test_nothing_piles_up() -> None:
    quick = {"grad-cam": {}, "grad-cam++": {}, "integrated-grad-cam": {"steps": 1}}
    check_nothing_piles_up(FourChannels(), quick, calls=50)


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in OF_ANY_NETWORK if name != "antehoc"])
def test_nothing_piles_up_over_a_thousand_calls(method: str) -> None:
    check_nothing_piles_up(FourChannels(), {method: QUICK.get(method, {})}, calls=1000)


def test_a_method_that_finds_no_evidence_says_so() -> None:
    blind = nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    nn.init.zeros_(blind[4].weight)
    for method in METHODS:
        if method in ("score-cam", "rise"):
            continue  # equal scores give the mean of the channels or of the masks
        explained = load_explainer(method, blind, **USUAL, **QUICK.get(method, {})).explain(images())
        assert explained.degenerate.all(), method
        assert not explained.maps.any(), method


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "layer9"}, r"layer='layer9' is not a module .*did you mean 'layer"),
        ({"layer": "fc"}, r"layer='fc' gives no grid"),
        ({"layer": ["layer1", "layer2"]}, "reads one layer"),
        ({"colour": 1}, "has no option 'colour'"),
    ],
)
def test_wrong_options(ours, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_explainer("grad-cam", ours, **options)(images())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (5, "target 5 is none of the model's 5 classes"),
        (-1, "target -1 is none"),
        ([1, 2, 3], "3 classes for 2 images"),
        (1.5, "must be the index or name of a class"),
    ],
)
def test_wrong_targets(ours, target, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_explainer("grad-cam", ours)(images(), target)


def test_wrong_names_images_and_models(ours) -> None:
    with pytest.raises(ValueError, match="did you mean 'grad-cam'"):
        load_explainer("gradcam", ours)
    with pytest.raises(ValueError, match="different sizes go one by one"):
        load_explainer("grad-cam", ours)([images(1)[0], images(1, 32, 32)[0]])
    with pytest.raises(ValueError, match=r"normalised images \(B, C, H, W\)"):
        load_explainer("grad-cam", ours)(torch.zeros(2, 64, 64))
    with pytest.raises(ValueError, match="has no head"):
        load_explainer("grad-cam", AnteHocModel.from_backbone("test_resnet", image_size=64))
    with pytest.raises(ValueError, match="needs a model"):
        load_explainer("sise", "resnet50")


def test_a_missing_package_says_what_to_install(ours, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "captum.attr", None)  # what Python itself does for a package it cannot find
    with pytest.raises(ImportError, match=r"pip install 'antehoc-hf\[explainers\]'"):
        load_explainer("integrated-gradients", ours)(images())


def test_explainers_are_called_as_they_are_listed() -> None:
    assert {name: EXPLAINERS[name].name for name in EXPLAINERS} == dict(zip(EXPLAINERS, EXPLAINERS, strict=True))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("GradCAM", "'grad-cam'?"), ("shap", "'shapley-sampling' or 'kernel-shap'?"), ("nope", "there are antehoc,")],
)
def test_a_wrong_name_suggests_those_that_were_meant(ours, name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        load_explainer(name, ours)


def test_an_explainer_of_ones_own(ours, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that another method needs: a class with a name, and an entry in `EXPLAINERS`."""

    class GradientTimesInput(Explainer):
        name = "gradient-times-input"

        def raw_maps(self, question: Question) -> RawMaps:
            with torch.enable_grad():
                images = question.images.requires_grad_()
                (slopes,) = torch.autograd.grad(question.own_score(question(images)).sum(), images)
            return RawMaps((slopes * images.detach()).sum(dim=1).abs())

    monkeypatch.setitem(EXPLAINERS, GradientTimesInput.name, GradientTimesInput)
    explained = load_explainer("gradient-times-input", ours).explain(images(), [1, 4])
    pixels = images().requires_grad_()
    scores = ours.backbone(pixels)
    (slopes,) = torch.autograd.grad(scores[0, 1] + scores[1, 4], pixels)
    expected = minmax_maps((slopes * pixels.detach()).sum(dim=1, keepdim=True).abs())
    assert torch.allclose(explained.maps, expected, atol=1e-5)
    assert "gradient-times-input" in measured_explainers(["gradient-times-input"], ours)
    with pytest.raises(ValueError, match="did you mean 'gradient-times-input'"):
        load_explainer("gradient-times-inputs", ours)


def test_coalition_regression_starts_from_the_models_own_map(ours) -> None:
    pixels, options = images(), {"grid": 4, "pairs": 6}
    own = load_explainer("coalition-regression", ours, **options).explain(pixels, target=1)
    without = load_explainer("coalition-regression", ours, own_map=False, **options).explain(pixels, target=1)
    plain = load_explainer("coalition-regression", ours.backbone, **options, **USUAL).explain(pixels, target=1)
    assert own.passes.tolist() == [13, 13]
    assert without.passes.tolist() == [12, 12]
    assert torch.allclose(without.maps, plain.maps, atol=1e-5)
    assert not torch.allclose(own.maps, without.maps, atol=1e-2)
