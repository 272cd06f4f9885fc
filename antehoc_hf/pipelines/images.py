"""What users give to a pipeline as an image, and what they get back as a map."""

from __future__ import annotations

import os
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from antehoc_hf.modeling.image_input import UnreadableImageError, decoding, read_image_file
from antehoc_hf.training.data.images import upright

# Some servers refuse the name that Python's library gives itself.
_HEADERS = {"User-Agent": "antehoc_hf"}


def open_image(image: Any, timeout: float | None = None) -> Any:
    """
    A Pillow image, upright and fully read, from a path, a URL, the bytes of a file or a Pillow image; arrays and
    tensors as they are.

    Args:
        image: in any of these forms.
        timeout (`float`, *optional*): seconds to wait for a URL.

    Raises:
        ValueError: if it is none of these, can't be read, or is not an image.
    """
    if isinstance(image, np.ndarray | Tensor):
        return image
    if isinstance(image, bytes | bytearray | memoryview):
        return _decoded(bytes(image), "The image")
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return _decoded(_downloaded(image, timeout), image)
    if isinstance(image, str | os.PathLike):
        return _decoded(image, os.fspath(image))
    if isinstance(image, Image.Image):
        return _decoded(image, "The image")
    raise ValueError(
        f"An image must be a path, a URL, a Pillow image, the bytes of a file or an array, not {type(image).__name__}."
    )


def map_array(maps: Tensor) -> NDArray[np.float32]:
    """The map (H, W) of the only image of a batch, (1, 1, H, W), as a float32 array."""
    return maps[0, 0].float().cpu().numpy()


def _downloaded(url: str, timeout: float | None) -> bytes:
    try:
        with urlopen(Request(url, headers=_HEADERS), timeout=timeout) as answer:
            return bytes(answer.read())
    except HTTPError as error:
        raise ValueError(f"{url} can't be read: the server answers {error.code} ({error.reason}).") from None
    except URLError as error:
        raise ValueError(f"{url} can't be read: {error.reason}.") from None
    except (OSError, HTTPException, ValueError) as error:  # broken off, too slow, or no URL at all
        raise ValueError(f"{url} can't be read: {error}.") from None


def _decoded(source: bytes | str | os.PathLike[str] | Image.Image, name: str) -> Image.Image:
    try:
        if not isinstance(source, Image.Image):
            return upright(read_image_file(source))
        with decoding():
            source.load()  # a truncated file is found here, and not in the middle of the processor
        return upright(source)
    except UnreadableImageError as error:
        raise ValueError(f"{name} can't be read: {error}.") from None
