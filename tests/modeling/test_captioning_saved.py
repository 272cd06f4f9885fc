"""Captioners that were saved: reloaded, in half precision, in another process, compiled."""

import logging
from pathlib import Path

import pytest
import torch
from captioners import EOS, WORDS, captioner, different_images
from transformers import AutoModel, AutoModelForImageTextToText

from antehoc_hf.modeling import AnteHocCaptionModel, AnteHocForImageCaptioning, AnteHocModel
from antehoc_hf.training.data.captions import build_tokenizer


@pytest.mark.parametrize("image_input", ["state", "token"])
def test_reloaded_to_the_bit(build, noise, tmp_path, image_input):
    model, pixels = captioner(build, decoder_image_input=image_input), different_images(noise)
    model.generation_config.num_beams = 2
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert type(again) is AnteHocForImageCaptioning
    assert again.generation_config.num_beams == 2
    assert again.generation_config.max_length == 8
    labels = torch.tensor([[5, 6, EOS]] * 3)
    expected, output = model(pixels, labels=labels), again(pixels, labels=labels)
    assert torch.equal(output.logits, expected.logits)
    assert torch.equal(output.interpretation_map, expected.interpretation_map)
    assert torch.equal(again.generate(pixel_values=pixels), model.generate(pixel_values=pixels))


def test_bare_model_of_a_captioner(build, noise, tmp_path, caplog):
    model = captioner(build)
    model.save_pretrained(tmp_path)
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        bare = AutoModel.from_pretrained(tmp_path)
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert isinstance(bare, AnteHocModel)
    assert torch.equal(bare(noise(1, 64)).interpretation_map, model(noise(1, 64)).interpretation_map)


def test_decoder_missing_from_a_file_is_reported_and_gets_fresh_values(build, noise, tmp_path, caplog):
    build(kind=AnteHocCaptionModel, **WORDS).save_pretrained(tmp_path)
    logging.getLogger("transformers").addHandler(caplog.handler)
    try:
        model = AnteHocForImageCaptioning.from_pretrained(tmp_path)
    finally:
        logging.getLogger("transformers").removeHandler(caplog.handler)
    assert any("decoder" in record.getMessage() for record in caplog.records)
    assert model(noise(1, 64)).logits.isfinite().all()
    assert 0 < model.decoder.lstm.weight_hh_l0.std() < 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(build, noise, tmp_path, dtype):
    captioner(build).save_pretrained(tmp_path)
    model = AnteHocForImageCaptioning.from_pretrained(tmp_path, dtype=dtype)
    written = model.caption(noise(2, 64).to(dtype), output_word_maps=True, num_beams=2)
    assert written.probability.dtype == torch.float32
    assert written.word_maps.isfinite().all()
    assert written.probability.min() > 0
    assert written.probability.max() <= 1


LOAD = """
from transformers import AutoModelForImageTextToText, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForImageTextToText.from_pretrained(folder, **({"trust_remote_code": True} if remote else {}))
with torch.no_grad():
    written = model.caption(torch.load(pixels), num_beams=2, output_word_maps=True)
texts = tokenizer.batch_decode(written.sequences, skip_special_tokens=True)
ids = tokenizer("A cat, on Mars!").input_ids
torch.save({**written, "texts": texts, "ids": ids, "module": type(model).__module__}, results_file)
"""


@pytest.mark.parametrize("where", ["installed", "stranger"])
def test_in_another_process_with_and_without_this_package(build, noise, tmp_path, request, where):
    tokenizer = build_tokenizer(["a cat sits on the mat with me"], min_word_count=1, max_caption_length=8)
    model = captioner(build, map_head="contributions")  # 12 tokens: 8 words and 4 special ones
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    torch.save(different_images(noise), tmp_path / "pixels.pt")
    remote, client = where == "stranger", request.getfixturevalue(where)
    paths = {"folder": tmp_path / "model", "pixels": tmp_path / "pixels.pt", "results_file": tmp_path / "out.pt"}
    done = client.run(LOAD, remote=remote, **{name: str(path) for name, path in paths.items()})
    assert done.error is None, done.error[2]
    result = torch.load(tmp_path / "out.pt", weights_only=False)
    expected = model.caption(different_images(noise), num_beams=2, output_word_maps=True)
    assert result["module"].startswith("transformers_modules" if remote else "antehoc_hf.modeling")
    for name in ("sequences", "probability", "interpretation_map", "word_maps"):
        assert torch.equal(result[name], expected[name]), name
    assert result["texts"] == tokenizer.batch_decode(expected.sequences, skip_special_tokens=True)
    known = tokenizer.get_vocab()
    assert result["ids"] == [known["a"], known["cat"], known["on"], tokenizer.unk_token_id, EOS]
    own = {path.name for path in (tmp_path / "model").glob("*.py")}
    assert {"image_captioning.py", "caption_decoder.py", "word_maps.py", "modeling_antehoc.py"} <= own


@pytest.mark.slow
def test_compiled(build, noise):
    """Not in one graph: the LSTM is a call of its own."""
    torch._dynamo.reset()
    model, labels = captioner(build), torch.tensor([[5, 6, EOS], [8, EOS, -100]])
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        output, expected = compiled(noise(2, 64), labels=labels), model(noise(2, 64), labels=labels)
    assert output.keys() == expected.keys()
    assert torch.allclose(output.logits, expected.logits, atol=1e-4)
    assert torch.allclose(output.interpretation_map, expected.interpretation_map, atol=1e-4)
    torch._dynamo.reset()


def test_code_that_travels_imports_nothing_of_ours():
    room = Path(__file__).parents[2] / "modeling"
    for name in ("image_captioning", "caption_decoder", "caption_outputs", "configuration_captions", "word_maps"):
        assert "antehoc_hf" not in (room / f"{name}.py").read_text()
