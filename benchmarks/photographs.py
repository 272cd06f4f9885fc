"""README's picture: photographs with a free licence, what a network says of them, its own map and Grad-CAM.

    antehoc attach mobilenet_v2.pth --backbone torchvision:mobilenet_v2 --images imagenette --output_dir attached
    python -m benchmarks.photographs attached chelsea.png coffee.png rocket.jpg --output docs/images/photographs.jpg

docs/images/NOTICE.md says whose photographs they are. The three were chosen before a map of them was seen.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from timm.data import ImageNetInfo

from antehoc_hf.commands.inputs import load_model
from antehoc_hf.explainers import load_explainer
from antehoc_hf.visualization.images import COLORMAP, overlay, photo_parts
from antehoc_hf.visualization.layout import Picture
from antehoc_hf.visualization.panel import Caption, captioned
from benchmarks.output import parser


def main(model_name: str, files: Sequence[str], output: str) -> None:
    """Draws the photographs as the network is given them, larger."""
    model, processor = load_model(model_name)
    names = ImageNetInfo()
    rows: list[dict[str, Picture]] = []
    captions = []
    for file in files:
        with Image.open(file) as opened:
            photo = opened.convert("RGB")
        pixel_values = processor(photo, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            outputs = model(pixel_values)
        share, predicted = outputs.logits[0].softmax(dim=0).max(dim=0)
        rival = load_explainer("grad-cam", model).explain(pixel_values).maps
        (part,) = photo_parts([photo], processor)
        own = overlay(part, outputs.interpretation_map[0])
        rows.append({"photograph": part, "the network's own map": own, "Grad-CAM": overlay(part, rival[0])})
        named = names.index_to_description(int(predicted)).split(",")[0]
        captions.append(Caption(named, f"{100 * float(share):.0f} %"))
    figure, _ = captioned(rows, captions, None, 1, COLORMAP)
    figure.savefig(Path(output), dpi=120, facecolor="white")


if __name__ == "__main__":
    command = parser(__doc__)
    command.add_argument("model")
    command.add_argument("files", nargs="+")
    command.add_argument("--output", required=True)
    given = command.parse_args()
    main(given.model, given.files, given.output)
