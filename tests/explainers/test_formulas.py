"""The methods against their formulas: values by hand, identities, invariances."""

import pytest
import timm
import torch
import transformers
from captum.attr import IntegratedGradients, LayerGradCam, LayerGradientXActivation
from torch import nn
from torchcam.methods import GradCAM, LayerCAM, ScoreCAM

from antehoc_hf.evaluation.maps import minmax_maps
from antehoc_hf.explainers import load_explainer
from antehoc_hf.explainers.cam import plus_plus_weights
from antehoc_hf.explainers.coalition_regression import additive_game
from antehoc_hf.explainers.integrated_grad_cam import path
from antehoc_hf.explainers.otsu import otsu
from antehoc_hf.explainers.sise import fused


def images(count: int = 2, side: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=5).eval()


def at_input_size(maps: torch.Tensor) -> torch.Tensor:
    return minmax_maps(nn.functional.interpolate(maps, size=(64, 64), mode="bilinear", align_corners=False))


# -- delegated methods equal the libraries -------------------------------------------------------------------------


def test_grad_cam_is_captums_and_torchcams(network) -> None:
    ours = load_explainer("grad-cam", network, layer="layer4")(images(), [0, 3])
    captum = LayerGradCam(network, network.layer4).attribute(images(), torch.tensor([0, 3])).relu().detach()
    assert torch.allclose(ours, at_input_size(captum), atol=1e-5)
    with GradCAM(network, network.layer4) as method:
        torchcam = method([0, 3], network(images()))[0]
    assert torch.allclose(ours, at_input_size(torchcam[:, None]), atol=1e-5)


def test_layer_cam_is_torchcams(network) -> None:
    ours = load_explainer("layer-cam", network, layer="layer3")(images(), [0, 3])
    with LayerCAM(network, network.layer3) as method:
        torchcam = method([0, 3], network(images()))[0]
    assert torch.allclose(ours, at_input_size(torchcam[:, None]), atol=1e-5)


def test_hires_cam_is_captums_before_the_mean(network) -> None:
    ours = load_explainer("hires-cam", network, layer="layer3")(images(), [0, 3])
    captum = LayerGradientXActivation(network, network.layer3).attribute(images(), torch.tensor([0, 3]))
    assert torch.allclose(ours, at_input_size(captum.sum(dim=1, keepdim=True).relu().detach()), atol=1e-5)


def test_score_cam_is_torchcams(network) -> None:
    ours = load_explainer("score-cam", network, layer="layer4")(images(), [0, 3])
    with ScoreCAM(network, network.layer4) as method, torch.no_grad():
        network(images())
        torchcam = method([0, 3])[0]
    assert torch.allclose(ours, at_input_size(torchcam[:, None]), atol=1e-4)


def test_integrated_gradients_is_captums(network) -> None:
    ours = load_explainer("integrated-gradients", network, steps=8)(images(), 2)
    mean, std = (torch.tensor(network.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    black = (-mean / std).expand_as(images())
    captum = IntegratedGradients(network).attribute(images(), black, target=2, n_steps=8)
    assert torch.allclose(ours, minmax_maps(captum.sum(dim=1, keepdim=True).abs()), atol=1e-4)


def test_grad_cam_plus_plus_by_hand() -> None:
    # One channel of two positions: A = (1, 3), g = (2, -1): α = g² / (2 g² + g³ ΣA) = 4 / (8 + 32), 1 / (2 − 4).
    features = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
    gradients = torch.tensor([2.0, -1.0]).view(1, 1, 1, 2)
    # The second position's gradient is negative, so its ReLU is 0.
    assert plus_plus_weights(features, gradients).item() == pytest.approx(0.1 * 2)
    assert plus_plus_weights(features, torch.zeros_like(gradients)).item() == 0


# -- patches, masks ------------------------------------------------------------------------------------------------


class Additive(nn.Module):
    """Two classes; the logits of the first are the weighted mean colours of four patches, whatever the others show."""

    weights = torch.tensor([[3.0, -1.0], [0.5, 0.0]])

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(32)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits = (self.pool(pixels).mean(dim=1) * self.weights).sum(dim=(1, 2))
        return torch.stack([logits, torch.zeros_like(logits)], dim=1)


@pytest.mark.parametrize(
    ("method", "options"),
    [("leave-one-out", {}), ("shapley-sampling", {"samples": 2}), ("kernel-shap", {"samples": 60})],
)
def test_patches_of_an_additive_network_are_worth_what_they_add(method: str, options: dict[str, int]) -> None:
    # Quadrants of brightness 1, 2, 3, 6 on their mean, 3: what is taken out changes the value by w · (x − 3).
    bright = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    pixels = bright.repeat_interleave(32, 0).repeat_interleave(32, 1).expand(1, 3, 64, 64)
    expected = Additive.weights * (bright - 3)
    explainer = load_explainer(method, Additive(), grid=2, problem_type="regression", **options)
    explained = explainer.explain(pixels, 0)
    by_hand = minmax_maps(expected.repeat_interleave(32, 0).repeat_interleave(32, 1)[None, None])
    assert torch.allclose(explained.maps, by_hand, atol=1e-4)
    assert explained.passes.item() == {"leave-one-out": 4, "shapley-sampling": 8, "kernel-shap": 60}[method]


def test_coalition_regression_finds_what_patches_add() -> None:
    bright = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    pixels = bright.repeat_interleave(32, 0).repeat_interleave(32, 1).expand(1, 3, 64, 64)
    explainer = load_explainer("coalition-regression", Additive(), grid=2, problem_type="regression")
    explained = explainer.explain(pixels, 0)
    # Weights times brightness over the mean, 3: (−6, 1, 0, 0); a blurred quadrant is as bright as before.
    expected = torch.tensor([[0.0, 7.0], [6.0, 6.0]]) / 7
    assert torch.allclose(explained.maps[0, 0, ::32, ::32], expected, atol=0.05)
    assert explained.passes.item() == 600


def test_an_additive_game_is_recovered_and_size_is_set_aside() -> None:
    generator = torch.Generator().manual_seed(0)
    coalitions = torch.rand(400, 6, 8, generator=generator) < torch.rand(400, 1, 1, generator=generator)
    rows, columns = torch.linspace(-1, 1, 6), torch.linspace(-1, 1, 8)
    worth = torch.exp(-rows[:, None].square() - (columns - 0.4).square())
    signs = 2.0 * coalitions - 1
    size = signs.mean(dim=(1, 2))
    for aside in (0.0, 0.3):
        found = additive_game(coalitions, (signs * worth).mean(dim=(1, 2)) + aside * size**3)
        both = torch.stack([found.flatten(), worth.flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.99
    assert additive_game(coalitions, torch.full((400,), 0.2)).abs().max() == 0


def test_a_map_that_is_right_saves_coalitions_and_a_wrong_one_costs_little() -> None:
    generator = torch.Generator().manual_seed(0)
    worth, wrong = torch.randn(2, 6, 6, generator=generator)
    coalitions = torch.rand(40, 6, 6, generator=generator) < 0.5
    gains = ((2.0 * coalitions - 1) * worth).mean(dim=(1, 2))

    def right(known: torch.Tensor | None) -> float:
        found = additive_game(coalitions, gains, known)
        return float(torch.corrcoef(torch.stack([found.flatten(), worth.flatten()]))[0, 1])

    assert right(-7 * worth + 3) > 0.999  # whatever its units
    assert 0.5 < right(None) < 0.95
    assert right(wrong) > right(None) - 0.02
    assert right(torch.ones(6, 6)) == right(None)


def test_rise_finds_the_only_place_that_counts(network) -> None:
    class Corner(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            seen = pixels[:, :, 40:56, 8:24].mean(dim=(1, 2, 3))
            return torch.stack([20 * seen - 10, torch.zeros_like(seen)], dim=1)

    explainer = load_explainer("rise", Corner(), masks=500, cells=4)
    found = explainer(torch.ones(2, 3, 64, 64), 0)
    assert torch.equal(found[0], found[1])
    row, column = divmod(int(found[0].argmax()), 64)
    assert 40 <= row < 56
    assert 8 <= column < 24
    with pytest.raises(ValueError, match="kept=1"):
        load_explainer("rise", network, kept=1)


def test_masks_of_rise_are_binary_cells_cut_at_random(network) -> None:
    rise = load_explainer("rise", network, cells=2, kept=0.25)
    masks = rise._drawn(400, (64, 48), torch.Generator().manual_seed(0))
    assert masks.shape == (400, 1, 64, 48)
    assert 0 <= float(masks.min()) <= float(masks.max()) <= 1
    assert float(masks.mean()) == pytest.approx(0.25, abs=0.02)


# -- Integrated Grad-CAM -------------------------------------------------------------------------------------------


def test_one_step_of_the_right_rule_is_grad_cam(network) -> None:
    integrated = load_explainer("integrated-grad-cam", network, steps=1, rule="right")(images(), 1)
    assert torch.allclose(integrated, load_explainer("grad-cam", network)(images(), 1), atol=1e-6)


def test_in_a_network_without_biases_integrated_grad_cam_is_grad_cam() -> None:
    torch.manual_seed(0)
    homogeneous = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4, bias=False),
    )
    options = {"layer": "3", "baseline": "zero_input", "steps": 7, "rule": "right"}
    integrated = load_explainer("integrated-grad-cam", homogeneous, **options)(images(), 1)
    assert torch.allclose(integrated, load_explainer("grad-cam", homogeneous, layer="3")(images(), 1), atol=1e-5)


def test_the_path_of_integrated_grad_cam(network) -> None:
    assert path(4, "left")[0].tolist() == [0, 0.25, 0.5, 0.75]
    assert path(4, "right")[0].tolist() == [0.25, 0.5, 0.75, 1]
    assert path(2, "midpoint")[0].tolist() == [0.25, 0.75]
    assert [values.tolist() for values in path(2, "trapezoid")] == [[0, 0.5, 1], [0.25, 0.5, 0.25]]
    same = load_explainer("integrated-grad-cam", network, steps=3, baseline=images(), delta="baseline_activation")
    assert same.explain(images()).degenerate.all()  # the image as its own baseline: no difference of features
    same = load_explainer("integrated-grad-cam", network, steps=3, baseline=images())
    assert torch.allclose(same(images(), 1), load_explainer("grad-cam", network)(images(), 1), atol=1e-5)


def test_options_of_integrated_grad_cam(network) -> None:
    maps = {
        key: load_explainer("integrated-grad-cam", network, steps=4, **options)(images(), 1)
        for key, options in {
            "default": {},
            "right": {"rule": "right"},
            "blur": {"baseline": "blur"},
            "mean": {"baseline": "mean"},
            "final": {"relu": "final"},
            "difference": {"delta": "baseline_activation"},
        }.items()
    }
    for name in ("right", "blur", "mean", "final", "difference"):
        assert not torch.allclose(maps[name], maps["default"], atol=1e-4), name
    with pytest.raises(ValueError, match=r"rule='simpson' is not one of 'left'"):
        load_explainer("integrated-grad-cam", network, rule="simpson")


# -- SISE and Ada-SISE ---------------------------------------------------------------------------------------------


class TwoChannels(nn.Module):
    """Features: the left and the right half's mean brightness, each on a 2×2 grid; score: left + 2·right − bias."""

    def __init__(self, weights=(1.0, 2.0)) -> None:
        super().__init__()
        self.grid = nn.Conv2d(3, len(weights), 4, 4, bias=False)
        nn.init.zeros_(self.grid.weight)
        for channel in range(len(weights)):
            self.grid.weight.data[channel, channel % 3] = 1 / 16
        self.block = nn.Sequential(self.grid)
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = self.block(x).mean(dim=(2, 3)) @ self.weights
        return torch.stack([value, torch.zeros_like(value)], dim=1)


def test_a_layer_of_two_maps_by_hand() -> None:
    # Colour 0 is bright in the left column of the 2×2 grid, colour 1 in the right column.
    image = torch.zeros(1, 3, 8, 8)
    image[:, 0, :, :4] = 1.0
    image[:, 1, :, 4:] = 1.0
    model = TwoChannels()
    explained = load_explainer("sise", model, layer="grid").explain(image, 0)
    # Masks: the features stretched to [0, 1] after upsampling; confidences of image ⊙ mask; V = Σ s m / |m|.
    features = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])[:, None]
    masks = minmax_maps(nn.functional.interpolate(features, size=(8, 8), mode="bilinear", align_corners=False))
    with torch.no_grad():
        scores = model(image * masks).softmax(dim=1)[:, 0]
    expected = minmax_maps((scores / masks.sum(dim=(1, 2, 3)))[:, None, None, None] * masks).sum(0)
    combined = ((scores / masks.sum(dim=(1, 2, 3)))[:, None, None, None] * masks).sum(dim=0, keepdim=True)
    assert torch.allclose(explained.maps, minmax_maps(combined), atol=1e-6)
    assert explained.passes.tolist() == [2]
    assert expected.shape == (1, 8, 8)
    # The right half matters twice as much.
    assert float(explained.maps[0, 0, :, 7].mean()) > float(explained.maps[0, 0, :, 0].mean())


def test_channels_are_kept_whose_gradient_is_positive() -> None:
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for weights, kept in (((1.0, -2.0, 3.0), 2), ((-1.0, -2.0, -3.0), 0), ((1.0, 2.0, 3.0), 3)):
        explained = load_explainer("sise", TwoChannels(weights), layer="grid").explain(image, 0)
        assert explained.passes.tolist() == [kept]
        assert explained.degenerate.tolist() == [kept == 0]
    explained = load_explainer("sise", TwoChannels((1.0, 2.0, 3.0)), layer="grid", threshold=0.5).explain(image, 0)
    assert explained.passes.tolist() == [2]


def test_the_order_of_channels_does_not_matter() -> None:
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model, turned = TwoChannels((1.0, 2.0, 3.0)), TwoChannels((1.0, 2.0, 3.0))
    order = torch.tensor([2, 0, 1])
    turned.grid.weight.data = model.grid.weight.data[order].clone()
    turned.weights.data = model.weights.data[order].clone()
    for name in ("sise", "ada-sise"):
        first, second = (load_explainer(name, m, layer="grid")(image, 0) for m in (model, turned))
        assert torch.allclose(first, second, atol=1e-6)


def test_fusion() -> None:
    low = torch.tensor([[0.0, 0.2], [0.6, 1.0]])
    high = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert torch.equal(fused([low]), low)
    assert torch.equal(fused([low, high]), torch.tensor([[0.0, 0.0], [1.6, 2.0]]))
    assert torch.equal(fused([low, torch.full((2, 2), 0.5)]), low)  # constant: no threshold, skipped
    assert torch.equal(fused([low, high], gate="simple"), (low + high) * high)
    uneven = torch.tensor([[0.0, 0.2], [0.7, 1.0]])
    threshold = otsu(uneven)
    assert threshold is not None
    assert 0.2 < threshold < 0.7
    assert torch.allclose(
        fused([low, uneven], gate="soft"), (low + uneven) * torch.sigmoid(100 * (uneven - threshold)), atol=1e-6
    )


def test_otsu() -> None:
    values = torch.tensor([0.1, 0.12, 0.14, 0.8, 0.82])
    for exact in (False, True):
        threshold = otsu(values, exact)
        assert threshold is not None
        assert (values > threshold).tolist() == [False, False, False, True, True]
    assert otsu(torch.full((4,), 0.3)) is None


def test_ada_sise_tries_the_larger_gradients_alone(network) -> None:
    sise = load_explainer("sise", network).explain(images(), 1)
    adaptive = load_explainer("ada-sise", network).explain(images(), 1)
    assert sise.layers == adaptive.layers
    assert (adaptive.passes < sise.passes).all()
    with pytest.raises(ValueError, match="finds its threshold by itself"):
        load_explainer("ada-sise", network, threshold=0.1)


def test_hires_cam_of_a_network_that_normalises_each_position() -> None:
    """Before the normalisation gradient times features is zero, but for rounding that a map must not be made of."""
    torch.manual_seed(0)
    config = transformers.SwinConfig(image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[2, 2])
    model = transformers.SwinForImageClassification(config).eval()
    nn.init.normal_(model.classifier.weight)
    images = torch.randn(2, 3, 32, 32)
    explained = load_explainer("hires-cam", model).explain(images, 1)
    assert explained.layers == ("swin.layernorm",)
    with torch.no_grad():
        features = model.swin(images).last_hidden_state @ model.classifier.weight[1]
    expected = nn.functional.interpolate(features.relu().view(2, 1, 8, 8), size=(32, 32), mode="bilinear")
    assert torch.allclose(explained.maps, minmax_maps(expected), atol=1e-5)
    before = load_explainer("hires-cam", model, layer="swin.encoder.layers.1").explain(images, 1)
    assert before.degenerate.all()
    # The patches of a last block of which the class token is read are normalised by themselves as well.
    model = timm.create_model("test_vit", num_classes=3).eval()
    explained = load_explainer("hires-cam", model).explain(torch.randn(1, 3, 160, 160), 1)
    assert explained.layers == ("blocks.5.norm1",)
