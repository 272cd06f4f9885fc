"""The classification pipeline: classes as the stock pipeline tells them, and the map with them."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from antehoc_hf import AnteHocForImageClassification, AnteHocForLandmarkDetection, AnteHocImageProcessor

TASK = "antehoc-image-classification"
NAMES = {0: "cat", 1: "dog", 2: "owl"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("classifier")
    AnteHocForImageClassification.from_backbone("test_resnet", id2label=NAMES, image_size=64).save_pretrained(path)
    AnteHocImageProcessor.from_backbone("test_resnet", image_size=64).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def see(folder):
    return pipeline(TASK, model=folder)


def photo(seed, size=(80, 100)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def test_classes_are_those_of_the_stock_pipeline(folder, see):
    stock = pipeline("image-classification", model=folder)
    for seed in range(3):
        expected, found = stock(photo(seed)), see(photo(seed))
        assert [entry["label"] for entry in found["top"]] == [entry["label"] for entry in expected]
        assert [e["score"] for e in found["top"]] == pytest.approx([e["score"] for e in expected], rel=1e-5)
        assert (found["label"], found["score"]) == (found["top"][0]["label"], found["top"][0]["score"])


def test_the_map_is_the_models_and_the_overlay_shows_it(folder, see):
    found = see(photo(1))
    model = AnteHocForImageClassification.from_pretrained(folder).eval()
    processor = AnteHocImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        outputs = model(**processor(photo(1), return_tensors="pt"))
    np.testing.assert_allclose(found["map"], outputs.interpretation_map[0, 0], atol=1e-6)
    assert found["map"].dtype == np.float32
    assert (found["map"].min(), found["map"].max()) == (0, pytest.approx(1))
    assert found["degenerate"] is False
    assert found["overlay"].size == (64, 64)
    # Where the map is lowest the overlay is grey, where it is highest it has the colour of the map.
    pixels = np.asarray(found["overlay"]).astype(int)
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    assert spread.flat[found["map"].argmin()] == 0
    assert spread.flat[found["map"].argmax()] > 30


def test_top_k_and_batches(see):
    images = [photo(seed, (60 + 10 * seed, 90)) for seed in range(5)]
    together = see(images, batch_size=3, top_k=2)
    for image, found in zip(images, together, strict=True):
        alone = see(image)
        assert len(found["top"]) == 2
        assert len(alone["top"]) == 3  # of three classes there are no five
        assert found["label"] == alone["label"]
        assert found["score"] == pytest.approx(alone["score"], rel=1e-4)
        np.testing.assert_allclose(found["map"], alone["map"], atol=1e-4)
    for wrong in (0, "x", 1.5, True):
        with pytest.raises(ValueError, match=r"top_k=.* must be a whole number of at least 1"):
            see(images[0], top_k=wrong)
    for wrong in (-1, 0, "x"):
        with pytest.raises(ValueError, match=r"timeout=.* must be a number of seconds above 0"):
            see(images[0], timeout=wrong)
    assert see([]) == []


def test_labels_that_do_not_exclude_each_other(folder):
    model = AnteHocForImageClassification.from_pretrained(folder, problem_type="multi_label_classification").eval()
    processor = AnteHocImageProcessor.from_pretrained(folder)
    found = pipeline(TASK, model=model, image_processor=processor)(photo(0))
    with torch.no_grad():
        expected = model(**processor(photo(0), return_tensors="pt")).logits[0].sigmoid()
    assert {e["label"]: pytest.approx(e["score"], rel=1e-5) for e in found["top"]} == {
        NAMES[index]: value for index, value in enumerate(expected.tolist())
    }


def test_numbers_of_a_regression_stay_as_they_are(folder):
    model = AnteHocForImageClassification.from_pretrained(folder, problem_type="regression", map_head="energy").eval()
    processor = AnteHocImageProcessor.from_pretrained(folder)
    found = pipeline(TASK, model=model, image_processor=processor)(photo(0))
    with torch.no_grad():
        expected = model(**processor(photo(0), return_tensors="pt")).logits[0]
    assert [e["label"] for e in found["top"]] == list(NAMES.values())
    assert [e["score"] for e in found["top"]] == pytest.approx(expected.tolist(), rel=1e-4)


def test_a_model_without_classes_is_refused(tmp_path):
    model = AnteHocForLandmarkDetection.from_backbone("test_resnet", num_landmarks=2, image_size=64)
    with pytest.raises(ValueError, match="needs an ante-hoc classifier, not AnteHocForLandmarkDetection"):
        pipeline(TASK, model=model, image_processor=AnteHocImageProcessor(64))
