"""What quadrants of a mosaic are worth, on a network whose use of them is known; and Shapley values by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn


@pytest.fixture
def part_grid(comparison):
    return comparison("part_grid")


class SeesQuadrants(nn.Module):
    """Class k of four has probability 0.2 where its quadrant is shown, else 0.1; class 0 needs quadrant 1 as well."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def backbone(self, pixel_values):
        height, width = pixel_values.shape[-2] // 2, pixel_values.shape[-1] // 2
        corners = pixel_values[:, 0, ::height, ::width].flatten(1)  # the first pixel of each quadrant: 1 where shown
        seen = (corners > 0.9).float()
        seen[:, 0] = seen[:, 0] * seen[:, 1]
        # Five classes, of which the last takes what is left: probabilities that are sums of what is seen.
        shares = 0.1 + 0.1 * seen
        return torch.cat([shares, 1 - shares.sum(dim=1, keepdim=True)], dim=1).log()


def test_shapley_values_by_hand(comparison):
    """Two players: alone 1 and 2, together 6, nobody 0. First in half of the orders each: (1 + (6 − 2)) / 2 = 2.5 and
    (2 + (6 − 1)) / 2 = 3.5.
    """
    coalition_truth = comparison("coalition_truth")
    assert coalition_truth.coalitions(2) == [(False, False), (False, True), (True, False), (True, True)]
    worth = torch.tensor([[0.0, 1.0], [2.0, 1.0], [1.0, 1.0], [6.0, 1.0]])
    assert torch.equal(coalition_truth.shapley(worth), torch.tensor([[2.5, 0.0], [3.5, 0.0]]))


def test_what_quadrants_are_worth(part_grid):
    images = torch.zeros(2, 3, 8, 12)
    images[:, :, ::4, ::6] = 1.0  # brighter than the mean that hides a quadrant
    classes = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    worth = part_grid.quadrant_worth(SeesQuadrants(), images, classes)
    assert worth.shape == (4, 2, 4)
    expected = torch.zeros(4, 4)  # of class k, in its quadrants
    expected[0, :2] = 0.05
    expected[1, 1] = expected[2, 2] = expected[3, 3] = 0.1
    assert torch.allclose(worth[:, 0], expected, atol=1e-6)
    assert torch.allclose(worth[:, 1], expected.flip(0), atol=1e-6)


def test_scores_of_what_knows_the_truth(part_grid):
    """Where two quadrants decide a class, half of the energy is elsewhere; a constant map has a quarter."""
    images = torch.zeros(2, 3, 8, 16)
    images[:, :, ::4, ::8] = 1.0
    classes = torch.arange(4).repeat(2, 1)
    model = SeesQuadrants()
    model.config = SimpleNamespace(map_head=SimpleNamespace(grid=4))
    maps = part_grid.true_maps(model, images, classes)
    scores = {name: part_grid.play(of_class) for name, of_class in maps.items()}
    share = {name: score["energy in the quadrant"]["value"] for name, score in scores.items()}
    assert share["right quadrant"] == pytest.approx(1.0)
    assert share["quadrants' worth"] == pytest.approx((0.5 + 3) / 4, abs=1e-5)
    assert 0.8 < share["right quadrant, on patches"] < 1.0  # bilinear between patches, some of it falls over the edge
    assert share["quadrants' worth, on patches"] < share["quadrants' worth"]
    flat = part_grid.play([torch.ones(2, 1, 8, 16)] * 4)
    assert flat["energy in the quadrant"]["value"] == pytest.approx(0.25)
