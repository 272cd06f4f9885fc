"""The same numbers as torchcam, where both measure the same."""

from contextlib import nullcontext

import pytest
import timm
import torch

from antehoc_hf.evaluation import avg_drop, insertion_deletion
from antehoc_hf.evaluation.faithfulness import class_probability, inc_conf

metrics = pytest.importorskip("torchcam.metrics")


class Given:
    """What torchcam asks of a method, with maps that are given."""

    def __init__(self, model, maps):
        self.model, self._maps = model, maps

    def __call__(self, class_idx, scores, normalized=True):
        return [self._maps[:, 0]]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return nullcontext()


def probabilities(logits):
    return logits.softmax(dim=-1)


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=5).eval()
    with torch.no_grad():
        model.fc.weight.mul_(20)  # an untrained network hardly reacts
    return model, torch.randn(6, 3, 32, 32), torch.rand(6, 1, 32, 32)


def test_average_drop_and_increase(case):
    model, images, maps = case
    theirs = metrics.ClassificationMetric(Given(model, maps), probabilities)
    theirs.update(images)
    with torch.no_grad():
        logits, masked = model(images), model(images * maps)
    target = logits.argmax(dim=1)
    pair = class_probability(logits, target), class_probability(masked, target)
    assert float(avg_drop(*pair)) == pytest.approx(100 * theirs.summary()["avg_drop"], rel=1e-4)
    assert float(inc_conf(*pair)) == pytest.approx(100 * theirs.summary()["conf_increase"])


def test_insertion_and_deletion(case):
    model, images, maps = case
    theirs = metrics.DeletionInsertionMetric(Given(model, maps), probabilities, steps=16)
    theirs.update(images)
    with torch.no_grad():
        target = model(images).argmax(dim=1)
    ours = insertion_deletion(
        lambda pixels: probabilities(model(pixels)), images, maps, target, steps=16, baseline=torch.zeros_like(images)
    )
    assert float(ours.insertion.mean()) == pytest.approx(theirs.summary()["insertion_auc"], abs=1e-5)
    assert float(ours.deletion.mean()) == pytest.approx(theirs.summary()["deletion_auc"], abs=1e-5)


def test_equal_values_must_not_be_ranked_by_their_place(case):
    """torchcam ranks them from the top left corner: a constant map scores like a map of that corner."""
    _, images, _ = case
    top_left = torch.zeros(6, 1, 32, 32)
    top_left[..., :16, :] = 1

    class Upper(torch.nn.Module):
        def forward(self, pixels):
            share = (pixels[..., :16, :] != 0).float().mean(dim=(1, 2, 3))
            return torch.stack([share, 1 - share], dim=1)

    flat, target = torch.ones(6, 1, 32, 32), torch.zeros(6, dtype=torch.long)
    theirs = metrics.DeletionInsertionMetric(Given(Upper(), flat), None, steps=16)
    theirs.update(images, class_idx=0)
    summary = theirs.summary()
    assert summary["insertion_auc"] - summary["deletion_auc"] == pytest.approx(0.5)
    ours = insertion_deletion(Upper(), images, flat, target, steps=16, baseline=torch.zeros_like(images))
    assert abs(float(ours.difference.mean())) < 0.05
    known = insertion_deletion(Upper(), images, top_left, target, steps=16, baseline=torch.zeros_like(images))
    assert float(known.difference.mean()) == pytest.approx(0.5)
