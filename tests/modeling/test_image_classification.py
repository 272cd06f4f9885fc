"""The classifier's losses and how its predictions are read."""

import pytest
import torch
import torch.nn.functional as F

MULTI, REGRESSION = "multi_label_classification", "regression"


def test_one_label_an_image(build, noise):
    model, labels = build(), torch.tensor([3, 1])
    output = model(noise(2, 64), labels=labels)
    assert torch.allclose(output.loss, F.cross_entropy(output.logits, labels))
    assert model.prediction_kind == "categorical"
    assert torch.equal(model.prediction(output), output.logits)


def test_several_labels_an_image(build, noise):
    model = build(problem_type=MULTI)
    labels = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 1]])
    output = model(noise(2, 64), labels=labels)
    assert torch.allclose(output.loss, F.binary_cross_entropy_with_logits(output.logits, labels))
    assert model.prediction_kind == "bernoulli"


@pytest.mark.parametrize("count", [1, 3])
def test_regression(build, noise, count):
    model = build(problem_type=REGRESSION, num_labels=count)
    labels = torch.randn(2, count)
    output = model(noise(2, 64), labels=labels.squeeze(1))
    assert torch.allclose(output.loss, F.mse_loss(output.logits, labels))
    assert model.prediction_kind == "vector"


def test_one_output_is_regression_unless_said_otherwise(build, noise):
    model, labels = build(num_labels=1), torch.tensor([0.5, -2.0])
    output = model(noise(2, 64), labels=labels)
    assert torch.allclose(output.loss, F.mse_loss(output.logits.squeeze(1), labels))
    assert model.prediction_kind == "vector"


@pytest.mark.parametrize("count", [1, 4])
def test_labels_change_no_configuration(build, noise, count):
    """The labels' shape decides for the call, and the next one is free to have others."""
    model, pixels = build(num_labels=count), noise(2, 64)
    before = model.config.to_dict()
    several = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 1]])[:, :count]
    for _ in range(2):
        output = model(pixels, labels=several)
        loss = F.binary_cross_entropy_with_logits if count > 1 else F.mse_loss
        assert torch.allclose(output.loss, loss(output.logits, several))
        one = torch.tensor([3, 1]) if count > 1 else torch.tensor([0.5, 2.0])
        output = model(pixels, labels=one)
        expected = F.cross_entropy(output.logits, one) if count > 1 else F.mse_loss(output.logits[:, 0], one)
        assert torch.allclose(output.loss, expected)
        assert model.config.to_dict() == before
    assert model.prediction_kind == ("categorical" if count > 1 else "vector")


def test_whole_numbers_for_several_labels_an_image(build, noise):
    labels = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1]])
    for given in (labels, labels.bool(), labels.to(torch.uint8)):
        output = build(problem_type=MULTI)(noise(2, 64), labels=given)
        assert torch.allclose(output.loss, F.binary_cross_entropy_with_logits(output.logits, labels.float()))
    with pytest.warns(UserWarning, match="Make the model with problem_type='multi_label_classification'"):
        unsaid = build()(noise(2, 64), labels=labels)
    assert torch.allclose(unsaid.loss, output.loss)


def test_a_column_of_class_indices(build, noise):
    labels = torch.tensor([[3], [1]])
    output = build()(noise(2, 64), labels=labels)
    assert torch.allclose(output.loss, F.cross_entropy(output.logits, labels[:, 0]))


@pytest.mark.parametrize(
    ("kind", "labels", "sentence"),
    [
        (None, torch.tensor([0.0, 1.0]), "a number for each image and output, or class indices"),
        (None, torch.tensor([0, 1, 2]), "labels must be 2 class indices"),
        (None, torch.tensor(1), "labels must be 2 class indices"),
        (None, torch.tensor([True, False]), "labels must be 2 class indices"),
        (None, torch.full((2, 4), 1.5), "must lie in 0…1.*problem_type='regression'"),
        ("single_label_classification", torch.zeros(2, 4), "set problem_type='multi_label_classification'"),
        (MULTI, torch.tensor([0, 1]), "a number for each image and output"),
        (MULTI, torch.full((2, 4), -1.0), "must lie in 0…1"),
        (REGRESSION, torch.zeros(2), "a number for each image and output"),
    ],
)
def test_labels_that_do_not_fit(build, noise, kind, labels, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        build(problem_type=kind)(noise(2, 64), labels=labels)
    assert "\n" not in str(caught.value)


def test_ignored_labels(build, noise):
    labels = torch.tensor([-100, 2])
    output = build()(noise(2, 64), labels=labels)
    assert torch.allclose(output.loss, F.cross_entropy(output.logits[1:], labels[1:]))


@pytest.mark.parametrize("labels", [[0, 4], [-1, 0], [10**6, 0]])
def test_labels_that_are_no_class(build, noise, labels):
    with pytest.raises(ValueError, match=r"labels must lie in 0…3 \(num_labels=4\), but this batch has"):
        build()(noise(2, 64), labels=torch.tensor(labels))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 1)])
def test_labels_of_another_number(build, noise, shape):
    with pytest.raises(ValueError, match=r"\d"):
        build()(noise(2, 64), labels=torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_class_indices_of_other_integer_types(build, noise, dtype):
    model, labels = build(), torch.tensor([3, 1])
    output = model(noise(2, 64), labels=labels.to(dtype))
    assert torch.allclose(output.loss, F.cross_entropy(output.logits, labels))


def test_unknown_problem_type(build):
    with pytest.raises(ValueError, match="problem_type"):
        build(problem_type="classification")


@pytest.mark.parametrize("kind", [None, MULTI, REGRESSION])
def test_loss_trains_the_backbone_and_its_head(build, noise, kind):
    model = build(problem_type=kind).train()
    labels = torch.tensor([3, 1]) if kind is None else torch.rand(2, 4)
    model(noise(2, 64), labels=labels, phase="task").loss.backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    assert all(parameter.grad is None for parameter in model.map_head.parameters())
