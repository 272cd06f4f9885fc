"""Sizes and ranges of maps: the faster resizing is torch's own, to rounding."""

import pytest
import torch
import torch.nn.functional as F

from antehoc_hf.modeling.energy_map import soft_attention_maps
from antehoc_hf.modeling.scaling import halve, minmax, on_grid, resize, shrink


@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (7, 5), (32, 1)])
@pytest.mark.parametrize("size", [(64, 64), (33, 57), (3, 2), (1, 1)])
def test_resize_is_bilinear_interpolation(grid, size):
    maps = torch.rand(2, 3, *grid)
    expected = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    assert torch.allclose(resize(maps, size), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_resize_keeps_the_kind_of_number(dtype):
    assert resize(torch.rand(1, 2, 4, 4).to(dtype), (8, 8)).dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("side", [4, 8, 12, 16])
def test_features_of_every_precision_and_size_come_onto_the_grid(dtype, side):
    features = torch.rand(2, 3, side, side).to(dtype)
    assert torch.allclose(on_grid(features, (8, 8)), on_grid(features.float(), (8, 8)), atol=0.01)


def test_resize_carries_gradients_also_after_inference_mode():
    with torch.inference_mode():
        resize(torch.rand(1, 2, 5, 5), (11, 11))
    maps = torch.rand(1, 2, 5, 5, requires_grad=True)
    resize(maps, (11, 11)).sum().backward()
    assert torch.allclose(maps.grad.sum(), torch.tensor(2.0 * 11 * 11), rtol=1e-4)


def test_resize_on_another_default_device():
    """The weights of the mixture are kept between calls: one made while building on the meta device must not stay."""
    with torch.device("meta"):
        resize(torch.rand(1, 2, 6, 6), (13, 13))
        resize(torch.rand(1, 2, 6, 6, device="cpu"), (13, 13))
    assert resize(torch.ones(1, 2, 6, 6), (13, 13)).allclose(torch.tensor(1.0))


def test_resize_under_another_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        assert resize(torch.ones(1, 2, 6, 6, dtype=torch.float32), (17, 17)).allclose(torch.tensor(1.0).float())
    finally:
        torch.set_default_dtype(torch.float32)


def test_halving_is_the_mean_of_2x2_pixels():
    maps = torch.rand(2, 3, 8, 6)
    assert torch.allclose(halve(maps), F.avg_pool2d(maps, 2))


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


def _as_in_memory(maps, layout):
    """The same numbers with channels innermost, or as the tokens of a transformer behind one of the whole image."""
    if layout == "channels_last":
        return maps.contiguous(memory_format=torch.channels_last)
    if layout == "tokens":
        tokens = maps.flatten(2).transpose(1, 2)
        return torch.cat([tokens[:, :1], tokens], dim=1)[:, 1:].transpose(1, 2).unflatten(2, maps.shape[2:])
    return maps


@pytest.mark.parametrize("layout", ["ordinary", "channels_last", "tokens"])
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize(
    ("size", "grid", "options"),
    [
        ((56, 56), (8, 8), {"mode": "area"}),
        ((24, 16), (12, 8), {"mode": "area"}),
        ((14, 14), (8, 8), {"mode": "bilinear", "antialias": True}),
        ((28, 20), (8, 6), {"mode": "bilinear", "antialias": True}),
        ((7, 7), (8, 8), {"mode": "bilinear"}),
        ((10, 6), (8, 8), {"mode": "bilinear"}),
    ],
)
def test_activations_on_the_grid_of_patches_are_torchs_whatever_their_place_in_memory(
    layout, channels, size, grid, options
):
    maps = torch.randn(2, channels, *size)
    expected = F.interpolate(maps.double(), size=grid, **options).float()
    torch.testing.assert_close(on_grid(_as_in_memory(maps, layout), grid, scaled=False), expected, rtol=0, atol=1e-6)
