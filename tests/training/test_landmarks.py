"""Key points of every form a data set may have, groups of them, augmentation, and whole runs on them."""

import json
import math
import random

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from antehoc_hf import AnteHocForLandmarkDetection, AnteHocImageProcessor
from antehoc_hf.cli import main
from antehoc_hf.modeling.image_geometry import ImageGeometry
from antehoc_hf.training.data import ImageDataset
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.keypoints import find_format
from antehoc_hf.training.data.landmark_augmentation import RandomAffine, mirrored
from antehoc_hf.training.data.landmark_groups import flip_within, parts_within, points_of_group, scheme_of
from antehoc_hf.training.data.loading import load_data
from antehoc_hf.training.runs.maps import MapChoice
from antehoc_hf.training.runs.options import DataArguments, ModelArguments
from antehoc_hf.training.tasks.landmark_detection import LandmarkArguments, LandmarkDetection
from antehoc_hf.visualization.layout import DPI, TITLE

FACE = scheme_of(68, "faces")


def dataset_of(points, size=(40, 30), column="keypoints", **columns):
    """Grey images of (width, height) with a value of points each."""
    images = [Image.new("RGB", size, (120, 120, 120)) for _ in points]
    return datasets.Dataset.from_dict({"image": images, column: points, **columns}).cast_column(
        "image", datasets.Image()
    )


def load(dataset, **options):
    task = LandmarkDetection(LandmarkArguments(**options))
    return load_data(datasets.DatasetDict(train=dataset), task.read_targets(), validation_fraction=0.0)


def targets_of(dataset, **options):
    return load(dataset, **options).targets


# -- reading ----------------------------------------------------------------------------------------------------------

TRUE = [[3.0, 4.0], [10.0, 12.0], [20.0, 5.0], [7.0, 29.0]]
FORMS = {
    "pairs": TRUE,
    "flat": [number for point in TRUE for number in point],
    "rows": [[x for x, _ in TRUE], [y for _, y in TRUE]],
    "triples": [[*point, 2.0] for point in TRUE],
    "flat triples": [number for point in TRUE for number in (*point, 2.0)],
    "mapping": {"x": [x for x, _ in TRUE], "y": [y for _, y in TRUE]},
    "mappings": [{"x": x, "y": y} for x, y in TRUE],
}


@pytest.mark.parametrize("form", FORMS)
def test_points_are_read_in_every_form(form):
    targets = targets_of(dataset_of([FORMS[form], FORMS[form]]))
    assert targets.points == [0, 1, 2, 3]
    assert targets.pixels({"keypoints": FORMS[form]}, 30, 40).tolist() == TRUE


def test_shares_of_the_image_are_reported_from_pixels():
    shares = [[0.25, 0.5], [1.0, 0.0], [0.5, 1.0]]
    targets = targets_of(dataset_of([shares]))
    assert targets.format.normalized
    assert targets.pixels({"keypoints": shares}, 30, 40).tolist() == [[9.5, 14.5], [39.5, -0.5], [19.5, 29.5]]
    forced = targets_of(dataset_of([shares]), keypoints_unit="pixels")
    assert forced.pixels({"keypoints": shares}, 30, 40).tolist() == shares


def test_missing_points():
    """Not visible, COCO's 0, None, NaN and (-1, -1); COCO's 1 is there, only hidden."""
    values = [[[3.0, 4.0, 2.0], [5.0, 6.0, 0.0], [7.0, 8.0, 1.0], [math.nan, 1.0, 2.0], [-1.0, -1.0, 2.0]]]
    points = targets_of(dataset_of(values)).pixels({"keypoints": values[0]}, 30, 40)
    assert points.isnan().any(dim=1).tolist() == [False, True, False, True, True]
    seen = dataset_of([[[3.0, 4.0], [None, None], [7.0, 8.0]]], keypoints_visible=[[True, True, False]])
    row = {"keypoints": [[3.0, 4.0], [None, None], [7.0, 8.0]], "keypoints_visible": [True, True, False]}
    assert targets_of(seen).pixels(row, 30, 40).isnan().any(dim=1).tolist() == [False, True, True]


def test_y_before_x_when_asked():
    targets = targets_of(dataset_of([TRUE]), keypoints_order="yx")
    assert targets.pixels({"keypoints": TRUE}, 30, 40).tolist() == [[y, x] for x, y in TRUE]


def face(turned=False):
    points = np.stack([np.linspace(5, 35, 68), np.full(68, 15.0)], axis=1)
    return (points[:, ::-1] if turned else points).tolist()


@pytest.mark.parametrize(
    ("dataset", "options", "said"),
    [
        (lambda: dataset_of([TRUE, TRUE[:3]]), {}, "Row 1 of split 'train', .*there are 3 key points where .* 4"),
        (lambda: dataset_of([TRUE, None]), {}, "Row 1 of split 'train', .*there are no key points"),
        (lambda: dataset_of([[[3.0, math.inf], [1.0, 2.0]]]), {}, "Row 0 .*infinite"),
        (lambda: dataset_of([TRUE, [*TRUE[:3], [900.0, 3.0]]]), {}, "Row 1 .*point 3 at .900, 3. lies far outside"),
        (lambda: dataset_of([face(turned=True)]), {}, "as if y came before x: say keypoints_order=yx"),
        (lambda: dataset_of([TRUE], column="where"), {}, "No column .* looks like the keypoints"),
        (lambda: dataset_of([TRUE]), {"keypoints_column": "dots"}, "keypoints_column='dots' is not a column"),
        (lambda: dataset_of([[1.0, 2.0, 3.0, 4.0, 5.0]]), {}, "holds 5 where key points should be"),
        (lambda: dataset_of([TRUE]), {"keypoints_order": "xyz"}, "keypoints_order='xyz' is unknown"),
        (lambda: dataset_of([TRUE]), {"landmark_group": "nose"}, "there is no 'nose'"),
        (lambda: dataset_of([TRUE]), {"landmark_group": "2-9"}, "not a range of the points 0 … 3"),
        (lambda: dataset_of([TRUE]), {"keypoint_names": ["a", "b"]}, "2 different keypoint_names for 4 points"),
        (lambda: dataset_of([TRUE]), {"keypoint_flip": [0, 1, 2, 2]}, "keypoint_flip must give"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(dataset, options, said):
    with pytest.raises(DataError, match=said):
        load(dataset(), **options)


def test_a_face_on_its_side_is_taken_as_given():
    assert len(targets_of(dataset_of([face(turned=True)]), keypoints_order="xy").points) == 68


# -- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("nose", range(27, 36)),
        ("eyes", range(36, 48)),
        ("mouth", range(48, 68)),
        ("parts", range(27, 68)),
        ("mouth+nose", [*range(27, 36), *range(48, 68)]),
        ("all", range(68)),
        ("27-30, 48", [27, 28, 29, 30, 48]),
    ],
)
def test_groups_of_a_face(group, expected):
    assert points_of_group(FACE, group) == list(expected)


def test_mirrored_faces_are_faces():
    """The table of mirror images against a symmetric drawing: eyes, brows and corners stand on either side."""
    assert all(FACE.flip[FACE.flip[point]] == point for point in range(68))
    for one, other in ((0, 16), (17, 26), (31, 35), (36, 45), (39, 42), (41, 46), (48, 54), (60, 64), (67, 65)):
        assert FACE.flip[one] == other
    assert [point for point in range(68) if FACE.flip[point] == point] == [8, *range(27, 31), 33, 51, 57, 62, 66]
    for group in ("nose", "eyes", "mouth", "parts", "all"):
        points = points_of_group(FACE, group)
        flip = flip_within(FACE, points)
        assert [points[index] for index in flip] == [FACE.flip[point] for point in points]
    assert flip_within(FACE, [48]) is None


def test_parts_of_a_group():
    assert parts_within(FACE, points_of_group(FACE, "nose+mouth")) == {
        "nose": list(range(9)),
        "mouth": list(range(9, 29)),
    }
    assert set(parts_within(FACE, points_of_group(FACE, "all"))) == {"nose", "right_eye", "left_eye", "mouth"}
    assert parts_within(FACE, [0, 1, 2]) == {}


def test_shapes_have_names_and_swap_their_wings():
    shapes = scheme_of(6, "shapes")
    assert points_of_group(shapes, "horn+tail") == [0, 3]
    assert shapes.flip == (0, 2, 1, 3, 4, 5)
    assert scheme_of(6, "something").flip is None


# -- augmentation -----------------------------------------------------------------------------------------------------


def dots(seed=0):
    """An image of 96×64 with four dots, one for each colour of channel but the last, and where they are."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((30, 20), (66, 44), (3, 2))
    rows, columns = np.mgrid[0:64, 0:96]
    pixels = np.stack([np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8) for x, y in points], axis=2)
    return Image.fromarray((255 * pixels).astype(np.uint8)), torch.from_numpy(points)


def centres(pixel_values):
    """(3, 2): where the mass of each channel lies, in units of width and height."""
    mass = pixel_values.clamp(min=0).double()
    mass = mass / mass.sum(dim=(1, 2), keepdim=True)
    height, width = mass.shape[1:]
    x = (mass * (torch.arange(width) + 0.5)).sum(dim=(1, 2)) / width
    y = (mass * (torch.arange(height) + 0.5)[:, None]).sum(dim=(1, 2)) / height
    return torch.stack([x, y], dim=1)


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("flip", [None, [0, 1, 2]])
def test_points_move_with_what_they_mark(flip, crop_mode):
    processor = AnteHocImageProcessor([80, 80], [0.0] * 3, [1.0] * 3, "bilinear", 1.0, crop_mode)
    affine = RandomAffine([0.0] * 3, [1.0] * 3, "bilinear", flip)
    affine.jitter = lambda image: image  # light changes no place
    image, points = dots()
    geometry, moved = processor.geometry(64, 96), []
    for seed in range(6):
        random.seed(seed)
        pixel_values, labels = affine(image, geometry.to_input(points), geometry)
        assert pixel_values.shape == (3, 80, 80)
        assert torch.allclose(centres(pixel_values), labels, atol=0.25 / 80)
        moved.append(labels)
    assert all((labels - moved[0]).abs().max() > 0.01 for labels in moved[1:])


def test_of_a_thin_image_only_the_part_that_may_be_seen_is_resized(monkeypatch):
    processor = AnteHocImageProcessor([64, 64], [0.0] * 3, [1.0] * 3, "bilinear", 1.0)
    affine = RandomAffine([0.0] * 3, [1.0] * 3, "bilinear", None)
    affine.jitter = lambda image: image
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2, 9000, 3), dtype=np.uint8))
    geometry, points = processor.geometry(2, 9000), torch.tensor([[4500.0, 1.0]])
    assert geometry.wasteful
    made, resize = [], Image.Image.resize

    def recorded(image, size, *args, **kwargs):
        made.append(size[0] * size[1])
        return resize(image, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    random.seed(0)
    found, labels = affine(image, points, geometry)
    assert max(made) <= 4 * 64 * 64
    monkeypatch.setattr(ImageGeometry, "wasteful", False)
    random.seed(0)
    expected, same = affine(image, points, geometry)
    assert torch.equal(labels, same)
    assert 255 * (found - expected).abs().max() <= 2.01


def test_mirrored_points_swap_left_and_right():
    points = torch.tensor([[0.1, 0.2], [0.7, 0.3], [0.5, 0.9]])
    assert torch.allclose(mirrored(points, [1, 0, 2]), torch.tensor([[0.3, 0.3], [0.9, 0.2], [0.5, 0.9]]))


def test_flip_moves_points_along():
    dataset = dataset_of([TRUE])
    data = load(dataset, keypoint_flip=[1, 0, 2, 3])
    processor = AnteHocImageProcessor([30, 40], crop_pct=1.0)
    plain = data.with_transforms(processor, "none").train[0]["labels"]
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        labels = data.with_transforms(processor, "flip").train[0]["labels"]
        flipped = not torch.equal(labels, plain)
        assert torch.allclose(labels, mirrored(plain, [1, 0, 2, 3]) if flipped else plain)
        seen.add(flipped)
    assert seen == {True, False}


def test_only_what_can_be_mirrored_is():
    processor = AnteHocImageProcessor(32)
    with pytest.raises(DataError, match="give keypoint_flip"):
        load(dataset_of([TRUE])).with_transforms(processor, "affine-flip")
    load(dataset_of([TRUE])).with_transforms(processor, "affine")
    with pytest.raises(DataError, match="use one of none, flip, affine, affine-flip"):
        load(dataset_of([TRUE])).with_transforms(processor, "crop-flip")


def test_items_of_an_image_that_is_not_square():
    """40×30, cropped to its middle 30×30 and doubled: x = 20 is pixel 15, and the box of the points is known."""
    item = load(dataset_of([TRUE])).with_transforms(AnteHocImageProcessor(60, crop_pct=1.0), "none").train[0]
    assert item["labels"][2].tolist() == pytest.approx([(20 - 5 + 0.5) / 30, 5.5 / 30])
    data = load(dataset_of([TRUE]))
    (item,) = data.targets.encoder(AnteHocImageProcessor(60, crop_pct=1.0), None)(
        [Image.new("RGB", (40, 30))], {"keypoints": [TRUE]}
    )
    assert item["normalizer"][0].isnan().all()
    assert item["normalizer"][1].tolist() == pytest.approx([30 / math.hypot(17, 25)] * 2)


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("landmarks")
    flags = [
        "train", "--task", "landmark-detection", "--dataset_name", "shapes",
        "--dataset_options", '{"image_size": 64, "train": 24, "validation": 8, "test": 8, "seed": 0}',
        "--backbone", "test_resnet", "--image_size", "64", "--num_attention_maps", "3", "--num_train_epochs", "2",
        "--per_device_train_batch_size", "8", "--learning_rate", "0.005", "--augmentation", "affine-flip",
        "--mask_column", "mask", "--landmark_group", "horn+left_wing+right_wing", "--use_cpu", "--report_to", "none",
        "--disable_tqdm", "true", "--panel_images", "2", "--output_dir", str(folder / "model"),
    ]  # fmt: skip
    assert main(flags) == 0
    return folder


def test_a_run_leaves_a_model_with_its_points(run):
    results = json.loads((run / "model" / "results.json").read_text())
    assert results["task"] == "landmark-detection"
    assert {"nme_box", "auc_8", "failure_rate_8"} <= set(results["metrics"])
    poor = results["metrics"]["nme_box"] >= 0.95 * results["metrics"]["nme_of_mean_points"]
    assert ("these maps explain nothing" in (run / "model" / "README.md").read_text()) == poor
    assert results["maps"]["rows"][0]["scores"]["mask_energy_share_over_area"]["count"] == 8
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["landmark_names"] == ["horn", "left_wing", "right_wing"]
    assert config["landmark_flip"] == [0, 2, 1]
    assert (run / "model" / "predictions.png").stat().st_size > 10_000
    assert list((run / "model" / "panels").glob("*.png"))


def test_the_model_is_evaluated_on_its_own_points(run, capsys):
    flags = [
        "evaluate", str(run / "model"), "--dataset_name", "shapes", "--output_dir", str(run / "again"),
        "--dataset_options", '{"image_size": 64, "train": 24, "validation": 8, "test": 8, "seed": 0}',
    ]  # fmt: skip
    assert main(flags) == 0
    first, again = (json.loads((run / name / "results.json").read_text()) for name in ("model", "again"))
    assert again["metrics"]["nme_box"] == pytest.approx(first["metrics"]["nme_box"], rel=1e-4)
    assert "horn" not in capsys.readouterr().err


def test_a_new_model_starts_at_the_mean_points():
    task = LandmarkDetection(LandmarkArguments())
    data = load(dataset_of([TRUE, [[x + 2, y] for x, y in TRUE]]))
    arguments, energy = ModelArguments(backbone="test_resnet", crop_pct=1.0), MapChoice("energy", {}, "energy")
    model = task.build_model(arguments, {"image_size": [60, 80]}, energy, data)
    expected = (torch.tensor(TRUE) + torch.tensor([1.5, 0.5])) / torch.tensor([40.0, 30.0])
    with torch.no_grad():
        found = model.eval()(torch.randn(2, 3, 60, 80)).landmarks
    assert torch.allclose(found, expected.expand(2, 4, 2), atol=1e-5)


def test_the_figure_says_that_the_maps_explain_nothing(run, tmp_path):
    task, model = LandmarkDetection(LandmarkArguments()), AnteHocForLandmarkDetection.from_pretrained(run / "model")
    options = {"image_size": 64, "train": 24, "validation": 8, "test": 8, "seed": 0}
    data = task.load_data(DataArguments(dataset_name="shapes", dataset_options=options), model)
    processor, heights = AnteHocImageProcessor.from_pretrained(run / "model"), []
    images = ImageDataset(data.splits["test"], data.image_column, data.targets, data.targets.encoder(processor, None))
    for warning in ("", "These maps explain nothing."):
        task.save_figures(model, images, processor, tmp_path, warning)
        with Image.open(tmp_path / "predictions.png") as figure:
            heights.append(figure.height)
    assert heights[1] - heights[0] == pytest.approx(TITLE * DPI, abs=1)


@pytest.mark.real_data
def test_faces_as_they_are(real):
    task = LandmarkDetection(LandmarkArguments(landmark_group="parts"))
    data = task.load_data(
        DataArguments(dataset_name=str(real("faces-68")), max_train_samples=300, max_eval_samples=50)
    )
    assert len(data.targets.points) == 41
    assert not data.targets.format.normalized
    item = data.with_transforms(AnteHocImageProcessor(64, crop_pct=1.0), "affine-flip").validation[0]
    eyes = data.targets.scheme.eyes
    points = data.targets.pixels(data.validation.with_format(None)[0], 128, 128)
    assert item["normalizer"][0, 0].item() == pytest.approx(128 / float((points[eyes[0]] - points[eyes[1]]).norm()))


def test_formats_are_found_once_for_a_data_set():
    found = find_format(dataset_of([TRUE]), "image", None, "auto", "auto", "test")
    assert (found.column, found.layout, found.count, found.normalized) == ("keypoints", "points", 4, False)
