"""Whether a captioner loses a word where that word's map says it was seen, on photographs without marked regions.

Of each word of the model's own captions the fifth of the image is taken out that a map puts highest, and what counts
is by how much the log-probability of that word falls, the words before it given. Maps are the word's own, Grad-CAM of
the word, the one of the whole caption, that of another word of the caption (drawn with a seed), a blob in the centre,
and noise. Differences from the word's own are paired by image, with 95 % bootstrap intervals. The second half of the
table has only those words that the image matters to: where nothing is left of it, they lose a tenth of a nat or more.

    antehoc train --recipe captions --map_head contributions --num_train_epochs 10 --seed 0 --output_dir outputs/flickr
    python -m benchmarks.word_deletion outputs/flickr --dataset_name jxie/flickr8k --output outputs/word-deletion.md
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from antehoc_hf.evaluation import bootstrap_mean
from antehoc_hf.evaluation.controls import center_map
from antehoc_hf.evaluation.maps import binarise_equal_area
from antehoc_hf.evaluation.results import markdown_table
from antehoc_hf.explainers import load_explainer
from antehoc_hf.modeling import AnteHocForImageCaptioning, AnteHocImageProcessor
from antehoc_hf.training.data import sample
from antehoc_hf.training.data.sources import load_source
from antehoc_hf.training.objectives.patches import background_images, black_of
from benchmarks.output import parser, show

AREA, MATTERS = 0.2, 0.1
BACKGROUNDS = ("mean", "blur")
OWN = "the word's map"
Found = dict[str, dict[str, dict[str, list[float]]]]
"""Which words → background → map → one value an image, the mean over its words."""


@torch.no_grad()
def log_probabilities(model: Any, pixels: Tensor, sequence: Tensor) -> Tensor:
    """Of each word of a caption (1, T) after the words before it, for images (N, 3, H, W): (N, T - 1)."""
    read = sequence[:, :-1].expand(len(pixels), -1)
    words = model(pixels, decoder_input_ids=read, phase="prediction").logits.float().log_softmax(dim=-1)
    return words.gather(2, sequence[:, 1:, None].expand(len(pixels), -1, 1))[..., 0]


def maps_of(
    model: Any, grad_cam: Any, pixels: Tensor, sequence: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Name → (T - 1, 1, H, W), of each word of a caption (1, T)."""
    own, size = model.word_maps(pixels, sequence)[0], tuple(pixels.shape[-2:])
    count = len(own)
    whole = model.explain_words(model.encode(pixels), sequence, size).interpretation_map
    others = (torch.arange(count) + torch.randint(1, max(count, 2), (count,), generator=generator)) % count
    return {
        OWN: own,
        "Grad-CAM of the word": torch.cat([grad_cam(pixels, (sequence, index)) for index in range(count)]),
        "the whole caption's map": whole.expand_as(own),
        "another word's map": own[others],
        "centred blob": center_map(pixels).expand_as(own),
        "noise": torch.rand(own.shape, generator=generator),
    }


@torch.no_grad()
def measure(model: Any, images: list[Tensor]) -> tuple[Found, dict[str, int]]:
    """Nats that words lose, and how many words were counted; images are (3, H, W), normalised."""
    grad_cam, black = load_explainer("grad-cam", model), black_of(model.config)
    found: Found = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    counts = {"all": 0, "that the image matters to": 0}
    for position, image in enumerate(images):
        pixels, generator = image[None], torch.Generator().manual_seed(position)
        sequence = model.generate(pixel_values=pixels)
        sequence = sequence[:, : 1 + int((sequence[0, 1:] != model.config.pad_token_id).sum())]
        maps = maps_of(model, grad_cam, pixels, sequence, generator)
        whole = log_probabilities(model, pixels, sequence)[0]
        nothing = log_probabilities(model, background_images(pixels, "mean", black), sequence)[0]
        chosen = {"all": torch.ones_like(whole) > 0, "that the image matters to": whole - nothing >= MATTERS}
        for kind in BACKGROUNDS:
            background = background_images(pixels, kind, black)
            for name, map_ in maps.items():
                taken = binarise_equal_area(map_, AREA, first_index=position) > 0
                left = log_probabilities(model, torch.where(taken, background, pixels), sequence)
                lost = whole - left.diagonal()
                for words, mask in chosen.items():
                    if mask.any():
                        found[words][kind][name].append(float(lost[mask].mean()))
        for words, mask in chosen.items():
            counts[words] += int(mask.sum())
    return found, counts


def table(found: Found) -> str:
    """Markdown: nats lost, and in brackets the difference from the word's own map."""
    lines = [["words", "map", *(f"{kind}, nats lost [less the word's own map]" for kind in BACKGROUNDS)]]
    for words, by_kind in found.items():
        for name in by_kind[BACKGROUNDS[0]]:
            cells = []
            for kind in BACKGROUNDS:
                values, own = (torch.tensor(by_kind[kind][each]) for each in (name, OWN))
                cells.append(f"{values.mean():.3f}")
                if name != OWN:
                    difference = bootstrap_mean(values - own)
                    cells[-1] += f" [{difference.low:+.3f}, {difference.high:+.3f}]"
            lines.append([words, name, *cells])
    return "\n".join(markdown_table(lines)) + "\n"


def main() -> None:
    command = parser(__doc__)
    command.add_argument("model", help="folder of a captioner with map_head='contributions'")
    command.add_argument("--dataset_name", required=True)
    command.add_argument("--split", default="test")
    command.add_argument("--images", type=int, default=300)
    command.add_argument("--output", type=Path)
    options = command.parse_args()
    torch.set_num_threads(1)
    model = AnteHocForImageCaptioning.from_pretrained(options.model).eval()
    processor, tokenizer = (
        AnteHocImageProcessor.from_pretrained(options.model),
        AutoTokenizer.from_pretrained(options.model),
    )
    rows = load_source(options.dataset_name).splits[options.split]
    chosen = sample(rows, options.images)
    images = [processor(rows[index]["image"], return_tensors="pt")["pixel_values"][0] for index in chosen]
    said = {
        tokenizer.decode(model.generate(pixel_values=image[None])[0], skip_special_tokens=True) for image in images
    }
    found, counts = measure(model, images)
    heading = (
        f"{len(images)} {options.split} images of {Path(options.dataset_name).name}, {len(said)} different captions, "
    )
    heading += ", ".join(f"{count} words ({words})" for words, count in counts.items())
    show(f"{heading}\n\n{table(found)}", options.output)


if __name__ == "__main__":
    main()
