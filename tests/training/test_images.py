"""Images of every kind are read as upright 8-bit RGB, and those that can't be read are named."""

import io
import pickle
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from antehoc_hf.modeling.image_input import to_rgb
from antehoc_hf.training.data.errors import BadImageError
from antehoc_hf.training.data.images import decode_image, find_unreadable, unreadable_reason

RED = (200, 30, 10)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))


def pixel(image: Image.Image, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    assert image.mode == "RGB"
    return image.getpixel(at)


def test_rgb_is_not_copied() -> None:
    image = noise()
    assert to_rgb(image) is image


def test_grey_fills_all_channels() -> None:
    assert pixel(to_rgb(Image.new("L", (2, 2), 77))) == (77, 77, 77)
    assert pixel(to_rgb(Image.new("1", (2, 2), 1))) == (255, 255, 255)


@pytest.mark.parametrize(("alpha", "expected"), [(255, RED), (0, (255, 255, 255))])
def test_alpha_is_composed_over_white(alpha: int, expected: tuple[int, ...]) -> None:
    assert pixel(to_rgb(Image.new("RGBA", (2, 2), (*RED, alpha)))) == expected


def test_half_transparent_black_is_mid_grey() -> None:
    assert pixel(to_rgb(Image.new("RGBA", (2, 2), (0, 0, 0, 128)))) == (127, 127, 127)
    assert pixel(to_rgb(Image.new("LA", (2, 2), (0, 128)))) == (127, 127, 127)


@pytest.mark.parametrize("mode", ["PA", "La", "RGBa"])
def test_rare_transparent_modes(mode: str) -> None:
    assert pixel(to_rgb(Image.new(mode, (2, 2)))) == (255, 255, 255)


def test_transparent_colour_and_palette() -> None:
    grey = decode_image(encoded(Image.new("L", (2, 2), 7), transparency=7))
    assert pixel(grey) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, *RED])
    assert pixel(decode_image(encoded(palette))) == RED
    assert pixel(decode_image(encoded(palette, transparency=1))) == (255, 255, 255)


def test_cmyk_jpeg_and_rgb_agree() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = pixel(decode_image(encoded(image, "JPEG", quality=100)))
    assert red > 245
    assert max(green, blue) < 10


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 257 * 100], [32768, 65535]], dtype=np.uint16)
    image = decode_image(encoded(Image.fromarray(values), kind))
    assert np.asarray(image)[..., 0].tolist() == [[0, 100], [128, 255]]


def test_sixteen_bit_array() -> None:
    assert pixel(decode_image(np.full((2, 2), 65535, dtype=np.uint16))) == (255, 255, 255)


def test_values_without_a_white_are_refused() -> None:
    with pytest.raises(BadImageError, match="floating-point image has no defined white"):
        decode_image(Image.new("F", (2, 2), 0.5))
    with pytest.raises(BadImageError, match="values from -1 to 3 has no defined white"):
        decode_image(np.array([[-1, 3]], dtype=np.int32))


def test_everything_a_data_set_may_hold(tmp_path: Path) -> None:
    data = encoded(Image.new("RGB", (3, 2), RED))
    file = tmp_path / "red.png"
    file.write_bytes(data)
    cells = [data, str(file), file, {"bytes": data, "path": None}, {"bytes": None, "path": str(file)}]
    cells += [Image.new("RGB", (3, 2), RED), np.full((2, 3, 3), RED, dtype=np.uint8)]
    for cell in cells:
        image = decode_image(cell)
        assert image.size == (3, 2)
        assert pixel(image) == RED
    assert pixel(decode_image(np.full((2, 2, 1), 9, dtype=np.uint8))) == (9, 9, 9)


def test_camera_orientation_is_applied() -> None:
    image = Image.new("RGB", (4, 2), (0, 0, 0))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: top is at the right
    turned = decode_image(encoded(image, exif=exif))
    assert turned.size == (2, 4)
    assert pixel(turned, (1, 0)) == (255, 255, 255)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_cost_the_image() -> None:
    data = encoded(noise(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff broken")
    assert unreadable_reason(data) is None
    assert decode_image(data).size == (64, 64)


def damaged() -> dict[str, object]:
    jpeg, png = encoded(noise(), "JPEG"), encoded(noise())
    return {
        "truncated JPEG": jpeg[: len(jpeg) // 2],
        "truncated PNG": png[: len(png) // 2],
        "JPEG with its start alone": jpeg[:3],
        "text": b"<html>404</html>",
        "empty": b"",
        "nothing": None,
        "empty cell": {"bytes": None, "path": None},
        "no file": {"bytes": None, "path": "/nowhere/cat.jpg"},
        "corrupt PNG": png[:60] + b"\x00" * 40 + png[100:],
    }


@pytest.mark.parametrize("name", damaged())
def test_damaged_images_are_named_in_one_sentence(name: str) -> None:
    value = damaged()[name]
    with pytest.raises(BadImageError) as caught:
        decode_image(value, "Row 3 of split 'train'")
    message = str(caught.value)
    assert message.startswith("Row 3 of split 'train'")
    assert "can't be read" in message
    assert "\n" not in message
    assert " at 0x" not in message
    assert caught.value.__cause__ is None
    assert unreadable_reason(value)


def test_the_file_is_named() -> None:
    with pytest.raises(BadImageError, match=r"\[/nowhere/cat\.jpg\]"):
        decode_image({"bytes": None, "path": "/nowhere/cat.jpg"})


def test_checking_finds_exactly_the_unreadable_rows() -> None:
    good, bad = encoded(noise(), "JPEG"), encoded(noise(), "JPEG")[:700]
    cells = [{"bytes": bad if row in (0, 70, 129) else good, "path": f"{row}.jpg"} for row in range(130)]
    data = datasets.Dataset.from_dict({"image": cells}, features=datasets.Features({"image": datasets.Image()}))
    found = find_unreadable(data, "image")
    assert list(found) == [0, 70, 129]
    assert "[70.jpg]" in found[70]


def test_checking_leaves_an_image_as_it_was() -> None:
    image = Image.open(io.BytesIO(encoded(noise(), "JPEG")))
    assert unreadable_reason(image) is None
    assert image.size == (64, 64)


def test_the_error_survives_a_worker_as_one_sentence() -> None:
    wrapped = (
        "Caught BadImageError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1\nantehoc_hf.training.data.errors.BadImageError: Row 1 can\'t be read.\n'
    )
    assert str(BadImageError(wrapped)) == "Row 1 can't be read."
    assert str(pickle.loads(pickle.dumps(BadImageError("Row 1.")))) == "Row 1."
