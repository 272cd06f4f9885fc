"""The report on a real model: its rows, its invariances, and what it says about what went wrong."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from antehoc_hf.evaluation import EvaluationSettings, evaluate_maps
from antehoc_hf.evaluation.scorers import ClassificationScorer
from antehoc_hf.modeling import AnteHocForImageClassification

CONTROL_NAMES = ["constant 1", "constant 0.9", "constant 0.5", "black", "random", "center", "sobel"]
NUM_IMAGES, SIDE = 12, 64


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = AnteHocForImageClassification.from_backbone("test_resnet", num_labels=4, image_size=SIDE)
    made.train()
    # A head with opinions: of a fresh one all probabilities are near 1/4.
    with torch.no_grad():
        for parameter in made.backbone.get_classifier().parameters():
            parameter.normal_(std=3, generator=torch.Generator().manual_seed(1))
        for _ in range(30):  # running statistics that fit the data
            made(pixel_values=data()["pixel_values"])
    return made.eval()


# For networks that do not say it themselves.
NORMALISED: Any = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}


def data(masks=True):
    generator = torch.Generator().manual_seed(7)
    whole = {
        "pixel_values": torch.randn(NUM_IMAGES, 3, SIDE, SIDE, generator=generator),
        "labels": torch.randint(4, (NUM_IMAGES,), generator=generator),
    }
    mask = torch.zeros(NUM_IMAGES, 1, SIDE, SIDE)
    mask[:, :, 16:48, 16:48] = 1
    return {**whole, "mask": mask} if masks else whole


def batched(size, **options):
    whole = data(**options)
    return [{k: v[i : i + size] for k, v in whole.items()} for i in range(0, NUM_IMAGES, size)]


@pytest.fixture(scope="module")
def report(model):
    settings = EvaluationSettings(insertion_deletion_images=7, steps=4, resamples=200, seed=3)
    return evaluate_maps(model, batched(5), settings, progress=False)


def value(report, row, metric):
    return report.row(row).scores[metric].value


def test_rows_and_counts(report):
    assert [row.name for row in report.rows] == ["antehoc", *CONTROL_NAMES]
    assert (report.num_images, report.num_scored, report.num_invalid) == (NUM_IMAGES, NUM_IMAGES, 0)
    assert [row.degenerate for row in report.rows] == [0, NUM_IMAGES, NUM_IMAGES, NUM_IMAGES, NUM_IMAGES, 0, 0, 0]
    assert all(row.invalid == row.not_finite == row.clipped == 0 for row in report.rows)
    assert report.row("antehoc").scores["insertion_minus_deletion"].count == 7


def test_map_of_ones_is_the_image_itself(report):
    ones = report.row("constant 1").scores
    assert ones["win"].value == ones["inc_conf"].value == ones["avg_drop"].value == 0
    assert ones["drop_cond"].count == 0
    assert ones["accuracy"].value == report.on_images["accuracy"].value
    assert ones["map_mean"].value == 1
    assert ones["energy_share_over_area"].value == pytest.approx(1)


def test_brightness_buys_nothing_where_it_should_not(report):
    for metric in ("equal_area_avg_drop", "equal_area_win", "insertion_minus_deletion", "pointing_game"):
        assert value(report, "constant 0.9", metric) == value(report, "constant 0.5", metric)
    assert value(report, "constant 0.9", "avg_drop") != value(report, "constant 0.5", "avg_drop")


def test_score_of_the_model_s_map_against_the_definition(model, report):
    whole = data()
    with torch.no_grad():
        first = model(pixel_values=whole["pixel_values"])
        energy = model(pixel_values=model.energy_map(whole["pixel_values"], first.interpretation_map))
    p_image, p_energy = (out.logits.softmax(1)[torch.arange(NUM_IMAGES), whole["labels"]] for out in (first, energy))
    lost = p_energy < p_image
    assert 0 < int(lost.sum()) < NUM_IMAGES
    expected_drop = 100 * float(((p_image - p_energy) / p_image)[lost].mean())
    assert value(report, "antehoc", "drop_cond") == pytest.approx(expected_drop, rel=1e-3)
    assert value(report, "antehoc", "win") == pytest.approx(100 * float((~lost).float().mean()))
    assert value(report, "antehoc", "map_mean") == pytest.approx(float(first.interpretation_map.mean()), rel=1e-4)
    hits = energy.logits.argmax(1) == whole["labels"]
    assert value(report, "antehoc", "accuracy") == pytest.approx(100 * float(hits.float().mean()))


def test_batches_do_not_matter(model, report):
    settings = EvaluationSettings(**report.settings)
    other = evaluate_maps(model, batched(NUM_IMAGES), settings, progress=False)
    for row, again in zip(report.rows, other.rows, strict=True):
        for metric, estimate in row.scores.items():
            assert again.scores[metric].value == pytest.approx(estimate.value, rel=1e-3, abs=1e-3, nan_ok=True), (
                row.name,
                metric,
            )


def test_model_is_left_as_it_was(model):
    model.train()
    model.backbone.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        evaluate_maps(model, batched(6), EvaluationSettings(threshold=None, area=None), progress=False)
        assert model.training
        assert not model.backbone.training
        assert model.map_head.training
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
    finally:
        model.eval()


def test_report_is_json_and_a_table(report):
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert json.loads(text)["rows"][1]["scores"]["drop_cond"]["value"] is None
    table = report.to_markdown()
    for name in CONTROL_NAMES:
        assert f"| {name} |" in table
    assert "| **antehoc** |" in table
    assert "first 7 images" in table
    assert "localisation is undefined on 12 images" in table  # of the black map
    for text in (table, report.to_text(), report.to_dict()["controls"]):
        assert "black (zero everywhere), random (noise), center (a blob in the middle)" in text
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines[:10]} == {lines[0].count("|")}


def test_prediction_as_target_and_correct_only(model):
    whole = data(masks=False)
    with torch.no_grad():
        right = model(pixel_values=whole["pixel_values"]).logits.argmax(1) == whole["labels"]
    assert 0 < int(right.sum()) < NUM_IMAGES
    own = evaluate_maps(model, [whole], EvaluationSettings(target="prediction"), progress=False)
    # What keeps the predicted class's probability keeps the prediction: black images can't.
    assert value(own, "black", "avg_drop") > value(own, "constant 0.9", "avg_drop")
    only = evaluate_maps(model, [whole], EvaluationSettings(correct_only=True), progress=False)
    assert only.num_scored == int(right.sum())
    assert value(only, "constant 1", "accuracy") == 100
    assert only.on_images["accuracy"].value == pytest.approx(100 * float(right.float().mean()))
    assert "energy_share" not in only.row("antehoc").scores


def test_explainers_get_a_row_and_their_faults_are_counted(model):
    def broken(pixel_values, target):
        maps = torch.rand(len(pixel_values), 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        maps[0, 0, 0, 0] = torch.nan
        maps[1] *= 3
        maps[2] = 0.5
        return maps

    batches = batched(NUM_IMAGES, masks=False)
    found = evaluate_maps(model, batches, explainers={"mine": broken}, progress=False)
    row = found.row("mine")
    assert (row.kind, row.not_finite, row.clipped, row.degenerate) == ("explainer", 1, 1, 2)
    assert "mine: 1 maps held values that are not finite" in found.to_markdown()
    with pytest.raises(ValueError, match="'random' is taken"):
        evaluate_maps(model, batches, explainers={"random": broken}, progress=False)
    with pytest.raises(ValueError, match=r"must be \(B, 1, H, W\)"):
        evaluate_maps(model, batches, explainers={"mine": lambda x, t: x}, progress=False)


def test_predictions_that_are_not_finite_are_counted(model):
    whole = data(masks=False)
    whole["pixel_values"][3] = torch.nan
    found = evaluate_maps(model, [whole], EvaluationSettings(insertion_deletion_images=5, steps=2), progress=False)
    assert (found.num_invalid, found.num_scored) == (1, NUM_IMAGES - 1)
    assert found.row("antehoc").scores["win"].count == NUM_IMAGES - 1
    assert found.on_images["accuracy"].count == NUM_IMAGES
    assert "1 of 12 predictions were not finite" in found.to_markdown()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, 'Every batch needs "labels"'),
        ({"labels": torch.zeros(NUM_IMAGES, 4)}, "one class number for each image"),
        ({"labels": torch.rand(NUM_IMAGES)}, "one class number for each image"),
        ({"labels": torch.full((NUM_IMAGES,), 4)}, "labels must be in 0 … 3"),
        ({"mask": torch.zeros(NUM_IMAGES, SIDE, SIDE)}, "one shape"),
    ],
)
def test_wrong_batches_end_in_one_sentence(model, change, message):
    with pytest.raises(ValueError, match=message):
        evaluate_maps(model, [{**data(), **change}], progress=False)


def test_other_mistakes_end_in_one_sentence(model):
    with pytest.raises(ValueError, match="held no image"):
        evaluate_maps(model, [], progress=False)
    with pytest.raises(ValueError, match="Either every batch has a"):
        evaluate_maps(model, [data(), data(masks=False)], progress=False)
    with pytest.raises(ValueError, match=r"Conv2d gives no scores \(B, K\)"):
        evaluate_maps(torch.nn.Conv2d(3, 3, 1), [data()], **NORMALISED, progress=False)
    with pytest.raises(ValueError, match="not known how Conv2d normalises its images"):
        evaluate_maps(torch.nn.Conv2d(3, 3, 1), [data()], progress=False)
    numbers = AnteHocForImageClassification.from_backbone(
        "test_resnet", num_labels=4, image_size=SIDE, problem_type="regression"
    )
    with pytest.raises(ValueError, match="one of several classes or of several labels an image"):
        evaluate_maps(numbers, [data()], progress=False)
    for options in (
        *({"target": "truth"}, {"area": 20}, {"tolerance": -1}, {"steps": 0}, {"resamples": 0}, {"areas": (0.1, 10)}),
        *({"insertion_deletion": ("pixel-grey",)}, {"insertion_deletion": ()}),
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            EvaluationSettings(**options)

    settings = EvaluationSettings(insertion_deletion_images=2, insertion_deletion=("patch-mean",), patches=7)
    with pytest.raises(ValueError, match="cannot be cut into 7 patches a side"):
        evaluate_maps(model_of_scores(), [data()], settings, **NORMALISED, progress=False)


def model_of_scores():
    """A network that looks at the top left corner alone, and nothing else of ours."""

    class Corner(torch.nn.Module):
        def forward(self, pixel_values):
            score = pixel_values[:, :, :16, :16].mean(dim=(1, 2, 3))
            return torch.stack([score, -score, score * 0, score * 0], dim=1) * 4

    return Corner()


def test_any_network_is_judged_by_all_measures():
    def corner(pixel_values, target):
        maps = torch.zeros(len(pixel_values), 1, SIDE, SIDE)
        maps[:, :, :16, :16] = 1
        return maps

    settings = EvaluationSettings(
        target="prediction",
        areas=(0.0625, 0.5),
        insertion_deletion_images=8,
        insertion_deletion=("pixel-mean", "pixel-blur", "patch-mean", "patch-blur"),
        steps=8,
        road_images=8,
    )
    whole = data(masks=False)
    generator = torch.Generator().manual_seed(3)
    whole["pixel_values"][:, :, :16, :16] += 2 * torch.randn(NUM_IMAGES, 1, 1, 1, generator=generator).sign()
    explainers = {"truth": corner, "opposite": lambda x, t: 1 - corner(x, t)}
    found = evaluate_maps(model_of_scores(), [whole], settings, explainers=explainers, **NORMALISED, progress=False)
    assert [row.name for row in found.rows] == ["truth", "opposite", *CONTROL_NAMES]
    assert value(found, "truth", "keep_6.25_avg_drop") == pytest.approx(0, abs=1e-3)
    assert value(found, "opposite", "remove_50_avg_drop") < value(found, "truth", "remove_50_avg_drop")
    names = ["insertion_minus_deletion" + form for form in ("", "_pixel_blur", "_patch_mean", "_patch_blur")]
    for metric in (*names, "road"):
        scores = {row.name: row.scores[metric] for row in found.rows}
        assert scores["truth"].count == 8
        assert max(scores, key=lambda name: scores[name].value) == "truth", metric
        assert min(scores, key=lambda name: scores[name].value) == "opposite", metric
        # Paired by image, what the truth has before the random map differs clearly from 0.
        ahead = found.row("random").behind_first[metric]
        assert ahead.value == pytest.approx(scores["truth"].value - scores["random"].value, abs=1e-6)
        assert ahead.low > 0
    assert found.row("truth").behind_first == {}
    assert "**truth less each other map**" in found.to_markdown()


def test_black_is_what_the_normalisation_says():
    seen = []

    class Remembers(torch.nn.Module):
        def forward(self, pixel_values):
            seen.append(pixel_values)
            return pixel_values.mean(dim=(2, 3))

    whole = {"pixel_values": torch.zeros(1, 3, 8, 8), "labels": torch.zeros(1, dtype=torch.long)}
    evaluate_maps(
        Remembers(), [whole], EvaluationSettings(area=None, threshold=None),
        image_mean=(0.5, 0.25, 0.1), image_std=(0.5, 0.5, 0.2), progress=False,
    )  # fmt: skip
    darkest = min(seen, key=lambda images: float(images.sum()))
    assert darkest[0, :, 0, 0].tolist() == pytest.approx([-1.0, -0.5, -0.5])


def test_ties_at_the_edge_of_the_area_are_counted():
    def two_values(pixel_values, target):
        maps = torch.zeros(len(pixel_values), 1, SIDE, SIDE)
        maps[0, :, :8] = 1  # an eighth of the image: the rest of the kept fifth is drawn among equal pixels
        maps[1:] = torch.rand(maps[1:].shape, generator=torch.Generator().manual_seed(0))
        return maps

    found = evaluate_maps(
        model_of_scores(), [data(masks=False)], explainers={"mine": two_values}, **NORMALISED, progress=False
    )
    assert found.row("mine").tied == 1
    assert found.row("constant 0.5").tied == NUM_IMAGES
    assert "mine: 1 maps have equal values at the edge of the kept area" in found.to_markdown()
    assert "constant 0.5: 12 maps have equal values" not in found.to_markdown()


def of_several_labels(target):
    """Four images, three labels; the second image has none, and of the third the likeliest label is not its own."""

    class Several(torch.nn.Module):
        config = SimpleNamespace(problem_type="multi_label_classification", num_labels=3, **NORMALISED)

        def forward(self, pixel_values):
            score = pixel_values.mean(dim=(1, 2, 3))
            return torch.stack([score, score / 2, -score], dim=1)

    level = torch.tensor([2.0, 2.0, 2.0, -2.0])
    batch = {"pixel_values": level[:, None, None, None].expand(4, 3, 32, 32), "mask": torch.ones(4, 1, 32, 32)}
    labels = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 1, 1]])
    settings = EvaluationSettings(target=target, area=None, threshold=None, resamples=20)
    scorer = ClassificationScorer(Several(), settings)
    seen = scorer.see({**batch, "labels": labels}, 0)
    return scorer, seen, evaluate_maps(Several(), [{**batch, "labels": labels}], settings, progress=False)


def test_of_several_labels_the_likeliest_is_watched_by_its_sigmoid():
    scorer, seen, report = of_several_labels("label")
    sigmoid = torch.tensor([2.0, 1.0, 2.0]).sigmoid().tolist()
    assert seen.target[[0, 2, 3]].tolist() == [0, 1, 2]
    assert seen.arrays["p_image"][[0, 2, 3]].tolist() == pytest.approx(sigmoid)
    assert seen.valid.all()
    assert seen.included.tolist() == [True, False, True, True]  # without a label none is watched
    # Right are the first and the last; the image without labels does not count.
    assert report.on_images["accuracy"].value == pytest.approx(200 / 3)
    assert (report.num_scored, report.num_invalid) == (3, 0)
    black = scorer.masked(seen, torch.zeros(4, 1, 32, 32))
    shown = (
        torch.tensor([0.485 / 0.229, 0.456 / 0.224, 0.406 / 0.225]).mean() * -1 * torch.tensor([1.0, 0.5, -1.0])
    ).sigmoid()
    assert black.arrays["p_energy"][[0, 2, 3]].tolist() == pytest.approx(shown.tolist())
    assert black.arrays["correct"].tolist() == [False, False, False, True]
    assert "the likeliest of its labels" in report.about


def test_the_prediction_of_several_labels_needs_no_labels():
    _, seen, report = of_several_labels("prediction")
    assert seen.target.tolist() == [0, 0, 0, 2]
    assert (report.num_scored, report.num_invalid) == (4, 0)


def test_wrong_labels_of_several_end_in_one_sentence():
    scorer, seen, _ = of_several_labels("label")
    for labels in (torch.ones(4, 2), torch.full((4, 3), 2), torch.full((4, 3), 0.5)):
        with pytest.raises(ValueError, match=r"labels must be 0 or 1 for each image and class, \(4, 3\)"):
            scorer.see({"pixel_values": seen.pixel_values, "labels": labels}, 0)
