"""What all our pipelines take as an image: files, bytes, URLs; and their words for what is none."""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets import Image as DatasetImage
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    ConvNextImageProcessor,
    PoolFormerImageProcessor,
    ViTImageProcessor,
    pipeline,
)
from transformers.models.timm_wrapper.image_processing_timm_wrapper import TimmWrapperImageProcessor

from antehoc_hf import AnteHocForImageClassification, AnteHocForLandmarkDetection, AnteHocImageProcessor
from antehoc_hf.modeling import AnteHocForImageCaptioning
from antehoc_hf.pipelines.images import open_image, without_ends
from antehoc_hf.training.data.captions import build_tokenizer

TASKS = ("antehoc-image-classification", "antehoc-landmark-detection", "antehoc-image-captioning")


def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


def as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_stack_of_images_is_not_taken_for_its_first() -> None:
    array = np.asarray(photo())
    assert np.array_equal(open_image(array[None]), array)
    assert open_image(torch.zeros(1, 3, 8, 8)).shape == (3, 8, 8)
    for stack in (np.stack([array, array]), torch.zeros(2, 3, 8, 8), np.zeros((0, 8, 8, 3))):
        with pytest.raises(ValueError, match=r"holds [02] images: give them as a list, list\(images\)\."):
            open_image(stack)
    with pytest.raises(ValueError, match=r"^An empty path can't be read"):
        open_image("")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A web server on this machine with a picture, a page, and nothing else."""
    files = {"/photo.png": as_png(photo()), "/page.html": b"<html>no picture</html>"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = files.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module", params=TASKS)
def run(request: pytest.FixtureRequest):
    torch.manual_seed(0)
    parts = {"image_processor": AnteHocImageProcessor.from_backbone("test_resnet", image_size=64)}
    if request.param == TASKS[0]:
        model = AnteHocForImageClassification.from_backbone("test_resnet", num_labels=3, image_size=64)
    elif request.param == TASKS[1]:
        model = AnteHocForLandmarkDetection.from_backbone("test_resnet", num_landmarks=2, image_size=64)
    else:
        parts["tokenizer"] = build_tokenizer(["a dog runs"] * 2, min_word_count=1, max_caption_length=5)
        model = AnteHocForImageCaptioning.from_backbone(
            "test_resnet", image_size=64, vocab_size=len(parts["tokenizer"]), bos_token_id=1, eos_token_id=2,
            pad_token_id=0, max_caption_length=5, decoder_embedding_size=8, decoder_hidden_size=12,
        )  # fmt: skip
    return pipeline(request.param, model=model.eval(), **parts)


def test_a_url_gives_what_the_picture_gives(run, server):
    expected = run(photo())
    for value in (f"{server}/photo.png", as_png(photo()), np.asarray(photo())):
        found = run(value)
        assert np.array_equal(found["map"], expected["map"])
        assert found.keys() == expected.keys()


def test_sequences_of_images_and_open_files(run, tmp_path):
    photo().save(tmp_path / "photo.png")
    expected = run(photo())["map"]
    table = Dataset.from_dict({"image": [str(tmp_path / "photo.png")] * 2}).cast_column("image", DatasetImage())
    with open(tmp_path / "photo.png", "rb") as opened:
        for value in ((photo(), photo()), table["image"], [io.BytesIO(as_png(photo())), opened]):
            found = run(value, batch_size=2)
            assert [np.allclose(one["map"], expected, atol=1e-5) for one in found] == [True, True]
    assert run(()) == []
    with pytest.raises(ValueError, match=r"^The path 'iVBOR.*'… can't be read"):
        run("iVBORw0KGgo" * 1000)


def test_what_is_no_image_is_reported_in_one_sentence(run, server, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(as_png(photo())[:3000])
    for value, words in (
        (f"{server}/page.html", "page.html can't be read: not an image, or damaged"),
        (f"{server}/missing.png", "missing.png can't be read: the server answers 404"),
        (str(tmp_path / "text.png"), "text.png can't be read: not an image, or damaged"),
        (tmp_path / "cut.png", "cut.png can't be read: image file is truncated"),
        (str(tmp_path / "missing.png"), "missing.png can't be read: No such file or directory"),
        (b"no image", "The image can't be read: not an image, or damaged"),
        (None, "An image must be a path, a URL, .* not NoneType"),
        ({"a": 1}, "An image must be a path, a URL, .* not dict"),
    ):
        with pytest.raises(ValueError, match=words):
            run(value)


def test_a_server_that_is_not_there(server):
    port = int(server.rsplit(":", 1)[1])
    with pytest.raises(ValueError, match="can't be read"):
        open_image(f"http://127.0.0.1:{port}0000/photo.png")  # a port that cannot be
    with pytest.raises(ValueError, match="can't be read"):
        open_image("http://127.0.0.1:9/photo.png", timeout=2)  # and one where nobody listens


def test_too_many_pixels(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="more than 178 million pixels, make it smaller"):
        open_image(as_png(photo()))


def test_a_photo_stored_sideways_comes_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo().save(tmp_path / "sideways.jpg", exif=exif)
    assert open_image(tmp_path / "sideways.jpg").size == (60, 90)
    assert open_image(Image.open(tmp_path / "sideways.jpg")).size == (60, 90)


SQUARE = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3, "num_classes": 2}


@pytest.mark.parametrize("size", [(60000, 1), (1, 10000)])
@pytest.mark.parametrize(
    "processor",
    [
        CLIPImageProcessor(),
        ConvNextImageProcessor(size={"shortest_edge": 224}),
        PoolFormerImageProcessor(size={"shortest_edge": 384}),
        TimmWrapperImageProcessor(pretrained_cfg=SQUARE),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_thin_images_are_bounded_for_processors_of_transformers(processor, size):
    bounded = without_ends(Image.new("RGB", size), processor)
    assert max(bounded.size) == 64
    assert processor(bounded, return_tensors="pt")["pixel_values"].shape[0] == 1


@pytest.mark.parametrize(
    "processor", [CLIPImageProcessor(size={"shortest_edge": 32}), ConvNextImageProcessor(size={"shortest_edge": 32})]
)
def test_the_middle_of_a_thin_image_is_what_the_crop_keeps(processor):
    waves = np.sin(np.arange(1000) / 3)[None, :, None] * [100, 50, 20] + 128
    thin = Image.fromarray(np.broadcast_to(waves, (8, 1000, 3)).astype(np.uint8))
    whole = processor(thin, return_tensors="pt")["pixel_values"]
    bounded = processor(without_ends(thin, processor), return_tensors="pt")["pixel_values"]
    assert (whole - bounded).abs().max() < 0.02


def test_processors_that_crop_nothing_see_all_of_a_thin_image():
    thin = Image.new("RGB", (10000, 1))
    for processor in (ViTImageProcessor(), ConvNextImageProcessor(size={"shortest_edge": 384})):
        assert without_ends(thin, processor) is thin
