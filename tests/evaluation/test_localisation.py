"""Energy share and pointing game against masks, by hand."""

import pytest
import torch

from antehoc_hf.evaluation import energy_share, pointing_game
from antehoc_hf.evaluation.controls import constant_map
from antehoc_hf.evaluation.localisation import energy_share_over_area, iou, relevance_rank


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


def test_relevance_rank_and_iou_by_hand():
    maps = torch.zeros(2, 1, 8, 8)
    # The 16 largest values: the upper half of the mask and as much outside; and exactly the mask.
    maps[0, 0, :2, :] = torch.linspace(1, 2, 16).view(2, 8)
    maps[1, 0, :4, :4] = torch.linspace(0.1, 0.2, 16).view(4, 4)
    assert relevance_rank(maps, quarter(2)).tolist() == [0.5, 1]
    assert iou(maps, quarter(2)).tolist() == pytest.approx([8 / 24, 1])
    rank = relevance_rank(maps, quarter(2))
    assert torch.allclose(iou(maps, quarter(2)), rank / (2 - rank))


def test_iou_at_a_threshold():
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, :2, :4], maps[0, 0, 7] = 1.0, 0.5
    assert iou(maps, quarter(), threshold=0.6).item() == pytest.approx(8 / 16)
    assert iou(maps, quarter(), threshold=0.4).item() == pytest.approx(8 / 24)
    assert iou(constant_map(torch.zeros(1, 3, 8, 8)), quarter(), threshold=0.5).item() == 0


def test_constant_maps_rank_at_random():
    ranks = relevance_rank(torch.ones(300, 1, 8, 8), quarter(300))
    assert ranks.mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(ranks[5:], relevance_rank(torch.ones(295, 1, 8, 8), quarter(295), first_index=5))


@pytest.mark.parametrize("measure", [relevance_rank, iou, pointing_game])
def test_only_the_order_of_pixels_counts(measure):
    maps = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(measure(maps, quarter(4)), measure(0.9 + 0.1 * maps**3, quarter(4)))


def test_a_map_is_scored_by_itself():
    """Divided by the largest value of its batch, as elsewhere, a map's mask would depend on its neighbours."""
    maps = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    maps[0] *= 0.1
    alone = torch.cat([iou(maps[i : i + 1], quarter(), threshold=0.5) for i in range(2)])
    assert torch.equal(iou(maps, quarter(2), threshold=0.5), alone)
    assert alone[0] > 0
    assert not (maps / maps.max() >= 0.5)[0].any()


def test_what_is_undefined_is_nan():
    maps = torch.rand(1, 1, 8, 8)
    empty = torch.zeros(1, 1, 8, 8)
    assert energy_share(maps, empty).isnan().all()
    assert energy_share_over_area(maps, empty).isnan().all()
    assert pointing_game(maps, empty, tolerance=3).isnan().all()
    assert relevance_rank(maps, empty).isnan().all()
    assert iou(maps, empty).isnan().all()
    assert iou(maps, empty, threshold=0.5).isnan().all()
    assert energy_share(empty, quarter()).isnan().all()


def test_mistakes_end_in_one_sentence():
    maps = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match="one shape"):
        energy_share(maps, torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="Masks must hold 0 and 1"):
        pointing_game(maps, torch.full((1, 1, 8, 8), 255))
    with pytest.raises(ValueError, match="without negative values"):
        energy_share(-maps, quarter())
    with pytest.raises(ValueError, match="threshold=0"):
        iou(maps, quarter(), threshold=0)
    with pytest.raises(ValueError, match="tolerance=-1"):
        pointing_game(maps, quarter(), tolerance=-1)
