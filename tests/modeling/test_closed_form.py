"""Maps in closed form: a weighted sum of what the layers show at each patch."""

import pytest
import torch
from helpers import Explained

CLOSED = {"map_head": {"kind": "contributions", "closed_form": True}}


@torch.no_grad()
@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_one_class_asked_for_is_that_class_among_all(build, noise, problem, tmp_path):
    model, pixels = build("test_efficientnet", problem_type=problem, **CLOSED), noise(3, 64)
    model.backbone.classifier.weight.normal_(std=2.0)
    model.map_head.coefficients.normal_()
    detailed, brief = model(pixels, output_attention_maps=True), model(pixels)
    assert torch.allclose(detailed.interpretation_map, brief.interpretation_map, atol=1e-5)
    share = model.worth(model.prediction(brief)) - model.map_head.baseline_worth
    assert torch.allclose(detailed.contributions.sum(dim=(2, 3)), share, atol=1e-4)
    alone = torch.cat([model(image[None]).interpretation_map for image in pixels])
    assert torch.allclose(alone, brief.interpretation_map, atol=1e-4)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert torch.equal(again(pixels).interpretation_map, brief.interpretation_map)
    assert torch.equal(again(pixels).logits, model.backbone(pixels))


@torch.no_grad()
def test_a_map_in_closed_form_is_the_sum_of_its_responses(build, noise):
    model, pixels = build("test_resnet", **CLOSED), noise(2, 64)
    model.backbone.fc.weight.normal_(std=2.0)
    model.map_head.coefficients.normal_()
    outputs = model(pixels, phase="task")
    targets, classes = model._targets(outputs.logits), torch.arange(model.config.num_labels).expand(2, -1)
    responses = model.map_head.responses(outputs.tap_values, targets, classes)
    expected = torch.einsum("btfhw,f->bthw", responses, model.map_head.coefficients.flatten())
    found = model.map_head.contributions(outputs.tap_values, targets, of_all=True)
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "size", "last"),
    [("test_resnet", 64, "layer4"), ("test_convnext", 96, "stages.3"), ("test_vit", 160, "blocks.5")],
)
def test_the_last_tap_is_what_the_classifier_reads(build, backbone, size, last):
    model = build(backbone, image_size=size, **CLOSED)
    assert model.config.tap_points[-1]["module"] == last
    assert model.config.tap_channels[-1] == model.backbone.get_classifier().in_features


def test_a_map_in_closed_form_does_not_train_by_steps(build, noise):
    model = build("test_resnet", **CLOSED)
    values = model(noise(2, 64), phase="task").tap_values
    with pytest.raises(ValueError, match="fit_map"):
        model(noise(2, 64), phase="interpretation", tap_values=values)
    with pytest.raises(ValueError, match="tap_values must be"):
        model(noise(2, 64), phase="interpretation", tap_values=values[:, 1:])


@pytest.fixture
def fitted(build):
    model = build("test_resnet", num_labels=20, **CLOSED)
    with torch.no_grad():
        model.backbone.fc.weight.normal_(std=2.0)
        model.map_head.coefficients.normal_()
    return model


@pytest.mark.slow
@torch.no_grad()
def test_a_map_in_closed_form_compiles_and_is_exported_with_any_batch(fitted, noise):
    compiled = torch.compile(fitted, fullgraph=True, backend="aot_eager")
    assert torch.allclose(
        compiled(noise(2, 64)).interpretation_map, fitted(noise(2, 64)).interpretation_map, atol=1e-4
    )
    program = torch.export.export(
        Explained(fitted), (noise(2, 64),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=16)},)
    )
    for count in (1, 5):
        found, expected = program.module()(noise(count, 64)), Explained(fitted)(noise(count, 64))
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(found, expected, strict=True))
