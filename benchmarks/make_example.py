"""Puts a trained model of the bugs into the package, as its example, and draws two images for it.

All of it:

    antehoc train --recipe demo --output_dir outputs/example
    python -m benchmarks.make_example outputs/example
"""

import shutil
import sys
from pathlib import Path

from antehoc_hf.example import IMAGES, MODEL
from antehoc_hf.shapes import load_shapes

FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "familiarity.safetensors")
SEED = 1  # other scenes than those of the training
SIZE = 256


def main(trained: str) -> None:
    """Copies what is needed to load the model, and draws the first scene of each image's class."""
    Path(MODEL).mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(Path(trained) / name, Path(MODEL) / name)
    scenes = load_shapes(image_size=SIZE, train=0, validation=0, test=6, seed=SEED)["test"]
    names = scenes.features["label"].names
    for path in map(Path, IMAGES):
        scenes[names.index(path.stem)]["image"].save(path, optimize=True)  # row i has label i


if __name__ == "__main__":
    main(sys.argv[1])
