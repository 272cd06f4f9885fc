"""Soft attention maps against values computed by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from antehoc_hf.modeling.attention_maps import channel_attention, minmax, shrink, soft_attention_maps

# Two channels on a grid of one row and two columns: channel 0 reads (0, ln 2), channel 1 reads (ln 4, 0).
LN2 = math.log(2)
FEATURES = torch.tensor([[[[0.0, LN2]], [[2 * LN2, 0.0]]]])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("mean", [LN2, LN2 / 2]),
        ("sum", [2 * LN2, LN2]),
        ("max", [2 * LN2, LN2]),
        ("l2", [2 * LN2, LN2]),
    ],
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
    maps = soft_attention_maps([fine, coarse], (128, 128), resize="literal")
    assert torch.allclose(maps[:, 0], torch.tensor(1 / 64**2))
    assert torch.allclose(maps[:, 1], torch.tensor(1 / 4**2))
    assert (maps[:, 1] / maps[:, 0]).mean().item() == pytest.approx(256, rel=1e-4)
    even = soft_attention_maps([fine, coarse], (128, 128))
    assert torch.allclose(even[:, 0], even[:, 1])


def test_softmax_before_and_after_resizing():
    scores = torch.tensor([[[0.0, 4.0]]])
    resized = F.interpolate(scores[None], size=(2, 8), mode="bilinear", align_corners=False)
    after = soft_attention_maps([scores], (2, 8), resize="resize_first")
    assert torch.allclose(after.flatten(), resized.flatten().softmax(0))
    softmaxed = torch.tensor([[1.0, math.exp(4)]]) / (1 + math.exp(4))
    before = F.interpolate(softmaxed[None, None], size=(2, 8), mode="bilinear", align_corners=False)
    literal = soft_attention_maps([scores], (2, 8), resize="literal")
    assert torch.allclose(literal, before)
    assert torch.allclose(soft_attention_maps([scores], (2, 8)), before / before.sum())


@pytest.mark.parametrize("magnitude", [1.0, 1e-6, 1e-12, 1e5])
def test_minmax_reaches_both_ends_whatever_the_magnitude(magnitude):
    maps = torch.rand(2, 3, 8, 8) * magnitude
    stretched = minmax(maps)
    assert stretched.amin(dim=(2, 3)).eq(0).all()
    assert torch.allclose(stretched.amax(dim=(2, 3)), torch.ones(2, 3), atol=1e-5)
    assert stretched.max() <= 1


def test_minmax_of_a_soft_attention_map_of_a_large_image_reaches_one():
    # Values around 1/(H·W) = 2e-7: an absolute epsilon of 1e-8 would dim the map by some percent.
    maps = soft_attention_maps([torch.randn(1, 32, 32)], (2048, 2048))
    assert minmax(maps).max().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 1e-7, 1e6])
def test_minmax_of_a_constant_map_is_zero(value):
    assert minmax(torch.full((1, 2, 5, 5), value)).eq(0).all()


def test_minmax_does_not_show_rounding():
    maps = torch.full((1, 1, 64, 64), 1 / 4096) * (1 + 1e-7 * torch.randn(1, 1, 64, 64))
    assert maps.max() > maps.min()
    assert minmax(maps).eq(0).all()
    assert minmax(maps * (1 + 1e-3 * torch.rand(1, 1, 64, 64))).max().item() == pytest.approx(1, abs=1e-4)


def test_minmax_stretches_each_map_by_itself():
    maps = torch.stack([torch.arange(4.0).view(2, 2), 10 + 2 * torch.arange(4.0).view(2, 2)])[None]
    expected = torch.arange(4.0).view(2, 2) / 3
    assert torch.allclose(minmax(maps), expected.expand(1, 2, 2, 2))


@pytest.mark.parametrize(("side", "factor", "expected"), [(8, 1, 8), (8, 2, 4), (9, 2, 5), (8, 4, 2), (3, 8, 1)])
def test_shrink_rounds_sizes_up(side, factor, expected):
    assert shrink(torch.rand(1, 2, side, side), factor).shape == (1, 2, expected, expected)


def test_shrink_averages():
    maps = torch.rand(1, 2, 6, 8)
    assert torch.allclose(shrink(maps, 2), F.avg_pool2d(maps, 2))
    assert shrink(torch.full((1, 1, 7, 9), 0.3), 3).allclose(torch.tensor(0.3))


@pytest.mark.parametrize("reduction", ["mean", "sum", "max", "l2"])
def test_reductions_of_half_precision_features_are_those_of_single_precision(reduction):
    # The sum of these channels is beyond what float16 can hold.
    features = (100 * torch.rand(1, 2048, 4, 4)).half()
    scores = channel_attention(features, reduction, "spatial")
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, channel_attention(features.float(), reduction, "spatial"), rtol=1e-5)
