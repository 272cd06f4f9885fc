"""What users give to a pipeline as an image."""

from __future__ import annotations

import io
import os
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError
from transformers.image_utils import load_image


def open_image(image: Any, timeout: float | None = None) -> Any:
    """
    A Pillow image, upright, from a path, a URL, the bytes of a file or a Pillow image; arrays and tensors as they are.

    Args:
        image: in any of these forms.
        timeout (`float`, *optional*): seconds to wait for a URL.

    Raises:
        ValueError: if it can't be read.
    """
    try:
        if isinstance(image, bytes | bytearray | memoryview):
            image = Image.open(io.BytesIO(bytes(image)))
        elif isinstance(image, str) and image.startswith(("http://", "https://")):
            image = load_image(image, timeout=timeout)
        elif isinstance(image, str | os.PathLike):
            image = Image.open(image)
        return ImageOps.exif_transpose(image) if isinstance(image, Image.Image) else image
    except UnidentifiedImageError:
        name = "The image" if isinstance(image, bytes | bytearray | memoryview) else str(image)
        raise ValueError(f"{name} can't be read: it is no image, or damaged.") from None
    except OSError as error:
        raise ValueError(f"The image can't be read: {error}") from None
