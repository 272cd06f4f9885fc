"""The FastSHAP explainer of `benchmarks.faithfulness.fastshap`, by hand and on a network whose patches add up."""

import pytest
import torch
from torch import Tensor

from benchmarks.faithfulness.fastshap import Games, UNet, efficient, fit, paired_coalitions, pixels_entry, play


def test_values_are_shifted_alike_to_sum_to_the_total():
    shifted = efficient(torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]), torch.tensor([5.0, -2.0]))
    assert shifted.tolist() == [[1.5, 2.5, 0.5, 0.5], [-0.5, -0.5, -0.5, -0.5]]


def test_coalitions_come_in_pairs_and_by_the_shapley_kernel():
    """Sizes s of 64 patches have odds of 1 / (s (64 − s)): 1 or 63 patches 4.2 times as often as 5 or 59."""
    drawn = paired_coalitions(40000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[1::2], ~drawn[::2])
    counts = torch.bincount(drawn.sum(dim=1), minlength=65).double()
    assert counts[0] == counts[64] == 0
    assert (counts[1] + counts[63]) / (counts[5] + counts[59]) == pytest.approx(5 * 59 / 63, rel=0.1)
    assert (drawn.double().mean(dim=0) - 0.5).abs().max() < 0.02


def test_the_loss_by_hand():
    """All values 0, the whole gains 32: half a point a patch, so 3 patches 1.5 where they gained 2.5."""
    coalition = (torch.arange(64) < 3)[None, None]
    one = torch.ones(1)
    games = Games(coalition, torch.tensor([[3.5]]), 33 * one, one)
    assert float(games.off(torch.zeros(1, 64), torch.tensor([0]))) == 1.0


def judge(images: Tensor) -> Tensor:
    """The first channel's brightness decides; a patch that shows the mean colour adds nothing."""
    bright = images[:, 0].mean(dim=(1, 2))
    return torch.stack([bright, torch.zeros_like(bright)], dim=1)


def bright_patches(count: int, seed: int) -> Tensor:
    patches = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return patches.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)


def test_an_explainer_of_an_additive_game_finds_its_shapley_values(tmp_path):
    images = bright_patches(320, seed=0)
    rows = [{"pixel_values": image} for image in images]
    path = tmp_path / "coalitions.pt"
    games = play(rows, judge, 8, path)
    torch.manual_seed(0)
    network = UNet(pixels_entry(size=32, width=32), width=32)
    report = fit(network, images, games, lr=1e-3, epochs=10)
    assert (report["images"], report["held_out"]) == (280, 40)
    unseen = bright_patches(20, seed=1)
    with torch.no_grad():
        found = efficient(network(unseen), torch.zeros(20))
    truth = unseen[:, 0, ::4, ::4].flatten(1)
    truth = (truth - truth.mean(dim=1, keepdim=True)) / 64
    assert float(torch.corrcoef(torch.stack([found.flatten(), truth.flatten()]))[0, 1]) > 0.95
    assert float((found - truth).square().mean() / truth.square().mean()) < 0.1

    again = play(rows, lambda images: pytest.fail("asked again"), 8, path)
    assert torch.equal(again.values, games.values)
