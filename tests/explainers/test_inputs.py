"""Images, targets and types as they come: the obvious conversion, or one sentence."""

import copy
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers import ATTENTION, QUICK
from PIL import Image
from torch import nn
from transformers import (
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    pipeline,
)

from antehoc_hf import AnteHocConfig, AnteHocForImageClassification, AnteHocImageProcessor, attach
from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.explain_images import target_named
from antehoc_hf.explainers import EXPLAINERS, load_explainer

POST_HOC = ["grad-cam", "grad-cam++", "score-cam", "integrated-grad-cam", "integrated-gradients", "sise", "ada-sise"]
NEED_BLACK = [
    ("integrated-gradients", {"steps": 2}),
    ("integrated-grad-cam", {"steps": 2}),
    ("sise", {"mask_space": "pixel"}),
]


def images(count: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.randn(count, channels, 64, 64, generator=torch.Generator().manual_seed(0))


def vit(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return ViTForImageClassification(ViTConfig(**small, image_size=64, num_labels=4, **options)).eval()


# -- black is known or asked for --------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "options"), NEED_BLACK)
def test_where_black_is_not_known_the_normalisation_is_asked_for(method: str, options: dict[str, Any]) -> None:
    model = vit()
    with pytest.raises(ValueError, match=r"does not say how its images are normalised.*image_mean=… and image_std=…"):
        load_explainer(method, model, **options)(images())
    half = load_explainer(method, model, image_mean=[0.5] * 3, image_std=[0.5] * 3, **options)(images(), 1)
    other = load_explainer(method, model, image_mean=[0.4] * 3, image_std=[0.2] * 3, **options)(images(), 1)
    assert not torch.equal(half, other)


@pytest.mark.parametrize(
    ("mean", "std"),
    [("x", [0.5] * 3), ([0.5] * 3, [0] * 3), ([0.5] * 3, [0.5] * 2), ([float("nan")] * 3, [0.5] * 3), (0.5, 0.5)],
)
def test_a_normalisation_that_is_none(mean: Any, std: Any) -> None:
    network = timm.create_model("test_resnet", num_classes=4).eval()
    network.pretrained_cfg = {**network.pretrained_cfg, "mean": mean, "std": std}
    load_explainer("grad-cam", network)(images())  # needs none
    with pytest.raises(ValueError, match=r"^image_mean=.* must be a list of numbers each"):
        load_explainer("integrated-gradients", network, steps=2)(images())
    for method in ("grad-cam", "integrated-gradients"):
        with pytest.raises(ValueError, match=r"^image_mean=.* must be a list of numbers each"):
            load_explainer(method, vit(), image_mean=mean, image_std=std)


def test_black_of_transformers_models_with_a_half() -> None:
    explainer = load_explainer("integrated-gradients", vit(), image_mean=[0.5] * 3, image_std=[0.5] * 3)
    assert torch.equal(explainer.network.black(images()), torch.full((2, 3, 64, 64), -1.0))


def test_black_and_the_score_of_one_output_of_what_transformers_configures() -> None:
    cfg = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    wrapper = TimmWrapperForImageClassification(TimmWrapperConfig(architecture="test_resnet", pretrained_cfg=cfg))
    black = load_explainer("grad-cam", nn.DataParallel(wrapper)).network.black(images(1))[0, :, 0, 0]
    assert torch.allclose(black, torch.tensor([-0.2, -0.4, -0.6]))
    model = AnteHocForImageClassification.from_backbone("test_resnet", num_labels=1, image_size=64).eval()
    processor = AnteHocImageProcessor.from_backbone("test_resnet", image_size=64)
    photo = Image.new("RGB", (64, 64), (200, 40, 90))
    ours, stock = (
        pipeline(f"{name}image-classification", model, image_processor=processor) for name in ("antehoc-", "")
    )
    assert ours(photo)["score"] == pytest.approx(stock(photo)[0]["score"], abs=1e-4)


@pytest.mark.parametrize("method", [name for name in EXPLAINERS if name not in ATTENTION])
def test_every_method_takes_the_normalisation(ours: nn.Module, method: str) -> None:
    known = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}
    assert load_explainer(method, ours, **known, **QUICK.get(method, {}))(images(1)).shape == (1, 1, 64, 64)
    with pytest.raises(ValueError, match="image_mean and image_std belong together"):
        load_explainer(method, ours, image_mean=(0.5, 0.5, 0.5))


# -- any mode, any type -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["antehoc", *POST_HOC])
def test_inference_mode_around_it_or_around_the_pixels(ours: nn.Module, method: str) -> None:
    explainer = load_explainer(method, ours, **QUICK.get(method, {}))
    expected = explainer(images(), [1, 2])
    with torch.inference_mode():
        pixels, target = images(), torch.tensor([1, 2])
        inside = explainer(pixels, target)
    assert torch.allclose(inside, expected, atol=1e-6)
    assert torch.allclose(explainer(pixels, target), expected, atol=1e-6)


@pytest.mark.parametrize("method", ["grad-cam", "integrated-gradients", "sise"])
def test_a_model_that_was_made_in_inference_mode(method: str) -> None:
    with torch.inference_mode():
        torch.manual_seed(0)
        made_inside = timm.create_model("test_vit", num_classes=4, img_size=64).eval()
    torch.manual_seed(0)
    outside = timm.create_model("test_vit", num_classes=4, img_size=64).eval()
    expected = load_explainer(method, outside, **QUICK.get(method, {}))(images(), 1)
    assert torch.allclose(
        load_explainer(method, made_inside, **QUICK.get(method, {}))(images(), 1), expected, atol=1e-6
    )


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit"])
@pytest.mark.parametrize("method", ["sise", "ada-sise", "hires-cam"])
def test_only_the_weights_of_a_network_in_half_precision_are_rounded(method: str, name: str) -> None:
    torch.manual_seed(0)
    size = {"img_size": 64} if name == "test_vit" else {}
    half = timm.create_model(name, num_classes=4, **size).eval().bfloat16()
    expected = load_explainer(method, copy.deepcopy(half).float())(images().bfloat16().float(), 1)
    maps = load_explainer(method, half)(images().bfloat16(), 1)
    assert next(half.parameters()).dtype == torch.bfloat16
    assert maps.dtype == torch.float32
    assert torch.equal(maps, expected)


@pytest.mark.parametrize("method", ["antehoc", *POST_HOC])
def test_pixels_of_another_precision(ours: nn.Module, method: str) -> None:
    explainer = load_explainer(method, ours, **QUICK.get(method, {}))
    assert torch.allclose(explainer(images().double(), 1), explainer(images(), 1), atol=1e-6)
    half = load_explainer(method, copy.deepcopy(ours).bfloat16(), **QUICK.get(method, {}))
    assert half(images(), 1).dtype == torch.float32


@pytest.mark.parametrize("method", [name for name in EXPLAINERS if name not in ATTENTION])
def test_an_empty_batch_gives_no_maps(ours: nn.Module, method: str) -> None:
    explained = load_explainer(method, ours).explain(images(0))
    assert explained.maps.shape == (0, 1, 64, 64)
    assert explained.degenerate.shape == explained.passes.shape == (0,)


@pytest.mark.parametrize("method", ["antehoc", "grad-cam", "rise", "coalition-regression"])
def test_sparse_pixels_and_a_single_one(ours: nn.Module, method: str) -> None:
    explainer = load_explainer(method, ours, **QUICK.get(method, {}))
    assert torch.equal(explainer(images().to_sparse(), 1), explainer(images(), 1))
    if method != "grad-cam":  # which needs a grid
        assert explainer.explain(images()[:, :, :1, :1], 1).degenerate.all()


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("method", POST_HOC)
def test_networks_of_other_numbers_of_channels(method: str, channels: int) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=4, in_chans=channels).eval()
    options = QUICK.get(method, {})
    if method.startswith("integrated"):
        with pytest.raises(ValueError, match=f"normalised for {channels} channels.*image_mean="):
            load_explainer(method, network, **options)(images(2, channels))
        options = {**options, "image_mean": [0.5] * channels, "image_std": [0.5] * channels}
    assert load_explainer(method, network, **options)(images(2, channels), 1).shape == (2, 1, 64, 64)


@pytest.mark.parametrize("method", POST_HOC)
@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (images(2, 1), r"cannot take images of shape \(\d, 1, 64, 64\)"),
        (images(2).permute(0, 2, 3, 1), r"channels last: use pixel_values.permute"),
        (images(2)[0], r"normalised images \(B, C, H, W\) in floating point, not \(3, 64, 64\)"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), "not .* of torch.uint8"),
        (np.zeros((2, 3, 64, 64), dtype=np.float32), "not ndarray"),
        (torch.zeros(2, 3, 0, 64), "images without pixels"),
        (torch.empty(2, 3, 64, 64, device="meta"), "without values"),
        ("photo.png", "not str"),
    ],
)
def test_pixels_that_are_no_images(network: nn.Module, method: str, pixels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_explainer(method, network, **QUICK.get(method, {}))(pixels)


def test_what_a_network_says_of_images_of_the_wrong_size() -> None:
    with pytest.raises(ValueError, match=r"ViTForImageClassification cannot take images of shape .* \(32\*32\)"):
        load_explainer("grad-cam", vit())(torch.zeros(1, 3, 32, 32))


# -- targets -----------------------------------------------------------------------------------------------------


def test_a_name_of_several_classes_is_asked_about() -> None:
    config = AnteHocConfig(backbone="test_resnet", image_size=64, id2label={0: "crane", 1: "crane", 2: "0"})
    model = AnteHocForImageClassification(config).eval()
    explainer = load_explainer("grad-cam", model)
    with pytest.raises(ValueError, match="target 'crane' is the name of several classes: give the index of one"):
        explainer(images(), "crane")
    assert torch.equal(explainer(images(), "0"), explainer(images(), 2))
    assert target_named(model, "0") == 2  # names first, as everywhere
    assert target_named(model, "1") == 1
    with pytest.raises(UsageError, match="several classes"):
        target_named(model, "crane")


@pytest.mark.parametrize("wrong", [3, None, 1.5, [], {}, True])
def test_arguments_of_another_type_end_in_one_sentence(ours: nn.Module, wrong: Any) -> None:
    calls: list[Any] = [
        lambda: load_explainer(wrong, ours),
        lambda: load_explainer("sise", ours, threshold=[wrong]),
        lambda: load_explainer("sise", ours, layer=[wrong])(images()),
        lambda: AnteHocForImageClassification.from_classifier(wrong),
        lambda: AnteHocForImageClassification.from_backbone("test_resnet", pretrained=[wrong]),
        lambda: attach(wrong, ["a.png"]),
        lambda: attach("test_resnet", ["a.png"], options=[wrong]),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"must be|needed|no explainer"):
            call()


@pytest.mark.parametrize("method", ["antehoc", *POST_HOC])
@pytest.mark.parametrize(
    "target", ["cat", [None, 1], {}, {1}, [], [[1], [2]], 1.0, True, 4, -1, 10**30, object(), [1.7, 2]]
)
def test_targets_that_are_no_classes(ours: nn.Module, method: str, target: Any) -> None:
    with pytest.raises(ValueError, match=r"^target "):
        load_explainer(method, ours, **QUICK.get(method, {}))(images(), target)


def test_classes_by_name_and_in_any_container() -> None:
    model = vit(id2label={0: "cat", 1: "dog", 2: "1", 3: "owl"}, label2id={"cat": 0, "dog": 1, "1": 2, "owl": 3})
    explainer = load_explainer("grad-cam", model)
    expected = explainer(images(), [1, 2])
    for target in (["dog", "1"], (1, 2), np.array([1, 2]), torch.tensor([1, 2]), [np.int64(1), torch.tensor(2)]):
        assert torch.equal(explainer(images(), target), expected)
    with pytest.raises(
        ValueError, match=r"target 'wolf' is none of the model's classes: there are cat, dog, 1, owl\."
    ):
        explainer(images(), "wolf")


@pytest.mark.parametrize("method", ["grad-cam", "integrated-gradients"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_network_without_gradients_is_named(method: str, mode: Any) -> None:
    class Served(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = timm.create_model("test_resnet", num_classes=4).eval()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            with mode():
                return self.network(images)

    explainer = load_explainer(method, Served(), image_mean=[0.5] * 3, image_std=[0.5] * 3)
    with pytest.raises(ValueError, match=r"outputs have no gradient with respect to .*without gradients"):
        explainer(torch.randn(2, 3, 64, 64))
