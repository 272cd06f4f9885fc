"""`antehoc attach`: a finished classifier, unchanged, gets a map; from unlabelled images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from antehoc_hf.commands.errors import UsageError, check_data, check_least
from antehoc_hf.commands.options import OptionParser, option
from antehoc_hf.commands.output import overwrite_option


@dataclass
class AttachArguments:
    """What gets a map, and how."""

    group: ClassVar[str] = "attach"

    source: str = option(
        help="A timm name, a folder, a Hub repository, or a file of weights (with --backbone).", positional="SOURCE"
    )
    images: str = option(help="Images without labels: a folder however nested, or a data set by name.")
    output_dir: str = option(help="Folder for the model, its card, results.json and predictions.png.", short="-o")
    overwrite: bool = overwrite_option()
    backbone: str | None = option(None, "For a file of weights: timm's architecture, or torchvision:resnet50.")
    backbone_kwargs: dict[str, Any] | None = option(None, "Options that the network was made with, as JSON.")
    image_size: list[int] | None = option(None, "Side, or height and width, where the source does not say.")
    image_mean: list[float] | None = option(None, "Mean of the three channels, where the source does not say.")
    image_std: list[float] | None = option(None, "Their standard deviation, where the source does not say.")
    crop_pct: float | None = option(None, "Share of the resized image that is kept, where the source does not say.")
    interpolation: Literal["bilinear", "bicubic", "lanczos"] | None = option(
        None, "bilinear, bicubic or lanczos, where the source does not say."
    )
    class_names: str | None = option(None, "A text file with the name of a class on each line, in order.")
    problem_type: Literal["single_label_classification", "multi_label_classification"] | None = option(
        None,
        "multi_label_classification: each output is the logit of a label of its own; by default what the source says, "
        "or one of several classes.",
    )
    split: str | None = option(None, "Split of a data set; by default its training split.")
    max_images: int = option(2000, "Images that the map is fitted to, at random.")
    held_out: int = option(200, "Further images on which the map is judged; at most a fifth of all.")
    pairs: int = option(8, "Pairs of partly covered images that the network sees of each image.")
    grid: int = option(8, "Patches of the map along the image's shorter side.")
    taps: list[str] = option([], "Layers that the map reads: auto, convolutions, stages, or names of modules.")
    until: Literal["fitted", "good"] = option(
        "fitted", "good: with more coalitions until the map may be trusted more than Grad-CAM, or that does not help."
    )
    batch_size: int = option(32, "Images at a time when the map is measured.")
    channels_last: bool | None = option(
        None, "Memory layout while fitting; by default the faster one, by a short timing."
    )
    seed: int = option(0, "Of the choice of images and of what is covered.")
    token: str | None = option(None, "For a private repository on the Hub.")

    def __post_init__(self) -> None:
        if self.image_size is not None and len(self.image_size) not in (1, 2):
            raise UsageError(f"image_size takes one number or two (height and width), not {len(self.image_size)}.")
        counts = ("image_size", "max_images", "held_out", "pairs", "grid", "batch_size")
        check_least(self, {**dict.fromkeys(counts, 1), "seed": 0})
        for name in ("image_mean", "image_std"):
            if len(getattr(self, name) or "rgb") != 3:
                raise UsageError(f"{name} takes three numbers, one for each of red, green and blue.")
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise UsageError(f"crop_pct must lie in (0, 1], not {self.crop_pct}.")
        check_data(self.images)


def parse(argv: Sequence[str]) -> AttachArguments:
    """The options; see [`OptionParser`] for the errors."""
    parser = OptionParser(AttachArguments, prog="antehoc attach")
    return parser.parse(argv, AttachArguments)[0]


def run(options: AttachArguments) -> None:
    """Fits, saves, measures and shows.

    Raises:
        ValueError: one sentence on what is wrong with source, images or options.
        OSError: if something cannot be read, fetched or written.
    """
    from antehoc_hf.attaching import AttachOptions, attach
    from antehoc_hf.training.attach import FitOptions

    config: dict[str, Any] = {
        "image_size": options.image_size[0] if options.image_size and len(options.image_size) == 1 else None,
        "image_mean": options.image_mean,
        "image_std": options.image_std,
        "id2label": _names(options.class_names),
        "problem_type": options.problem_type,
        "taps": (options.taps[0] if options.taps in (["auto"], ["convolutions"], ["stages"]) else options.taps)
        or None,
    }
    if options.image_size and len(options.image_size) == 2:
        config["image_size"] = options.image_size
    attach(
        options.source,
        options.images,
        options.output_dir,
        options=AttachOptions(
            fit=FitOptions(**_values(options, "pairs", "channels_last")),
            **_values(options, "max_images", "held_out", "until", "batch_size", "seed", "overwrite"),
        ),
        **_values(options, "backbone", "backbone_kwargs", "crop_pct", "interpolation", "split", "token"),
        map_head={"kind": "contributions", "closed_form": True, "grid": options.grid},
        **{name: value for name, value in config.items() if value is not None},
    )


def _values(options: AttachArguments, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


def _names(path: str | None) -> dict[int, str] | None:
    """Class names, one a line."""
    if path is None:
        return None
    if not Path(path).is_file():
        raise UsageError(f"class_names: there is no file {path}.")
    names = [line.strip() for line in Path(path).read_text(encoding="utf-8").rstrip().splitlines()]
    if "" in names:
        raise UsageError(f"class_names: line {names.index('') + 1} of {path} is empty, but each class needs a name.")
    return dict(enumerate(names))
