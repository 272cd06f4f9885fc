"""Whether maps of labels and of values find what they are about: on `shapes`, whose nine attributes are the shapes of
three parts, each to be seen in one place, for models of several labels an image or of numbers:

    antehoc train --recipe cpu --dataset_name shapes --label_column attributes --problem_type regression \
        --map_head contributions --output_dir outputs/attributes
    python -m benchmarks.value_maps outputs/attributes

Of each test image the three attributes that it has, as far as the model finds them (an output above a half): the share
of the map's energy in the attribute's part, over the part's share of the image (1 is chance), beside the maps of the
image's other attributes there, Grad-CAM of the same output, and a blob in the centre. Maps are the contributions above
0.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from transformers import AutoImageProcessor

from antehoc_hf.evaluation import bootstrap_mean
from antehoc_hf.evaluation.controls import center_map
from antehoc_hf.evaluation.localisation import energy_share_over_area
from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling import AnteHocForImageClassification
from antehoc_hf.modeling.image_input import read_image_file
from antehoc_hf.modeling.scaling import contribution_map
from antehoc_hf.shapes import load_shapes
from antehoc_hf.shapes.dataset import ATTRIBUTES
from antehoc_hf.shapes.scene import part_mask
from benchmarks.output import show

ROWS = ("its own map", "maps of the other attributes", "Grad-CAM", "center")


@torch.no_grad()
def measure(folder: str, images: int) -> tuple[dict[str, dict[str, list[float]]], float]:
    """Part → row → scores; and the share of present attributes that the model finds."""
    model = AnteHocForImageClassification.from_pretrained(folder).eval()
    processor, grad_cam = AutoImageProcessor.from_pretrained(folder), load_explainer("grad-cam", model)
    data = load_shapes(image_size=model.config.image_size[0], train=0, validation=0, test=images)["test"]
    data = data.with_format(None).cast_column("part_masks", data.features["part_masks"].__class__(decode=False))
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    right = 0
    for row in data:
        pixels = processor(row["image"], return_tensors="pt")["pixel_values"]
        output = model(pixels, output_attention_maps=True)
        scores = output.logits[0] if model.config.problem_type == "regression" else output.logits[0].sigmoid()
        maps = contribution_map(output.contributions, tuple(pixels.shape[-2:]), floor="zero")[0]
        present = [index for index, value in enumerate(row["attributes"]) if value > 0.5 and scores[index] > 0.5]
        right += len(present)
        parts = np.asarray(read_image_file(row["part_masks"]["bytes"]))
        for index in present:
            part = ATTRIBUTES[index].split("_")[1]
            mask = torch.from_numpy(part_mask(parts, part))[None, None].float()
            others = [other for other in present if other != index]
            values = {
                "its own map": [maps[:, [index]]],
                "maps of the other attributes": [maps[:, [other]] for other in others],
                "Grad-CAM": [grad_cam(pixels, index)],
                "center": [center_map(pixels)],
            }
            for name, shown in values.items():
                shares = [float(energy_share_over_area(map_, mask)) for map_ in shown]
                if shares and np.isfinite(shares).all():
                    for into in (found[part], found["all"]):
                        into[name].append(float(np.mean(shares)))
    return found, right / (3 * len(data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a model of the attributes of shapes, with map_head='contributions'")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, share = measure(options.model, options.images)
    regions = ["all", *sorted(set(found) - {"all"})]
    lines = [f"Found {100 * share:.1f} % of the attributes of {options.images} test images.", ""]
    counted = [f"{region} ({len(found[region][ROWS[0]])})" for region in regions]
    lines += ["| map | " + " | ".join(counted) + " |", "|---|" + "---:|" * len(regions)]
    for name in ROWS:
        means = [bootstrap_mean(torch.tensor(found[region][name])) for region in regions]
        cells = " | ".join(f"{mean.value:.2f} [{mean.low:.2f}, {mean.high:.2f}]" for mean in means)
        lines.append(f"| {name} | {cells} |")
    text = "\n".join(lines) + "\n"
    show(text, options.output)


if __name__ == "__main__":
    main()
