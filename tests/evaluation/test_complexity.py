"""Mean, entropy and Gini index of maps, by hand."""

import math

import pytest
import torch

from antehoc_hf.evaluation.complexity import map_entropy, map_gini, map_mean
from antehoc_hf.evaluation.controls import constant_map


def single(batch=1):
    maps = torch.zeros(batch, 1, 4, 4)
    maps[:, 0, 1, 2] = 0.7
    return maps


def test_mean():
    assert map_mean(single()).item() == pytest.approx(0.7 / 16)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1000.0])
def test_extremes_and_scale(scale):
    flat = scale * constant_map(torch.zeros(1, 3, 4, 4))
    assert map_entropy(flat).item() == pytest.approx(1)
    assert map_gini(flat).item() == pytest.approx(0, abs=1e-6)
    assert map_entropy(scale * single()).item() == 0
    assert map_gini(scale * single()).item() == pytest.approx(15 / 16)


def test_hand_computed():
    maps = torch.tensor([[[[1.0, 1.0], [0.0, 2.0]]]])
    # q = ¼, ¼, 0, ½; entropy = 1.5 log 2 over log 4.
    assert map_entropy(maps).item() == pytest.approx(1.5 * math.log(2) / math.log(4))
    # Sorted 0 1 1 2, weights −3 −1 1 3: (−1 + 1 + 6) / (4 · 4).
    assert map_gini(maps).item() == pytest.approx(6 / 16)


def test_gini_is_half_the_relative_mean_difference():
    values = torch.rand(1, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    flat = values.flatten()
    difference = (flat[:, None] - flat[None, :]).abs().mean() / flat.mean() / 2
    assert map_gini(values).item() == pytest.approx(difference.item(), abs=1e-6)


def test_maps_of_zeros_are_undefined():
    maps = torch.cat([torch.zeros(1, 1, 4, 4), single()])
    assert map_entropy(maps).isnan().tolist() == [True, False]
    assert map_gini(maps).isnan().tolist() == [True, False]
    assert map_entropy(torch.ones(1, 1, 1, 1)).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float(dtype):
    maps = torch.full((1, 1, 224, 224), 0.5, dtype=dtype)
    assert map_entropy(maps).item() == pytest.approx(1, abs=1e-5)
    assert map_mean(maps).item() == 0.5


def test_mistakes_end_in_one_sentence():
    with pytest.raises(ValueError, match="without negative values"):
        map_entropy(-single())
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        map_gini(torch.rand(2, 4, 4))
    with pytest.raises(ValueError, match="not finite"):
        map_mean(torch.full((1, 1, 2, 2), torch.nan))
