"""What the baselines compute: shapes, losses by hand, who learns from what."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from antehoc_hf.baselines import (
    BASELINES,
    CbahForImageClassification,
    PlainForImageClassification,
    SennForImageClassification,
)
from antehoc_hf.baselines.concept_autoencoder import concept_grid, reconstruction_target
from antehoc_hf.baselines.configuration import CbahConfig, SennConfig
from antehoc_hf.baselines.modeling_cbah import fidelity_loss
from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling import AnteHocForImageClassification

LABELS = torch.tensor([0, 1, 2, 1])


def build(model_class: Any, size: Any = 32, **options: Any) -> Any:
    torch.manual_seed(0)
    return model_class.from_backbone("test_resnet", num_labels=3, image_size=size, **options)


def images(height: int = 32, width: int | None = None, count: int = 4) -> Tensor:
    return torch.randn(count, 3, height, width or height, generator=torch.Generator().manual_seed(1))


# -- shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "grid"), [([32, 32], (5, 5)), ([128, 128], (29, 29)), ([64, 16], (13, 1))])
def test_the_decoder_meets_the_image(size: list[int], grid: tuple[int, int]) -> None:
    assert concept_grid(size) == grid
    for model_class in (SennForImageClassification, CbahForImageClassification):
        model = build(model_class, size, backbone_kwargs={"output_stride": 8}).eval()
        with torch.no_grad():
            outputs = model(images(*size), output_reconstruction=True)
        assert outputs.reconstruction.shape == (4, 3, *size)
        assert outputs.reconstruction.abs().max() <= 1


@pytest.mark.parametrize("size", [30, 12, [32, 33]])
def test_a_size_that_the_decoder_cannot_meet_is_refused(size: Any) -> None:
    for model_class in (SennForImageClassification, CbahForImageClassification):
        with pytest.raises(ValueError, match="multiples of 4 and at least 16: take for example"):
            build(model_class, size)


def test_senn_is_a_sum_of_concepts_times_relevances() -> None:
    model = build(SennForImageClassification, num_concepts=5).eval()
    with torch.no_grad():
        outputs = model(images())
    assert outputs.concepts.shape == (4, 5)
    assert outputs.relevances.shape == (4, 5, 3)
    by_hand = sum(outputs.concepts[:, i, None] * outputs.relevances[:, i] for i in range(5))
    torch.testing.assert_close(outputs.logits, by_hand)
    assert outputs.relevances.abs().max() <= 1
    assert outputs.loss is None
    assert outputs.reconstruction is None


@pytest.mark.parametrize(("activation", "least"), [("sigmoid", 0.0), ("tanh", -1.0)])
def test_relevances_are_bounded(activation: str, least: float) -> None:
    model = build(SennForImageClassification, relevance_activation=activation).eval()
    with torch.no_grad():
        relevances = model(50 * images()).relevances
    assert least <= relevances.min() < relevances.max() <= 1
    assert (relevances < 0).any() == (least < 0)


def test_cbah_predicts_by_the_backbones_own_head() -> None:
    model = build(CbahForImageClassification, num_concepts=6).eval()
    with torch.no_grad():
        outputs, plain = model(images()), model.backbone(images())
    assert torch.equal(outputs.logits, plain)
    assert outputs.concepts.shape == (4, 6)
    torch.testing.assert_close(outputs.concept_logits, model.concept_classifier(outputs.concepts))


def test_released_concepts_are_not_negative() -> None:
    kept = {kind: build(CbahForImageClassification, concept_activation=kind).eval() for kind in ("none", "relu")}
    with torch.no_grad():
        concepts = {kind: model(images()).concepts for kind, model in kept.items()}
    assert (concepts["none"] < 0).any()
    assert torch.equal(concepts["relu"], concepts["none"].relu())


# -- losses -----------------------------------------------------------------------------------------------------------


def test_the_target_of_the_reconstruction() -> None:
    config = SennConfig(image_mean=[0.25, 0.5, 0.5], image_std=[0.5, 0.5, 0.25], image_size=32)
    pixels = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    mean, std = torch.tensor(config.image_mean).view(3, 1, 1), torch.tensor(config.image_std).view(3, 1, 1)
    target = reconstruction_target((pixels - mean) / std, config)
    torch.testing.assert_close(target[0, :, 0, 0], torch.tensor([-1.0, 0.0, 1.0]))
    config.reconstruction_target = "normalized"
    assert torch.equal(reconstruction_target(pixels, config), pixels)


def test_fidelity_by_hand() -> None:
    head, concepts = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    p, q = torch.tensor([2.0, 0.0]).softmax(0), torch.tensor([0.0, 1.0]).softmax(0)
    assert float(fidelity_loss(head, concepts, "kl")) == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-5)
    assert float(fidelity_loss(head, concepts, "mse_logits")) == pytest.approx((4 + 1) / 2)
    # Logits against log-probabilities: -log(1 + e) and 1 - log(1 + e).
    low = -torch.tensor(1.0).exp().log1p()
    assert float(fidelity_loss(head, concepts, "authors_code")) == pytest.approx(
        float(((2 - low) ** 2 + (0 - (1 + low)) ** 2) / 2), rel=1e-5
    )


@pytest.mark.parametrize("kind", ["kl", "mse_logits", "authors_code"])
def test_fidelity_teaches_the_concepts_and_not_the_head(kind: str) -> None:
    head, concepts = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    fidelity_loss(head, concepts, kind).backward()
    assert head.grad is None
    assert concepts.grad is not None
    assert concepts.grad.abs().max() > 0


def test_the_losses_are_the_weighted_sums_of_their_parts() -> None:
    weights = {"reconstruction_weight": 0.5, "sparsity_weight": 0.25}
    senn = build(SennForImageClassification, robustness_weight=2.0, **weights).train()
    outputs = senn(images(), LABELS)
    parts = [outputs.classification_loss, 0.5 * outputs.reconstruction_loss, 0.25 * outputs.sparsity_loss]
    torch.testing.assert_close(outputs.loss, sum(parts) + 2 * outputs.robustness_loss)
    torch.testing.assert_close(outputs.classification_loss, F.cross_entropy(outputs.logits, LABELS))
    torch.testing.assert_close(outputs.sparsity_loss, outputs.concepts.abs().sum(1).mean())
    cbah = build(CbahForImageClassification, fidelity_weight=3.0, rotation_weight=4.0, **weights).train()
    outputs = cbah(images(), LABELS, output_reconstruction=True)
    parts = [outputs.classification_loss, 0.5 * outputs.reconstruction_loss, 3 * outputs.fidelity_loss]
    torch.testing.assert_close(outputs.loss, sum(parts) + 0.25 * outputs.sparsity_loss + 4 * outputs.rotation_loss)
    expected = F.mse_loss(outputs.reconstruction, reconstruction_target(images(), cbah.config))
    torch.testing.assert_close(outputs.reconstruction_loss, expected)


def test_released_sparsity_is_summed_over_the_batch() -> None:
    model = build(SennForImageClassification, sparsity_reduction="sum", robustness="none").eval()
    outputs = model(images(), LABELS)
    torch.testing.assert_close(outputs.sparsity_loss, outputs.concepts.abs().sum())


def test_there_is_no_penalty_without_training_or_gradients() -> None:
    model = build(SennForImageClassification)
    with torch.no_grad():
        assert model.train()(images(), LABELS).robustness_loss is None
        assert model.eval()(images(), LABELS).robustness_loss is None
    assert model.eval()(images(), LABELS).robustness_loss is None
    assert model.train()(images()).loss is None
    assert model(images(), LABELS).robustness_loss > 0
    assert build(SennForImageClassification, robustness="none").train()(images(), LABELS).robustness_loss is None


@pytest.mark.parametrize("robustness", ["exact", "projected"])
def test_the_penalty_keeps_full_precision(robustness: str) -> None:
    model = build(SennForImageClassification, robustness=robustness, relevance_dropout=0.0).train()
    model.backbone.eval()
    values = []
    for mixed in (False, True):
        torch.manual_seed(5)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            outputs = model(images(), LABELS)
        assert outputs.robustness_loss.dtype == torch.float32
        values.append(outputs.robustness_loss.detach())
    assert torch.equal(*values)


def test_the_penalty_leaves_no_gradient_behind() -> None:
    model, pixels = build(SennForImageClassification).train(), images()
    model(pixels, LABELS)
    assert not pixels.requires_grad
    assert pixels.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_every_parameter_learns() -> None:
    for model in (
        build(SennForImageClassification, relevance_dropout=0.0),
        build(CbahForImageClassification, rotation_weight=1.0),
    ):
        # Residual branches start at zero in timm, and what lies before a zero learns nothing yet.
        torch.manual_seed(1)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        model.train()(images(), LABELS).loss.backward()
        idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
        assert idle == []


def test_without_weights_the_concepts_do_not_touch_the_backbone() -> None:
    plain = build(PlainForImageClassification).train()
    cbah = build(CbahForImageClassification, reconstruction_weight=0.0, fidelity_weight=0.0).train()
    for model in (plain, cbah):
        model(images(), LABELS).loss.backward()
    for a, b in zip(plain.backbone.parameters(), cbah.backbone.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_plain_and_cbah_start_from_the_same_backbone_as_ours() -> None:
    """And leave the stream of random numbers, from which augmentation draws, at the same place."""
    started = []
    for model_class in (AnteHocForImageClassification, PlainForImageClassification, CbahForImageClassification):
        torch.manual_seed(7)
        model: Any = model_class.from_backbone("test_resnet", num_labels=3, image_size=64)
        started.append({**model.backbone.state_dict(), "next": torch.rand(1)})
    for key, value in started[0].items():
        assert torch.equal(started[1][key], value), key
        assert torch.equal(started[2][key], value), key


# -- options ----------------------------------------------------------------------------------------------------------


def test_released_values() -> None:
    config = CbahConfig.released_code(image_size=32)
    assert (config.reconstruction_weight, config.fidelity_weight, config.fidelity) == (0.0, 1e-4, "authors_code")
    assert (config.concept_activation, config.num_concepts) == ("relu", 10)
    config = SennConfig.released_code(image_size=32, num_concepts=10)
    assert (config.robustness, config.robustness_output, config.robustness_norm) == (
        "exact",
        "log_softmax",
        "frobenius",
    )
    assert (config.robustness_weight, config.sparsity_weight, config.sparsity_reduction) == (1e-2, 1e-4, "sum")
    assert (config.num_concepts, config.relevance_dropout, config.reconstruction_target) == (10, 0.5, "normalized")
    model = build(CbahForImageClassification, preset="released_code", fidelity="kl")
    assert (model.config.fidelity_weight, model.config.fidelity) == (1e-4, "kl")
    assert (CbahConfig().reconstruction_weight, CbahConfig().fidelity_weight, CbahConfig().fidelity) == (
        0.1,
        0.1,
        "kl",
    )


@pytest.mark.parametrize("model_class", [SennForImageClassification, CbahForImageClassification])
def test_encoder_without_a_classifier(model_class: Any) -> None:
    config = model_class.config_class(backbone="qwen3_vit_88m_enc", image_size=224)
    with torch.device("meta"), pytest.raises(ValueError, match="is an encoder without a classifier"):
        model_class(config)


def test_released_senn_trains() -> None:
    outputs = build(SennForImageClassification, preset="released_code").train()(images(), LABELS)
    outputs.loss.backward()
    assert outputs.robustness_loss > 0


@pytest.mark.parametrize(
    ("model_class", "options", "message"),
    [
        (SennForImageClassification, {"robustness": "some"}, "robustness='some' is not one of 'projected', 'exact'"),
        (SennForImageClassification, {"num_concepts": 0}, "num_concepts=0 must be a whole number of at least 1"),
        (SennForImageClassification, {"num_concepts": 2.5}, "num_concepts=2.5 must be a whole number"),
        (SennForImageClassification, {"sparsity_weight": -1}, "sparsity_weight=-1 must be a number of at least 0"),
        (SennForImageClassification, {"relevance_dropout": 1.0}, "relevance_dropout=1.0 must lie in"),
        (SennForImageClassification, {"robustnes": "none"}, "no option 'robustnes': did you mean 'robustness'"),
        (SennForImageClassification, {"preset": "authors"}, "preset='authors' is not one of 'paper', 'released_code'"),
        (SennForImageClassification, {"problem_type": "regression"}, "one of several classes"),
        (CbahForImageClassification, {"image_mean": 0.5}, "image_mean=0.5 must be three numbers"),
        (CbahForImageClassification, {"size": 3.5}, "image_size=3.5 must be a positive number"),
        (CbahForImageClassification, {"rotation_weight": 1.0, "size": [32, 64]}, "needs square images"),
        (PlainForImageClassification, {"backbone_kwargs": {"num_classes": 2}}, "must not hold 'num_classes'"),
    ],
)
def test_mistakes_end_in_one_sentence(model_class: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as caught:
        build(model_class, **options)
    assert "\n" not in str(caught.value)


def test_images_of_another_size_and_labels_of_no_class_are_refused() -> None:
    model = build(SennForImageClassification)
    with pytest.raises(ValueError, match=r"was built for images of \[32, 32\] pixels and takes no other"):
        model(images(64))
    with pytest.raises(ValueError, match=r"labels must lie in 0…2"):
        model(images(), LABELS + 1)
    with pytest.raises(ValueError, match="does not support activation checkpointing"):
        model.activation_checkpointing_enable()


def test_a_backbone_without_second_derivatives_is_refused_at_the_first_step() -> None:
    torch.manual_seed(0)
    options: Any = {"num_labels": 3, "image_size": 32}
    model = SennForImageClassification.from_backbone("mobilenetv3_small_050", **options).train()
    with pytest.raises(ValueError, match="'mobilenetv3_small_050' has a layer without a second derivative"):
        model(images(), LABELS)
    model = SennForImageClassification.from_backbone("mobilenetv3_small_050", robustness="none", **options).train()
    model(images(), LABELS).loss.backward()


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_convnext", "test_vit"])
def test_other_backbones_have_the_penalty(backbone: str) -> None:
    model = SennForImageClassification.from_backbone(backbone, num_labels=3, image_size=64).train()
    outputs = model(images(64), LABELS)
    outputs.loss.backward()
    assert outputs.robustness_loss > 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", list(BASELINES))
def test_our_explainers_take_them(name: str) -> None:
    model = build(BASELINES[name], 64)
    maps = load_explainer("grad-cam", model)(images(64, count=2))
    assert maps.shape == (2, 1, 64, 64)
    assert maps.min() >= 0
    assert maps.max() == pytest.approx(1, abs=1e-5)
