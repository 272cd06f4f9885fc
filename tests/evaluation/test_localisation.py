"""Energy share and pointing game against masks, by hand."""

import pytest
import torch

from antehoc_hf.evaluation import constant_map, energy_share, energy_share_over_area, pointing_game


def quarter(batch=1):
    masks = torch.zeros(batch, 1, 8, 8, dtype=torch.bool)
    masks[:, :, :4, :4] = True
    return masks


def test_energy_share():
    maps = torch.zeros(2, 1, 8, 8)
    maps[0, 0, 0, 0], maps[0, 0, 7, 7] = 0.9, 0.3  # three quarters inside
    maps[1, 0, 1, 1] = 0.2
    assert energy_share(maps, quarter(2)).tolist() == pytest.approx([0.75, 1.0])
    assert energy_share_over_area(maps, quarter(2)).tolist() == pytest.approx([3.0, 4.0])


@pytest.mark.parametrize("value", [1.0, 0.1])
def test_constant_map_is_chance(value):
    maps = constant_map(torch.zeros(1, 3, 8, 8), value)
    assert energy_share_over_area(maps, quarter().float()).item() == pytest.approx(1)


def test_pointing_game_draws_among_equal_values():
    hits = pointing_game(torch.ones(1000, 1, 8, 8), quarter(1000))
    assert hits.mean().item() == pytest.approx(0.25, abs=0.05)


def test_pointing_game_and_tolerance():
    maps = torch.zeros(2, 1, 8, 8)
    maps[0, 0, 2, 2], maps[1, 0, 4, 2] = 1, 1
    assert pointing_game(maps, quarter(2)).tolist() == [1, 0]
    assert pointing_game(maps, quarter(2), tolerance=1).tolist() == [1, 1]


def test_what_is_undefined_is_nan():
    maps = torch.rand(1, 1, 8, 8)
    empty = torch.zeros(1, 1, 8, 8)
    assert energy_share(maps, empty).isnan().all()
    assert energy_share_over_area(maps, empty).isnan().all()
    assert pointing_game(maps, empty, tolerance=3).isnan().all()
    assert energy_share(empty, quarter()).isnan().all()


def test_mistakes_end_in_one_sentence():
    maps = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match="one shape"):
        energy_share(maps, torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="Masks must hold 0 and 1"):
        pointing_game(maps, torch.full((1, 1, 8, 8), 255))
    with pytest.raises(ValueError, match="without negative values"):
        energy_share(-maps, quarter())
    with pytest.raises(ValueError, match="tolerance=-1"):
        pointing_game(maps, quarter(), tolerance=-1)
