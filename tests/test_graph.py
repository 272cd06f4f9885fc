"""Networks as graphs that onnxruntime runs."""

import pytest
import timm
import torch
from torch import nn

from antehoc_hf.evaluation import EvaluationSettings, evaluate_maps
from antehoc_hf.evaluation.scorers import ClassificationScorer
from antehoc_hf.graph import Graph, graph_of
from antehoc_hf.modeling import AnteHocForImageClassification
from antehoc_hf.training.attach.judge import Judge


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_a_graph_gives_what_the_network_gives(name):
    options = {"img_size": 64} if name == "test_vit" else {}
    network = timm.create_model(name, num_classes=5, **options).eval()
    graph = graph_of(network, torch.zeros(4, 3, 64, 64))
    assert graph is not None
    for count in (1, 4, 7):
        images = torch.randn(count, 3, 64, 64).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            torch.testing.assert_close(graph(images), network(images), atol=1e-4, rtol=1e-4)


class Stubborn(nn.Module):
    """Does on each image what no graph can say."""

    def forward(self, images):
        return images.flatten(1)[:, : 2 + int(images.sum() > 0)]


def test_what_cannot_be_a_graph_is_left_to_torch():
    zeros = torch.zeros(2, 3, 8, 8)
    assert graph_of(Stubborn(), zeros) is None
    assert graph_of(nn.Flatten(), zeros.bfloat16()) is None
    with pytest.raises(Exception, match=r".+"):
        Graph(Stubborn(), zeros)


def test_a_long_fit_may_run_as_a_graph_and_is_the_same():
    torch.manual_seed(0)
    model = AnteHocForImageClassification.from_backbone(
        "test_resnet", num_labels=5, image_size=64, map_head={"kind": "contributions", "closed_form": True}
    ).eval()
    images = torch.randn(8, 3, 64, 64)
    known = {"batch_size": 4, "precision": "float32"}
    plain, long = Judge(model, images, **known), Judge(model, images, **known, passes=10**9)
    assert plain.setting.runtime == "torch"
    torch.testing.assert_close(long(images), plain(images), atol=1e-5, rtol=1e-4)


def test_a_report_is_the_same_by_a_graph():
    torch.manual_seed(0)
    model = AnteHocForImageClassification.from_backbone("test_resnet", num_labels=3, image_size=32).eval()
    batch = {"pixel_values": torch.randn(6, 3, 32, 32), "labels": torch.tensor([0, 1, 2, 0, 1, 2])}
    settings = EvaluationSettings(insertion_deletion_images=6, steps=4, resamples=50, target="prediction")
    graph = graph_of(model.backbone, torch.zeros(4, 3, 32, 32))
    scorer = ClassificationScorer(model, settings, network=graph)
    plain = evaluate_maps(model, [batch], settings, progress=False)
    by_graph = evaluate_maps(model, [batch], settings, scorer=scorer, progress=False)
    for one, other in zip(plain.rows, by_graph.rows, strict=True):
        for name, estimate in one.scores.items():
            assert other.scores[name].value == pytest.approx(estimate.value, abs=2e-2, rel=1e-2, nan_ok=True), name
