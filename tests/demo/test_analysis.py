"""What the demo shows of an image: the model's own answer and map, other methods, and honest numbers."""

import io
import shutil
import threading
import time

import pytest
import torch
from PIL import Image

from antehoc_hf import AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.baselines import PlainForImageClassification
from antehoc_hf.demo import analysis as analysis_module
from antehoc_hf.demo.analysis import Classes, Points, Sentence, analyse, compare, explain_class, measure, read_photo
from antehoc_hf.demo.limits import TimeIsUpError, limited_time
from antehoc_hf.demo.models import DemoModel, load_demo_model, load_demo_models
from antehoc_hf.evaluation.controls import center_map
from antehoc_hf.evaluation.familiarity import Familiarity
from antehoc_hf.evaluation.maps import binarise_equal_area


def pixels_of(loaded, photo):
    return loaded.processor(photo, return_tensors="pt")["pixel_values"]


def test_all_classes_by_their_probability_and_the_models_map(models, photo):
    loaded = models["classes"]
    found = analyse(loaded, photo)
    with torch.no_grad():
        outputs = loaded.model(pixels_of(loaded, photo))
    probabilities = outputs.logits[0].softmax(dim=0)
    assert isinstance(found.answer, Classes)
    expected = sorted(zip(probabilities.tolist(), loaded.model.config.id2label.values(), strict=True), reverse=True)
    assert [name for name, _ in found.answer.top] == [name for _, name in expected]
    assert [value for _, value in found.answer.top] == pytest.approx([value for value, _ in expected], rel=1e-5)
    assert torch.equal(found.map, outputs.interpretation_map)
    assert found.picture.shape == (512, 512, 3)
    assert found.seconds > 0


def test_points_in_pixels_of_the_photo(models, photo):
    found = analyse(models["landmarks"], photo)
    assert isinstance(found.answer, Points)
    assert found.answer.names == ("left", "right", "top")
    # The short side, 96, is scaled to 64, and 64 of the long side's 85 are kept: about 16 pixels of the photo are lost
    # on the left. Both are rounded to whole pixels.
    for (x, y), (across, down) in zip(found.answer.on_photo, found.answer.on_input.tolist(), strict=True):
        assert x == pytest.approx(16 + 96 * across - 0.5, abs=1.5)
        assert y == pytest.approx(96 * down - 0.5, abs=1.5)


def test_a_sentence_and_a_map_for_each_of_its_words(models, photo):
    loaded = models["captions"]
    found = analyse(loaded, photo)
    assert isinstance(found.answer, Sentence)
    written = loaded.model.caption(pixels_of(loaded, photo))
    assert found.answer.probability == pytest.approx(written.probability.item(), rel=1e-5)
    assert " ".join(word.text for word in found.answer.words if word.text != "<unk>") == found.answer.text
    assert all(word.map.shape == (1, 64, 64) and 0 <= word.probability <= 1 for word in found.answer.words)


@pytest.mark.parametrize("kind", ["classes", "landmarks", "captions"])
def test_methods_side_by_side(models, photo, kind):
    loaded = models[kind]
    found = analyse(loaded, photo)
    pytest.importorskip("torchcam")
    own, cam, centre = compare(loaded, found, ["antehoc", "grad-cam", "center"])
    assert torch.equal(own.map, found.map)
    assert own.seconds == found.seconds, "the pass that made the answer made the map as well"
    assert torch.equal(centre.map, center_map(found.pixel_values))
    assert cam.map.shape == (1, 1, 64, 64)
    assert min(own.seconds, cam.seconds, centre.seconds) > 0
    assert (cam.map.max() == 0) == (cam.note == "found no evidence")


def test_a_method_that_cannot_be_had_says_so_and_the_others_go_on(models, photo):
    found = analyse(models["classes"], photo)
    unknown, own = compare(models["classes"], found, ["grad-camm", "antehoc"])
    assert unknown.map is None
    assert "did you mean 'grad-cam'" in unknown.note
    assert own.map is not None


def test_time_that_is_up_ends_a_method_in_the_middle(models, photo):
    loaded = models["classes"]
    found = analyse(loaded, photo)
    begun = time.perf_counter()
    with pytest.raises(TimeIsUpError, match="takes longer than"), limited_time(0.02):
        compare(loaded, found, ["sise", "antehoc", "ada-sise"])
    assert time.perf_counter() - begun < 2
    assert compare(loaded, found, ["antehoc"])[0].map is not None, "the model is free again"


def test_nobody_waits_for_a_model_longer_than_a_request_may_take(models, photo):
    loaded, ended = models["classes"], []

    def visit():
        with pytest.raises(TimeIsUpError), limited_time(0.1):
            analyse(loaded, photo)
        ended.append(True)

    with loaded.lock:
        visitor = threading.Thread(target=visit)
        visitor.start()
        visitor.join(10)
    assert ended == [True]


def test_faithfulness_is_what_is_left_of_the_probability(models, photo):
    loaded = models["classes"]
    found = analyse(loaded, photo)
    measured = measure(loaded, found)
    name, probability = found.answer.top[0]
    assert measured.whole == pytest.approx(probability, rel=1e-4)
    assert [row.name for row in measured.rows] == ["this map", "centre", "random"]
    index = list(loaded.model.config.id2label.values()).index(name)
    for row, map_ in zip(measured.rows[:2], (found.map, center_map(found.pixel_values)), strict=True):
        left = loaded.model.energy_map(found.pixel_values, binarise_equal_area(map_, 0.2))
        with torch.no_grad():
            expected = loaded.model(left).logits.softmax(dim=1)[0, index].item()
        assert row.kept == pytest.approx(expected, rel=1e-4)
        assert -1 <= row.insertion_minus_deletion <= 1


@pytest.mark.parametrize("kind", ["landmarks", "captions"])
def test_faithfulness_of_the_other_tasks(models, photo, kind):
    found = analyse(models[kind], photo)
    measured = measure(models[kind], found)
    whole = 1.0 if kind == "landmarks" else found.answer.probability
    assert measured.whole == pytest.approx(whole, rel=1e-3)
    assert all(0 <= row.kept <= 1 for row in measured.rows)
    again = measure(models[kind], found)
    assert again == measured, "chance is seeded, and the model was left as it was"


def test_a_regression_has_values_and_no_faithfulness(folders, models, photo):
    loaded = models["classes"]
    loaded.model.config.problem_type = "regression"
    try:
        found = analyse(loaded, photo)
        assert not found.answer.are_probabilities
        assert len(found.answer.top) == 4
        assert measure(loaded, found) is None
    finally:
        loaded.model.config.problem_type = None


def test_images_that_are_none(tmp_path, monkeypatch):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad\.png can't be read: not an image, or damaged"):
        read_photo(tmp_path / "bad.png")
    with pytest.raises(ValueError, match=r"^The image can't be read: not an image, or damaged"):
        read_photo(b"nothing")
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200)).save(buffer, "PNG")
    assert read_photo(buffer.getvalue()).size == (300, 200)
    monkeypatch.setattr(analysis_module, "MOST_PIXELS", 50_000)
    with pytest.raises(ValueError, match="too large: 300 × 200 pixels"):
        read_photo(buffer.getvalue())


def test_models_are_called_by_the_end_of_their_names(folders):
    assert list(load_demo_models([str(folders / "classes"), str(folders / "captions")])) == ["classes", "captions"]


def test_a_model_without_a_map_is_refused(tmp_path):
    PlainForImageClassification.from_backbone("test_resnet", image_size=64, num_labels=2).save_pretrained(tmp_path)
    AnteHocImageProcessor(64).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no map of its own: the demo shows ante-hoc models"):
        load_demo_model(str(tmp_path))


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ('{"verdict": {"sentence": "These maps explain nothing."}}', "These maps explain nothing."),
        ("{torn", ""),
        ("[]", ""),
    ],
)
def test_the_verdict_of_held_out_images_comes_with_the_model(tmp_path, photo, results, verdict):
    AnteHocForImageClassification.from_backbone("test_resnet", image_size=64, num_labels=2).save_pretrained(tmp_path)
    AnteHocImageProcessor(64).save_pretrained(tmp_path)
    assert load_demo_model(str(tmp_path)).verdict == ""
    (tmp_path / "results.json").write_text(results)
    assert analyse(load_demo_model(str(tmp_path)), photo).verdict == verdict


def test_the_map_of_another_class(photo):
    """Of a model with a map for each class: the map, other methods and the numbers are all of the class chosen."""
    torch.manual_seed(0)
    model = AnteHocForImageClassification.from_backbone(
        "test_resnet", num_labels=3, image_size=64, map_head="contributions"
    ).eval()
    loaded = DemoModel(
        "model", model, AnteHocImageProcessor.from_backbone("test_resnet", image_size=64), None, "classes"
    )
    first = analyse(loaded, photo)
    other = explain_class(loaded, first, 1)
    index = first.answer.indices[1]
    assert torch.equal(other.map, model.interpretation(first.pixel_values, index).interpretation_map.detach())
    assert other.answer.top == first.answer.top
    assert measure(loaded, other).whole == pytest.approx(first.answer.top[1][1], rel=1e-3)
    (own,) = compare(loaded, other, ["antehoc"])
    assert torch.allclose(own.map, other.map, atol=1e-5)
    with pytest.raises(ValueError, match="rank=3 must be in 0 … 2"):
        explain_class(loaded, first, 3)


def test_one_map_an_image_whatever_the_class(models, photo):
    found = analyse(models["classes"], photo)
    with pytest.raises(ValueError, match="one map an image"):
        explain_class(models["classes"], found, 1)


def test_a_picture_unlike_the_training_images_is_known_by_the_folder(folders, photo, tmp_path):
    """What an earlier model left behind is not used."""
    shutil.copytree(folders / "classes", tmp_path / "model")
    loaded = load_demo_model(str(tmp_path / "model"))
    assert analyse(loaded, photo).strangeness is None
    rows = [{"pixel_values": torch.full((3, 64, 64), k / 100)} for k in range(40)]
    Familiarity.of(loaded.model, rows[::2], rows[1::2]).save(tmp_path / "model")
    assert analyse(load_demo_model(str(tmp_path / "model")), photo).strangeness > 1
    Familiarity(torch.zeros(5), torch.ones(5), torch.ones(1, 5), 1.0).save(tmp_path / "model")
    assert load_demo_model(str(tmp_path / "model")).familiarity is None
