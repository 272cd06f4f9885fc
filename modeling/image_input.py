"""Images from outside: the only place that opens image files, and whatever else users call an image, as 8-bit RGB.

Files are opened by an allow-list of formats. Pillow has some forty more, found by content whatever a file is called:
EPS starts Ghostscript, others are rarely used parsers of untrusted bytes.
"""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

# The usual ones first: they are tried in this order.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
MAX_PIXELS = 178_956_970  # where Pillow's own limit becomes an error; half a gigabyte as RGB

_CHANNELS = (1, 3, 4)
_SIXTEEN_BIT = 65535


class UnreadableImageError(ValueError):
    """An image cannot be read; the message is the reason, in a few words."""


@contextmanager
def decoding() -> Iterator[None]:
    """Whatever a decoder raises on untrusted bytes becomes an [`UnreadableImageError`]."""
    try:
        yield
    except UnreadableImageError:
        raise
    # Decoders raise OSError, SyntaxError, struct.error, KeyError, MemoryError, RecursionError, and more.
    except Exception as error:
        raise UnreadableImageError(_reason(error)) from None


def open_image_file(source: bytes | bytearray | memoryview | str | os.PathLike[str]) -> Image.Image:
    """The head of an image file; its pixels are decoded by `load`.

    Args:
        source: a path, or the bytes of a file.

    Raises:
        UnreadableImageError: if it is not a regular file, not of one of `FORMATS`, damaged, or declares more than
            `MAX_PIXELS` pixels.
    """
    with decoding():
        if isinstance(source, str | os.PathLike):
            if not stat.S_ISREG(os.stat(source).st_mode):  # a pipe would wait for ever, a device never end
                raise UnreadableImageError("not a regular file")
            file: Any = source
        else:
            file = io.BytesIO(bytes(source))
        image = Image.open(file, formats=_known_formats())
        if image.width * image.height > MAX_PIXELS:
            image.close()
            raise UnreadableImageError(_TOO_MANY_PIXELS)
        return image


def read_image_file(source: bytes | bytearray | memoryview | str | os.PathLike[str]) -> Image.Image:
    """The same as [`open_image_file`], with its pixels decoded."""
    with decoding(), open_image_file(source) as image:
        image.load()
        return image.copy()


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; as it is where that is missing or damaged."""
    try:
        with decoding():
            if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
                return image
            return ImageOps.exif_transpose(image)
    except UnreadableImageError:  # a damaged EXIF block says nothing about the pixels
        return image


def as_pil(image: Any) -> Image.Image:
    """A Pillow image from a Pillow image, a path (upright), or an array or tensor of (H, W), (H, W, C) or (C, H, W)
    with 1, 3 or 4 channels: floating-point numbers in [0, 1], integers in 0…255, uint16 in 0…65535, or truth values.

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (str, Path)):
        try:
            return upright(read_image_file(image))
        except UnreadableImageError as error:
            raise ValueError(f"{image} cannot be read as an image: {error}.") from None
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
    if not isinstance(image, np.ndarray):
        raise ValueError(f"Expected an image (PIL, path, array or tensor), got {type(image).__name__}.")
    return Image.fromarray(_to_bytes(_channels_last(image)))


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB, whatever it was stored as.

    * Transparency (an alpha channel, a transparent palette entry or colour) is composed over white.
    * 16-bit grey is scaled, not clipped: 0…65535 becomes 0…255. Pillow's mode "I" counts as 16 bit, as that is
      what Pillow makes of a 16-bit PGM file.
    * Grey, palette, CMYK, YCbCr, LAB and HSV images are converted by Pillow; colour profiles are not applied.

    Args:
        image: any Pillow image.

    Returns:
        An image of mode "RGB" and the same size; the same object if it already was one without transparency.

    Raises:
        ValueError: the values have no defined white (floating point, or integers beyond 16 bits).
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _sixteen_bit_to_grey(image).convert("RGB")
    if image.mode == "F":
        raise ValueError("a floating-point image has no defined white: store it with 8 or 16 bits a pixel")
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


_TOO_MANY_PIXELS = f"more than {MAX_PIXELS // 10**6} million pixels, make it smaller first"
_NOT_AN_IMAGE = "not an image, or damaged, or none of JPEG, PNG, WebP, BMP, GIF, TIFF, PPM, JPEG 2000 and AVIF"


def _known_formats() -> tuple[str, ...]:
    """Of `FORMATS`, those that this build of Pillow has; it fails on others."""
    if "TIFF" not in Image.OPEN:
        Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # Pillow's own text holds the address of a buffer
        return _NOT_AN_IMAGE
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return _TOO_MANY_PIXELS
    if isinstance(error, MemoryError):
        return "too large for the memory of this machine"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _channels_last(image: np.ndarray) -> np.ndarray:
    if image.ndim == 3 and image.shape[0] in _CHANNELS and image.shape[2] not in _CHANNELS:
        image = image.transpose(1, 2, 0)
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in _CHANNELS or image.size == 0:
        raise ValueError(
            "Expected an image of (height, width), (height, width, channels) or (channels, height, width) with 1, 3 "
            f"or 4 channels, got an array of {image.shape}."
        )
    return image[..., 0] if image.ndim == 3 and channels == 1 else image


def _to_bytes(image: np.ndarray) -> np.ndarray:
    """Values as bytes; 16-bit grey stays what it is, for Pillow knows it."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == bool:
        return image.astype(np.uint8) * 255
    if image.dtype == np.uint16:
        return image if image.ndim == 2 else _eight_bits(image)
    if np.issubdtype(image.dtype, np.floating):
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise ValueError("An image of floating-point numbers must have values in [0, 1].")
        return np.round(image.astype(np.float32) * 255).astype(np.uint8)
    if not np.issubdtype(image.dtype, np.integer):
        raise ValueError(f"An image must be of integers or floating-point numbers, not {image.dtype}.")
    if image.min() < 0 or image.max() > 255:
        raise ValueError(
            f"An image of {image.dtype} must have values in 0…255, this one has {image.min()}…{image.max()}."
        )
    return image.astype(np.uint8)


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow converts premultiplied grey to nothing but LA
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _sixteen_bit_to_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _SIXTEEN_BIT:
        raise ValueError(
            f"an integer image with values from {low} to {high} has no defined white: "
            "store it with 8 or 16 bits a pixel"
        )
    return Image.fromarray(_eight_bits(values))


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """0…65535 to 0…255: 65535 = 257 · 255, and adding half of 257 rounds to the nearest."""
    return ((values.astype(np.int32) + 128) // 257).astype(np.uint8)
