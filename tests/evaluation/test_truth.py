"""On images whose evidence is known, the truth beats every control, and its inverse is worst."""

import pytest
import torch

from antehoc_hf.evaluation import CONTROLS, avg_drop, insertion_deletion, pointing_game, road
from antehoc_hf.evaluation.localisation import energy_share_over_area, iou, relevance_rank
from antehoc_hf.evaluation.maps import binarise_equal_area
from antehoc_hf.shapes import load_shapes

_SIDE, _IMAGES = 32, 10


class Reader:
    """A network that knows its images and reads their deciding pixels: p is the share of them that is untouched."""

    def __init__(self, rows):
        pixels = [
            torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(_SIDE, _SIDE, 3)
            for image in rows["image"]
        ]
        self.pixel_values = torch.stack(pixels).permute(0, 3, 1, 2).float() / 255
        masks = [
            torch.frombuffer(bytearray(mask.tobytes()), dtype=torch.uint8).view(1, _SIDE, _SIDE) > 0
            for mask in rows["mask"]
        ]
        self.masks = torch.stack(masks)

    def predict(self, images):
        same = (images[:, None] == self.pixel_values[None]).all(dim=2)  # (N, image, H, W)
        mine = same.flatten(2).sum(dim=2).argmax(dim=1)
        read, mask = same[torch.arange(len(images)), mine], self.masks[mine, 0]
        share = (read & mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))
        return torch.stack([share, 1 - share], dim=1)


@pytest.fixture(scope="module")
def reader():
    return Reader(load_shapes(image_size=_SIDE, train=0, validation=0, test=_IMAGES, seed=2)["test"])


def scores(reader, measure):
    """The mean of a measure for the truth, its inverse, and the controls."""
    truth = reader.masks.float()
    maps = {"truth": truth, "inverse": 1 - truth}
    maps |= {name: control(reader.pixel_values, 0, 0) for name, control in CONTROLS.items()}
    return {name: measure(reader, values) for name, values in maps.items()}


def by_insertion_deletion(reader, maps):
    target = torch.zeros(_IMAGES, dtype=torch.long)
    return insertion_deletion(reader.predict, reader.pixel_values, maps, target, steps=8).difference


def by_road(reader, maps):
    target = torch.zeros(_IMAGES, dtype=torch.long)
    return road(reader.predict, reader.pixel_values, maps, target, percentages=(30, 70)).combined


def by_equal_area_drop(reader, maps):
    kept = binarise_equal_area(maps, area=0.2)
    energy = torch.where(kept > 0, reader.pixel_values, 2.0)  # a value that no pixel has
    whole, masked = reader.predict(reader.pixel_values)[:, 0], reader.predict(energy)[:, 0]
    return torch.stack([-avg_drop(*pair) for pair in zip(whole.split(1), masked.split(1), strict=True)])


MEASURES = {
    "insertion − deletion": by_insertion_deletion,
    "road": by_road,
    "equal-area drop": by_equal_area_drop,
    "relevance rank": lambda reader, maps: relevance_rank(maps, reader.masks),
    "iou": lambda reader, maps: iou(maps, reader.masks),
    "pointing game": lambda reader, maps: pointing_game(maps, reader.masks),
    "energy share": lambda reader, maps: energy_share_over_area(maps, reader.masks).nan_to_num(0),
}


@pytest.mark.parametrize("name", MEASURES)
def test_truth_is_best_and_its_inverse_worst(reader, name):
    found = {kind: float(values.mean()) for kind, values in scores(reader, MEASURES[name]).items()}
    assert all(found["truth"] > score for kind, score in found.items() if kind != "truth"), found
    assert all(found["inverse"] <= score for score in found.values()), found


@pytest.mark.parametrize("measure", [by_insertion_deletion, by_road])
@pytest.mark.parametrize("kind", ["constant 0.5", "random"])
def test_what_explains_nothing_scores_zero(reader, measure, kind):
    values = measure(reader, CONTROLS[kind](reader.pixel_values, 1, 0))
    assert abs(float(values.mean())) < 3 * float(values.std()) / _IMAGES**0.5
    assert float(measure(reader, reader.masks.float()).mean()) > 10 * float(values.std()) / _IMAGES**0.5


@pytest.mark.parametrize("name", sorted(MEASURES.keys() - {"energy share"}))
def test_only_the_order_of_pixels_counts(reader, name):
    maps = (CONTROLS["sobel"](reader.pixel_values, 0, 0) * 99).round()  # with equal values, and none that round to one
    assert torch.equal(MEASURES[name](reader, maps), MEASURES[name](reader, 0.5 + 0.04 * maps.sqrt()))
