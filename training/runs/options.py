"""What a training run can be told beside the trainer's arguments. The options of the model are AnteHocConfig's own."""

import dataclasses
import inspect
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.modeling import AnteHocConfig
from antehoc_hf.modeling.configuration_antehoc import CHOICES, HEAD_CHOICES

# Found by looking at the backbone, or taken over below in a form that suits a command line.
_NOT_DERIVED = (
    *("backbone", "backbone_kwargs", "image_size", "taps", "tap_points", "fixed_image_size", "tap_channels"),
    # Read off the data set.
    *("num_landmarks", "landmark_names", "landmark_flip", "landmark_parts"),
    *("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"),
    "max_caption_length",  # an option of the task, which cuts the captions
)


@dataclass
class ModelArguments:
    """Which network is trained."""

    _argument_group_name: ClassVar[str] = "model"

    model_type: Literal["antehoc", "plain", "senn", "cbah"] = field(
        default="antehoc",
        metadata={"help": "'antehoc', or a baseline to compare with: the 'plain' network, 'senn' or 'cbah'."},
    )
    baseline_options: str | None = field(
        default=None,
        metadata={"help": 'Options of SennConfig or CbahConfig as JSON, such as \'{"preset": "released_code"}\'.'},
    )
    interpretation_objective: Literal["energy", "contributions"] | None = field(
        default=None,
        metadata={
            "help": "What the map learns: 'contributions': what each patch contributes to each class; 'energy': to "
            "keep the prediction on image ⊙ map (the paper). None: contributions for classes, energy for all else and "
            "wherever an option that energy maps alone have is given."
        },
    )
    backbone: str = field(
        default="resnet50",
        metadata={"help": "A timm architecture, with or without a pretrained tag (`resnet50.a1_in1k`)."},
    )
    pretrained: bool = field(default=False, metadata={"help": "Start from timm's pretrained weights (from the Hub)."})
    pretrained_file: str | None = field(
        default=None, metadata={"help": "A file of pretrained weights for the backbone, where there is no network."}
    )
    backbone_kwargs: str | None = field(
        default=None,
        metadata={"help": "Further options of timm.create_model as JSON, such as '{\"drop_path_rate\": 0.1}'."},
    )
    image_size: list[int] | None = field(
        default=None, metadata={"help": "Side, or height and width, in pixels. None: the backbone's own."}
    )
    taps: list[str] = field(
        default_factory=lambda: ["auto"],
        metadata={"help": "'auto', 'convolutions', 'stages', or names of the backbone's modules."},
    )
    crop_pct: float | None = field(
        default=None,
        metadata={"help": "Share of the resized image that evaluation crops. None: the backbone's own; 1: all of it."},
    )

    def pretrained_source(self) -> bool | str:
        """As `from_backbone` takes it."""
        return self.pretrained_file or self.pretrained

    def config_options(self) -> dict[str, Any]:
        """As AnteHocConfig takes them."""
        size = self.image_size
        if size is not None and len(size) not in (1, 2):
            raise UsageError(f"image_size takes one number or two (height and width), not {len(size)}.")
        alone = len(self.taps) == 1 and self.taps[0] in ("auto", "convolutions", "stages")
        return {
            "backbone_kwargs": read_json(self.backbone_kwargs, "backbone_kwargs"),
            "image_size": size[0] if size is not None and len(size) == 1 else size,
            "taps": self.taps[0] if alone else self.taps,
        }


def _derived_from_config() -> Any:
    """A dataclass with every further option of AnteHocConfig: its name, type, default and description."""
    help_texts = _descriptions(AnteHocConfig)
    declared = {f.name: f for f in dataclasses.fields(AnteHocConfig)}
    choices = {**CHOICES, **HEAD_CHOICES}
    fields = []
    for name, annotation in AnteHocConfig.__annotations__.items():
        if name in declared and name not in _NOT_DERIVED:
            type_ = Literal[choices[name]] if name in choices else annotation
            fields.append(
                (name, type_, field(default=declared[name].default, metadata={"help": help_texts.get(name)}))
            )
    made = dataclasses.make_dataclass("ConfigArguments", fields)
    made.__module__ = __name__
    made._argument_group_name = "model: maps and weight network"  # type: ignore[attr-defined]
    return made


def _descriptions(cls: type) -> dict[str, str]:
    """Option → what its class's docstring says of it, on one line."""
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in (inspect.getdoc(cls) or "").splitlines():
        entry = re.match(r"    (\w+(?:, \w+)*) \(`.*?\):\s*(.*)", line)
        if entry:
            names = entry[1].split(", ")
            texts.update(dict.fromkeys(names, entry[2]))
        elif line.startswith("        "):
            texts.update({name: f"{texts[name]} {line.strip()}" for name in names})
        else:
            names = []
    return {name: text.replace("%", "%%").replace("`", "").strip() for name, text in texts.items()}


ConfigArguments = _derived_from_config()


@dataclass
class DataArguments:
    """Which images it is trained on; see `antehoc_hf.training.data.load_data`."""

    _argument_group_name: ClassVar[str] = "data"

    dataset_name: str | None = field(
        default=None,
        metadata={"help": "A data set on the Hub, a folder (data set or class folders of images), or 'shapes'."},
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Its configuration, if it has several."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the Hub."})
    dataset_options: str | None = field(
        default=None, metadata={"help": "Further options of load_dataset, or of load_shapes, as JSON."}
    )
    image_column: str | None = field(default=None, metadata={"help": "Where it is not found by itself."})
    train_split: str | None = field(default=None, metadata={"help": "Its name, if it has not a usual one."})
    validation_split: str | None = field(default=None, metadata={"help": "Its name, if it has not a usual one."})
    test_split: str | None = field(default=None, metadata={"help": "Its name, if it has not a usual one."})
    validation_fraction: float = field(
        default=0.1, metadata={"help": "Part of the training images held out if there is no validation split."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on so many images at most."})
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Validate and test on so many images at most."}
    )
    split_seed: int = field(default=0, metadata={"help": "Seed of the images held out and of subsets."})
    on_bad_image: Literal["stop", "skip"] = field(
        default="stop",
        metadata={"help": "'skip': look for unreadable images beforehand, name them and leave them out."},
    )

    def load_options(self) -> dict[str, Any]:
        """As `load_data` takes them, beside the name."""
        return {
            "config": self.dataset_config,
            "revision": self.dataset_revision,
            "options": read_json(self.dataset_options, "dataset_options"),
            "image_column": self.image_column,
            "train_split": self.train_split,
            "validation_split": self.validation_split,
            "test_split": self.test_split,
            "validation_fraction": self.validation_fraction,
            "max_train_samples": self.max_train_samples,
            "max_eval_samples": self.max_eval_samples,
            "seed": self.split_seed,
            "on_bad_image": self.on_bad_image,
        }


@dataclass
class RunArguments:
    """What is done around the training."""

    _argument_group_name: ClassVar[str] = "run"

    recipe: str | None = field(
        default=None, metadata={"help": "Name of a recipe or path of a YAML file with options; flags override it."}
    )
    task: str = field(
        default="image-classification",
        metadata={"help": "image-classification, landmark-detection or image-captioning."},
    )
    augmentation: str | None = field(
        default=None,
        metadata={
            "help": "Of training images: none, flip, crop-flip, resized-crop-flip or strong (landmarks: none, flip, "
            "affine or affine-flip). None: the task's own."
        },
    )
    panel_images: int = field(
        default=8, metadata={"help": "Validation images whose maps are drawn during training; 0: none."}
    )
    panel_steps: int | None = field(
        default=None, metadata={"help": "Draw them every so many steps. None: at every evaluation."}
    )
    map_eval_samples: int = field(
        default=1000, metadata={"help": "Images on which the maps are measured in the end; 0: none."}
    )
    insertion_deletion_images: int = field(
        default=0, metadata={"help": "Of these, how many for insertion and deletion, which are slow."}
    )
    mask_column: str | None = field(
        default=None, metadata={"help": "A column with masks of the true evidence, to measure localisation by."}
    )
    plain_backbone: str | None = field(
        default=None,
        metadata={
            "help": "Output folder of the same training with --model_type plain, whose accuracy is told beside ours."
        },
    )

    def __post_init__(self) -> None:
        for name in ("panel_images", "map_eval_samples", "insertion_deletion_images"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must be at least 0, not {getattr(self, name)}.")
        if self.panel_steps is not None and self.panel_steps < 1:
            raise UsageError(f"panel_steps must be at least 1, not {self.panel_steps}.")


@dataclass
class CardArguments:
    """What only a person can tell of a model, for its card."""

    _argument_group_name: ClassVar[str] = "card"

    license: str | None = field(default=None, metadata={"help": "Of the model, for the card: apache-2.0, mit, …"})
    author: str | None = field(default=None, metadata={"help": "Who made the model, for the card."})
    citation: str | None = field(default=None, metadata={"help": "File with BibTeX about the model, for the card."})
    benchmark_task: str | None = field(
        default=None, metadata={"help": "The task's name in the data set's benchmark on the Hub, if it has one."}
    )

    def facts(self) -> dict[str, str | None]:
        """
        As `antehoc_hf.model_cards.Facts` takes them.

        Raises:
            UsageError: if the file of the citation cannot be read.
        """
        citation = None
        if self.citation is not None:
            try:
                citation = Path(self.citation).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"--citation {self.citation} cannot be read as text: {error}.") from None
        return {**vars(self), "citation": citation}


def read_json(text: str | None, option: str) -> dict[str, Any] | None:
    """
    An option that holds a JSON object.

    Raises:
        UsageError: if it does not.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{option} is no JSON ({error.msg} at character {error.pos + 1}): {text}") from None
    if not isinstance(value, dict):
        raise UsageError(f'{option} must be a JSON object such as {{"name": 1}}, not {text}.')
    return value
