"""What our pipelines have in common: what users give them as an image, and what they get back as a map."""

import io
import os
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, Pipeline

from antehoc_hf.modeling.image_input import UnreadableImageError, decoding, read_image_file, upright

# Some servers refuse the name that Python's library gives itself.
_HEADERS = {"User-Agent": "antehoc_hf"}
# How many times longer than wide an image may be for processors that enlarge all of it before they crop.
_MOST_ELONGATED = 64
# From this length on ConvNeXt's processor, which has a `crop_pct`, resizes to a square and crops nothing.
_SQUASHED = 384


Options = dict[str, object]


class ImagePipeline(Pipeline):
    """From images, in any form that [`open_image`] takes, to a dictionary for each."""

    _load_processor = False  # type: ignore[assignment]
    _load_image_processor = True  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer = False  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.check()

    def check(self) -> None:
        """Raises a ValueError if the model is not of the pipeline's kind."""

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, also of tuples and columns of data sets; of no images there are no answers."""
        if not isinstance(inputs, Sequence) or isinstance(inputs, str | bytes | bytearray | memoryview):
            return super().__call__(inputs, *args, **kwargs)
        return list(super().__call__((image for image in inputs), *args, **kwargs)) if len(inputs) else []

    def _sanitize_parameters(  # type: ignore[override]
        self, timeout: float | None = None
    ) -> tuple[Options, Options, Options]:
        if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
            raise ValueError(f"timeout={timeout!r} must be a number of seconds above 0.")
        return ({} if timeout is None else {"timeout": timeout}), {}, {}

    def preprocess(self, image: object, timeout: float | None = None) -> BatchFeature:  # type: ignore[override]
        """The image as `pixel_values` (1, 3, H, W)."""
        return self.processed(open_image(image, timeout))

    def processed(self, image: Any) -> BatchFeature:
        """The same of what [`open_image`] gives."""
        assert self.image_processor is not None
        return self.image_processor(without_ends(image, self.image_processor), return_tensors="pt").to(self.dtype)


def open_image(image: object, timeout: float | None = None) -> Any:
    """A Pillow image, upright and fully read, from a path, a URL, a file that is open, its bytes or a Pillow image;
    arrays and tensors as they are.

    Args:
        image: in any of these forms.
        timeout (`float`, *optional*): seconds to wait for a URL.

    Raises:
        ValueError: if it is none of these, can't be read, or is not an image.
    """
    if isinstance(image, np.ndarray | Tensor):
        if image.ndim == 4:
            if len(image) != 1:
                raise ValueError(
                    f"An array of {tuple(image.shape)} holds {len(image)} images: give them as a list, list(images)."
                )
            return image[0]
        return image
    if isinstance(image, bytes | bytearray | memoryview):
        return _decoded(bytes(image), "The image")
    if isinstance(image, io.BufferedIOBase):
        return _decoded(image.read(), str(getattr(image, "name", "The image")))
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return _decoded(_downloaded(image, timeout), image)
    if isinstance(image, str | os.PathLike):
        name = os.fsdecode(image) or "An empty path"
        return _decoded(image, name if len(name) < 500 else f"The path {name[:40]!r}…")
    if isinstance(image, Image.Image):
        return _decoded(image, "The image")
    raise ValueError(
        f"An image must be a path, a URL, a Pillow image, the bytes of a file or an array, not {type(image).__name__}."
    )


def without_ends(image: Any, processor: Any) -> Any:
    """An image for an image processor of transformers: the middle of a Pillow image more than 64 times as long as
    wide, where the processor would bring its shorter side to a length, enlarge the rest and throw it away. Anything
    else as it is.

    Args:
        image: what the processor is to be given.
        processor: any image processor; ours bounds the work itself.
    """
    if not isinstance(image, Image.Image) or not _crops_the_ends(processor):
        return image
    most = _MOST_ELONGATED * min(image.size)
    # An even number of pixels is cut off, so that the middle stays where it is.
    left, top = (max(0, side - most) // 2 for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top)) if left or top else image


def _crops_the_ends(processor: Any) -> bool:
    """Whether a processor makes the shorter side so long, whatever becomes of the longer one."""
    if of_timm := getattr(processor, "data_config", None):  # a TimmWrapper's
        return of_timm.get("crop_mode", "center") == "center"
    edge = (getattr(processor, "size", None) or {}).get("shortest_edge")
    squashed = not getattr(processor, "do_center_crop", None) and getattr(processor, "crop_pct", None)
    return bool(edge and not (squashed and edge >= _SQUASHED))


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
