"""What a kind of task brings along; all else of a run is shared."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypedDict, TypeVar

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from transformers import EvalPrediction

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.evaluation import EvaluationSettings, evaluate_maps
from antehoc_hf.evaluation.scorer import Explainer
from antehoc_hf.model_weights import load_weights
from antehoc_hf.modeling import AnteHocConfig, AnteHocImageProcessor
from antehoc_hf.modeling.backbone import resolve_taps
from antehoc_hf.modeling.timm_model import TimmPreTrainedModel
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.data import ImageData, ImageDataset, sample
from antehoc_hf.training.data.loading import load_data
from antehoc_hf.training.data.masks import check_mask_column
from antehoc_hf.training.data.targets import ReadTargets, T
from antehoc_hf.training.objectives.base import has_map
from antehoc_hf.training.pushing import Saveable
from antehoc_hf.training.runs.maps import MapChoice, config_of
from antehoc_hf.training.runs.options import DataArguments, ModelArguments
from antehoc_hf.visualization import Caption, denormalise, panel

Panel = Callable[[str], Figure]
"""Draws what the model made of a batch: title → matplotlib figure."""

M = TypeVar("M", bound=TimmPreTrainedModel)


class TrainerParts(TypedDict, total=False):
    """What a task gives the Trainer; see `transformers.Trainer`."""

    compute_metrics: Callable[[EvalPrediction], dict[str, float]]
    data_collator: Callable[[list[dict[str, Tensor]]], Mapping[str, Tensor]]
    preprocess_logits_for_metrics: Callable[..., Tensor]


@dataclass(frozen=True)
class MeasureOptions:
    """How a trained model's maps are measured.

    Args:
        count (`int`): images; 0: none.
        insertion_deletion_images (`int`): of these, how many for insertion and deletion.
        mask_column (`str`, *optional*): a column with masks of the true evidence.
        explainers (`dict`): other methods by name, as the reports of the task call them; they get a row each.
        target (`str`): the class watched: the `"label"` or the model's own `"prediction"`; for captions likewise.
        thorough (`bool`): every form of the measures, not only the quick ones.
        batch_size, workers (`int`): of the data loader.
        progress (`bool`): show a bar.
    """

    count: int = 1000
    insertion_deletion_images: int = 0
    mask_column: str | None = None
    explainers: Mapping[str, Explainer] = field(default_factory=dict)
    target: Literal["label", "prediction"] = "label"
    thorough: bool = False
    batch_size: int = 32
    workers: int = 0
    progress: bool = True


@dataclass(frozen=True)
class MeasuredMaps:
    """What was measured of a model's maps.

    Args:
        report (`dict`): for `results.json`.
        lines (`list[str]`): a table for the terminal.
        metrics (`dict`): further metrics of the task, such as those that need a slower evaluation.
        warning (`str`): a sentence on what the model has not learned, so that its maps say nothing of it.
    """

    report: dict[str, object] | None = None
    lines: Sequence[str] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    warning: str = ""


class Task(ABC, Generic[T, M]):
    """One kind of task, with the options it was given.

    A new task gives `name`, `arguments`, `model_class`, `default_augmentation`, `read_targets`,
    `config_options` and `summary`, and is registered with [`antehoc_hf.training.tasks.register_task`]; all else has a
    default.

    Args:
        options: an instance of `arguments`; None: the defaults.
    """

    name: ClassVar[str]
    arguments: ClassVar[Any]  # a dataclass of the flags that only this task has
    model_class: Any  # its `from_pretrained` and `from_backbone` are used
    default_map: ClassVar[str] = (
        "contributions"  # what they are where nobody says, as far as that is known without the data
    )
    has_maps: ClassVar[bool] = True  # whether the models show where they looked
    default_augmentation: ClassVar[str]

    def __init__(self, options: Any = None) -> None:
        self.options = self.arguments() if options is None else options

    # -- data and model -----------------------------------------------------------------------------------------

    def load_data(self, data: DataArguments, model: M | None = None) -> ImageData[T]:
        """The data set, found and checked.

        Args:
            data (`DataArguments`): which.
            model: a trained model that the targets must fit (its classes, its points, its words).

        Raises:
            DataError: one sentence about what is wrong with it.
        """
        return load_data(str(data.dataset_name), self.read_targets(model), **data.load_options(), report=_print_once)

    @abstractmethod
    def read_targets(self, model: M | None = None) -> ReadTargets[T]:
        """How the targets are read from the split that defines them; they fit `model` if one is given."""

    def check_data(self, data: ImageData[T], measure: MeasureOptions) -> None:
        """What else must hold before any work is done, such as a column of masks that is asked for.

        Raises:
            UsageError, DataError: if it does not.
        """
        check_mask_column(data, measure.mask_column)

    @abstractmethod
    def config_options(self, data: ImageData[T]) -> dict[str, object]:
        """What the data decide of the model's configuration."""

    def build_model(
        self, model: ModelArguments, config: Mapping[str, object], map_choice: MapChoice, data: ImageData[T]
    ) -> M:
        """A new model for the data."""
        options = {**config, **config_of(map_choice.settled(self.default_map_for(data))), **self.config_options(data)}
        return self.model_class.from_backbone(model.backbone, pretrained=model.pretrained_source(), **options)

    def finished_model(self, model: ModelArguments, config: Mapping[str, object], map_choice: MapChoice) -> M:
        """The network that `--train_task false` leaves as it is: prediction and classes are its own, not the data's.

        Raises:
            UsageError: if there is no finished network to begin with.
        """
        if model.model_name_or_path is not None:
            return load_weights(self.model_class, model.model_name_or_path)  # type: ignore[no-any-return]
        raise UsageError(
            f"--train_task false: the head of {self.name} begins at random and has to be trained, unless "
            "--model_name_or_path names a saved model whose map learns on."
        )

    def check_model(self, model: ModelArguments, config: Mapping[str, object], map_choice: MapChoice) -> None:
        """What can be known of a model before its data are there, which may take long to come.

        Raises:
            ValueError: if the backbone is unknown or cannot be explained, the images are too small for it, or an
                option of the configuration makes no sense.
        """
        resolve_taps(self.model_class.config_class(backbone=model.backbone, **config, **config_of(map_choice)))

    def default_map_for(self, data: ImageData[T]) -> str:
        """What the maps are where nobody says."""
        return self.default_map

    def check_training(self, args: AnteHocTrainingArguments) -> None:
        """Whether the trainer's arguments suit the models.

        Raises:
            UsageError: if they do not.
        """

    def trainer_arguments(self) -> dict[str, Any]:
        """Arguments of the trainer that the task fixes, such as `label_names`."""
        return {}

    def metric_names(self, data: ImageData[T]) -> set[str]:
        """What an evaluation during training reports, for `metric_for_best_model`."""
        return {"loss", *(("map_mean", "degenerate_share") if self.has_maps else ())}

    def trainer_parts(self, data: ImageData[T]) -> TrainerParts:
        """Keyword arguments of the Trainer: `compute_metrics`, `data_collator`, …"""
        return {}

    def companions(self, data: ImageData[T]) -> list[Saveable]:
        """What is saved with model and image processor, such as a tokenizer."""
        return []

    # -- reports and figures ------------------------------------------------------------------------------------

    def describe(self, data: ImageData[T]) -> dict[str, object]:
        """What the targets are, for `results.json`."""
        return {}

    @abstractmethod
    def summary(self, data: ImageData[T]) -> str:
        """What is learned, in a few words: "10 classes"."""

    def panel(self, model: M, batch: Mapping[str, Tensor]) -> Panel:
        """Image, map, overlay and energy map, each with its [`captions`]. The model runs at once, in evaluation mode
        without gradients; the figure is drawn when the result is called, on one process.
        """
        if not has_map(model):
            raise NotImplementedError(f"{type(model).__name__} has no map to draw.")
        config, pixel_values = model.config, batch["pixel_values"]
        outputs = model(pixel_values=pixel_values.to(model.dtype))
        energy = model.energy_map(pixel_values, outputs.interpretation_map)

        def draw(title: str) -> Figure:
            mean, std = config.image_mean, config.image_std
            return panel(
                denormalise(pixel_values, mean, std),
                outputs.interpretation_map.cpu(),
                self.captions(outputs, batch, config),
                energy_images=denormalise(energy, mean, std),
                degenerate=outputs.degenerate.cpu(),
                title=title,
                columns=2 if len(pixel_values) > 4 else 1,
            )

        return draw

    def captions(
        self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], config: AnteHocConfig
    ) -> list[Caption]:
        """What is written next to each image of a batch in a panel: the prediction, and the truth."""
        return [Caption("") for _ in batch["pixel_values"]]

    def measure(
        self, model: M, images: ImageDataset, processor: AnteHocImageProcessor, options: MeasureOptions
    ) -> MeasuredMaps:
        """The maps of a trained model, and the controls to compare with, on a sample of the images."""
        return MeasuredMaps()

    def save_figures(
        self, model: M, images: ImageDataset, processor: AnteHocImageProcessor, folder: Path, warning: str = ""
    ) -> list[str]:
        """Draws predictions with their maps, under the `warning` if they explain nothing; returns the files' names."""
        return []


AnyTask = Task[Any, Any]


def measured_maps(
    model: TimmPreTrainedModel,
    images: ImageDataset,
    options: MeasureOptions,
    settings: EvaluationSettings | None = None,
    *,
    dataset: Dataset[dict[str, Tensor]] | None = None,
    collate_fn: Callable[..., Mapping[str, Tensor]] | None = None,
    **more: Any,
) -> MeasuredMaps:
    """What `evaluate_maps` (which `more` is for) says of a seeded choice of the images, or of the same ones in
    `dataset`, which has what else the report needs.
    """
    subset = Subset(images if dataset is None else dataset, sample(images, options.count))
    loader = DataLoader(subset, options.batch_size, num_workers=options.workers, collate_fn=collate_fn)
    found = {"explainers": options.explainers, "progress": options.progress, **more}
    report = evaluate_maps(model, loader, settings, **found)
    return MeasuredMaps(report.to_dict(), report.to_text().splitlines())


def _print_once(text: str) -> None:
    """On the main process alone."""
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        print(text, flush=True)
