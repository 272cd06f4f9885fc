"""What every map head shares: its options, image ⊙ map, and a kind of map from outside the package."""

import pytest
import torch

from antehoc_hf.modeling.map_head import apply_map


MEAN, STD = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1)


def test_energy_map_in_pixel_space():
    pixels = torch.rand(2, 3, 8, 8)
    mask = torch.rand(2, 1, 8, 8)
    mask[:, :, 0, 0], mask[:, :, 1, 1] = 0, 1
    normalised = (pixels - MEAN) / STD
    energy = apply_map(normalised, mask, MEAN, STD)
    assert torch.allclose(energy, (pixels * mask - MEAN) / STD, atol=1e-5)
    # Where the map is 0 the image is black, and where it is 1 the image is what it was, to the last bit.
    assert torch.equal(energy[:, :, 0, 0], (-MEAN / STD).flatten().expand(2, 3))
    assert torch.equal(energy[:, :, 1, 1], normalised[:, :, 1, 1])


def test_energy_map_of_a_map_of_ones_is_the_image():
    normalised = 3 * torch.randn(2, 3, 32, 32)
    assert torch.equal(apply_map(normalised, torch.ones(2, 1, 32, 32), MEAN, STD), normalised)


def test_energy_map_in_normalised_space():
    normalised, mask = torch.randn(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
    assert torch.equal(apply_map(normalised, mask, MEAN, STD, "normalized"), normalised * mask)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_energy_map_has_the_type_of_the_image(dtype):
    energy = apply_map(torch.randn(1, 3, 4, 4).to(dtype), torch.rand(1, 1, 4, 4), MEAN, STD)
    assert energy.dtype == dtype
