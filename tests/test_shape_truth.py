"""The comparison's truth about `shapes`, checked on a network whose use of the parts is known."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from antehoc_hf.shapes.scene import REGIONS, Recipe, draw, part_mask

SCENE = Recipe(seed=0, split="test", index=3, image_size=64)


@pytest.fixture
def shape_truth(comparison):
    return comparison("shape_truth")


class WingsOrTail(nn.Module):
    """Sure of class 0 while it sees the wings, the tail or both: one can stand for the other."""

    def __init__(self, whole, masks):
        super().__init__()
        self.whole, self.masks = nn.Parameter(whole), masks

    def forward(self, pixel_values):
        changed = (pixel_values - self.whole).abs().sum(dim=1)
        seen = torch.stack([changed[:, mask].sum(dim=1) == 0 for mask in self.masks]).any(dim=0)
        return torch.stack([seen, ~seen], dim=1).float().mul(200).sub(100)


@dataclass
class Processor:
    def __call__(self, images, return_tensors):
        arrays = [torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in images]
        return {"pixel_values": torch.stack(arrays)}


@pytest.fixture
def subject():
    scene = draw(SCENE)
    bits = scene.part_masks()
    alone = [torch.from_numpy(bits == (1 << REGIONS.index(name))) for name in ("wings", "tail")]
    assert all(mask.any() for mask in alone)
    whole = torch.from_numpy(scene.image()).permute(2, 0, 1)[None] / 255
    return SimpleNamespace(
        model=SimpleNamespace(
            backbone=(backbone := WingsOrTail(whole, alone)),
            parameters=backbone.parameters,
            config=SimpleNamespace(map_head=SimpleNamespace(grid=16)),
        ),
        processor=Processor(),
        pixel_values=whole,
        predicted=torch.tensor([0]),
        size=(64, 64),
        rows={"scene": [SCENE.to_json()], "part_masks": [bits]},
    )


class Rows(dict):
    def __len__(self):
        return len(self["scene"])


def test_what_one_part_can_do_as_well_as_another(shape_truth, subject):
    """Removing either changes nothing; of the orders in which all are taken, each is the last of the two in half."""
    subject.rows = Rows(subject.rows)
    assert torch.equal(shape_truth.removals(subject, subject.rows["scene"]), torch.zeros(1, len(REGIONS)))
    expected = [0.5 if name in ("wings", "tail") else 0.0 for name in REGIONS]
    assert torch.allclose(shape_truth.shapley_values(subject), torch.tensor([expected]), atol=1e-6)


def test_true_maps(shape_truth, subject):
    subject.rows = Rows(subject.rows)
    row = subject.rows["part_masks"][0]
    masks = {
        "regions": torch.stack([torch.from_numpy(part_mask(row, name)) for name in REGIONS])[None],
        "deciding": torch.from_numpy(part_mask(row, "deciding"))[None, None],
    }
    worth = torch.tensor([[0.5 if name in ("wings", "tail") else 0.0 for name in REGIONS]])
    maps = shape_truth.true_maps(subject, masks, worth)
    energy, ranking = maps["true worth"]
    assert torch.equal(ranking, worth)
    assert float(energy.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float((energy * masks["deciding"]).sum()) == pytest.approx(1.0, abs=1e-5)
    # A 4-pixel patch mixes the part with what is around it.
    coarse, _ = maps["true worth, on patches"]
    assert float(coarse.sum()) == pytest.approx(1.0, abs=0.05)
    assert 0.2 < float((coarse * masks["deciding"]).sum() / coarse.sum()) < 0.95
