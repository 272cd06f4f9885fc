"""Loads trained folders as anybody would, in a process that knows nothing of the training: by the Auto classes and by
the pipelines. Predicts test images of the built-in data set and compares. Usage: `python -m benchmarks.reload FOLDER…`
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import transformers
from transformers import pipeline
from transformers.utils.logging import disable_progress_bar

import antehoc_hf  # noqa: F401  makes the Auto classes know the models
from antehoc_hf import load_shapes
from benchmarks.output import parser

AGREE = 1e-4


def classes(folder: str, pixel_values: torch.Tensor, rows: Any) -> tuple[list[str], torch.Tensor, list[str]]:
    """Label and score of each image, by the task's Auto class; its maps; and where the pipeline says otherwise."""
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        outputs = model(pixel_values)
    shares, chosen = outputs.logits.softmax(dim=1).max(dim=1)
    said = [model.config.id2label[index] for index in chosen.tolist()]
    truth = rows.features["label"].int2str(list(rows["label"]))
    piped = pipeline("image-classification", model=folder)(list(rows["image"]), top_k=1)
    wrong = [
        f"image {index}: the pipeline says {answer[0]}"
        for index, answer in enumerate(piped)
        if answer[0]["label"] != said[index] or abs(answer[0]["score"] - float(shares[index])) > AGREE
    ]
    lines = [
        f"{true:12}{label:14}{share:7.2f}{'' if label == true else '  ✗'}"
        for true, label, share in zip(truth, said, shares.tolist(), strict=True)
    ]
    right = sum(label == true for label, true in zip(said, truth, strict=True))
    return [*lines, f"{right} of {len(said)} right"], outputs.interpretation_map, wrong


def _piped(task: str, folder: str) -> Any:
    make: Any = pipeline  # transformers' own types know its own tasks alone
    return make(task, model=folder)


def landmarks(folder: str, pixel_values: torch.Tensor, rows: Any) -> tuple[list[str], torch.Tensor, list[str]]:
    """How far the points of each image are from the truth, in pixels; and where the pipeline says otherwise."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModelForKeypointDetection.from_pretrained(folder).eval()
    with torch.inference_mode():
        outputs = model(pixel_values)
    images = list(rows["image"])
    sizes = [(image.height, image.width) for image in images]
    found = processor.post_process_keypoint_detection(outputs, target_sizes=sizes)
    distances = [
        float(np.linalg.norm(np.asarray(one["keypoints"]) - np.asarray(true), axis=1).mean())
        for one, true in zip(found, rows["landmarks"], strict=True)
    ]
    piped = _piped("antehoc-landmark-detection", folder)(images)
    wrong = [
        f"image {index}: the pipeline gives other points"
        for index, (answer, one) in enumerate(zip(piped, found, strict=True))
        if not np.allclose(list(answer["keypoints"].values()), np.asarray(one["keypoints"]), atol=1e-2)
    ]
    text = " ".join(f"{distance:.1f}" for distance in distances)
    return [f"mean distance of the points in pixels: {text}"], outputs.interpretation_map, wrong


def captions(folder: str, pixel_values: torch.Tensor, rows: Any) -> tuple[list[str], torch.Tensor, list[str]]:
    """The caption of each image; and where the pipeline says otherwise."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    said = tokenizer.batch_decode(model.generate(pixel_values=pixel_values), skip_special_tokens=True)
    maps = model.caption(pixel_values).interpretation_map
    piped = _piped("antehoc-image-captioning", folder)(list(rows["image"]))
    wrong = [
        f"image {index}: the pipeline says {answer['generated_text']!r}"
        for index, (answer, text) in enumerate(zip(piped, said, strict=True))
        if answer["generated_text"] != text
    ]
    return said, maps, wrong


def reload(folder: str, rows: Any) -> list[str]:
    """Prints what a folder's model says of the images; gives what does not agree."""
    read = {
        "AnteHocForImageClassification": classes,
        "AnteHocForLandmarkDetection": landmarks,
        "AnteHocForImageCaptioning": captions,
    }[transformers.AutoConfig.from_pretrained(folder).architectures[0]]
    pixel_values = transformers.AutoImageProcessor.from_pretrained(folder)(list(rows["image"]), return_tensors="pt")[
        "pixel_values"
    ]
    lines, maps, wrong = read(folder, pixel_values, rows)
    bare = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        bare_maps = bare(pixel_values).interpretation_map
    if not torch.allclose(bare_maps, maps, atol=1e-5):
        wrong.append("AutoModel gives other maps than the task's class")
    if not (maps.min() >= 0 and maps.max() <= 1):
        wrong.append("a map leaves [0, 1]")
    print(f"\n{folder}, loaded in a new process:\n\n" + "\n".join(lines))
    print("; ".join(wrong) or "AutoModel, the task's Auto class and the pipeline agree.")
    return wrong


def main() -> int:
    command = parser(__doc__)
    command.add_argument("folders", type=Path, nargs="+")
    command.add_argument("--images", type=int, default=12)
    options = command.parse_args()
    disable_progress_bar()
    rows = load_shapes(train=0, validation=0, test=options.images)["test"]
    wrong = [problem for folder in options.folders for problem in reload(str(folder), rows)]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
