"""Stability and sanity as reports: rows, reference values, and what they say of maps that ignore the model."""

import json
import math

import pytest
import torch

from antehoc_hf.evaluation import drop_cond, evaluate_sanity, evaluate_stability
from antehoc_hf.evaluation.controls import center_map
from antehoc_hf.evaluation.stability import salt_and_pepper
from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling import AnteHocForImageClassification

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = AnteHocForImageClassification.from_backbone("test_resnet", num_labels=4, image_size=64)
    made.train()
    with torch.no_grad():
        for parameter in made.backbone.get_classifier().parameters():
            parameter.normal_(std=3, generator=torch.Generator().manual_seed(1))
        for _ in range(20):
            made(pixel_values=images())
    return made.eval()


def images(count=8):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(7)).clamp(-1, 1)


def batched(size, count=8):
    whole, labels = images(count), torch.arange(count) % 4
    return [{"pixel_values": whole[i : i + size], "labels": labels[i : i + size]} for i in range(0, count, size)]


def test_stability_of_controls_is_known(model):
    found = evaluate_stability(
        model, batched(3), image_mean=MEAN, image_std=STD, shares=(0.1, 0.5), progress=False,
        explainers={"edges": load_explainer("sobel", model)},
    )  # fmt: skip
    assert [row.name for row in found.rows][:2] == ["antehoc", "edges"]
    constant = found.row("constant 1").scores
    # A map of ones takes nothing away, with noise or without: no Drop at all, so no change of one either.
    assert math.isnan(constant["CD 0.1"].value)
    assert constant["similarity 0.5"].value == 1
    assert found.row("center").scores["similarity 0.5"].value == pytest.approx(1)
    edges = found.row("edges").scores
    assert edges["similarity 0.5"].value < edges["similarity 0.1"].value < 1
    assert found.row("edges").scores == found.row("sobel").scores
    whole = evaluate_stability(
        model, batched(8), image_mean=MEAN, image_std=STD, shares=(0.1, 0.5), progress=False
    )  # fmt: skip
    for measure, estimate in whole.row("antehoc").scores.items():
        assert found.row("antehoc").scores[measure].value == pytest.approx(estimate.value, rel=1e-3, abs=1e-3)
    json.dumps(found.to_dict(), allow_nan=False)
    assert "| sobel |" in found.to_markdown()


def test_an_image_without_labels_changes_nothing():
    torch.manual_seed(0)
    model = AnteHocForImageClassification.from_backbone(
        "test_resnet", num_labels=3, image_size=64, problem_type="multi_label_classification"
    ).eval()
    labels = torch.tensor([[1, 1, 0], [0, 0, 1], [0, 0, 0]])
    reports = [
        evaluate_stability(
            model,
            [{"pixel_values": images(3)[:count], "labels": labels[:count]}],
            image_mean=MEAN,
            image_std=STD,
            shares=(0.3,),
            progress=False,
        )
        for count in (2, 3)
    ]
    for one, other in zip(*(report.rows for report in reports), strict=True):
        for measure, estimate in one.scores.items():
            assert other.scores[measure].value == pytest.approx(estimate.value, rel=1e-3, abs=1e-3, nan_ok=True)


def test_stability_against_the_definition(model):
    """CD at 0.3 for the centred map, written out."""

    def probabilities(pixels):
        with torch.no_grad():
            rows = model.backbone(pixels).softmax(dim=1)
        return rows[torch.arange(8), torch.arange(8) % 4]

    def drop(pixels):
        return drop_cond(probabilities(pixels), probabilities(model.energy_map(pixels, center_map(pixels))))

    noisy = salt_and_pepper(images(), 0.3, MEAN, STD, seed=5)
    expected = abs(float(drop(noisy) - drop(images())))
    found = evaluate_stability(
        model, batched(8), image_mean=MEAN, image_std=STD, shares=(0.3,), seed=5, progress=False
    )  # fmt: skip
    assert found.row("center").scores["CD 0.3"].value == pytest.approx(expected, rel=1e-3)


def test_sanity_tells_a_map_of_the_image_from_one_of_the_network(model):
    makers = {"grad-cam": lambda network: load_explainer("grad-cam", network)}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = evaluate_sanity(model, images(), makers, progress=False)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    measures = list(found.row("grad-cam").scores)
    assert measures[0] == "after head"
    assert measures[-2:] == ["another class", "max. sensitivity"]
    for measure in measures[:-1]:
        assert found.row("sobel").scores[measure].value == pytest.approx(1, abs=1e-5)
    last = measures[-3]
    assert found.row("grad-cam").scores[last].value < 0.9
    assert found.row("grad-cam").scores["another class"].value < 0.9
    assert found.row("center").scores["max. sensitivity"].value == 0


def test_mistakes_end_in_one_sentence(model):
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        evaluate_stability(model, batched(8), image_mean=MEAN, image_std=STD, shares=(0.0,), progress=False)
    with pytest.raises(ValueError, match="held no image"):
        evaluate_stability(model, [], image_mean=MEAN, image_std=STD, progress=False)
    with pytest.raises(ValueError, match="at least one image"):
        evaluate_sanity(model, images(), {}, progress=False)
