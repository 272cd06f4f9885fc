"""The landmark pipeline: points by name in pixels of the user's own image."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from antehoc_hf import AnteHocForImageClassification, AnteHocForLandmarkDetection, AnteHocImageProcessor

NAMES = ["left", "right", "top"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    model = AnteHocForLandmarkDetection.from_backbone(
        "test_resnet", num_landmarks=3, landmark_names=NAMES, image_size=64
    )
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    AnteHocImageProcessor.from_backbone("test_resnet", image_size=64).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def find(folder):
    return pipeline("antehoc-landmark-detection", model=str(folder), device="cpu")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)).save(path)
    return path


def test_points_are_in_pixels_of_the_image(find, folder, photo):
    result = find(str(photo))
    assert list(result["keypoints"]) == NAMES
    model = AnteHocForLandmarkDetection.from_pretrained(folder)
    processor = AnteHocImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        output = model(**processor(Image.open(photo), return_tensors="pt"))
    expected = processor.geometry(80, 120).to_image(output.landmarks[0])
    assert [list(point) for point in result["keypoints"].values()] == [
        pytest.approx(point, abs=1e-3) for point in expected.tolist()
    ]
    assert result["map"].shape == (64, 64)
    np.testing.assert_allclose(result["map"], output.interpretation_map[0, 0], atol=1e-6)
    assert result["degenerate"] is False


def test_every_form_of_an_image_gives_the_same(find, photo):
    image = Image.open(photo)
    forms = [photo, image, photo.read_bytes(), np.array(image)]
    first, *others = [find(form)["keypoints"] for form in forms]
    assert all(other == first for other in others)


def test_a_batch_of_different_sizes(find, photo):
    image = Image.open(photo)
    images = [image, image.resize((300, 200)), image.rotate(90, expand=True)]
    together = find(images, batch_size=3)
    for alone, found in zip((find(each) for each in images), together, strict=True):
        assert [point for name in NAMES for point in found["keypoints"][name]] == pytest.approx(
            [point for name in NAMES for point in alone["keypoints"][name]], abs=1e-2
        )


def test_an_upright_photo_stored_sideways(find, photo, tmp_path):
    """EXIF says how to turn it; the points are those of the image as people see it."""
    image = Image.open(photo)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "sideways.png", exif=exif)
    upright = image.rotate(-90, expand=True)
    assert find(str(tmp_path / "sideways.png"))["keypoints"] == find(upright)["keypoints"]


def test_what_cannot_be_read(find, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not an image, or damaged"):
        find(str(tmp_path / "broken.png"))


def test_a_classifier_finds_no_points(tmp_path):
    AnteHocForImageClassification.from_backbone("test_resnet", num_labels=2, image_size=64).save_pretrained(tmp_path)
    processor = AnteHocImageProcessor(64)
    model = AnteHocForImageClassification.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="needs an ante-hoc model of points"):
        pipeline("antehoc-landmark-detection", model=model, image_processor=processor)
