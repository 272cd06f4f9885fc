"""The energy map, from soft attention maps to the weighted sum, against values computed by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from antehoc_hf.modeling import EnergyMapConfig
from antehoc_hf.modeling.energy_map import (
    AutoencoderWeightNetwork,
    ScalarWeightNetwork,
    channel_attention,
    interpretation_map,
    soft_attention_maps,
    weight_maps,
)

# Two channels on a grid of one row and two columns: channel 0 reads (0, ln 2), channel 1 reads (ln 4, 0).
LN2 = math.log(2)
FEATURES = torch.tensor([[[[0.0, LN2]], [[2 * LN2, 0.0]]]])

# Two soft attention maps of 2×2 pixels and their weights; Σ WM ⊙ SAM = (.15, .3, .3, .25).
SAMS = torch.tensor([[[[0.1, 0.2], [0.3, 0.4]], [[0.2, 0.6], [0.1, 0.1]]]])
WEIGHTS = torch.tensor([[[[0.5, 0.75], [1.0, 0.5]], [[0.5, 0.25], [0.0, 0.5]]]])
COMBINED = torch.tensor([[0.15, 0.3], [0.3, 0.25]])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("mean", [LN2, LN2 / 2]), ("sum", [2 * LN2, LN2]), ("max", [2 * LN2, LN2]), ("l2", [2 * LN2, LN2])],
)
def test_channel_reductions(reduction, expected):
    scores = channel_attention(FEATURES, reduction, "spatial")
    assert torch.allclose(scores, torch.tensor([[expected]]))


def test_l2_and_max_differ_from_sum_where_channels_overlap():
    features = torch.tensor([3.0, -4.0]).view(1, 2, 1, 1)
    results = {name: channel_attention(features, name, "spatial").item() for name in ("sum", "max", "l2", "mean")}
    assert results == {"sum": -1.0, "max": 3.0, "l2": 5.0, "mean": -0.5}


@pytest.mark.parametrize(
    ("softmax", "expected"),
    [
        # Over positions for each channel: (1, 2)/3 and (4, 1)/5; then the mean.
        ("per_channel", [(1 / 3 + 4 / 5) / 2, (2 / 3 + 1 / 5) / 2]),
        # Over all four values 1, 2, 4, 1 of sum 8; then the sum over channels.
        ("joint", [5 / 8, 3 / 8]),
        # Over channels at each position: (1, 4)/5 and (2, 1)/3; then the maximum.
        ("channels", [4 / 5, 2 / 3]),
    ],
)
def test_readings_of_the_softmax(softmax, expected):
    probabilities = channel_attention(FEATURES, "mean", softmax)
    assert torch.allclose(probabilities, torch.tensor([[expected]]))


def test_spatial_softmax_of_the_channel_mean():
    scores = channel_attention(FEATURES, "mean", "spatial")
    maps = soft_attention_maps([scores], (1, 2))
    weights = [2.0, math.sqrt(2)]  # exp of the means
    assert torch.allclose(maps[0, 0, 0], torch.tensor(weights) / sum(weights))


@pytest.mark.parametrize("softmax", ["spatial", "per_channel", "joint", "channels"])
@pytest.mark.parametrize("size", [(64, 64), (33, 57)])
def test_maps_have_mass_one(softmax, size):
    layers = [torch.randn(2, 6, 16, 16), torch.randn(2, 9, 5, 3), torch.randn(2, 4, 1, 1)]
    attentions = [channel_attention(layer, "mean", softmax) for layer in layers]
    maps = soft_attention_maps(attentions, size, softmax)
    assert maps.shape == (2, 3, *size)
    assert maps.dtype == torch.float32
    assert (maps >= 0).all()
    assert torch.allclose(maps.sum(dim=(2, 3)), torch.ones(2, 3), atol=1e-5)


def test_literal_reading_makes_a_4x4_layer_256_times_as_bright_as_a_64x64_layer():
    fine, coarse = torch.zeros(1, 64, 64), torch.zeros(1, 4, 4)
    maps = soft_attention_maps([fine, coarse], (128, 128), resizing="literal")
    assert torch.allclose(maps[:, 0], torch.tensor(1 / 64**2))
    assert torch.allclose(maps[:, 1], torch.tensor(1 / 4**2))
    assert (maps[:, 1] / maps[:, 0]).mean().item() == pytest.approx(256, rel=1e-4)
    even = soft_attention_maps([fine, coarse], (128, 128))
    assert torch.allclose(even[:, 0], even[:, 1])


def test_softmax_before_and_after_resizing():
    scores = torch.tensor([[[0.0, 4.0]]])
    resized = F.interpolate(scores[None], size=(2, 8), mode="bilinear", align_corners=False)
    after = soft_attention_maps([scores], (2, 8), resizing="resize_first")
    assert torch.allclose(after.flatten(), resized.flatten().softmax(0))
    softmaxed = torch.tensor([[1.0, math.exp(4)]]) / (1 + math.exp(4))
    before = F.interpolate(softmaxed[None, None], size=(2, 8), mode="bilinear", align_corners=False)
    literal = soft_attention_maps([scores], (2, 8), resizing="literal")
    assert torch.allclose(literal, before)
    assert torch.allclose(soft_attention_maps([scores], (2, 8)), before / before.sum())


@pytest.mark.parametrize("reduction", ["mean", "sum", "max", "l2"])
def test_reductions_of_half_precision_features_are_those_of_single_precision(reduction):
    # The sum of these channels is beyond what float16 can hold.
    features = (100 * torch.rand(1, 2048, 4, 4)).half()
    scores = channel_attention(features, reduction, "spatial")
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, channel_attention(features.float(), reduction, "spatial"), rtol=1e-5)


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ("none", COMBINED),
        ("minmax", torch.tensor([[0.0, 1.0], [1.0, 2 / 3]])),
        ("max", COMBINED / 0.3),
        ("area", COMBINED * 4),
    ],
)
def test_interpretation_map_is_the_weighted_sum_scaled(scaling, expected):
    map_, degenerate = interpretation_map(SAMS, WEIGHTS, map_scaling=scaling)
    assert map_.shape == (1, 1, 2, 2)
    assert torch.allclose(map_[0, 0], expected, atol=1e-6)
    assert degenerate.tolist() == [False]


def test_area_scaling_has_mean_one_for_maps_of_mass_one():
    sams = torch.rand(3, 4, 16, 16)
    sams = sams / sams.sum(dim=(2, 3), keepdim=True)
    map_, _ = interpretation_map(sams, torch.full_like(sams, 1 / 4), map_scaling="area")
    assert torch.allclose(map_.mean(dim=(1, 2, 3)), torch.ones(3), atol=1e-5)


def test_each_soft_attention_map_stretched_before_it_is_weighted():
    map_, _ = interpretation_map(SAMS, WEIGHTS, attention_scaling="minmax", map_scaling="none")
    first = torch.tensor([[0.0, 1 / 3], [2 / 3, 1.0]])
    second = torch.tensor([[0.2, 1.0], [0.0, 0.0]])
    assert torch.allclose(map_[0, 0], WEIGHTS[0, 0] * first + WEIGHTS[0, 1] * second, atol=1e-6)


@pytest.mark.parametrize("scaling", ["minmax", "max", "area", "none"])
def test_images_are_scaled_one_by_one(scaling):
    sams = torch.rand(4, 3, 8, 8)
    weights = torch.rand(4, 3, 8, 8).softmax(dim=1)
    together, _ = interpretation_map(sams, weights, map_scaling=scaling)
    alone = [interpretation_map(sams[i : i + 1], weights[i : i + 1], map_scaling=scaling)[0] for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_minmax_map_of_a_large_image_has_full_contrast():
    sams = torch.rand(1, 2, 1024, 1024)
    sams = sams / sams.sum(dim=(2, 3), keepdim=True)
    map_, degenerate = interpretation_map(sams, torch.full_like(sams, 0.5))
    assert map_.min() == 0
    assert map_.max().item() == pytest.approx(1, abs=1e-5)
    assert map_.max() <= 1
    assert not degenerate.any()


@pytest.mark.parametrize(("scaling", "expected"), [("minmax", 0.0), ("max", 1.0), ("area", 1.0), ("none", 1 / 64)])
def test_constant_map_is_flagged(scaling, expected):
    sams = torch.full((2, 3, 8, 8), 1 / 64)
    sams[1] = torch.rand(3, 8, 8)
    map_, degenerate = interpretation_map(sams, torch.full_like(sams, 1 / 3), map_scaling=scaling)
    assert degenerate.tolist() == [True, False]
    assert torch.allclose(map_[0], torch.tensor(expected))


@pytest.mark.parametrize("scaling", ["minmax", "max", "area", "none"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_map_that_is_not_finite_is_flagged_and_zero(scaling, value):
    sams = torch.rand(2, 3, 8, 8)
    sams[0, 1, 3, 4] = value
    map_, degenerate = interpretation_map(sams, torch.full_like(sams, 1 / 3), map_scaling=scaling)
    assert degenerate.tolist() == [True, False]
    assert map_[0].eq(0).all()
    assert map_[1].isfinite().all()
    assert map_[1].max() > 0


def test_gradient_of_a_constant_map_is_finite():
    """A batch with one grey image must not ruin the weight network."""
    logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
    sams = torch.full((2, 3, 8, 8), 1 / 64)
    sams[1] = torch.rand(3, 8, 8)
    map_, _ = interpretation_map(sams, weight_maps(logits, (8, 8)))
    map_.square().sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[1].abs().sum() > 0


@pytest.mark.parametrize("scaling", ["minmax", "max", "area", "none"])
def test_gradient_reaches_the_weights_under_every_scaling(scaling):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    map_, _ = interpretation_map(torch.rand(1, 3, 8, 8), weight_maps(logits, (8, 8)), map_scaling=scaling)
    (map_ * torch.rand(1, 1, 8, 8)).sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


def test_weight_maps_are_the_softmax_over_maps_at_their_own_grid():
    logits = torch.tensor([0.0, 1.0, 2.0]).log1p().view(1, 3, 1, 1).expand(2, 3, 4, 4)
    expected = torch.tensor([1.0, 2.0, 3.0]) / 6
    assert torch.allclose(weight_maps(logits, (4, 4)), expected.view(1, 3, 1, 1).expand(2, 3, 4, 4))


@pytest.mark.parametrize("size", [(64, 64), (37, 61), (5, 3)])
@pytest.mark.parametrize("grid", [(1, 1), (16, 16), (9, 15)])
def test_weight_maps_sum_to_one_at_every_pixel(size, grid):
    weights = weight_maps(5 * torch.randn(2, 6, *grid), size)
    assert weights.shape == (2, 6, *size)
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(dim=1), torch.ones(2, *size), atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (33, 57), (2, 3), (1, 1)])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_weight_network_starts_at_zero_for_any_size(size, skip, depth):
    network = AutoencoderWeightNetwork(5, depth=depth, width=4, skip=skip)
    logits = network(torch.rand(2, 5, *size))
    assert logits.shape[:2] == (2, 5)
    assert [abs(2 * small - side) <= 1 for small, side in zip(logits.shape[2:], size, strict=True)] == [True, True]
    assert logits.eq(0).all()


def test_depth_width_and_skip_make_other_networks():
    torch.manual_seed(0)
    maps = torch.rand(1, 4, 16, 16)

    def sizes(**options):
        return [tuple(p.shape) for p in AutoencoderWeightNetwork(4, **options).parameters()]

    assert sizes(depth=2, width=8)[:4] == [(8, 4, 3, 3), (8,), (16, 8, 3, 3), (16,)]
    assert sizes(depth=2, width=8) != sizes(depth=3, width=8)
    plain, skipping = AutoencoderWeightNetwork(4, 2), AutoencoderWeightNetwork(4, 2, skip=True)
    torch.nn.init.normal_(plain.head.weight)
    skipping.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(maps), skipping(maps))


def test_weight_network_does_not_look_at_the_rest_of_the_batch():
    network = AutoencoderWeightNetwork(4, depth=2).train()
    torch.nn.init.normal_(network.head.weight)
    maps = torch.rand(3, 4, 32, 32)
    assert torch.allclose(network(maps)[1:2], network(maps[1:2]), atol=1e-6)


def test_scalar_network_has_one_weight_a_map():
    network = ScalarWeightNetwork(3)
    assert sum(p.numel() for p in network.parameters()) == 3
    with torch.no_grad():
        network.logits.copy_(torch.tensor([1.0, 2.0, 5.0]).log())
    weights = weight_maps(network(torch.rand(2, 3, 8, 8)), (8, 8))
    assert torch.allclose(weights, torch.tensor([1 / 8, 2 / 8, 5 / 8]).view(1, 3, 1, 1).expand(2, 3, 8, 8))


def test_a_weight_network_that_would_not_fit_into_memory_is_refused():
    with pytest.raises(ValueError, match="weight_network_depth=30 is more than 8"):
        EnergyMapConfig(weight_network_depth=30)
