"""
Loads a trained folder as anybody would, in a process that knows nothing of the training: by the Auto classes and by
the pipeline. Predicts test images of the built-in data set and compares. Usage: `python benchmarks/reload.py FOLDER`
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline

import antehoc_hf  # noqa: F401  makes the Auto classes know the models
from antehoc_hf import load_shapes


def predictions(folder: Path, images: list[Any]) -> tuple[list[dict[str, Any]], torch.Tensor]:
    """Label, score and the map's mean for each image, by `AutoModelForImageClassification`; and the maps."""
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        outputs = model(**processor(images, return_tensors="pt"))
    rows = []
    for logits, map_ in zip(outputs.logits, outputs.interpretation_map, strict=True):
        score, index = logits.softmax(dim=0).max(dim=0)
        label = model.config.id2label[int(index)]
        rows.append({"label": label, "score": float(score), "map_mean": float(map_.mean())})
    return rows, outputs.interpretation_map


def problems(folder: Path, images: list[Any], rows: list[dict[str, Any]], maps: torch.Tensor) -> list[str]:
    """What the three ways of loading do not agree upon."""
    found = []
    piped = pipeline("image-classification", model=str(folder))(images, top_k=1)
    for index, (row, answer) in enumerate(zip(rows, piped, strict=True)):
        if answer[0]["label"] != row["label"] or abs(answer[0]["score"] - row["score"]) > 1e-4:
            found.append(f"image {index}: the pipeline says {answer[0]}, the model {row}")
    processor = AutoImageProcessor.from_pretrained(folder)
    bare = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        bare_maps = bare(**processor(images, return_tensors="pt")).interpretation_map
    if not torch.allclose(bare_maps, maps, atol=1e-5):
        found.append("AutoModel gives other maps than AutoModelForImageClassification")
    if not (maps.min() >= 0 and maps.max() <= 1):
        found.append("a map leaves [0, 1]")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=12)
    options = parser.parse_args()
    test = load_shapes(train=0, validation=0, test=options.images)["test"]
    images, truth = list(test["image"]), test.features["label"].int2str(list(test["label"]))
    rows, maps = predictions(options.folder, images)
    print(f"{options.folder}, loaded in a new process:\n\n{'image':12}{'prediction':14}{'score':>7}{'map mean':>10}")
    for true, row in zip(truth, rows, strict=True):
        sign = "" if row["label"] == true else "  ✗"
        print(f"{true:12}{row['label']:14}{row['score']:7.2f}{row['map_mean']:10.2f}{sign}")
    found = problems(options.folder, images, rows, maps)
    right = sum(row["label"] == true for true, row in zip(truth, rows, strict=True))
    verdict = "; ".join(found) or "AutoModel, AutoModelForImageClassification and the pipeline agree"
    print(f"\n{right} of {len(rows)} right; {verdict}.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
