"""An explanation method from outside the package takes part by name like the others."""

from collections.abc import Iterator

import pytest
import timm
import torch

from antehoc_hf.evaluation import evaluate_maps
from antehoc_hf.explainers import EXPLAINERS, Explainer, Question, RawMaps, load_explainer, measured_explainers


class Brightness(Explainer):
    """The brightest places of an image, whatever it shows."""

    name = "brightness"

    def raw_maps(self, question: Question) -> RawMaps:
        return RawMaps(question.images.mean(dim=1, keepdim=True))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    EXPLAINERS["brightness"] = Brightness
    yield
    del EXPLAINERS["brightness"]


def test_an_explainer_of_ones_own() -> None:
    network = timm.create_model("test_resnet", num_classes=4).eval()
    images = torch.rand(2, 3, 64, 64)
    maps = load_explainer("brightness", network)(images)
    bright = images.mean(dim=1, keepdim=True)
    low, high = bright.amin(dim=(2, 3), keepdim=True), bright.amax(dim=(2, 3), keepdim=True)
    assert torch.allclose(maps, (bright - low) / (high - low), atol=1e-5)


def test_it_has_a_row_in_the_report() -> None:
    network = timm.create_model("test_resnet", num_classes=4).eval()
    batch = {"pixel_values": torch.rand(4, 3, 64, 64), "labels": torch.tensor([0, 1, 2, 3])}
    own = measured_explainers(["brightness"], network)
    report = evaluate_maps(network, [batch], explainers=own, progress=False)
    assert "brightness" in [row.name for row in report.rows]
