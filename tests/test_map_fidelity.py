"""The protocols of `benchmarks.faithfulness.part_fidelity`, on a network whose patches add up."""

import pytest
import torch
from torch import Tensor

from benchmarks.faithfulness.part_fidelity import agreement_with_worth, image_values, pearson, worth_of_patches
from benchmarks.faithfulness.subjects import Subject

SIDE = 32


def judge(images: Tensor) -> Tensor:
    """Class 0 is as likely as the first channel is bright; a bright patch counts for itself alone."""
    bright = images[:, 0].mean(dim=(1, 2))
    return torch.stack([bright, 1 - bright], dim=1)


@pytest.fixture(scope="module")
def subject() -> Subject:
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(2, 1, 8, 8, generator=generator)
    pixels = patches.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)
    zeros = torch.zeros(2, dtype=torch.long)
    return Subject(0, None, None, pixels, zeros, zeros, judge(pixels), None)


def test_a_map_that_knows_what_patches_add_is_right_in_every_protocol(subject):
    truth = subject.pixel_values[:, :1]
    found = image_values(subject, judge, {"truth": truth, "backwards": 1 - truth})
    for measure, sign in [("deletion", 1), ("sensitivity, 4", 1), ("sensitivity, 32", 1)]:
        assert found["truth"][measure] == pytest.approx([sign, sign], abs=1e-3)
        assert found["backwards"][measure] == pytest.approx([-sign, -sign], abs=1e-3)
    agreement = agreement_with_worth(worth_of_patches(subject, judge, orders=4), {"truth": truth})
    for name in ("truth", "worth itself"):
        assert agreement[name]["Pearson"] == pytest.approx([1, 1], abs=1e-3)


def test_accuracy_with_the_best_patches_shown_and_hidden(subject):
    """Right while an image is at least as bright as it is on the whole: the mean colour changes that."""
    image = subject.pixel_values[:1]
    mean = image.mean()

    def threshold(images: Tensor) -> Tensor:
        right = images.mean(dim=(1, 2, 3)) > mean + 0.02
        return torch.stack([right.float(), (~right).float()], dim=1)

    one = Subject(0, None, None, image, *(torch.zeros(1, dtype=torch.long),) * 2, judge(image), None)
    values = image_values(one, threshold, {"truth": image[:, :1]})["truth"]
    # Of nothing and of all patches the image is as bright as it is: wrong; with the brightest alone it is brighter.
    assert values["top-1, shown"] == pytest.approx([7 / 8])
    assert values["top-1, hidden"] == [0]


def test_pearson_of_a_constant_is_undefined():
    assert pearson(torch.ones(4), torch.arange(4.0)).isnan()
