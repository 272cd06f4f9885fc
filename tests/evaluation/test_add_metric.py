"""A metric and a task from outside: each is one object, and appears wherever the built-in ones do."""

import json

import pytest
import torch
from torch.nn import functional as F

from antehoc_hf import AnteHocForImageCaptioning, AnteHocForImageClassification, AnteHocForLandmarkDetection
from antehoc_hf.evaluation import METRICS, Metric, Scorer, evaluate_maps, load_metric, register_metric
from antehoc_hf.evaluation.controls import center_map
from antehoc_hf.evaluation.scorer import Batch, Masked
from antehoc_hf.model_cards.collect import collect
from antehoc_hf.model_cards.render import render_card

CORNER = torch.arange(64 * 64).view(1, 1, 64, 64) < 32 * 64  # the upper half


def upper_half(maps):
    """The share of the map that is in the upper half of the image."""
    return (maps * CORNER).sum(dim=(1, 2, 3)) / maps.sum(dim=(1, 2, 3))


def lost_logit(p_image, p_energy, tolerance=0.0):
    """Loss in log-odds, none where it is within the tolerance."""
    loss = p_image.logit() - p_energy.logit()
    return torch.where(loss.abs() > tolerance, loss, 0.0)


@pytest.fixture
def metrics():
    added = [
        Metric("upper_half", upper_half, "in the upper half", "higher", "Share of the map in the upper half."),
        Metric("lost_logit", lost_logit, "lost log-odds", better="lower", decimals=4, rewards_brightness=True),
    ]
    register_metric(*added)
    yield added
    for metric in added:
        del METRICS[metric.name]


def pixels(count=4):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def classification():
    model = AnteHocForImageClassification.from_backbone("test_resnet", num_labels=4, image_size=64)
    return model, {"pixel_values": pixels(), "labels": torch.tensor([0, 1, 2, 3])}


def landmarks():
    model = AnteHocForLandmarkDetection.from_backbone("test_resnet", num_landmarks=2, image_size=64)
    return model, {"pixel_values": pixels(), "labels": torch.rand(4, 2, 2), "normalizer": torch.ones(4, 2, 2)}


def captions():
    model = AnteHocForImageCaptioning.from_backbone(
        "test_resnet", image_size=64, vocab_size=9, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        max_caption_length=6, decoder_embedding_size=8, decoder_hidden_size=12, map_head="energy",
    )  # fmt: skip
    return model, {"pixel_values": pixels(), "labels": torch.tensor([[5, 6, 2], [7, 2, -100]] * 2)}


@pytest.mark.parametrize("task", [classification, landmarks, captions])
def test_a_metric_is_in_tables_json_card_and_evaluate(task, metrics):
    model, batch = task()
    report = evaluate_maps(model, [batch], progress=False)
    row = report.row("random")
    shares = report.row("center").scores["upper_half"]
    assert shares.value == pytest.approx(0.5)
    assert row.scores["upper_half"].value == pytest.approx(0.5, abs=0.02)
    worth_known = task is not landmarks  # points have an error and no probability
    assert ("lost_logit" in row.scores) == ("equal_area_lost_logit" in row.scores) == worth_known
    text, found = report.to_text(), json.loads(json.dumps(report.to_dict(), allow_nan=False))
    card = render_card(collect({"backbone": "test_resnet"}, {"maps": found}))
    for table in (text, report.to_markdown(), card):
        fair, bright = table.split("On image ⊙ map.")
        assert "in the upper half ↑" in fair
        assert "in the upper half" not in bright
        assert ("lost log-odds, equal area ↓" in fair) == ("lost log-odds ↓" in bright) == worth_known
    assert found["rows"][0]["scores"]["upper_half"]["count"] == 4
    assert found["columns"]["upper_half"] == {
        "heading": "in the upper half ↑", "decimals": 2, "better": "higher", "rewards_brightness": False,
    }  # fmt: skip
    share = load_metric("upper_half").compute(maps=center_map(batch["pixel_values"]))["upper_half"]
    assert share == pytest.approx(shares.value)


def test_its_options_are_those_of_its_function(metrics):
    pair = {"p_image": torch.tensor([0.5, 0.5]), "p_energy": torch.tensor([0.5 / (1 + 0.5), 0.499])}
    assert load_metric("lost_logit").compute(**pair)["lost_logit"] == pytest.approx((0.6931 + 0.004) / 2, abs=1e-4)
    near = load_metric("lost_logit", tolerance=0.1).compute(**pair)["lost_logit"]
    assert near == pytest.approx(0.6931 / 2, abs=1e-4)
    with pytest.raises(ValueError, match="no option 'seed_': there are tolerance"):
        load_metric("lost_logit", seed_=1)


def test_a_report_of_chosen_metrics():
    model, batch = classification()
    mean = METRICS["map_mean"]
    report = evaluate_maps(model, [batch], metrics=[mean], progress=False)
    assert set(report.row("random").scores) == {"map_mean"}


def test_mistakes_are_named(metrics):
    with pytest.raises(ValueError, match="already a metric 'win'"):
        register_metric(Metric("win", upper_half, "win"))
    METRICS["upper_half"] = Metric("upper_half", lambda maps: maps.mean(), "mean of all")
    model, batch = classification()
    with pytest.raises(ValueError, match=r"'upper_half' must give one value for each image, \(4,\), not \(\)"):
        evaluate_maps(model, [batch], progress=False)


class Nearness(Scorer):
    """A regression's answer: worth 1 where it is right, less where it is not."""

    explains_itself = False

    def __init__(self, network, settings):
        super().__init__(settings)
        self.network = network

    def see(self, batch, first_index):
        everywhere = torch.ones(len(batch["pixel_values"]), dtype=torch.bool)
        right = self.right(batch["pixel_values"], batch["labels"])
        arrays = {"p_image": right, "labels": batch["labels"]}
        return Batch(
            batch["pixel_values"], first_index, None, everywhere, everywhere, {"nearness": right}, arrays=arrays
        )

    def masked(self, batch, mask):
        right = self.right(batch.pixel_values * mask, batch.arrays["labels"])
        return Masked({"p_energy": right}, torch.isfinite(right))

    def right(self, pixel_values, labels):
        return torch.exp(-(self.network(pixel_values) - labels).abs()).double()


def test_a_task_is_a_scorer():
    """A network that reads the brightness of the upper half: a map of that half loses nothing."""
    from antehoc_hf.evaluation import EvaluationSettings

    class Brightness(torch.nn.Module):
        def forward(self, pixel_values):
            return (pixel_values * CORNER).mean(dim=(1, 2, 3))

    model, images = Brightness(), pixels() + torch.arange(1, 5).view(-1, 1, 1, 1)
    scorer = Nearness(model, EvaluationSettings(area=0.5))
    batch = {"pixel_values": images, "labels": model(images)}
    explainers = {
        "upper": lambda x, target: CORNER.float().expand(len(x), 1, 64, 64),
        "lower": lambda x, target: F.pad(torch.ones(len(x), 1, 32, 64), (0, 0, 32, 0)),
    }
    report = evaluate_maps(model, [batch], scorer=scorer, explainers=explainers, progress=False)
    assert report.on_images["nearness"].value == 1
    assert report.row("upper").scores["equal_area_avg_drop"].value == 0
    assert report.row("lower").scores["equal_area_avg_drop"].value > 20
    assert "accuracy" not in report.row("upper").scores
