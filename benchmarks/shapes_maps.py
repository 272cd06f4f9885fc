"""Whether maps find what they are about, on `shapes`, where that is known: of a captioner the maps of its words, whose
regions come with the captions; of a model of several labels an image or of numbers the maps of the nine attributes,
which are the shapes of three parts.

    antehoc train --recipe captions --dataset_name shapes --output_dir outputs/shapes-captions …
    python -m benchmarks.shapes_maps outputs/shapes-captions --output outputs/word-maps.md

    antehoc train --recipe cpu --dataset_name shapes --label_column attributes --problem_type regression \
        --map_head contributions --output_dir outputs/attributes
    python -m benchmarks.shapes_maps outputs/attributes

Scores are a map's share of energy in the region over the region's share of the image, 1 by chance. Beside the map of
the word or attribute stand those of the others in the same caption or image (a map that is specific beats them),
Grad-CAM of the same output, and a blob in the centre; of captioners also the map of the whole caption.

Words are those of the reference captions (teacher forcing); the second table has only those that the network has
learned, which it finds likeliest after the words before them. Attributes are those that an image has, as far as the
model finds them (an output above a half); their maps are the contributions above 0.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from antehoc_hf.evaluation.controls import center_map
from antehoc_hf.evaluation.localisation import energy_share_over_area
from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling import AnteHocForImageCaptioning, AnteHocForImageClassification
from antehoc_hf.modeling.image_input import read_image_file
from antehoc_hf.modeling.scaling import contribution_map
from antehoc_hf.shapes import load_shapes
from antehoc_hf.shapes.dataset import ATTRIBUTES
from antehoc_hf.shapes.scene import part_mask
from benchmarks.output import mean_table, parser, show

OF_WORDS = ("word's map", "whole caption's map", "other words' maps", "Grad-CAM of the word", "center")
OF_ATTRIBUTES = ("its own map", "maps of the other attributes", "Grad-CAM", "center")
Found = dict[str, dict[str, list[float]]]


def nothing_yet() -> Found:
    """Region → row → scores."""
    return defaultdict(lambda: defaultdict(list))


def rows_of(size: int, images: int, split: str) -> Any:
    """Rows of `shapes` with their part masks as files."""
    counts: dict[str, Any] = {"train": 0, "validation": 0, "test": 0} | {split: images}
    data = load_shapes(image_size=size, **counts)[split].with_format(None)
    return data.cast_column("part_masks", data.features["part_masks"].__class__(decode=False))


def masks_of(row: dict, size: tuple[int, int], regions: list[str]) -> Tensor:
    """The mask of each region, (T, 1, H, W) bool."""
    parts = np.asarray(read_image_file(row["part_masks"]["bytes"]))
    drawn = [
        Image.fromarray(part_mask(parts, region)).resize(size[::-1], Image.Resampling.NEAREST) for region in regions
    ]
    return torch.from_numpy(np.stack([np.asarray(mask, dtype=bool) for mask in drawn]))[:, None]


def scores_of(maps: Tensor, masks: Tensor) -> Tensor:
    """(M, T): map i (rows) in region j (columns)."""
    pairs = maps.repeat_interleave(len(masks), 0), masks.repeat(len(maps), 1, 1, 1).float()
    return energy_share_over_area(*pairs).view(len(maps), len(masks))


def note(found: Found, region: str, values: dict[str, Tensor]) -> None:
    """Adds the scores of one word or attribute, as far as they are defined."""
    for name, value in values.items():
        if torch.isfinite(value):
            found[region][name].append(float(value))
            found["all"][name].append(float(value))


@torch.no_grad()
def of_attributes(folder: str, images: int, split: str) -> str:
    """The table of a model of attributes."""
    model = AnteHocForImageClassification.from_pretrained(folder).eval()
    processor, grad_cam = AutoImageProcessor.from_pretrained(folder), load_explainer("grad-cam", model)
    size, found, right = tuple(model.config.image_size), nothing_yet(), 0
    for row in rows_of(size[0], images, split):
        pixels = processor(row["image"], return_tensors="pt")["pixel_values"]
        output = model(pixels, output_attention_maps=True)
        values = output.logits[0] if model.config.problem_type == "regression" else output.logits[0].sigmoid()
        present = [index for index, value in enumerate(row["attributes"]) if value > 0.5 and values[index] > 0.5]
        right += len(present)
        if not present:
            continue
        parts = [ATTRIBUTES[index].split("_")[1] for index in present]
        masks = masks_of(row, size, parts)
        maps = contribution_map(output.contributions, size, floor="zero")[0][0, present][:, None]
        table, center = scores_of(maps, masks), energy_share_over_area(center_map(pixels).expand_as(maps), masks)
        cams = torch.cat([grad_cam(pixels, index) for index in present])
        shares = {
            OF_ATTRIBUTES[0]: table.diagonal(),
            "Grad-CAM": energy_share_over_area(cams, masks),
            "center": center,
        }
        for column, part in enumerate(parts):
            scores = {name: share[column] for name, share in shares.items()}
            others = [line for line in range(len(parts)) if line != column]
            if others:
                scores["maps of the other attributes"] = table[others, column].mean()
            note(found, part, scores)
    share = 100 * right / (3 * images)
    return f"Found {share:.1f} % of the attributes of {images} {split} images.\n\n{mean_table(found, OF_ATTRIBUTES)}"


def of_words(folder: str, images: int, split: str) -> str:
    """The tables of a captioner."""
    model = AnteHocForImageCaptioning.from_pretrained(folder).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)
    grad_cam, size = load_explainer("grad-cam", model), tuple(model.config.image_size)
    every, learned = nothing_yet(), nothing_yet()
    for row in rows_of(size[0], images, split):
        pixels = processor(row["image"], return_tensors="pt")["pixel_values"]
        for caption, regions in zip(row["captions"], row["caption_regions"], strict=True):
            naming = [index for index, region in enumerate(regions) if region]
            ids = torch.tensor([[model.config.bos_token_id, *tokenizer(caption).input_ids]])
            masks = masks_of(row, size, [regions[index] for index in naming])
            with torch.no_grad():
                said = model(pixels, decoder_input_ids=ids[:, :-1], phase="prediction").logits[0].argmax(dim=-1)
                own = model.word_maps(pixels, ids)[0, naming]
                whole = model.explain_words(model.encode(pixels), ids, size).interpretation_map
            cams = torch.cat([grad_cam(pixels, (ids, index)) for index in naming])
            table = scores_of(own, masks)
            shares = {
                "word's map": table.diagonal(),
                "whole caption's map": energy_share_over_area(whole.expand_as(own), masks.float()),
                "Grad-CAM of the word": energy_share_over_area(cams, masks.float()),
                "center": energy_share_over_area(center_map(pixels).expand_as(own), masks.float()),
            }
            for column, index in enumerate(naming):
                scores = {name: share[column] for name, share in shares.items()}
                others = [line for line, other in enumerate(naming) if regions[other] != regions[index]]
                if others:
                    scores["other words' maps"] = table[others, column].mean()
                for found in (every, learned) if said[index] == ids[0, index + 1] else (every,):
                    note(found, regions[index], scores)
    tables = [mean_table(found, OF_WORDS) for found in (every, learned)]
    return f"All words\n\n{tables[0]}\nWords that are learned\n\n{tables[1]}"


def main() -> None:
    command = parser(__doc__)
    command.add_argument("model", help="folder of a captioner trained on shapes, or of a model of its attributes")
    command.add_argument("--images", type=int, default=200)
    command.add_argument("--split", choices=("validation", "test"), default="test")
    command.add_argument("--output", type=Path)
    options = command.parse_args()
    torch.set_num_threads(1)
    captioner = "AnteHocForImageCaptioning" in (AutoConfig.from_pretrained(options.model).architectures or ())
    measure = of_words if captioner else of_attributes
    show(measure(options.model, options.images, options.split), options.output)


if __name__ == "__main__":
    main()
