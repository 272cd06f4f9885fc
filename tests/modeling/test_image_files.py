"""Image files from strangers: an allow-list of formats, limits before anything is decoded, and one kind of error."""

import io
import os
import struct
import time
import tracemalloc
import zlib

import datasets
import numpy as np
import pytest
from PIL import Image

from antehoc_hf.commands.inputs import opened_images
from antehoc_hf.modeling import AnteHocImageProcessor
from antehoc_hf.modeling.image_input import (
    UnreadableImageError,
    as_pil,
    decoding,
    open_image_file,
    read_image_file,
    to_rgb,
)
from antehoc_hf.pipelines.images import open_image
from antehoc_hf.training.data.errors import BadImageError
from antehoc_hf.training.data.images import decode_image, find_unreadable, image_size, unreadable_reason

READ = ["JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF"]
# Whatever else Pillow writes by itself, so that it reads it as well.
NOT_READ = ["EPS", "TGA", "PCX", "ICO", "ICNS", "SGI", "DDS", "IM", "SPIDER", "BLP", "QOI", "XBM", "MSP"]
MODES = {"BLP": "P", "SPIDER": "F", "XBM": "1", "MSP": "1"}


def encoded(kind, size=(40, 30), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(MODES.get(kind, "RGB")).save(stream, kind, **options)
    return stream.getvalue()


def png_of(width, height):
    """A PNG that says it is so large, and holds next to nothing."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", READ)
def test_usual_formats_are_read(kind, tmp_path):
    data = encoded(kind)
    (tmp_path / "a.bin").write_bytes(data)
    for source in (data, tmp_path / "a.bin", str(tmp_path / "a.bin")):
        assert read_image_file(source).size == (40, 30)
    assert decode_image({"bytes": data, "path": None}).size == (40, 30)


@pytest.mark.parametrize("kind", NOT_READ)
def test_others_are_not_whatever_they_are_called(kind, tmp_path):
    try:
        data = encoded(kind, (32, 32))
    except (KeyError, OSError, ValueError):
        pytest.skip(f"this Pillow does not write {kind}")
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UnreadableImageError, match="none of JPEG, PNG"):
        read_image_file(data)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
        as_pil(tmp_path / "a.png")
    with pytest.raises(BadImageError, match="none of JPEG, PNG"):
        decode_image(str(tmp_path / "a.png"))
    with pytest.raises(ValueError, match="none of JPEG, PNG"):
        open_image(tmp_path / "a.png")
    assert unreadable_reason(data)
    assert image_size(data) is None


def test_no_program_is_started(tmp_path, monkeypatch):
    started = tmp_path / "started"
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {started}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "photo.png").write_bytes(encoded("EPS"))
    for read in (as_pil, decode_image, open_image, AnteHocImageProcessor(32)):
        with pytest.raises(ValueError, match=r"photo\.png"):
            read(str(tmp_path / "photo.png"))
    assert not started.exists()
    with pytest.raises(OSError, match="cannot"):  # so that the test could fail: Pillow alone does start it
        Image.open(tmp_path / "photo.png").load()
    assert started.exists()


def test_commands_skip_or_stop_as_asked(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "b.png").write_bytes(encoded("EPS"))
    (tmp_path / "c.png").write_bytes(png_of(50000, 50000))
    os.mkfifo(tmp_path / "d.png")
    paths, skipped = sorted(tmp_path.iterdir()), []
    assert [path.name for path, _ in opened_images(paths, "skip", skipped)] == ["a.png"]
    assert [sentence.split(" ")[0] for sentence in skipped] == ["b.png", "c.png", "d.png"]
    with pytest.raises(BadImageError, match=r"^b\.png"):
        list(opened_images(paths, "stop", []))


def test_rows_of_data_sets_are_opened_here_too(tmp_path):
    cells = [{"bytes": encoded(kind), "path": f"{kind}.png"} for kind in ("PNG", "EPS", "JPEG")]
    cells[2]["bytes"] = cells[2]["bytes"][:400]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = datasets.Dataset.from_dict({"image": cells, "label": [0, 1, 0]}, features=features)
    assert list(find_unreadable(rows, "image")) == [1, 2]


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero", tmp_path):
        with pytest.raises(UnreadableImageError, match="not a regular file"):
            open_image_file(path)
        with pytest.raises(BadImageError, match="not a regular file"):
            decode_image(str(path))


@pytest.mark.parametrize("size", [(20000, 20000), (2**31 - 1, 1), (1, 2**31 - 1), (50000, 50000)])
def test_declared_pixels_are_counted_before_any_is_decoded(size):
    data = png_of(*size)
    tracemalloc.start()
    begun = time.perf_counter()
    with pytest.raises(BadImageError, match="more than 178 million pixels, make it smaller first"):
        decode_image(data, "Row 3")
    assert time.perf_counter() - begun < 1
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert "178 million" in unreadable_reason(data)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", READ)
def test_damage_of_any_kind_is_one_error(kind):
    whole = np.frombuffer(encoded(kind), np.uint8)
    random = np.random.default_rng(1)
    for _ in range(60):
        data = whole.copy()
        places = random.integers(0, min(len(data), random.choice([64, 400, 10**6])), random.integers(1, 12))
        data[places] = random.integers(0, 256, len(places))
        damaged = data.tobytes()[: random.integers(1, len(data) + 1) if random.random() < 0.3 else None]
        said = refusal(damaged)
        assert said is None or (said.startswith("Row 3 can't be read (") and "\n" not in said)


def refusal(data):
    try:
        decode_image(data, "Row 3")
    except BadImageError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "error",
    [OSError(5, "Input/output error"), SyntaxError("x"), struct.error("x"), MemoryError(), RecursionError("x"),
     KeyError("x"), SystemError("x"), AttributeError("x"), ZeroDivisionError("x"), Image.DecompressionBombWarning()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_a_decoder_raises(error):
    with pytest.raises(UnreadableImageError, match=r"\w"), decoding():
        raise error
    with pytest.raises(KeyboardInterrupt), decoding():
        raise KeyboardInterrupt


def test_animations_are_their_first_picture():
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "TIFF"):
        stream = io.BytesIO()
        frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
        red, green, blue = to_rgb(read_image_file(stream.getvalue())).getpixel((4, 3))
        assert red > 200 > 60 > max(green, blue)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_path_is_read_upright_everywhere(kind, tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    path = tmp_path / "a.png"
    path.write_bytes(encoded(kind, (40, 30), exif=exif))
    processor = AnteHocImageProcessor(32)
    (seen,) = processor(str(path))["pixel_values"]
    for image in (as_pil(path), open_image(path), decode_image(str(path))):
        assert image.size == (30, 40)
        np.testing.assert_array_equal(processor(image)["pixel_values"][0], seen)
