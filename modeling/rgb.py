from __future__ import annotations

import numpy as np
from PIL import Image

_SIXTEEN_BIT = 65535


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


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow converts premultiplied grey to nothing but LA
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _sixteen_bit_to_grey(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _SIXTEEN_BIT:
        raise ValueError(
            f"an integer image with values from {low} to {high} has no defined white: "
            "store it with 8 or 16 bits a pixel"
        )
    # 65535 = 257 · 255; adding half of 257 rounds to the nearest.
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
