"""The blur is a Gaussian of 1/16 of the shorter side, whatever the size, the type and the batch."""

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from antehoc_hf.evaluation.blur import blurred


@pytest.mark.parametrize("size", [(32, 32), (48, 96), (224, 160), (7, 5)])
def test_a_gaussian_with_reflected_borders(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    sigma = min(size) / 16
    expected = gaussian_blur(images, kernel_size=[2 * max(1, int(3 * sigma)) + 1] * 2, sigma=[sigma] * 2)
    assert torch.allclose(blurred(images), expected, atol=2e-6)
    assert torch.equal(blurred(images)[1:], blurred(images[1:]))
    flipped = images.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)  # columns innermost in memory
    assert torch.allclose(blurred(flipped), expected, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_type(dtype: torch.dtype) -> None:
    images = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = blurred(images.to(dtype))
    assert found.dtype == dtype
    assert torch.allclose(found.double(), blurred(images), atol=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(blurred(images.float()), blurred(images.float()))
        assert torch.allclose(blurred(images.float()).double(), blurred(images), atol=1e-6)


def test_a_flat_image_stays_as_it_is() -> None:
    assert torch.allclose(blurred(torch.full((1, 3, 64, 48), 0.7)), torch.full((1, 3, 64, 48), 0.7), atol=1e-6)
