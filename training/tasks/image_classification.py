"""Image classification (one or several classes an image) and regression."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.evaluation import EvaluationSettings
from antehoc_hf.evaluation.settings import FORMS
from antehoc_hf.modeling import AnteHocConfig, AnteHocForImageClassification, AnteHocImageProcessor
from antehoc_hf.modeling.timm_model import TimmPreTrainedModel
from antehoc_hf.training.data import ImageData, ImageDataset, sample
from antehoc_hf.training.data.columns import find_label_column
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.labels import PROBLEM_TYPES, LabelSpace, Unlabelled, read_label_space
from antehoc_hf.training.data.masks import WithMasks
from antehoc_hf.training.data.targets import ReadTargets
from antehoc_hf.training.metrics import metrics_of
from antehoc_hf.training.runs.maps import MapChoice, config_of
from antehoc_hf.training.runs.options import ClassificationArguments, ModelArguments
from antehoc_hf.training.runs.results import FIGURE_FILE
from antehoc_hf.training.tasks.base import MeasuredMaps, MeasureOptions, Task, TrainerParts, measured_maps
from antehoc_hf.visualization import Caption, photo_parts
from antehoc_hf.visualization.predictions import figure_of_predictions

logger = logging.getLogger(__name__)

_LOOKED_AT = 64  # images among which right and wrong ones are found


class ImageClassification(Task[LabelSpace, TimmPreTrainedModel]):
    """One class an image, several, or numbers."""

    name = "image-classification"
    arguments = ClassificationArguments
    model_class = AnteHocForImageClassification
    default_augmentation = "crop-flip"
    needs_labels = True

    def read_targets(self, model: TimmPreTrainedModel | None = None) -> ReadTargets[LabelSpace]:
        """The labels; with a model its classes, in its order."""
        names = None
        if model is not None and model.config.problem_type != "regression":
            names = [model.config.id2label[index] for index in range(model.config.num_labels)]

        def read(dataset: datasets.Dataset, image_column: str, source: str) -> LabelSpace:
            try:
                column = find_label_column(dataset.features, image_column, self.options.label_column, source=source)
                found = read_label_space(dataset, column, names=names, problem_type=self.options.problem_type)
                if not self.needs_labels:
                    found.check(dataset, "train")
            except DataError as error:
                if self.needs_labels or self.options.label_column is not None:
                    raise
                logger.warning("The images count as unlabelled, and no accuracy is measured: %s", error)
                return Unlabelled("", names or [], self.options.problem_type or PROBLEM_TYPES[0], "index")
            return found

        return read

    def finished_model(
        self, model: ModelArguments, config: Mapping[str, object], map_choice: MapChoice
    ) -> TimmPreTrainedModel:
        """timm's pretrained network, that of a file of weights, or a saved model.

        Raises:
            UsageError: without weights, where the network would be a random one.
        """
        if model.model_name_or_path is not None:
            self.needs_labels = False
            return super().finished_model(model, config, map_choice)
        if not model.pretrained_source():
            raise UsageError(
                "--train_task false explains a network as it is, and without weights it is random: add "
                "--pretrained or --pretrained_file FILE."
            )
        self.needs_labels = False
        options = {**config, **config_of(map_choice), "problem_type": self.options.problem_type}
        return self.model_class.from_backbone(model.backbone, pretrained=model.pretrained_source(), **options)

    def config_options(self, data: ImageData[LabelSpace]) -> dict[str, object]:
        """Classes and kind of problem."""
        names = data.targets.names
        return {
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
            "problem_type": data.targets.problem_type,
        }

    def default_map_for(self, data: ImageData[LabelSpace]) -> str:
        """Contributions, where there are classes to contribute to."""
        classes = data.targets.problem_type != "regression" and len(data.targets.names) > 1
        return "contributions" if classes else "energy"

    def metric_names(self, data: ImageData[LabelSpace]) -> set[str]:
        """Those of the kind of problem."""
        nothing = np.zeros((1, 1))
        if isinstance(data.targets, Unlabelled):
            return super().metric_names(data) - {"loss"}
        return {*super().metric_names(data), *metrics_of(data.targets.problem_type)(EvalPrediction(nothing, nothing))}

    def trainer_parts(self, data: ImageData[LabelSpace]) -> TrainerParts:
        """The metrics of the kind of problem."""
        return {"compute_metrics": metrics_of(data.targets.problem_type)}

    def describe(self, data: ImageData[LabelSpace]) -> dict[str, object]:
        """Kind of problem and number of classes."""
        return {"problem_type": data.targets.problem_type, "num_labels": len(data.targets.names)}

    def summary(self, data: ImageData[LabelSpace]) -> str:
        """How many classes, or values of a regression."""
        noun = "values" if data.targets.problem_type == "regression" else "classes"
        return f"{len(data.targets.names)} {noun}"

    def captions(
        self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], config: AnteHocConfig
    ) -> list[Caption]:
        """What is predicted, and where that is wrong what is true."""
        return class_captions(outputs["logits"], batch.get("labels"), config)

    def measure(
        self,
        model: TimmPreTrainedModel,
        images: ImageDataset,
        processor: AnteHocImageProcessor,
        options: MeasureOptions,
    ) -> MeasuredMaps:
        """Faithfulness and localisation, which are defined where there are classes."""
        measured = _one_of_several(model.config) or model.config.problem_type == "multi_label_classification"
        if not measured or options.count < 1 or not (self.has_maps or options.explainers):
            return MeasuredMaps()
        if isinstance(images.targets, Unlabelled):
            return MeasuredMaps(lines=["The maps are not measured without labels; `antehoc attach` can."])
        masked = None if options.mask_column is None else WithMasks(images, options.mask_column, processor)
        mean, std = processor.image_mean, processor.image_std
        settings = _settings(options)
        return measured_maps(model, images, options, settings, dataset=masked, image_mean=mean, image_std=std)

    def save_figures(
        self,
        model: TimmPreTrainedModel,
        images: ImageDataset,
        processor: AnteHocImageProcessor,
        folder: Path,
        warning: str = "",
    ) -> list[str]:
        """Right and wrong predictions with their maps, of a sample of the images; only for one class an image."""
        if not (self.has_maps and _one_of_several(model.config)) or isinstance(images.targets, Unlabelled):
            return []
        positions = sample(images, _LOOKED_AT)
        items = [images[position] for position in positions]
        pixel_values = torch.stack([item["pixel_values"] for item in items])
        labels = torch.stack([item["labels"] for item in items])
        figure_of_predictions(
            model,
            pixel_values,
            labels,
            path=folder / FIGURE_FILE,
            title=warning or None,
            columns=2,
            pictures=photo_parts(images.photos(positions), processor),
        )
        return [FIGURE_FILE]


def _one_of_several(config: AnteHocConfig) -> bool:
    """Whether an image has one of several classes, which is what a configuration without a kind of problem means."""
    return config.problem_type in (None, "single_label_classification") and (config.num_labels or 0) > 1


def _settings(options: MeasureOptions) -> EvaluationSettings:
    slow = min(options.insertion_deletion_images, options.count)
    if not options.thorough:
        return EvaluationSettings(target=options.target, insertion_deletion_images=slow)
    return EvaluationSettings(
        target=options.target,
        areas=(0.05, 0.1, 0.3, 0.5),
        insertion_deletion_images=slow,
        insertion_deletion=FORMS,
        road_images=slow,
    )


def class_captions(logits: Tensor, labels: Tensor | None, config: AnteHocConfig) -> list[Caption]:
    """What is predicted, and what is true, in words.

    Args:
        logits (`Tensor`): (N, K).
        labels (`Tensor`, *optional*): (N,) classes, (N, K) zeros and ones, or numbers of a regression, (N,) or (N, K).
        config: the model's, with `problem_type` and `id2label`.
    """
    logits, names = logits.detach().float().cpu(), config.id2label or {}
    if labels is None:
        return [Caption(_short(names[index])) for index in logits.argmax(dim=1).tolist()]
    labels = labels.cpu()
    if config.problem_type == "multi_label_classification":
        return [_several(row, true, names) for row, true in zip(logits > 0, labels > 0.5, strict=True)]
    if config.problem_type == "regression" or labels.is_floating_point():
        rows = zip(logits, labels.reshape(len(labels), -1), strict=True)
        return [Caption(_numbers(row), f"is {_numbers(true)}") for row, true in rows]
    probabilities, predicted = logits.softmax(dim=1).max(dim=1)
    made = []
    for share, said, true in zip(probabilities.tolist(), predicted.tolist(), labels.tolist(), strict=True):
        right = said == true
        detail = "" if right else f"is {_short(names[true])}"
        made.append(Caption(f"{_short(names[said])}  {100 * share:.0f} %", detail, right=right))
    return made


def _several(said: Tensor, true: Tensor, names: Mapping[Any, str]) -> Caption:
    right = bool((said == true).all())
    return Caption(_listed(said, names), "" if right else f"is {_listed(true, names)}", right=right)


def _listed(chosen: Tensor, names: Mapping[Any, str]) -> str:
    listed = [_short(names[index], 12) for index in chosen.nonzero().flatten().tolist()]
    return ", ".join(listed[:3]) + (" …" if len(listed) > 3 else "") if listed else "none"


def _numbers(row: Tensor) -> str:
    return " ".join(f"{value:.3g}" for value in row[:4].tolist()) + (" …" if len(row) > 4 else "")


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
