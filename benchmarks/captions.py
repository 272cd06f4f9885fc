"""
Captions and their maps on a data set such as Flickr8k, beside the same network without a map, for several seeds.

For every seed two trainings on the same images and captions: ours, by the recipe; and timm's network with the same
LSTM, by the stock Trainer. Both write captions of the test images (BLEU); of ours the maps are measured as well. Every
training checkpoints and resumes: start the same command again after an interruption; finished parts are not computed
twice. Usage:

    python -m benchmarks.captions --dataset_name jxie/flickr8k --seeds 0 1 --output outputs/flickr8k

Further flags are those of `antehoc train`, e.g. `--num_train_epochs 2`.
"""

import argparse
import json
import platform
import time
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed

from antehoc_hf.evaluation.captions import bleu
from antehoc_hf.training.checkpoints import last_whole_checkpoint
from antehoc_hf.training.runs.results import RESULTS_FILE
from antehoc_hf.training.runs.settings import RunSettings, parse_settings
from antehoc_hf.training.runs.train import build_model, train
from antehoc_hf.training.tasks.image_captioning import write_captions
from benchmarks.finished import finished

BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
MEASURES = ("map_mean", "drop_cond", "inc_cond", "win", "avg_drop", "equal_area_avg_drop", "equal_area_win")


class PlainCaptioner(nn.Module):
    """timm's network and the LSTM as the stock Trainer wants them; no map and no second pass."""

    def __init__(self, backbone: nn.Module, decoder: Any) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, decoder

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor, decoder_input_ids: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        logits, _ = self.decoder(decoder_input_ids, self.decoder.start(self.backbone(pixel_values)))
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def train_ours(flags: list[str], folder: Path) -> dict[str, Any]:
    """By the command line's own code; what it wrote is the result."""
    resume = ["--resume_from_checkpoint", "last"] if last_whole_checkpoint(folder) is not None else []
    train([*flags, "--output_dir", str(folder), *resume])
    return json.loads((folder / RESULTS_FILE).read_text())


def train_plain(flags: list[str], folder: Path) -> dict[str, Any]:
    """The same start, the same batches, the stock Trainer."""
    settings = parse_settings([*flags, "--output_dir", str(folder)])
    set_seed(settings.training.seed)
    data = settings.task.load_data(settings.data)
    model, processor = build_model(settings, data)
    images = data.with_transforms(processor, settings.run.augmentation or settings.task.default_augmentation)
    assert images.test is not None
    parts = settings.task.trainer_parts(data)
    plain: Any = PlainCaptioner(model.backbone, model.decoder)
    collator = parts["data_collator"]
    trainer = Trainer(
        plain,
        stock_arguments(settings),
        train_dataset=images.train,
        eval_dataset=images.validation,
        data_collator=collator,
    )
    start = time.time()
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")) if folder.exists() else None)
    seconds = time.time() - start
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in plain.state_dict().items()}, folder / "model.safetensors")
    # The network writes through the captioner that it was taken from; its map is not looked at.
    options: Any = settings.task.options
    tokenizer = data.targets.known_tokenizer()
    written = write_captions(model, images.test, tokenizer, options.num_beams, batch_size=64)
    scores = bleu(written, data.targets.all_references(images.test.split.dataset))
    return {"metrics": scores, "training": {"seconds": seconds}}


def stock_arguments(settings: RunSettings) -> TrainingArguments:
    """
    The trainer's arguments without ours. It evaluates as often as ours: every evaluation takes a random number, and
    what dropout then drops depends on it.
    """
    given = {f.name: getattr(settings.training, f.name) for f in fields(TrainingArguments) if f.init}
    own = {
        "ddp_find_unused_parameters": None,
        "prediction_loss_only": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    return TrainingArguments(**{**given, **own})


def same_weights(ours: Path, plain: Path) -> bool | None:
    """Whether backbone and decoder of both are the same to the last bit; None where a file is missing."""
    paths = (ours / "model.safetensors", plain / "model.safetensors")
    if not all(path.exists() for path in paths):
        return None
    first, second = (load_file(path) for path in paths)
    return all(torch.equal(first[name], value) for name, value in second.items())


def summarise(output: Path, flags: list[str]) -> str:
    """BLEU of both, seed by seed; then the maps of ours beside the controls."""
    lines = ["| seed | model | " + " | ".join(BLEU) + " | weights bit-identical |", "|---|---|" + "---:|" * 4 + "---|"]
    maps: list[str] = []
    for folder in sorted(output.glob("seed-*")):
        found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
        equal = same_weights(folder / "ours", folder / "plain")
        for part in ("plain", "ours"):
            if part in found:
                cells = [f"{found[part]['metrics'][name]:.1f}" for name in BLEU]
                lines.append(f"| {folder.name[5:]} | {part} | " + " | ".join(cells) + f" | {equal} |")
        if "ours" in found and found["ours"]["maps"]:
            maps += [
                "",
                f"Maps, seed {folder.name[5:]}, {found['ours']['maps']['num_images']} images (95 % intervals):",
            ]
            maps += ["", "| map | " + " | ".join(MEASURES) + " |", "|---|" + "---:|" * len(MEASURES)]
            for row in found["ours"]["maps"]["rows"]:
                cells = [_cell(row["scores"].get(name)) for name in MEASURES]
                maps.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    heading = f"{' '.join(flags)}; {platform.machine()}, torch {torch.__version__}"
    return "\n".join([heading, "", *lines, *maps]) + "\n"


def _cell(score: dict[str, Any] | None) -> str:
    if score is None or score["value"] is None:
        return "–"
    return f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="captions")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--parts", nargs="+", choices=("ours", "plain"), default=["ours", "plain"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options, more = parser.parse_known_args()
    torch.set_num_threads(options.threads)
    flags = ["--recipe", options.recipe, "--report_to", "none", *more]
    for seed in options.seeds:
        for part in options.parts:
            folder = options.output / f"seed-{seed}" / part
            # The vocabulary and the held-out images do not depend on the seed.
            run = partial(train_ours if part == "ours" else train_plain, [*flags, "--seed", str(seed)], folder)
            finished(folder.with_suffix(".json"), {"flags": flags}, run)
    text = summarise(options.output, flags)
    (options.output / "summary.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
