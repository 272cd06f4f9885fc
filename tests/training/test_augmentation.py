"""Named augmentations: sizes, normalisation, mirroring, and randomness that follows the seed in every worker."""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from transformers import set_seed

from antehoc_hf.modeling import AnteHocImageProcessor
from antehoc_hf.training.data.augmentation import (
    AUGMENTATIONS,
    NormalisedTensor,
    evaluation_transform,
    train_transform,
)
from antehoc_hf.training.data.errors import DataError

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def processor(height: int = 32, width: int = 32, crop_pct: float = 1.0) -> AnteHocImageProcessor:
    return AnteHocImageProcessor(
        image_size=[height, width], image_mean=MEAN, image_std=STD, interpolation="bilinear", crop_pct=crop_pct
    )


def noise(height: int = 32, width: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(1, 256, (height, width, 3), dtype=np.uint8))


def test_normalised_tensor_by_hand() -> None:
    image = Image.new("RGB", (3, 2), (255, 0, 51))
    tensor = NormalisedTensor(MEAN, STD)(image)
    assert tensor.shape == (3, 2, 3)
    assert tensor.is_contiguous()
    assert tensor[:, 1, 2].tolist() == pytest.approx([(1 - 0.4) / 0.2, -0.5 / 0.25, (0.2 - 0.6) / 0.3], abs=1e-6)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(32, 32), (50, 81), (20, 24)])
def test_every_recipe_gives_the_processors_size(augmentation: str, size: tuple[int, int]) -> None:
    set_seed(0)
    pixels = train_transform(processor(32, 48), augmentation)([noise(*size)] * 3)
    assert pixels.shape == (3, 3, 32, 48)
    assert pixels.dtype == torch.float32
    assert pixels.isfinite().all()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(60000, 1), (1, 60000), (3, 10000)])
def test_a_thin_image_is_little_work(augmentation: str, size: tuple[int, int], monkeypatch) -> None:
    set_seed(0)
    made, resize = [], Image.Image.resize

    def recorded(image, size, *args, **kwargs):
        made.append(size[0] * size[1])
        return resize(image, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", recorded)
    pixels = train_transform(processor(), augmentation)([Image.new("RGB", size, (128, 128, 128))])
    assert pixels.shape == (1, 3, 32, 32)
    assert max(made) <= 2**23


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_every_recipe_normalises(augmentation: str) -> None:
    set_seed(0)
    image = Image.new("RGB", (64, 64), (128, 128, 128))
    pixels = train_transform(processor(), augmentation)([image] * 8)
    expected = (128 / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    middle = pixels[..., 8:24, 8:24].median(dim=0).values  # padding and erased parts aside
    assert torch.allclose(middle.mean(dim=(1, 2)), expected, atol=0.02)


def test_none_is_the_evaluation_transform() -> None:
    eyes = processor(crop_pct=0.8)
    images = [noise(40, 60), noise(32, 32)]
    timms = create_transform((3, 32, 32), interpolation="bilinear", mean=tuple(MEAN), std=tuple(STD), crop_pct=0.8)
    expected = torch.stack([timms(image) for image in images])
    assert torch.equal(train_transform(eyes, "none")(images), expected)
    assert torch.equal(evaluation_transform(eyes)(images), expected)


def test_flip_mirrors_half_of_the_images() -> None:
    set_seed(0)
    image = noise()
    straight = evaluation_transform(processor())([image])[0]
    pixels = train_transform(processor(), "flip")([image] * 200)
    mirrored = sum(torch.equal(x, straight.flip(-1)) for x in pixels)
    assert mirrored + sum(torch.equal(x, straight) for x in pixels) == 200
    assert 70 < mirrored < 130


def test_crop_flip_shifts_by_at_most_an_eighth() -> None:
    set_seed(0)
    image = noise()
    straight = evaluation_transform(processor())([image])[0]
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    padded = black.view(3, 1, 1).expand(3, 40, 40).clone()
    padded[:, 4:36, 4:36] = straight
    windows = {(y, x): padded[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
    seen = set()
    for pixels in train_transform(processor(), "crop-flip")([image] * 200):
        places = [
            place
            for place, window in windows.items()
            for view in (pixels, pixels.flip(-1))
            if torch.allclose(window, view, atol=1e-5)
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) > 50


@pytest.mark.parametrize("augmentation", ["flip", "crop-flip", "resized-crop-flip", "strong"])
def test_one_seed_gives_one_sequence(augmentation: str) -> None:
    transform = train_transform(processor(), augmentation)
    images = [noise()] * 16
    set_seed(1)
    first = transform(images)
    second = transform(images)
    set_seed(1)
    assert torch.equal(transform(images), first)
    assert not torch.equal(second, first)


def test_strong_never_fails() -> None:
    set_seed(0)
    transform = train_transform(processor(16, 16), "strong")
    assert transform([noise(16, 16)] * 600).isfinite().all()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_transforms_travel_to_workers(augmentation: str) -> None:
    transform = train_transform(processor(), augmentation)
    image = noise()
    set_seed(0)
    expected = transform([image])
    for other in (pickle.loads(pickle.dumps(transform)), copy.deepcopy(transform)):
        set_seed(0)
        assert torch.equal(other([image]), expected)


def test_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(DataError, match=r"'mixup' is unknown: use one of none, flip, crop-flip, .*strong\."):
        train_transform(processor(), "mixup")
