"""Images, labels and configurations of every wrong kind: the obvious conversion, or one sentence."""

import time

import numpy as np
import pytest
import torch

from antehoc_hf.modeling import (
    AnteHocCaptionConfig,
    AnteHocConfig,
    AnteHocForImageCaptioning,
    AnteHocForImageClassification,
    AnteHocForLandmarkDetection,
    AnteHocModel,
)

WORDS = {"vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TASKS = {
    "classes": (AnteHocForImageClassification, {"num_labels": 4}, torch.tensor([0, 3])),
    "points": (AnteHocForLandmarkDetection, {"num_landmarks": 3}, torch.full((2, 3, 2), 0.5)),
    "captions": (AnteHocForImageCaptioning, WORDS, torch.tensor([[4, 2], [5, 2]])),
}
PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def models():
    made = {}
    for task, (kind, options, _) in TASKS.items():
        for map_head in ("contributions", "energy"):
            torch.manual_seed(0)
            model = kind.from_backbone("test_resnet", image_size=64, map_head=map_head, **options).eval()
            made[task, map_head] = model
    return made


each = pytest.mark.parametrize("map_head", ["contributions", "energy"])


@each
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (torch.zeros(2, 3, 0, 0), r"\(2, 3, 0, 0\) hold images without pixels"),
        (torch.zeros(2, 3, 0, 64), "images without pixels"),
        (torch.zeros(0, 3, 64, 0), "images without pixels"),
        (PIXELS.to("meta"), "pixel_values must be a tensor of real numbers, and these are without values"),
        (PIXELS.cfloat(), "not torch.complex64"),
        (list(PIXELS), "not list"),
        (PIXELS.numpy(), "not ndarray"),
        (torch.nested.nested_tensor(list(PIXELS)), "not a nested tensor"),
    ],
)
def test_images_that_cannot_be_run(models, task, map_head, pixels, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        models[task, map_head](pixels)
    assert "\n" not in str(caught.value)


@each
@pytest.mark.parametrize("task", TASKS)
def test_pixels_of_another_layout_or_mode_teach_the_same(models, task, map_head):
    model, labels = models[task, map_head], TASKS[task][2]
    with torch.inference_mode():
        inside, labels_inside = PIXELS.clone(), labels.clone()

    def gradient(pixels, labels):
        model.zero_grad()
        outputs = model(pixels, labels=labels)
        outputs.loss.backward()
        return outputs.loss.detach(), next(model.backbone.parameters()).grad.clone()

    expected = gradient(PIXELS, labels)
    for pixels, given in (
        (inside, labels_inside),
        (PIXELS.to_sparse(), labels.to_sparse()),
        (PIXELS, labels.tolist()),
    ):
        assert all(torch.equal(one, two) for one, two in zip(gradient(pixels, given), expected, strict=True))
    assert torch.equal(model.interpretation(inside).interpretation_map, model.interpretation(PIXELS)[0])
    with torch.inference_mode():
        assert torch.equal(model(PIXELS).interpretation_map, model(inside).interpretation_map)


def test_a_bare_model_of_pixels_made_in_inference_mode():
    model = AnteHocModel.from_backbone("test_resnet", image_size=64, num_labels=4)
    with torch.inference_mode():
        pixels = PIXELS.clone()
    model(pixels).pooler_output.sum().backward()
    assert next(model.backbone.parameters()).grad is not None


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "values",
    [
        "cat",
        3,
        {"a": 1},
        object(),
        [[1], [1, 2]],
        torch.zeros(2, 2).cfloat(),
        torch.zeros(2, 7, 5),
        torch.tensor(True),
    ],
)
def test_labels_of_every_wrong_kind(models, task, values):
    with pytest.raises(ValueError, match=r"^labels must be ") as caught:
        models[task, "contributions"](PIXELS, labels=values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, np.int16])
@pytest.mark.parametrize("task", ["classes", "captions"])
def test_whole_numbers_of_any_size(models, task, dtype):
    model, labels = models[task, "contributions"], TASKS[task][2]
    given = labels.to(dtype) if isinstance(dtype, torch.dtype) else labels.numpy().astype(dtype)
    assert torch.equal(model(PIXELS, labels=given).loss, model(PIXELS, labels=labels).loss)


def test_words_for_another_number_of_images(models):
    model = models["captions", "contributions"]
    ids = torch.tensor([[1, 4], [1, 5], [1, 6]])
    for name in ("labels", "decoder_input_ids"):
        with pytest.raises(ValueError, match=rf"{name} must be token ids \(2, words\), not \((3, 1|2, 0)\)"):
            model(PIXELS, **{name: ids[:, 1:]})
        with pytest.raises(ValueError, match=rf"{name} must be token ids \(2, words\), not \(2, 0\)"):
            model(PIXELS, **{name: ids[:2, :0]})
    with pytest.raises(ValueError, match=r"sequences must be token ids \(2, words\), not \(3, 2\)"):
        model.word_maps(PIXELS, ids)


def test_points_in_pixels(models):
    labels = torch.full((2, 3, 2), 0.5)
    labels[1, 2, 0] = 40.0
    with pytest.raises(ValueError, match=r"where 1 is the right or lower edge, but this batch has 40: divide pixels"):
        models["points", "contributions"](PIXELS, labels=labels)
    labels[1, 2, 0] = float("nan")
    assert models["points", "contributions"](PIXELS, labels=labels).loss.isfinite()


NO_LABEL = {
    "classes": torch.tensor([-100, -100]),
    "points": torch.full((2, 3, 2), float("nan")),
    "captions": torch.full((2, 2), -100),
}


@each
@pytest.mark.parametrize("task", TASKS)
def test_a_batch_in_which_nothing_has_a_label_teaches_nothing(models, task, map_head):
    model = models[task, map_head]
    for pixels, labels in ((PIXELS, NO_LABEL[task]), (PIXELS[:0], TASKS[task][2][:0])):
        model.zero_grad()
        loss = model(pixels, labels=labels).loss
        loss.backward()
        gradients = [weight.grad for weight in model.backbone.parameters() if weight.grad is not None]
        assert loss == 0
        assert gradients
        assert all(bool((gradient == 0).all()) for gradient in gradients)
    if task == "classes":  # one label among them counts as if it were alone
        labels = torch.tensor([2, -100])
        assert torch.allclose(model(PIXELS, labels=labels).loss, model(PIXELS[:1], labels=labels[:1]).loss, atol=1e-6)


@pytest.mark.parametrize("problem_type", ["regression", "multi_label_classification"])
def test_numbers_that_are_not_known(problem_type):
    model = AnteHocForImageClassification.from_backbone(
        "test_resnet", image_size=64, num_labels=4, problem_type=problem_type
    )
    labels = torch.zeros(2, 4)
    labels[1, 2] = float("nan")
    with pytest.raises(ValueError, match=r"labels must be finite numbers, but 1 of this batch are NaN or infinite"):
        model(PIXELS, labels=labels)
    assert model(PIXELS[:0], labels=labels[:0]).loss == 0


@pytest.mark.parametrize("closed_form", [False, True])
def test_channels_of_the_taps_that_are_not_theirs(closed_form):
    head = {"kind": "contributions", "closed_form": closed_form}
    made = AnteHocForImageClassification.from_backbone("test_resnet", image_size=64, num_labels=4, map_head=head)
    values = made.config.to_dict()
    for wrong in ("x", [8], [0] * 8, [1.5] * 8, [True] * 8, [10**9] * 8, {"a": 1}):
        with pytest.raises(ValueError, match=r"^tap_channels=.* must be a whole number of channels for each of"):
            AnteHocConfig.from_dict({**values, "tap_channels": wrong})
    config = AnteHocConfig.from_dict({**values, "tap_channels": [3, *values["tap_channels"][1:]]})
    with pytest.raises(ValueError, match=r"^tap_channels of the configuration are \[3, .* but its tap_points have \["):
        AnteHocForImageClassification(config)
    config = AnteHocConfig.from_dict({**values, "tap_channels": None})
    assert AnteHocForImageClassification(config).config.tap_channels == made.config.tap_channels


def test_a_small_image_is_the_cause_where_the_classifier_s_layer_has_one_position():
    head = {"kind": "contributions", "closed_form": True}
    with pytest.raises(ValueError, match=r"image_size=\[8, 8\] is too small for the backbone 'test_resnet'"):
        AnteHocForImageClassification.from_backbone("test_resnet", image_size=8, num_labels=4, map_head=head)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image_size": 100_000}, "makes 100000×100000 pixels, more than the 67,108,864 that an image may have"),
        ({"id2label": {0: None}}, "The name of class 0 must be text, not None"),
        ({"id2label": {0: "a", 1: b"b"}}, "The name of class 1 must be text"),
        ({"id2label": {0: "a", 2: "b"}}, r"must name the classes 0…K − 1"),
        ({"label2id": {"a": 0, "b": None}}, r"label2id=.* must name the classes"),
        ({"backbone_kwargs": {"output_stride": 7}}, r"assert output_stride in \(8, 16, 32\)"),
        ({"backbone_kwargs": {"channels": [10**6] * 4}}, "than any network"),
        ({"tap_points": [{"module": "nope"}], "num_attention_maps": 1}, "names 'nope', which 'test_resnet' does not"),
    ],
)
@pytest.mark.parametrize("map_head", ["contributions", "energy"])
def test_configurations_that_make_no_sense(options, sentence, map_head):
    started = time.process_time()
    with pytest.raises(ValueError, match=sentence) as caught:
        AnteHocForImageClassification(
            AnteHocConfig(**{"backbone": "test_resnet", "image_size": 64, "map_head": map_head, **options})
        )
    assert "\n" not in str(caught.value)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("backbone", "options", "sentence"),
    [
        ("test_vit", {"depth": 1999}, "makes a network larger than any"),
        ("test_vit", {"depth": 400}, "makes a network larger than any"),
        ("test_vit", {"patch_size": 0}, "timm cannot build 'test_vit'"),
        ("test_convnext", {"patch_size": 0}, "cannot run on images of 224×224 pixels"),
        ("test_convnext", {"kernel_sizes": 9999}, "more layers or weights than any network"),
        ("transformers:vit", {"num_hidden_layers": 450}, "makes a network larger than any"),
        ("torchvision:resnet50", {"groups": 10**6}, "more layers or weights than any network"),
    ],
)
def test_absurd_networks_are_refused_before_they_are_built(backbone, options, sentence):
    known = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if ":" in backbone else {}
    started = time.process_time()
    with pytest.raises(ValueError, match=sentence):
        AnteHocForImageClassification(
            AnteHocConfig(backbone=backbone, backbone_kwargs=options, num_labels=3, image_size=224, **known)
        )
    assert time.process_time() - started < 2  # a second, where nothing else runs


def test_a_network_of_more_parts_than_any_is_not_built():
    with pytest.raises(ValueError, match="more layers or weights than any network"):
        AnteHocForImageClassification(
            AnteHocConfig(backbone="test_vit", backbone_kwargs={"depth": 300}, num_labels=3, image_size=224)
        )


def test_class_names_are_text_and_agree():
    """One dictionary is made of the other; of two that differ, the one by index counts."""
    for names in ({"id2label": {0: 7, 1: 8}}, {"label2id": {"7": 0, "8": 1}}, {"id2label": {"1": "8", "0": "7"}}):
        config = AnteHocConfig(backbone="test_resnet", **names)
        assert (config.id2label, config.label2id, config.num_labels) == ({0: "7", 1: "8"}, {"7": 0, "8": 1}, 2)
    config = AnteHocConfig(backbone="test_resnet", id2label={0: "a", 1: "b"}, label2id={"a": 1, "b": 0})
    assert config.label2id == {"a": 0, "b": 1}
    assert AnteHocCaptionConfig(backbone="test_resnet", **WORDS).vocab_size == 9
