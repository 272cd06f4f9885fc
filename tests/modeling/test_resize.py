"""The faster resizing of maps is torch's own, to rounding."""

import pytest
import torch
import torch.nn.functional as F

from antehoc_hf.modeling.scaling import halve, resize


@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (7, 5), (32, 1)])
@pytest.mark.parametrize("size", [(64, 64), (33, 57), (3, 2), (1, 1)])
def test_resize_is_bilinear_interpolation(grid, size):
    maps = torch.rand(2, 3, *grid)
    expected = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    assert torch.allclose(resize(maps, size), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_resize_keeps_the_kind_of_number(dtype):
    assert resize(torch.rand(1, 2, 4, 4).to(dtype), (8, 8)).dtype == dtype


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
