"""Ranking with seeded ties, binarised maps, controls."""

import pytest
import torch

from antehoc_hf.evaluation import CONTROLS
from antehoc_hf.evaluation.controls import black_map, center_map, constant_map, random_map, sobel_map
from antehoc_hf.evaluation.maps import binarise, binarise_equal_area, degenerate_maps, rank_pixels


def some_maps(batch=3, side=8, seed=0):
    return torch.rand(batch, 1, side, side, generator=torch.Generator().manual_seed(seed))


def test_ranks_follow_the_values():
    assert rank_pixels(torch.tensor([[[[0.1, 0.9], [0.4, 0.2]]]])).tolist() == [[3, 0, 1, 2]]


def test_ties_are_random_seeded_and_independent_of_the_batches():
    flat = torch.full((4, 1, 6, 6), 0.5)
    ranks = rank_pixels(flat, seed=1)
    assert (ranks.sort(dim=1).values == torch.arange(36)).all()
    assert not torch.equal(ranks[0], ranks[1])
    assert not torch.equal(ranks[0], torch.arange(36))
    assert torch.equal(ranks, rank_pixels(flat, seed=1))
    assert not torch.equal(ranks, rank_pixels(flat, seed=2))
    halves = [rank_pixels(flat[:1], seed=1), rank_pixels(flat[1:], seed=1, first_index=1)]
    assert torch.equal(ranks, torch.cat(halves))


def test_ties_spread_evenly():
    ranks = rank_pixels(torch.zeros(2000, 1, 2, 2))
    first = (ranks == 0).float().mean(dim=0)
    assert (first - 0.25).abs().max() < 0.04


def test_threshold_is_taken_after_stretching():
    maps = torch.tensor([[[[0.0, 0.1], [0.16, 0.2]]]])
    assert binarise(maps, 0.75).flatten().tolist() == [0, 0, 1, 1]
    assert binarise(constant_map(torch.zeros(1, 3, 4, 4), 0.9)).sum() == 0


def test_equal_area_keeps_that_area_and_the_largest_values():
    maps = some_maps(side=10)
    mask = binarise_equal_area(maps, 0.2)
    assert mask.sum(dim=(1, 2, 3)).tolist() == [20, 20, 20]
    for single, kept in zip(maps, mask.bool(), strict=True):
        assert single[kept].min() > single[~kept].max()


@pytest.mark.parametrize("transform", [lambda m: m / 4, lambda m: m**3, lambda m: 0.9 + 0.1 * m, torch.exp])
def test_equal_area_sees_the_order_only(transform):
    maps = (some_maps() * 64).floor() / 64  # with ties, and far enough apart to stay distinct
    assert torch.equal(binarise_equal_area(maps), binarise_equal_area(transform(maps)))


def test_degenerate():
    maps = some_maps(batch=4)
    maps[1], maps[2, 0, 0, 0] = 0.3, torch.nan
    maps[3] = 0.9 + 1e-7 * maps[3]
    assert degenerate_maps(maps).tolist() == [False, True, True, True]


def test_mistakes_end_in_one_sentence():
    broken = some_maps()
    broken[1, 0, 2, 2] = torch.nan
    with pytest.raises(ValueError, match="1 of 3 maps hold values that are not finite"):
        rank_pixels(broken)
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\)"):
        binarise(torch.rand(2, 8, 8))
    with pytest.raises(ValueError, match="threshold=0"):
        binarise(some_maps(), 0)
    with pytest.raises(ValueError, match=r"area=1\.5"):
        binarise_equal_area(some_maps(), 1.5)
    with pytest.raises(ValueError, match="value=2"):
        constant_map(torch.zeros(1, 3, 4, 4), 2)
    with pytest.raises(ValueError, match="sigma=0"):
        center_map(torch.zeros(1, 3, 4, 4), 0)


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_are_maps(name):
    pixels = torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    maps = CONTROLS[name](pixels, 0, 0)
    assert maps.shape == (2, 1, 12, 20)
    assert maps.dtype == torch.float32
    assert 0 <= maps.min() <= maps.max() <= 1
    assert torch.equal(maps, CONTROLS[name](pixels, 0, 0))


def test_constant_and_black():
    pixels = torch.randn(2, 3, 4, 4)
    assert (constant_map(pixels, 0.9) == 0.9).all()
    assert (black_map(pixels) == 0).all()


def test_random_map_belongs_to_image_and_seed():
    pixels = torch.zeros(3, 3, 16, 16)
    maps = random_map(pixels, seed=4)
    assert not torch.equal(maps[0], maps[1])
    assert not torch.equal(maps, random_map(pixels, seed=5))
    assert torch.equal(maps[1:], random_map(pixels[1:], seed=4, first_index=1))
    assert maps.mean() == pytest.approx(0.5, abs=0.05)


def test_center_map_falls_from_the_centre():
    blob = center_map(torch.zeros(1, 3, 9, 9))[0, 0]
    assert blob[4, 4] == 1
    assert blob[0, 0] == blob.min()
    assert torch.allclose(blob, blob.flip(0))
    assert torch.allclose(blob, blob.T)
    assert blob[4, 4 + 2] == pytest.approx(torch.exp(torch.tensor(-0.5 * (2 / 9 / 0.25) ** 2)).item())


def test_sobel_finds_the_edge_and_nothing_in_a_flat_image():
    pixels = torch.full((2, 3, 8, 8), 0.7)
    pixels[0, :, :, 4:] = 2.0
    edges = sobel_map(pixels)
    assert (edges[0, 0, :, 3:5] == 1).all()
    assert (edges[0, 0, :, [0, 1, 2, 5, 6, 7]] == 0).all()
    assert (edges[1] == 0).all()
