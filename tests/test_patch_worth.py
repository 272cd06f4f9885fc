"""The measured worth of patches, on games and a network whose answer is known."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from antehoc_hf import AnteHocForImageClassification


@pytest.fixture
def part_worth(comparison):
    return comparison("part_worth")


def test_an_order_and_its_reverse_are_all_orders_of_two(part_worth):
    """Alone 1 and 2, together 6: worth 2.5 and 3.5, see the exact values' test."""

    def value(shown):
        return shown @ torch.tensor([1.0, 2.0]) + 3.0 * shown.all(dim=1)

    halves = part_worth.sampled_shapley(lambda shown: value(shown.float()), 2, 4, torch.Generator().manual_seed(0))
    assert torch.equal(halves, torch.tensor([[2.5, 3.5], [2.5, 3.5]], dtype=torch.float64))


@pytest.mark.parametrize("orders", [0, 2, 6])
def test_orders_that_make_no_halves(part_worth, orders):
    with pytest.raises(ValueError, match=f"worth_orders={orders} must be a multiple of 4"):
        part_worth.sampled_shapley(lambda shown: shown.float().sum(dim=1), 2, orders, torch.Generator())


def test_worth_sums_to_what_there_is(part_worth):
    def value(shown):
        return (shown.float() @ torch.linspace(0, 1, 6)).square()

    halves = part_worth.sampled_shapley(value, 6, 4000, torch.Generator().manual_seed(0))
    weights = torch.linspace(0, 1, 6, dtype=torch.float64)
    # Of (Σ w)² player i has w_i Σ w: its square, and half of every product with another, twice.
    assert torch.allclose(halves.mean(dim=0), weights * weights.sum(), atol=0.02)
    assert torch.allclose(halves.sum(dim=1), weights.sum().square().expand(2), atol=1e-6)


class SeesTheCorner(nn.Module):
    """The probability of class 0 is the mean brightness of the upper left quarter."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(
            map_head=SimpleNamespace(grid=4), image_mean=(0.5, 0.5, 0.5), image_std=(0.25, 0.25, 0.25)
        )

    def backbone(self, pixel_values):
        seen = (pixel_values[:, 0, :4, :6].mean(dim=(1, 2)) * 0.25 + 0.5).clamp(1e-6, 1 - 1e-6)
        return torch.stack([seen.logit(), torch.zeros_like(seen)], dim=1)


@dataclass
class Subject:
    model: Any
    pixel_values: torch.Tensor
    predicted: torch.Tensor

    @property
    def size(self):
        return tuple(self.pixel_values.shape[-2:])


def test_patches_that_decide(part_worth):
    """Of 4 × 6 patches of 2 × 2 pixels the six in the upper left quarter decide, and share what is seen."""
    images = torch.full((1, 3, 8, 12), 1.2)  # 0.8 as a pixel
    subject = Subject(SeesTheCorner(), images, torch.tensor([0]))
    halves = part_worth.patch_worth(subject, "black", 8)
    assert halves.shape == (2, 1, 1, 4, 6)
    expected = torch.zeros(4, 6)
    expected[:2, :3] = 0.8 / 6  # six patches, and nothing is left of black
    assert torch.allclose(halves[0, 0, 0], expected, atol=1e-4)
    assert torch.allclose(part_worth.patch_worth(subject, "mean colour", 8), torch.zeros(()), atol=1e-6)


def test_the_part_of_the_comparison(part_worth, comparison):
    """A model of ours from end to end: every map has its numbers."""
    torch.manual_seed(0)
    model = AnteHocForImageClassification.from_backbone(
        "test_resnet", num_labels=4, image_size=64, map_head={"kind": "contributions", "grid": 4}
    ).eval()
    images = torch.randn(3, 3, 64, 64)
    probabilities = comparison("subjects").predict(model, images)
    predicted = probabilities.argmax(dim=1)
    subject = comparison("subjects").Subject(0, model, None, images, predicted, predicted, probabilities, None)
    options = SimpleNamespace(worth_images=2, worth_orders=8, worth_methods=["grad-cam"])
    scores = part_worth.measure(subject, options)["scores"]
    assert list(scores) == ["worth, mean colour", "worth, black", "antehoc", "grad-cam"]
    for of_map in scores.values():
        assert of_map["Average Drop, 20 % kept"]["count"] == 2
        assert -1 <= of_map["rank correlation with worth, black"]["value"] <= 1
