"""How well the maps of single words find what the words name: on `shapes`, whose captions come with the region that
each word names, for a captioner trained on it, with either kind of map:

    antehoc train --recipe captions --dataset_name shapes --output_dir outputs/shapes-captions …
    python -m benchmarks.word_maps outputs/shapes-captions --output outputs/word-maps.md

The words are those of the reference captions (teacher forcing). A map's share of energy in the word's region, over the
region's share of the image, is 1 by chance. Beside the word's own map stand the map of the whole caption, the maps of
the other words of the same caption (a map that is specific to its word beats them), Grad-CAM of the word's
log-probability, and a blob in the centre. The second table has only the words that the network has learned: those that
it finds likeliest after the words before them.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer

from antehoc_hf.evaluation import bootstrap_mean
from antehoc_hf.evaluation.controls import center_map
from antehoc_hf.evaluation.localisation import energy_share_over_area
from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling import AnteHocForImageCaptioning
from antehoc_hf.modeling.image_input import read_image_file
from antehoc_hf.shapes import load_shapes
from antehoc_hf.shapes.scene import part_mask
from benchmarks.output import show

ROWS = ("word's map", "whole caption's map", "other words' maps", "Grad-CAM of the word", "center")
Found = dict[str, dict[str, list[float]]]


def masks_of(row: dict, size: tuple[int, int], regions: list[str]) -> Tensor:
    """The region of each word, (T, 1, H, W) bool."""
    parts = np.asarray(read_image_file(row["part_masks"]["bytes"]))
    drawn = [
        Image.fromarray(part_mask(parts, region)).resize(size[::-1], Image.Resampling.NEAREST) for region in regions
    ]
    return torch.from_numpy(np.stack([np.asarray(mask, dtype=bool) for mask in drawn]))[:, None]


def scores_of(maps: Tensor, masks: Tensor) -> Tensor:
    """(T, T): map of word i (rows) in the region of word j (columns)."""
    count = len(maps)
    pairs = energy_share_over_area(maps.repeat_interleave(count, 0), masks.repeat(count, 1, 1, 1).float())
    return pairs.view(count, count)


def measure(folder: str, images: int, split: str) -> tuple[Found, Found]:
    """Of all words and of those that are learned: region → row → the score of every word that names it."""
    model = AnteHocForImageCaptioning.from_pretrained(folder).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    grad_cam = load_explainer("grad-cam", model)
    height, width = model.config.image_size
    counts: dict[str, Any] = {"train": 0, "validation": 0, "test": 0} | {split: images}
    data = load_shapes(image_size=height, **counts)[split].with_format(None)
    data = data.cast_column("part_masks", data.features["part_masks"].__class__(decode=False))
    found: tuple[Found, Found] = (defaultdict(lambda: defaultdict(list)), defaultdict(lambda: defaultdict(list)))
    for row in data:
        pixels = processor(row["image"], return_tensors="pt")["pixel_values"]
        for caption, regions in zip(row["captions"], row["caption_regions"], strict=True):
            naming = [index for index, region in enumerate(regions) if region]
            ids = torch.tensor([[model.config.bos_token_id, *tokenizer(caption).input_ids]])
            masks = masks_of(row, (height, width), [regions[index] for index in naming])
            with torch.no_grad():
                said = model(pixels, decoder_input_ids=ids[:, :-1], phase="prediction").logits[0].argmax(dim=-1)
                own = model.word_maps(pixels, ids)[0, naming]
                whole = model.explain_words(model.encode(pixels), ids, (height, width)).interpretation_map
            cams = torch.cat([grad_cam(pixels, (ids, index)) for index in naming])
            table = scores_of(own, masks)
            shares = {
                "word's map": table.diagonal(),
                "whole caption's map": energy_share_over_area(whole.expand_as(own), masks.float()),
                "Grad-CAM of the word": energy_share_over_area(cams, masks.float()),
                "center": energy_share_over_area(center_map(pixels).expand_as(own), masks.float()),
            }
            for column, index in enumerate(naming):
                others = [line for line, other in enumerate(naming) if regions[other] != regions[index]]
                values = {name: share[column] for name, share in shares.items()}
                if others:
                    values["other words' maps"] = table[others, column].mean()
                for into in found if said[index] == ids[0, index + 1] else found[:1]:
                    for name, value in values.items():
                        if torch.isfinite(value):
                            into[regions[index]][name].append(float(value))
                            into["all"][name].append(float(value))
    return found


def table(found: Found) -> str:
    """Markdown: a column for each region, means with bootstrap intervals of the words."""
    regions = ["all", *sorted(set(found) - {"all"})]
    counted = [f"{region} ({len(found[region][ROWS[0]])})" for region in regions]
    lines = ["| map | " + " | ".join(counted) + " |", "|---|" + "---:|" * len(regions)]
    for name in ROWS:
        cells = []
        for region in regions:
            values = found[region].get(name)
            if not values:
                cells.append("–")
                continue
            mean = bootstrap_mean(torch.tensor(values))
            cells.append(f"{mean.value:.2f} [{mean.low:.2f}, {mean.high:.2f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a captioner trained on shapes")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    every, learned = map(table, measure(options.model, options.images, options.split))
    text = f"All words\n\n{every}\nWords that are learned\n\n{learned}"
    show(text, options.output)


if __name__ == "__main__":
    main()
