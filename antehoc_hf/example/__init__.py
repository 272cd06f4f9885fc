"""A small trained classifier and two images for it, to try everything without a download.

The model knows the six bugs of [`antehoc_hf.shapes`] and nothing else; `make example` trains it and draws the images.
"""

from pathlib import Path

MODEL = str(Path(__file__).parent / "model")
IMAGES = tuple(str(Path(__file__).parent / name) for name in ("lancefly.png", "stagmoth.png"))
