"""Large images go through a network a few at a time."""

import pytest
import timm
import torch

from antehoc_hf import AnteHocForImageClassification
from antehoc_hf.evaluation import EvaluationSettings, evaluate_maps
from antehoc_hf.explainers import load_explainer
from antehoc_hf.passes import images_a_pass, in_parts


@pytest.mark.parametrize(("side", "passes"), [(64, [12]), (224, [5, 5, 2]), (512, [1] * 12), (600, [1] * 12)])
def test_a_pass_on_a_cpu_has_few_pixels(side: int, passes: list[int]) -> None:
    images, seen = torch.rand(12, 1, side, side), []

    def predict(part: torch.Tensor) -> torch.Tensor:
        seen.append(len(part))
        return part.amax(dim=(1, 2, 3))

    assert torch.equal(in_parts(predict, images), images.amax(dim=(1, 2, 3)))
    assert seen == passes


def test_other_devices_and_no_images() -> None:
    assert images_a_pass(torch.empty(1, 3, 224, 224, device="meta"), 64) == 64
    assert in_parts(lambda part: part.sum(dim=(1, 2, 3)), torch.empty(0, 3, 224, 224)).shape == (0,)


def test_a_whole_evaluation_never_takes_more() -> None:
    model = AnteHocForImageClassification.from_backbone("test_resnet", num_labels=3, image_size=224).eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    batch = {"pixel_values": torch.randn(6, 3, 224, 224), "labels": torch.zeros(6, dtype=torch.long)}
    settings = EvaluationSettings(areas=(), area=None, insertion_deletion_images=1, steps=4, target="prediction")
    evaluate_maps(model, [batch], settings, progress=False)
    whole, others = seen[0], seen[1:]
    assert (whole, max(others)) == (6, 5)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("rise", {"masks": 20}),
        ("sise", {}),
        ("coalition-regression", {"pairs": 20}),
        ("integrated-gradients", {"steps": 20}),
        ("integrated-grad-cam", {"steps": 20}),
        ("leave-one-out", {"grid": 4}),
    ],
)
def test_an_explainer_takes_no_more_and_its_map_is_the_same(method: str, options: dict[str, int]) -> None:
    network = timm.create_model("test_resnet", num_classes=3).eval()
    image, seen = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0)), []
    one_by_one = load_explainer(method, network, batch_size=1, **options).explain(image).maps
    network.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    maps = load_explainer(method, network, **options).explain(image).maps
    assert max(seen) == 10
    torch.testing.assert_close(maps, one_by_one, rtol=1e-3, atol=1e-4)
