"""The image processor gives timm's own pixels and reads whatever users have."""

import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg

from antehoc_hf.modeling import AnteHocImageProcessor


@pytest.fixture
def photo():
    """A picture with structure at all scales, not square."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((150, 100))
    noise = generator.integers(-20, 20, (100, 150, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))


def pixels(processor, images):
    return processor(images, return_tensors="pt")["pixel_values"]


BACKBONES = [
    "resnet50.a1_in1k",  # bicubic, crop 0.95
    "resnet18.tv_in1k",  # bilinear, crop 0.875
    "test_resnet.r160_in1k",  # 160 pixels
    "inception_v3.tf_in1k",  # 299 pixels, mean 0.5
    "vit_base_patch16_clip_224.openai_ft_in1k",  # CLIP's normalisation
    "eva02_base_patch14_448.mim_in22k_ft_in1k",  # squash
    "tf_efficientnet_b0.ns_jft_in1k",
    "resnet50",
]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_pixels_are_those_of_timm(photo, backbone):
    data = resolve_data_config(pretrained_cfg=get_pretrained_cfg(backbone).to_dict(), verbose=False)
    expected = create_transform(**data, is_training=False)(photo)
    processor = AnteHocImageProcessor.from_backbone(backbone)
    assert torch.equal(pixels(processor, photo)[0], expected)
    assert processor.size == dict(zip(("height", "width"), data["input_size"][1:], strict=True))


@pytest.mark.parametrize("size", [64, 96, (64, 96), (128, 48)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_pixels_at_other_sizes(photo, size, crop_pct, interpolation, crop_mode):
    options = {"crop_pct": crop_pct, "interpolation": interpolation, "crop_mode": crop_mode}
    processor = AnteHocImageProcessor.from_backbone("test_resnet", image_size=size, **options)
    shape = (3, size, size) if isinstance(size, int) else (3, *size)
    half = (0.5, 0.5, 0.5)
    expected = create_transform(input_size=shape, mean=half, std=half, **options)(photo)
    assert torch.equal(pixels(processor, photo)[0], expected)


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (7, 400), (40, 1000), (333, 50), (97, 101), (480, 640)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest", "box", "hamming"])
@pytest.mark.parametrize(("size", "crop_pct"), [(32, 0.875), (64, 1.0), (224, 0.95), ((64, 96), 0.5)])
def test_pixels_at_other_shapes(shape, interpolation, size, crop_pct):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    processor = AnteHocImageProcessor(size, interpolation=interpolation, crop_pct=crop_pct)
    assert torch.equal(pixels(processor, image)[0], timms(processor)(image))


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (2, 9000), (9000, 2)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "hamming"])
def test_of_a_thin_image_only_what_is_seen_is_resized(shape, interpolation, monkeypatch):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    processor = AnteHocImageProcessor(64, interpolation=interpolation, image_mean=[0, 0, 0], image_std=[1, 1, 1])
    expected = 255 * timms(processor)(image)
    sizes = recorded_sizes(monkeypatch)
    found = 255 * pixels(processor, image)[0]
    assert max(width * height for width, height in sizes) <= 4 * 64 * 64
    assert (found - expected).abs().max() <= 1.01
    assert ((found - expected).abs() > 0.5).float().mean() < 0.02


@pytest.mark.parametrize("size", [(60000, 1), (1, 60000), (10000, 1), (1, 10000), (60000, 3)])
@pytest.mark.parametrize("side", [64, 224])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_a_thin_image_is_little_work(size, side, crop_mode, monkeypatch):
    sizes = recorded_sizes(monkeypatch)
    processor = AnteHocImageProcessor(side, crop_mode=crop_mode)
    begun = time.process_time()
    assert pixels(processor, Image.new("RGB", size, (255, 0, 0))).shape == (1, 3, side, side)
    assert time.process_time() - begun < 1
    assert max([width * height for width, height in sizes], default=0) <= 4 * side * side


def timms(processor):
    size = tuple(processor.image_size)
    return create_transform(
        input_size=(3, *size), mean=tuple(processor.image_mean), std=tuple(processor.image_std),
        interpolation=processor.interpolation, crop_pct=processor.crop_pct, crop_mode=processor.crop_mode,
    )  # fmt: skip


def recorded_sizes(monkeypatch):
    """What Pillow is asked to make from now on."""
    sizes, resize = [], Image.Image.resize

    def recorded(image, size, *args, **kwargs):
        sizes.append(tuple(size))
        return resize(image, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    return sizes


def test_processor_survives_saving(photo, tmp_path):
    processor = AnteHocImageProcessor.from_backbone("resnet50", image_size=(64, 96), crop_mode="squash")
    processor.save_pretrained(tmp_path)
    again = AnteHocImageProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    assert torch.equal(pixels(again, photo), pixels(processor, photo))


@pytest.fixture
def processor():
    return AnteHocImageProcessor.from_backbone("test_resnet", image_size=64)


def test_every_kind_of_picture(processor, photo, tmp_path):
    array = np.asarray(photo)
    photo.save(tmp_path / "photo.png")
    channels_first = torch.from_numpy(array.copy()).permute(2, 0, 1)
    same = [
        array,
        array.transpose(2, 0, 1),
        np.asfortranarray(array),
        channels_first,
        channels_first.permute(1, 2, 0),
        array.astype(np.float32) / 255,
        array / 255,
        channels_first / 255,
        channels_first.to(torch.int64),
        array.astype(np.int32),
        tmp_path / "photo.png",
        str(tmp_path / "photo.png"),
    ]
    expected = pixels(processor, photo)
    for index, image in enumerate(same):
        assert torch.equal(pixels(processor, image), expected), index


def test_half_precision_pictures(processor, photo):
    expected = pixels(processor, photo)
    for dtype in (torch.float16, torch.bfloat16):
        image = (torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1) / 255).to(dtype)
        assert torch.allclose(pixels(processor, image), expected, atol=0.05)


def test_batches(processor, photo):
    small = photo.resize((40, 90))
    both = pixels(processor, [photo, np.asarray(small)])
    assert both.shape == (2, 3, 64, 64)
    assert torch.equal(both[1:], pixels(processor, small))
    stacked = np.stack([np.asarray(photo)] * 3)
    assert pixels(processor, stacked).shape == (3, 3, 64, 64)
    assert torch.equal(pixels(processor, torch.from_numpy(stacked).permute(0, 3, 1, 2))[2:], both[:1])
    assert pixels(processor, (photo, small)).shape == (2, 3, 64, 64)


def test_kinds_of_result(processor, photo):
    assert isinstance(processor(photo)["pixel_values"], list)
    assert processor(images=photo, return_tensors="np")["pixel_values"].shape == (1, 3, 64, 64)
    assert torch.equal(processor(photo)["pixel_values"][0], pixels(processor, photo)[0])


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "HSV"])
def test_colour_modes_are_converted(processor, photo, mode):
    image = photo.convert(mode)
    assert torch.equal(pixels(processor, image), pixels(processor, image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_white(processor, photo, mode):
    clear = photo.convert("RGBA").convert(mode)
    clear.putalpha(0)  # after the conversion: that to PA is opaque before Pillow 12
    assert torch.allclose(pixels(processor, clear), torch.ones(1, 3, 64, 64), atol=0.01)
    opaque = photo.convert("RGBA")
    assert torch.equal(pixels(processor, opaque), pixels(processor, photo))


def test_arrays_with_alpha_and_grey(processor, photo):
    rgba = np.dstack([np.asarray(photo), np.full((100, 150), 255, np.uint8)])
    assert torch.equal(pixels(processor, rgba), pixels(processor, photo))
    grey = np.asarray(photo.convert("L"))
    expected = pixels(processor, photo.convert("L"))
    for image in (grey, grey[..., None], grey[None]):
        assert torch.equal(pixels(processor, image), expected)


def test_16_bits_are_scaled(processor, tmp_path):
    grey = (np.arange(100 * 150).reshape(100, 150) * 4).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    expected = pixels(processor, np.round(grey / 257).astype(np.uint8))
    assert torch.allclose(pixels(processor, tmp_path / "deep.png"), expected, atol=0.01)
    assert torch.allclose(pixels(processor, grey), expected, atol=0.01)
    assert torch.allclose(pixels(processor, np.dstack([grey] * 3)), expected, atol=0.01)


def test_truth_values(processor):
    mask = np.zeros((80, 80), bool)
    mask[:, 40:] = True
    assert torch.equal(pixels(processor, mask), pixels(processor, mask.astype(np.uint8) * 255))


def test_tiny_pictures(processor):
    assert pixels(processor, Image.new("RGB", (1, 1))).shape == (1, 3, 64, 64)
    assert pixels(processor, Image.new("RGB", (300, 1))).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    "image",
    [
        None,
        5,
        {"a": 1},
        "missing.png",
        Path("missing.png"),
        np.zeros(5),
        np.zeros((5, 5, 7)),
        np.zeros((2, 2, 5, 5, 3), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.full((5, 5, 3), 300.0),
        np.full((5, 5, 3), -0.5),
        np.full((5, 5, 3), float("nan")),
        np.full((5, 5, 3), 300),
        np.full((5, 5, 3), -1),
        np.zeros((5, 5, 3), complex),
        [np.zeros((5, 5, 3), np.uint8), None],
        [],
    ],
    ids=lambda image: f"{type(image).__name__} {getattr(image, 'shape', '')}",
)
def test_what_is_no_picture(processor, image):
    with pytest.raises(ValueError, match=r"image|Expected") as caught:
        pixels(processor, image)
    assert "\n" not in str(caught.value)


def test_broken_file(processor, photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    content = (tmp_path / "photo.png").read_bytes()
    (tmp_path / "broken.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("no image")
    for name in ("broken.png", "text.png"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as an image"):
            pixels(processor, tmp_path / name)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 0},
        {"image_size": "big"},
        {"image_size": 64.5},
        {"image_size": [64]},
        {"image_size": [64, "64"]},
        {"image_size": True},
        {"crop_pct": 0},
        {"crop_pct": 1.5},
        {"crop_pct": "all"},
        {"crop_mode": "centre"},
        {"interpolation": "cubic"},
        {"image_std": [0, 1, 1]},
        {"image_std": [1, 1]},
        {"image_mean": 0.5},
        {"image_mean": [float("nan")] * 3},
    ],
    ids=str,
)
def test_senseless_options(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=name):
        AnteHocImageProcessor(**options)


def test_unknown_backbone():
    with pytest.raises(ValueError, match=r"no architecture named 'resnt50'.*resnet50"):
        AnteHocImageProcessor.from_backbone("resnt50")


def test_a_column_of_a_data_set_is_several_images(photo):
    processor = AnteHocImageProcessor(image_size=32)
    features = datasets.Features({"image": datasets.Image()})
    column = datasets.Dataset.from_dict({"image": [photo, photo.rotate(180)]}, features=features)["image"]
    assert torch.equal(pixels(processor, column), pixels(processor, [photo, photo.rotate(180)]))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"size": {"height": 32, "width": 48}}, {"image_size": [32, 48]}),
        ({"size": 32}, {"image_size": 32}),
        ({"image_size": 32}, {"image_size": 32}),
        ({"resample": 0}, {"interpolation": "nearest"}),
        ({"resample": Image.Resampling.BILINEAR}, {"interpolation": "bilinear"}),
        ({"do_normalize": False}, {"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}),
        ({"image_mean": [0.5, 0.5, 0.5], "do_resize": True, "rescale_factor": 1 / 255}, {"image_mean": [0.5] * 3}),
    ],
)
def test_options_as_transformers_calls_them(tmp_path, photo, given, meant) -> None:
    """In the class, in `from_pretrained` and for a single call."""
    processor = AnteHocImageProcessor(image_size=64)
    processor.save_pretrained(tmp_path)
    expected = AnteHocImageProcessor(**{"image_size": 64, **meant})(photo, return_tensors="pt").pixel_values
    before = processor(photo, return_tensors="pt").pixel_values
    assert not torch.equal(before, expected)
    for other in (
        AnteHocImageProcessor(**{"image_size": 64, **given}),
        AnteHocImageProcessor.from_pretrained(tmp_path, **given),
    ):
        assert torch.equal(other(photo, return_tensors="pt").pixel_values, expected)
    assert torch.equal(processor(photo, return_tensors="pt", device="cpu", **given).pixel_values, expected)
    assert torch.equal(processor(photo, return_tensors="pt").pixel_values, before)


@pytest.mark.parametrize(
    "given",
    [{"do_resize": False}, {"do_rescale": False}, {"crop_size": 32}, {"nonsense": 1}, {"size": {"longest": 9}}],
)
def test_options_that_would_be_ignored_are_refused(photo, given) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        AnteHocImageProcessor(**given)
    with pytest.raises(ValueError, match=next(iter(given))):
        AnteHocImageProcessor(image_size=64)(photo, **given)
