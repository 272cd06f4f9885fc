"""What an output's confidence is: softmax, sigmoid, a sigmoid and its negative, or a value itself."""

import pytest
import timm
import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

from antehoc_hf.explainers import load_explainer
from antehoc_hf.explainers.targets import AllValues, ClassTarget, activation_of

GRADIENT_METHODS = ["grad-cam", "grad-cam++", "integrated-gradients"]
MASKING_METHODS = ["sise", "ada-sise", "score-cam"]


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("problem_type", "num_outputs", "expected"),
    [
        (None, 3, "softmax"),
        ("single_label_classification", 3, "softmax"),
        ("multi_label_classification", 3, "sigmoid"),
        ("multi_label_classification", 1, "binary"),
        (None, 1, "binary"),
        ("regression", 1, "identity"),
        ("regression", 3, "identity"),
    ],
)
def test_how_outputs_become_confidences(problem_type: str | None, num_outputs: int, expected: str) -> None:
    assert activation_of(problem_type, num_outputs) == expected


def test_confidences_by_hand() -> None:
    outputs = torch.tensor([[0.0, 2.0, -1.0]])
    second = torch.tensor([1])
    assert ClassTarget(second, "softmax").confidence(outputs).item() == pytest.approx(0.843795)  # e² / (1 + e² + e⁻¹)
    assert ClassTarget(second, "sigmoid").confidence(outputs).item() == pytest.approx(0.880797)  # 1 / (1 + e⁻²)
    assert ClassTarget(second, "identity").confidence(outputs).item() == 2
    assert AllValues().confidence(outputs).item() == 1
    one = torch.tensor([[2.0]])
    assert ClassTarget(torch.tensor([0]), "binary").confidence(one).item() == pytest.approx(0.880797)
    assert ClassTarget(torch.tensor([1]), "binary").confidence(one).item() == pytest.approx(0.119203)
    # A confidence of e^-200 is 0 in float32, but channels can still be chosen by it.
    far = torch.tensor([[0.0, 200.0]], requires_grad=True)
    ClassTarget(torch.tensor([0])).rise(far).sum().backward()
    assert far.grad is not None
    assert far.grad[0].tolist() == [1, -1]


@pytest.mark.parametrize("target", [None, 0])
@pytest.mark.parametrize(
    "method", ["rise", "score-cam", "sise", "ada-sise", "leave-one-out", "shapley-sampling", "coalition-regression"]
)
def test_a_number_added_to_a_regression_changes_no_map(method: str, target: int | None) -> None:
    """A value far below 0 is explained as one above it: nothing says that 0 is no evidence."""
    few: dict[str, dict[str, int]] = {"rise": {"masks": 60}}
    expected = load_explainer(method, small(1, "regression"), **few.get(method, {})).explain(images(1), target)
    assert not expected.degenerate.any()
    for added in (-5.0, 5.0):
        network = small(1, "regression")
        with torch.no_grad():
            network.classifier[1].bias += added  # type: ignore[union-attr, index, operator]
        found = load_explainer(method, network, **few.get(method, {})).explain(images(1), target)
        assert not found.degenerate.any()
        assert torch.allclose(found.maps, expected.maps, atol=2e-3)


def small(num_labels: int, problem_type: str | None = None) -> nn.Module:
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    config.num_labels, config.problem_type = num_labels, problem_type
    return ResNetForImageClassification(config).eval()


@pytest.mark.parametrize("method", MASKING_METHODS)
def test_a_value_of_a_regression_does_not_depend_on_the_other_values(method: str) -> None:
    model = small(2, "regression")
    explainer = load_explainer(method, model)
    before = explainer(images(), 0)
    assert before.any()
    with torch.no_grad():
        model.classifier[-1].weight[1] += 0.5
        model.classifier[-1].bias[1] += 3
    assert torch.equal(explainer(images(), 0), before)


def test_a_network_without_a_configuration_can_be_told_that_it_is_a_regression() -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=2).eval()
    of_regression = load_explainer("sise", network, problem_type="regression")
    before = of_regression(images(), 0)
    with torch.no_grad():
        network.fc.bias[1] += 3
    assert torch.equal(of_regression(images(), 0), before)
    assert not torch.equal(load_explainer("sise", network)(images(), 0), before)
    with pytest.raises(ValueError, match=r"problem_type='binary' is not one of 'single_label"):
        load_explainer("sise", network, problem_type="binary")


def test_without_a_target_a_regression_is_explained_as_a_whole() -> None:
    model = small(3, "regression")
    whole = load_explainer("grad-cam", model)(images())

    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return self.inner(pixel_values).logits.sum(dim=1, keepdim=True)

    alone = load_explainer("grad-cam", Summed(), layer="inner.resnet.encoder.stages.1", problem_type="regression")
    assert torch.allclose(alone(images(), 0), whole, atol=1e-5)


@pytest.mark.parametrize("method", ["sise", "ada-sise", *GRADIENT_METHODS])
def test_a_single_output_has_a_negative_class(method: str) -> None:
    """Class 1 of one output z is class 0 of one output −z."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=1).eval()
    options = {"steps": 3} if method == "integrated-gradients" else {}
    positive = load_explainer(method, network, **options).explain(images(), 0)
    negative = load_explainer(method, network, **options).explain(images(), 1)
    own = load_explainer(method, network, **options)(images())
    with torch.no_grad():
        predicted = (network(images())[:, 0] < 0).long()
    assert torch.equal(own, load_explainer(method, network, **options)(images(), predicted))
    with torch.no_grad():
        network.fc.weight.neg_()
        network.fc.bias.neg_()
    turned = load_explainer(method, network, **options).explain(images(), 0)
    assert torch.allclose(turned.maps, negative.maps, atol=1e-5)
    if method in ("sise", "ada-sise"):
        assert not positive.degenerate.any()
        assert not negative.degenerate.any()
        assert not torch.allclose(positive.maps, negative.maps, atol=1e-2)
    with pytest.raises(ValueError, match="target 2 is none of the model's 2 classes"):
        load_explainer(method, network, **options)(images(), 2)


def test_of_several_labels_each_has_its_own_confidence() -> None:
    """Two networks whose first logit is the same: SISE's map of it is the same for sigmoids, not for a softmax."""
    model = small(2, "multi_label_classification")
    several = load_explainer("sise", model)(images(), 0)
    single = load_explainer("sise", model, problem_type="single_label_classification")(images(), 0)
    with torch.no_grad():
        model.classifier[-1].bias[1] += 3
    assert torch.equal(load_explainer("sise", model)(images(), 0), several)
    changed = load_explainer("sise", model, problem_type="single_label_classification")(images(), 0)
    assert not torch.allclose(changed, single, atol=1e-3)
