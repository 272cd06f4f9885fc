"""One forward pass: prediction and map together, leaving the backbone as it was."""

import pytest
import timm
import torch
from helpers import WORDS
from torch import nn

from antehoc_hf.modeling import (
    AnteHocForImageCaptioning,
    AnteHocForImageClassification,
    AnteHocForLandmarkDetection,
    AnteHocModel,
)

TASKS = {
    AnteHocForImageClassification: {},
    AnteHocForLandmarkDetection: {"num_landmarks": 3},
    AnteHocForImageCaptioning: WORDS,
    AnteHocModel: {},
}
SMALL = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "test_nfnet", "test_mambaout"]


def same(first, second):
    return torch.equal(first.logits, second.logits) and torch.equal(
        first.interpretation_map, second.interpretation_map
    )


def made_from(output):
    """What the map was made from."""
    return output.contributions if output.soft_attention_maps is None else output.soft_attention_maps


def hooks_of(model):
    return {name: (list(m._forward_hooks), list(m._forward_pre_hooks)) for name, m in model.named_modules()}


@pytest.mark.parametrize("backbone", SMALL)
def test_prediction_is_that_of_the_plain_network(build_each, noise, backbone):
    model, pixels = build_each(backbone), noise(2, 64)
    size = {"img_size": 64} if "vit" in backbone else {}
    plain = timm.create_model(backbone, num_classes=4, **size).eval()
    plain.load_state_dict(model.backbone.state_dict())
    with torch.no_grad():
        output = model(pixels)
        assert torch.equal(output.logits, plain(pixels))
    map_ = output.interpretation_map
    assert map_.shape == (2, 1, 64, 64)
    assert map_.dtype == torch.float32
    assert map_.amin(dim=(1, 2, 3)).eq(0).all()
    assert torch.allclose(map_.amax(dim=(1, 2, 3)), torch.ones(2), atol=1e-5)
    assert output.degenerate.tolist() == [False, False]
    assert set(output) == {"logits", "interpretation_map", "degenerate"}


def test_before_training_the_map_is_the_mean_soft_attention_map(build_energy, noise):
    output = build_energy()(noise(2, 64), output_attention_maps=True)
    assert torch.allclose(output.weight_maps, torch.full_like(output.weight_maps, 1 / 8))
    mean = output.soft_attention_maps.mean(dim=1, keepdim=True)
    low, high = mean.amin(dim=(2, 3), keepdim=True), mean.amax(dim=(2, 3), keepdim=True)
    assert torch.allclose(output.interpretation_map, (mean - low) / (high - low), atol=1e-5)


def test_attention_maps_on_request(build_energy, noise):
    output = build_energy(awake=True)(noise(2, 64), output_attention_maps=True)
    assert output.soft_attention_maps.shape == output.weight_maps.shape == (2, 8, 64, 64)
    assert torch.allclose(output.soft_attention_maps.sum(dim=(2, 3)), torch.ones(2, 8), atol=1e-5)
    assert torch.allclose(output.weight_maps.sum(dim=1), torch.ones(2, 64, 64), atol=1e-5)
    weighted = (output.soft_attention_maps * output.weight_maps).sum(dim=1, keepdim=True)
    low, high = weighted.amin(dim=(2, 3), keepdim=True), weighted.amax(dim=(2, 3), keepdim=True)
    assert torch.allclose(output.interpretation_map, (weighted - low) / (high - low), atol=1e-5)


def test_tuple_instead_of_an_object(build_each, noise):
    model, pixels = build_each(), noise(1, 64)
    output, values = model(pixels), model(pixels, return_dict=False)
    assert isinstance(values, tuple)
    assert any(value.shape == (1, 4) and torch.equal(value, output.logits) for value in values)
    labelled = model(pixels, labels=torch.tensor([1]), return_dict=False)
    assert labelled[0].ndim == 0, "transformers' Trainer takes the first value for the loss"


def test_the_bare_model_gives_features(build_energy, noise):
    model, pixels = build_energy(kind=AnteHocModel), noise(2, 64)
    plain = timm.create_model("test_resnet", num_classes=0).eval()
    plain.load_state_dict(model.backbone.state_dict())
    output = model(pixels)
    assert torch.equal(output.last_hidden_state, plain.forward_features(pixels))
    assert torch.equal(output.pooler_output, plain(pixels))
    assert output.interpretation_map.shape == (2, 1, 64, 64)


def test_no_hook_stays(build_each, noise):
    model = build_each()
    before = hooks_of(model)
    model(noise(1, 64))
    assert hooks_of(model) == before


def test_no_hook_stays_after_an_exception_inside_the_backbone(build_each, noise):
    model, pixels = build_each(), noise(1, 64)
    expected, before = model(pixels), hooks_of(model)
    classifier, model.backbone.fc = model.backbone.fc, Failing()
    with pytest.raises(ZeroDivisionError):
        model(pixels)
    model.backbone.fc = classifier
    assert hooks_of(model) == before
    assert same(model(pixels), expected)


class Failing(nn.Module):
    def forward(self, features):
        raise ZeroDivisionError


def test_hooks_of_a_user_on_a_tapped_layer_fire(build_each, noise):
    model, pixels = build_each(), noise(1, 64)
    layer = model.backbone.get_submodule(model.config.tap_points[-1]["module"])
    seen = []
    handles = [
        layer.register_forward_hook(lambda module, inputs, output: seen.append("after")),
        layer.register_forward_pre_hook(lambda module, inputs: seen.append("before")),
    ]
    expected = model(pixels)
    assert seen == ["before", "after"]
    handles[0].remove()
    handles[1].remove()
    assert same(model(pixels), expected)
    assert seen == ["before", "after"]


def test_a_hook_that_changes_the_output_changes_what_is_read(build_energy, noise):
    model, pixels = build_energy(taps=["layer1"]), noise(1, 64)
    before = model(pixels, output_attention_maps=True).soft_attention_maps
    handle = model.backbone.layer1.register_forward_hook(lambda module, inputs, output: output.flip(-1))
    after = model(pixels, output_attention_maps=True).soft_attention_maps
    handle.remove()
    assert torch.allclose(after, before.flip(-1), atol=1e-6)


def test_a_hook_that_removes_itself_is_gone(build, noise):
    model, pixels = build(taps=["layer1"]), noise(1, 64)
    seen = []

    def once(module, inputs, output):
        seen.append(1)
        handle.remove()

    handle = model.backbone.layer1.register_forward_hook(once)
    model(pixels)
    model(pixels)
    assert seen == [1]
    assert not model.backbone.layer1._forward_hooks


@pytest.mark.parametrize("size", [(96, 64), (64, 160), (65, 99), (224, 224)])
def test_other_sizes_than_that_of_the_configuration(build_each, noise, size):
    output = build_each(awake=True)(noise(1, *size))
    assert output.interpretation_map.shape == (1, 1, *size)
    assert output.interpretation_map.max().item() == pytest.approx(1, abs=1e-5)


def test_an_image_is_explained_alone_as_in_a_batch(build_each, noise):
    model, pixels = build_each(awake=True), noise(3, 64)
    with torch.no_grad():
        together, alone = model(pixels), model(pixels[1:2])
    assert torch.allclose(together.interpretation_map[1:2], alone.interpretation_map, atol=1e-4)
    assert torch.allclose(together.logits[1:2], alone.logits, atol=1e-5)


def test_an_empty_batch(build_each, noise):
    output = build_each()(noise(2, 64)[:0])
    assert output.logits.shape == (0, 4)
    assert output.interpretation_map.shape == (0, 1, 64, 64)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("images", [torch.float32, torch.bfloat16, torch.float64])
@torch.no_grad()
def test_images_are_brought_to_the_weights_kind_of_number(build_each, noise, weights, images):
    model, pixels = build_each(awake=True).to(weights), noise(2, 64).to(images)
    output, expected = model(pixels), model(pixels.to(weights))
    assert same(output, expected)
    assert output.logits.dtype == weights
    assert output.interpretation_map.dtype == torch.float32


@torch.no_grad()
def test_activations_of_the_taps_on_request(build_each, noise):
    model, pixels = build_each(taps=["layer1", "layer3"]), noise(2, 64)
    assert model(pixels).hidden_states is None
    first, second = model(pixels, output_hidden_states=True).hidden_states
    seen = []
    model.backbone.layer3.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert torch.equal(model(pixels).logits, model(pixels, output_hidden_states=True).logits)
    assert torch.equal(second, seen[0])
    assert first.shape[-1] > second.shape[-1]
    model.config.output_hidden_states = True
    assert len(model(pixels).hidden_states) == 2


@pytest.mark.parametrize("kind", ["strided", "transposed", "expanded", "channels_last"])
def test_memory_layout_of_the_images_does_not_matter(build_each, noise, kind):
    model, pixels = build_each(awake=True), noise(2, 64)
    images = {
        "strided": torch.stack([pixels, pixels], dim=-1)[..., 0],
        "transposed": pixels.transpose(2, 3).contiguous().transpose(2, 3),
        "expanded": pixels[:1].expand(2, -1, -1, -1),
        "channels_last": pixels.to(memory_format=torch.channels_last),
    }[kind]
    with torch.no_grad():
        output, expected = model(images), model(images.clone(memory_format=torch.contiguous_format))
    assert torch.allclose(output.logits, expected.logits, atol=1e-5)
    assert torch.allclose(output.interpretation_map, expected.interpretation_map, atol=1e-4)


def test_a_channels_last_model(build_each, noise):
    model, pixels = build_each(awake=True), noise(2, 64)
    with torch.no_grad():
        expected = model(pixels)
        model = model.to(memory_format=torch.channels_last)
        output = model(pixels.to(memory_format=torch.channels_last))
    assert torch.allclose(output.interpretation_map, expected.interpretation_map, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_half_precision(build_each, noise, dtype, backbone):
    model, pixels = build_each(backbone, awake=True), noise(2, 64)
    with torch.no_grad():
        expected = model(pixels).interpretation_map
        output = model.to(dtype)(pixels.to(dtype), output_attention_maps=True)
        energy = model(model.energy_map(pixels.to(dtype), output.interpretation_map))
    assert output.logits.dtype == energy.logits.dtype == dtype
    assert output.interpretation_map.dtype == made_from(output).dtype == torch.float32
    assert output.interpretation_map.isfinite().all()
    if output.soft_attention_maps is not None:
        assert torch.allclose(output.soft_attention_maps.sum(dim=(2, 3)), torch.tensor(1.0), atol=1e-4)
    assert (output.interpretation_map - expected).abs().mean() < 0.05


def test_autocast_leaves_the_maps_in_full_precision(build_each, noise):
    model, pixels = build_each(awake=True), noise(1, 256)
    with torch.no_grad():
        expected = model(pixels).interpretation_map
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(pixels, output_attention_maps=True)
    assert output.logits.dtype == torch.bfloat16
    assert output.interpretation_map.dtype == made_from(output).dtype == torch.float32
    assert (output.interpretation_map - expected).abs().mean() < 0.05


def test_nan_in_one_image_spoils_its_map_alone(build_each, noise):
    model, pixels = build_each(awake=True), noise(2, 64)
    pixels[1, 0, 5, 5] = float("nan")
    output = model(pixels)
    assert output.degenerate.tolist() == [False, True]
    assert output.interpretation_map[1].eq(0).all()
    assert torch.allclose(output.interpretation_map[0], model(pixels[:1]).interpretation_map[0], atol=1e-4)


@pytest.mark.parametrize("value", [0.0, float("inf"), 1e30])
def test_images_without_content(build_each, value):
    output = build_each(awake=True)(torch.full((1, 3, 64, 64), value))
    assert output.interpretation_map.isfinite().all()
    assert output.interpretation_map.amax() <= 1
    assert output.degenerate.tolist() == [True] or value != float("inf")


def test_maps_carry_no_gradient_to_the_backbone(build_each, noise):
    model, pixels = build_each(awake=True), noise(1, 64).requires_grad_()
    model(pixels).interpretation_map.sum().backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert any(parameter.grad is not None for parameter in model.map_head.parameters())
    assert pixels.grad is None


def test_energy_map_of_the_model_uses_its_normalisation(build):
    model = build(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.25, 0.3])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (model.config.image_mean, model.config.image_std))
    pixels, map_ = torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
    energy = model.energy_map((pixels - mean) / std, map_)
    assert torch.allclose(energy * std + mean, pixels * map_, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((3, 64, 64), r"pixel_values\[None\]"),
        ((1, 1, 64, 64), r"expand\(-1, 3, -1, -1\)"),
        ((1, 64, 64, 3), r"permute\(0, 3, 1, 2\)"),
        ((1, 4, 64, 64), ""),
        ((2, 1, 3, 64, 64), ""),
        ((), ""),
    ],
)
@pytest.mark.parametrize("kind", TASKS)
def test_pixels_of_a_wrong_shape(build, kind, shape, hint):
    with pytest.raises(ValueError, match=r"pixel_values must be \(batch, 3, height, width\), not .*" + hint):
        build(kind=kind, **TASKS[kind])(torch.zeros(shape))


def test_pixels_of_another_size_than_the_only_one(build, noise):
    with pytest.raises(ValueError, match=r"test_coatnet.*\[64, 64\].*takes no other; these have \[96, 64\]"):
        build("test_coatnet")(noise(1, 96, 64))


def test_no_pixels(build):
    with pytest.raises((ValueError, TypeError), match="pixel_values"):
        build()(None)


def test_unknown_phase(build, noise):
    with pytest.raises(ValueError, match="phase='second'"):
        build()(noise(1, 64), phase="second")


def test_second_pass_without_the_maps_of_the_first(build_each, noise):
    with pytest.raises(ValueError, match="needs the tap_values of the first pass"):
        build_each()(noise(1, 64), phase="interpretation")


def test_pixels_that_were_not_normalised(build):
    with pytest.raises(ValueError, match="pixel_values"):
        build()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_second_pass_with_another_number_of_maps(build_each, noise):
    with pytest.raises(ValueError, match=r"tap_values must be .*, not \(1, 3, 64, 64\)"):
        build_each()(noise(1, 64), tap_values=torch.rand(1, 3, 64, 64), phase="interpretation")
