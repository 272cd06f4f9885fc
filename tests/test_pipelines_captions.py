"""`pipeline("antehoc-image-captioning")`, the pictures of captions, and their ONNX graphs."""

import json

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image
from transformers import AutoImageProcessor, pipeline

from antehoc_hf.export import export_onnx
from antehoc_hf.modeling import AnteHocForImageCaptioning, AnteHocImageProcessor
from antehoc_hf.training.data.captions import build_tokenizer
from antehoc_hf.visualization.captions import Described, caption_panel, word_map_strip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("captioner")
    torch.manual_seed(0)
    tokenizer = build_tokenizer(["a black dog runs on green grass"] * 2, min_word_count=1, max_caption_length=8)
    model = AnteHocForImageCaptioning.from_backbone(
        "test_resnet", image_size=64, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0,
        max_caption_length=8, decoder_embedding_size=8, decoder_hidden_size=12, map_head="energy",
    )  # fmt: skip
    for name, parameter in model.decoder.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=3.0 if "image" in name else 1.0)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    AnteHocImageProcessor.from_backbone("test_resnet", image_size=64).save_pretrained(path)
    return path


def photo(seed, size=(80, 100)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


def test_one_image_by_every_way_of_giving_it(folder, tmp_path):
    describe = pipeline("antehoc-image-captioning", model=str(folder))
    image = photo(0)
    image.save(tmp_path / "photo.png")
    expected = describe(image)
    assert set(expected) == {"generated_text", "probability", "map", "degenerate"}
    known = {"a", "black", "dog", "runs", "on", "green", "grass", "<unk>"}
    assert set(expected["generated_text"].split()) <= known
    assert 0 < expected["probability"] <= 1
    assert expected["map"].shape == (64, 64)
    assert expected["map"].dtype == np.float32
    assert expected["map"].min() == 0
    assert expected["map"].max() == pytest.approx(1)
    for value in (str(tmp_path / "photo.png"), (tmp_path / "photo.png").read_bytes(), tmp_path / "photo.png"):
        found = describe(value)
        assert found["generated_text"] == expected["generated_text"]
        assert np.array_equal(found["map"], expected["map"])


def test_it_is_what_the_model_says(folder):
    describe = pipeline("antehoc-image-captioning", model=str(folder))
    pixels = AutoImageProcessor.from_pretrained(folder)(photo(1), return_tensors="pt")["pixel_values"]
    written = AnteHocForImageCaptioning.from_pretrained(folder).caption(pixels, num_beams=3, output_word_maps=True)
    result = describe(photo(1), num_beams=3, output_word_maps=True)
    assert result["probability"] == pytest.approx(written.probability.item())
    words = [entry["word"] for entry in result["word_maps"]]
    assert " ".join(words) == result["generated_text"].strip() or "<unk>" in words
    for index, entry in enumerate(result["word_maps"]):
        assert np.allclose(entry["map"], written.word_maps[0, index, 0])
        assert entry["probability"] == pytest.approx(written.log_probabilities[0, index].exp().item(), rel=1e-5)


def test_batches_give_what_single_images_give(folder):
    describe = pipeline("antehoc-image-captioning", model=str(folder))
    images = [photo(seed) for seed in range(5)]
    together = describe(images, batch_size=3, output_word_maps=True)
    for image, found in zip(images, together, strict=True):
        alone = describe(image, output_word_maps=True)
        assert found["generated_text"] == alone["generated_text"]
        assert found["probability"] == pytest.approx(alone["probability"], rel=1e-4)
        assert np.allclose(found["map"], alone["map"], atol=1e-4)
        assert len(found["word_maps"]) == len(alone["word_maps"])


def test_bad_input(folder, tmp_path):
    describe = pipeline("antehoc-image-captioning", model=str(folder))
    (tmp_path / "text.png").write_text("no image")
    for value in (str(tmp_path / "missing.png"), tmp_path / "text.png", b"no image"):
        with pytest.raises(ValueError, match="can't be read"):
            describe(value)
    with pytest.raises(ValueError, match=r"use model\.caption"):
        describe(photo(0), num_return_sequences=2, num_beams=2)


def test_tokenizer_of_another_model(folder):
    other = build_tokenizer(["a cat"] * 2, min_word_count=1, max_caption_length=8)
    with pytest.raises(ValueError, match="they do not belong together"):
        pipeline("antehoc-image-captioning", model=str(folder), tokenizer=other)


# -- pictures -------------------------------------------------------------------------------------------------------


def test_captions_are_drawn(tmp_path):
    images = np.stack([np.asarray(photo(seed, (48, 64))) for seed in range(3)])
    maps = torch.rand(3, 1, 48, 64)
    maps[1] = 0.5
    described = [
        Described("a dog runs over $5 grass", 0.31, "A black dog is running."),
        Described(""),
        Described(" ".join(["a very long caption"] * 20), 1.0, " ".join(["and a long reference"] * 20)),
    ]
    figure = caption_panel(images, maps, described, title="Step 3", columns=2)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts] + [t.get_text() for t in figure.texts]
    assert "no evidence" in texts, "a constant map shows nothing"
    assert "(no words)" in texts
    figure.savefig(tmp_path / "panel.png")
    assert (tmp_path / "panel.png").stat().st_size > 1000
    strip = word_map_strip(images[0], ["a", "dog"], maps[:2], maps[2])
    titles = [text.get_text() for text in strip.findobj(Text)]
    assert [title for title in titles if title in ("the whole caption", "a", "dog")] == [
        "the whole caption",
        "a",
        "dog",
    ]
    with pytest.raises(ValueError, match="3 images but 2 captions"):
        caption_panel(images, maps, described[:2])
    with pytest.raises(ValueError, match=r"must be \(N, 1, H, W\)"):
        caption_panel(images, maps[:, 0], described)


# -- ONNX -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_onnx_writes_the_same_caption(folder, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = AnteHocForImageCaptioning.from_pretrained(folder)
    path = export_onnx(folder, tmp_path / "model.onnx")
    encoder, decoder = (runtime.InferenceSession(p) for p in (path, tmp_path / "model-decoder.onnx"))
    metadata = encoder.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["eos_token_id"]) == 2
    assert len(onnx.load(path).graph.output) == 3
    for count in (1, 3):
        pixels = torch.randn(count, 3, 64, 64)
        hidden, cell, map_ = encoder.run(None, {"pixel_values": pixels.numpy()})
        with torch.no_grad():
            expected = model(pixels, decoder_input_ids=torch.tensor([[1, 4, 5]] * count))
        assert np.allclose(map_, expected.interpretation_map, atol=1e-4)
        for step, token in enumerate((1, 4, 5)):
            inputs = {"token_ids": np.full((count, 1), token), "hidden": hidden, "cell": cell}
            logits, hidden, cell = decoder.run(None, inputs)
            assert np.allclose(logits, expected.logits[:, step], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
def test_onnx_of_maps_of_words(folder, tmp_path, int8):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = AnteHocForImageCaptioning.from_pretrained(folder, map_head="contributions").eval()
    for parameter in model.map_head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = export_onnx(model, tmp_path / "model.onnx", int8=int8)
    encoder, maps = (runtime.InferenceSession(p) for p in (path, tmp_path / "model-maps.onnx"))
    pixels = torch.randn(3, 3, 64, 64)
    written = model.caption(pixels, output_word_maps=True)
    padded = torch.nn.functional.pad(written.sequences, (0, 8 - written.sequences.shape[1]))
    state = dict(
        zip(("hidden", "cell", "tap_values"), encoder.run(None, {"pixel_values": pixels.numpy()}), strict=True)
    )
    whole, of_words = maps.run(None, {"token_ids": padded.numpy(), **state})
    if int8:
        of_words = of_words[:, : written.word_maps.shape[1]]
        assert np.corrcoef(of_words.ravel(), written.word_maps.ravel())[0, 1] > 0.9
        assert runtime.InferenceSession(tmp_path / "model-decoder.onnx").get_inputs()[0].name == "token_ids"
        return
    assert np.allclose(whole, written.interpretation_map, atol=1e-3)
    assert np.allclose(of_words[:, : written.word_maps.shape[1]], written.word_maps, atol=1e-3)


@pytest.mark.parametrize("wrong", [{"top_k": "x"}, {"do_sample": True, "top_p": "x"}, {"max_time": "x"}])
def test_options_of_a_wrong_type_are_named(folder, wrong):
    describe = pipeline("antehoc-image-captioning", model=str(folder))
    assert describe(photo(0), num_beams=None)["generated_text"] == describe(photo(0))["generated_text"]
    with pytest.raises(ValueError, match=rf"^Captions cannot be written with .*{list(wrong)[-1]}='x': "):
        describe(photo(0), **wrong)
