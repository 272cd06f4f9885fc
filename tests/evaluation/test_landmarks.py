"""Errors of points, outlines of parts, and the report that measures maps against them; numbers worked out by hand."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.path import Path

from antehoc_hf import AnteHocForLandmarkDetection
from antehoc_hf.evaluation import CONTROLS, EvaluationSettings, evaluate_maps
from antehoc_hf.evaluation.landmarks import (
    auc,
    failure_rate,
    hull_mask,
    hulls_mask,
    landmark_metrics,
    nme,
    normalizers,
)

NAN = math.nan


def test_error_of_an_image_twice_as_wide_as_high():
    """An error of 0.1 of 200 pixels and one of 0.1 of 100, by a length of 50: 40 % and 20 %."""
    labels = torch.tensor([[[0.5, 0.5], [0.2, 0.2]]])
    found = labels + torch.tensor([[0.1, 0.0], [0.0, 0.1]])
    assert nme(found, labels, torch.tensor([[200 / 50, 100 / 50]])).tolist() == pytest.approx([0.3])


def test_unknown_points_and_lengths():
    labels = torch.tensor([[[0.0, 0.0], [NAN, 0.5]], [[NAN, NAN], [NAN, NAN]], [[0.0, 0.0], [0.0, 0.0]]])
    errors = nme(torch.full((3, 2, 2), 3.0), labels, torch.tensor([[1.0], [1.0], [NAN]]))
    assert errors[0].item() == pytest.approx(math.sqrt(18))
    assert errors[1:].isnan().all()


@pytest.mark.parametrize(
    ("found", "labels", "normalizer"),
    [((2, 3, 2), (2, 4, 2), (2, 2)), ((2, 3, 2), (2, 3, 2), (3, 2)), ((2, 2, 3), (2, 2, 3), (2, 2))],
)
def test_shapes_that_do_not_fit(found, labels, normalizer):
    with pytest.raises(ValueError, match="must be"):
        nme(torch.zeros(found), torch.zeros(labels), torch.zeros(normalizer))


def test_area_under_the_curve_is_that_of_the_step_function():
    errors = torch.tensor([0.02, 0.04, 0.09, math.inf, NAN])
    grid = torch.linspace(0, 0.08, 100_001)
    steps = torch.stack([(errors[:4] <= limit).double().mean() for limit in grid[::100]]).mean()
    assert auc(errors) == pytest.approx((0.75 + 0.5) / 4)
    assert auc(errors) == pytest.approx(float(steps), abs=1e-3)
    assert failure_rate(errors) == 0.5
    assert math.isnan(auc(torch.tensor([])))
    with pytest.raises(ValueError, match="positive"):
        auc(errors, limit=0)


def test_normalizers_of_a_known_face():
    points = torch.tensor([[10.0, 10.0], [40.0, 50.0], [NAN, NAN]])
    expected = [[2 / 50, 4 / 50], [2 / 50, 4 / 50]]
    assert torch.allclose(normalizers(points, (2.0, 4.0), (0, 1)), torch.tensor(expected, dtype=torch.float64))
    assert normalizers(points, (1.0, 1.0), (0, 2))[0].isnan().all()
    assert normalizers(points, (1.0, 1.0), None)[0].isnan().all()
    assert normalizers(points[:1], (1.0, 1.0), None).isnan().all()  # a box without size


def test_metrics_fall_back_to_the_box():
    labels, found = torch.zeros(4, 1, 2), torch.full((4, 1, 2), 0.03)
    normalizer = torch.stack([torch.full((4, 2), NAN), torch.ones(4, 2)], dim=1)
    error = 0.03 * math.sqrt(2)
    assert landmark_metrics(found, labels, normalizer) == {
        "nme_box": pytest.approx(100 * error),
        "auc_8": pytest.approx(1 - error / 0.08),
        "failure_rate_8": 0.0,
        "nme_of_mean_points": 0.0,
    }


def test_one_answer_for_all_images_is_the_mean_of_the_known_points():
    """True points at 0, 0.1 and unknown: their mean 0.05 is 0.05·√2 off both."""
    labels = torch.tensor([0.0, 0.1, NAN]).view(3, 1, 1).expand(3, 1, 2)
    found = landmark_metrics(torch.zeros(3, 1, 2), labels, torch.ones(3, 2, 2))
    assert found["nme_of_mean_points"] == pytest.approx(100 * 0.05 * math.sqrt(2))


def test_hull_mask_of_a_rectangle_is_its_pixels():
    """From the edge of pixel 2 to that of pixel 6 across, 1 to 3 down: 4·2 pixel centres."""
    corners = torch.tensor([[2, 1], [6, 1], [6, 3], [2, 3]]) / torch.tensor([10.0, 5.0])
    mask = hull_mask(corners[[2, 0, 3, 1]], height=5, width=10)
    assert mask.sum() == 8
    assert mask[1:3, 2:6].all()


def test_hull_mask_agrees_with_matplotlib():
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        points = torch.rand(9, 2, generator=generator)
        mine = hull_mask(points, 80, 120)
        rows, columns = np.mgrid[0:80, 0:120] + 0.5
        corners, pixels = points.numpy() * [120, 80], np.stack([columns.ravel(), rows.ravel()], axis=1)
        triangles = (Path(corners[list(three)]) for three in combinations(range(9), 3))
        inside = np.any([triangle.contains_points(pixels) for triangle in triangles], axis=0)
        assert inside.sum() > 500
        assert np.array_equal(mine.numpy().ravel(), inside)


def test_half_a_part_is_none():
    square = torch.tensor([[0.1, 0.1], [0.4, 0.1], [0.4, 0.4], [0.1, 0.4]])
    assert hulls_mask([square, square + 0.5], 20, 20).sum() == 2 * hulls_mask([square], 20, 20).sum() > 0
    assert not hulls_mask([square, square * NAN], 20, 20).any()
    assert not hull_mask(square[:2], 20, 20).any()
    assert not hull_mask(torch.tensor([[0.1, 0.1], [0.5, 0.5], [0.8, 0.8]]), 20, 20).any()  # on a line


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return AnteHocForLandmarkDetection.from_backbone("test_resnet", num_landmarks=4, image_size=[64, 96]).eval()


def batches(sizes, parts=1):
    """The last image has no known points and an empty mask."""
    total = sum(sizes)
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(total, 4, 2, generator=generator)
    labels[-1] = NAN
    normalizer = torch.rand(total, 2, 2, generator=generator) + 0.5
    masks = torch.zeros(total, parts, 64, 96, dtype=torch.bool)
    masks[:-1, :, 10:30, 20:50] = True
    pixels = torch.randn(total, 3, 64, 96, generator=generator)
    whole = {"pixel_values": pixels, "labels": labels, "normalizer": normalizer, "part_masks": masks}
    cut = torch.arange(total).split(sizes)
    return [{name: value[rows] for name, value in whole.items()} for rows in cut]


def test_report_has_a_row_for_every_control_and_chance_is_one(model):
    report = evaluate_maps(model, batches([5]), parts=["box"], progress=False)
    assert [row.name for row in report.rows] == ["antehoc", *CONTROLS]
    assert report.settings["normalizer"] == "interocular"
    assert report.on_images["nme"].count == 4
    assert report.part_areas["box"].value == pytest.approx(20 * 30 / (64 * 96))
    assert report.row("constant 0.5").scores["box_energy_share_over_area"].value == pytest.approx(1)
    assert report.row("random").scores["box_energy_share_over_area"].value == pytest.approx(1, abs=0.1)
    # Nothing is hidden by a map of ones: the points are those of the image.
    assert report.row("constant 1").scores["nme"].value == pytest.approx(report.on_images["nme"].value, rel=1e-4)
    assert report.row("black").undefined == 5
    assert report.row("center").undefined == 1, "the last image has no part"
    text = report.to_text()
    assert "5 images, nme " in text
    assert "box: energy share / area ↑" in text


def test_a_map_on_the_part_beats_all_controls(model):
    def oracle(pixel_values, target):
        assert target is None
        maps = torch.zeros(len(pixel_values), 1, 64, 96)
        maps[..., 10:30, 20:50] = 1.0
        return maps

    report = evaluate_maps(model, batches([3, 2]), parts=["box"], explainers={"oracle": oracle}, progress=False)
    assert report.row("oracle").scores["box_energy_share"].value == pytest.approx(1)
    assert report.row("oracle").scores["box_energy_share_over_area"].value == pytest.approx(64 * 96 / 600)
    assert report.row("oracle").scores["box_pointing_game"].value == 100
    assert report.row("oracle").kind == "explainer"


def test_report_does_not_depend_on_the_batches(model):
    one, many = (evaluate_maps(model, batches(sizes), parts=["box"], progress=False) for sizes in ([6], [1, 3, 2]))
    for first, second in zip(one.rows, many.rows, strict=True):
        for name, estimate in first.scores.items():
            other = second.scores[name].value
            assert other == pytest.approx(estimate.value, rel=1e-4, nan_ok=True), (first.name, name)


def test_the_model_is_left_as_it_was(model):
    model.train()
    model.backbone.layer1.eval()
    modes = [module.training for module in model.modules()]
    evaluate_maps(model, batches([2]), progress=False)
    assert [module.training for module in model.modules()] == modes
    model.eval()


def test_mistakes_are_named(model):
    with pytest.raises(ValueError, match="held no image"):
        evaluate_maps(model, [], progress=False)
    incomplete = [{name: value for name, value in batches([2])[0].items() if name != "normalizer"}]
    with pytest.raises(ValueError, match='needs "normalizer"'):
        evaluate_maps(model, incomplete, progress=False)
    with pytest.raises(ValueError, match="taken by a row"):
        evaluate_maps(model, batches([2]), explainers={"random": lambda x, target: x}, progress=False)
    with pytest.raises(ValueError, match="normalizer"):
        EvaluationSettings(normalizer="pupils")
    hidden = batches([2])
    hidden[0]["normalizer"] *= NAN
    with pytest.raises(ValueError, match="No image has a length"):
        evaluate_maps(model, hidden, progress=False)
