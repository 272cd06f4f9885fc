"""The options of a training run, apart from the trainer's own. Light to import, so that `--help` comes at once."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from antehoc_hf.commands.errors import UsageError, check_least
from antehoc_hf.commands.options import option


@dataclass
class RunArguments:
    """What is done around the training."""

    group: ClassVar[str] = "run"

    recipe: str | None = option(None, "A recipe's name, or a YAML file with options.", everyday=True)
    config: str | None = option(None, "A YAML file with options that override the recipe's.", everyday=True)
    task: str = option(
        "image-classification", "image-classification, landmark-detection or image-captioning.", everyday=True
    )
    augmentation: str | None = option(
        None,
        "Of training images: none, flip, crop-flip, resized-crop-flip or strong (landmarks: none, flip, affine or "
        "affine-flip). By default the task's own.",
    )
    least_steps: int = option(
        0,
        "A small data set is seen more often, in smaller batches, until there are this many steps. Batches, epochs or "
        "steps that are given as flags hold.",
    )
    panel_images: int = option(8, "Validation images whose maps are drawn during training; 0: none.")
    panel_steps: int | None = option(None, "Draw them every this many steps. By default at every evaluation.")
    map_eval_samples: int = option(1000, "Images on which the maps are measured at the end; 0: none.")
    insertion_deletion_images: int = option(0, "Of these, how many for insertion and deletion, which are slow.")
    mask_column: str | None = option(None, "Column with masks of the true evidence, to measure localisation.")
    plain_backbone: str | None = option(
        None, "Output folder of the same training with --model_type plain, whose accuracy is printed next to this one."
    )

    def __post_init__(self) -> None:
        counts = ("least_steps", "panel_images", "map_eval_samples", "insertion_deletion_images")
        check_least(self, {**dict.fromkeys(counts, 0), "panel_steps": 1})


@dataclass
class DataArguments:
    """Which images the model is trained on; see `antehoc_hf.training.data.load_data`."""

    group: ClassVar[str] = "data"

    dataset_name: str | None = option(None, "A name on the Hub, a folder of images, or 'shapes'.", everyday=True)
    dataset_config: str | None = option(None, "Its configuration, if it has several.")
    dataset_revision: str | None = option(None, "Branch, tag or commit on the Hub.")
    dataset_options: dict[str, object] | None = option(
        None, "Further options of load_dataset, or of load_shapes, as JSON."
    )
    image_column: str | None = option(None, "Column with the images, if it is not found automatically.")
    train_split: str | None = option(None, "Name of the training split, if it is unusual.")
    validation_split: str | None = option(None, "Name of the validation split, if it is unusual.")
    test_split: str | None = option(None, "Name of the test split, if it is unusual.")
    validation_fraction: float = option(
        0.1, "Share of the training images held out for validation if there is no validation split."
    )
    max_train_samples: int | None = option(None, "At most this many of the training images.", everyday=True)
    max_eval_samples: int | None = option(None, "At most this many for validation, and for testing.", everyday=True)
    split_seed: int = option(0, "Seed of the images held out and of subsets.")
    on_bad_image: Literal["stop", "skip"] = option(
        "stop", "'skip': look for unreadable images before training, name them and leave them out."
    )

    on_missing_label: Literal["stop", "skip"] = option(
        "stop", "'skip': leave out images without label, points or caption, and count them."
    )

    def __post_init__(self) -> None:
        check_least(self, {"max_train_samples": 1, "max_eval_samples": 1, "split_seed": 0})
        if not 0 <= self.validation_fraction < 1:
            raise UsageError(f"validation_fraction must be 0 or lie between 0 and 1, not {self.validation_fraction}.")

    def load_options(self) -> dict[str, Any]:
        """As `load_data` takes them after the name."""
        return {
            "config": self.dataset_config,
            "revision": self.dataset_revision,
            "options": self.dataset_options,
            "image_column": self.image_column,
            "train_split": self.train_split,
            "validation_split": self.validation_split,
            "test_split": self.test_split,
            "validation_fraction": self.validation_fraction,
            "max_train_samples": self.max_train_samples,
            "max_eval_samples": self.max_eval_samples,
            "seed": self.split_seed,
            "on_bad_image": self.on_bad_image,
            "on_missing_label": self.on_missing_label,
        }


@dataclass
class ModelArguments:
    """Which network is trained."""

    group: ClassVar[str] = "model"

    backbone: str = option(
        "resnet50", "A timm architecture, or resnet50.a1_in1k with its weights' tag.", everyday=True
    )
    pretrained: bool = option(False, "Start from timm's pretrained weights (from the Hub).", everyday=True)
    pretrained_file: str | None = option(None, "A file of pretrained weights for the backbone, for use offline.")
    model_name_or_path: str | None = option(
        None, "A saved model of ours whose map learns on, with --train_task false; its network stays as it is."
    )
    backbone_kwargs: dict[str, object] | None = option(
        None, "Further options of timm.create_model as JSON, such as '{\"drop_path_rate\": 0.1}'."
    )
    image_size: list[int] | None = option(
        None, "Side, or height and width; by default the backbone's own.", everyday=True
    )
    image_mean: list[float] | None = option(None, "Mean of the three channels. By default the backbone's own.")
    image_std: list[float] | None = option(
        None, "Standard deviation of the three channels. By default the backbone's own."
    )
    crop_pct: float | None = option(
        None, "Share of the resized image that is kept in evaluation; 1: all of it. By default the backbone's own."
    )
    num_attention_maps: int | None = option(
        None, "Number of layers that the map is made from. By default 8, or all of a smaller backbone."
    )
    taps: list[str] = option(
        ["auto"], "These layers: 'auto', 'convolutions', 'stages', or names of the backbone's modules."
    )
    map_head: str | dict[str, object] | None = option(
        None,
        "contributions (a map for each class, the default where there are classes), energy (the paper) or JSON with "
        'options: \'{"kind": "energy", "map_scaling": "max"}\'.',
        everyday=True,
    )
    objective: str | dict[str, object] | None = option(
        None, "What teaches the map: coalitions or energy; by default as its kind.", everyday=True
    )
    model_type: Literal["antehoc", "plain", "senn", "cbah"] = option(
        "antehoc", "antehoc, or a baseline: plain (no map), senn or cbah.", everyday=True
    )
    model_options: dict[str, object] | None = option(
        None, 'Further options of the model\'s configuration as JSON, such as \'{"tap_point": "conv"}\'.'
    )

    def __post_init__(self) -> None:
        if self.image_size is not None and len(self.image_size) not in (1, 2):
            raise UsageError(f"image_size takes one number or two (height and width), not {len(self.image_size)}.")

    def pretrained_source(self) -> bool | str:
        """As `from_backbone` takes it."""
        return self.pretrained_file or self.pretrained

    def config_options(self) -> dict[str, object]:
        """As AnteHocConfig takes them; the map is chosen in `antehoc_hf.training.runs.maps`."""
        size = self.image_size
        alone = len(self.taps) == 1 and self.taps[0] in ("auto", "convolutions", "stages")
        return {
            "backbone_kwargs": self.backbone_kwargs,
            "image_size": size[0] if size is not None and len(size) == 1 else size,
            "image_mean": self.image_mean,
            "image_std": self.image_std,
            "num_attention_maps": self.num_attention_maps,
            "taps": self.taps[0] if alone else self.taps,
            **(self.model_options or {}),
        }


@dataclass
class EverydayTraining:
    """Those options of `AnteHocTrainingArguments` that most runs set."""

    group: ClassVar[str] = "training"

    output_dir: str | None = option(
        "trainer_output", "Folder for model, checkpoints and results.", everyday=True, short="-o"
    )
    num_train_epochs: float = option(3.0, "Passes over the training images.", everyday=True)
    per_device_train_batch_size: int = option(8, "Images in a batch on each device.", everyday=True)
    learning_rate: float = option(5e-5, "Peak learning rate of backbone and head.", everyday=True)
    interpretation_learning_rate: float = option(1e-3, "Peak learning rate of the map head.", everyday=True)
    seed: int = option(42, "Seed of weights, order and augmentation.", everyday=True)
    dataloader_num_workers: int = option(0, "Processes that load images.", everyday=True)
    bf16: bool = option(False, "Mixed precision, on a GPU that supports bfloat16.", everyday=True)
    resume_from_checkpoint: str | None = option(
        None, "A checkpoint, or 'true' for the last one in --output_dir.", everyday=True
    )
    overwrite_run: bool = option(False, "Delete the run that --output_dir holds and start over.", everyday=True)
    push_to_hub: bool = option(False, "Push the finished model to the Hub.", everyday=True)
    hub_model_id: str | None = option(None, "Its name there: NAME or NAMESPACE/NAME.", everyday=True)


@dataclass
class CardArguments:
    """What only a person knows about a model, for its card."""

    group: ClassVar[str] = "card"

    license: str | None = option(None, "License of the model, for the card: apache-2.0, mit, …")
    author: str | None = option(None, "Author of the model, for the card.")
    citation: str | None = option(None, "File with BibTeX about the model, for the card.")
    benchmark_task: str | None = option(None, "The task's name in the data set's benchmark on the Hub, if it has one.")

    def facts(self) -> dict[str, str | None]:
        """As `antehoc_hf.model_cards.Facts` takes them.

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


@dataclass
class ClassificationArguments:
    """Options of image classification alone."""

    group: ClassVar[str] = "task image-classification"

    label_column: str | None = option(None, "Column with the labels, if it is not found automatically.")
    problem_type: str | None = option(
        None,
        "single_label_classification, multi_label_classification or regression. By default what the labels suggest.",
    )


@dataclass
class LandmarkArguments:
    """Options of landmark detection alone."""

    group: ClassVar[str] = "task landmark-detection"

    landmark_group: str = option(
        "all",
        "Which points are learned: all; of the 68 of a face nose, eyes, mouth, parts (these three), jaw, eyebrows, "
        "joined by +; names of points; or numbers such as 27-35,48.",
    )
    landmark_loss: Literal["mse", "smooth_l1"] = option("mse", "Loss on coordinates in [0, 1].")
    keypoints_column: str | None = option(None, "Column with the points, if it is not found automatically.")
    keypoints_order: str = option("auto", "xy, yx (y stored first) or auto, which is xy and checks faces.")
    keypoints_unit: str = option("auto", "pixels, normalized (shares of width and height) or auto.")
    keypoint_names: list[str] | None = option(
        None, "Names of all points, if the data set has none; left and right swap in flips."
    )
    keypoint_flip: list[int] | None = option(
        None, "For each point the number of its mirror image, if that is not known from the names."
    )


@dataclass
class CaptioningArguments:
    """Options of captioning alone."""

    group: ClassVar[str] = "task image-captioning"

    caption_column: list[str] | None = option(
        None, "Column of texts or lists of texts, or several columns, if they are not found automatically."
    )
    min_word_count: int = option(5, "Words that occur less often in the training captions become <unk>.")
    max_caption_length: int = option(34, "Longest caption in tokens, start and end included; longer ones are cut off.")
    num_beams: int = option(3, "Beams of the search for captions that are scored; 1: greedy.")
    decoder_embedding_size: int = option(256, "Width of a word's embedding.")
    decoder_hidden_size: int = option(512, "Width of the LSTM's state.")
    decoder_dropout: float = option(0.0, "Dropout of the embeddings and of the LSTM's output.")

    def __post_init__(self) -> None:
        # A caption has at least a start, a word and an end.
        for name, least in (("min_word_count", 1), ("max_caption_length", 3), ("num_beams", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, not {getattr(self, name)}.")


TASK_ARGUMENTS: tuple[type, ...] = (ClassificationArguments, LandmarkArguments, CaptioningArguments)
RUN_ARGUMENTS: tuple[type, ...] = (
    *(RunArguments, DataArguments, ModelArguments, EverydayTraining),
    *(*TASK_ARGUMENTS, CardArguments),
)


NO_DATA_SET = (
    "There is no data set: pass --dataset_name NAME, where NAME is a data set on the Hub, a folder, or 'shapes', "
    "which needs no download."
)


def names_of(*classes: type) -> set[str]:
    """Every option of these dataclasses."""
    return {declared.name for cls in classes for declared in fields(cls)}
