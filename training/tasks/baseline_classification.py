"""Image classification by a baseline: the same data, metrics and results as for ours, but no maps."""

import os
from collections.abc import Mapping

from transformers import EvalPrediction

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.modeling.configuration_antehoc import backbone_defaults
from antehoc_hf.modeling.timm_model import TimmPreTrainedModel
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.data import ImageData
from antehoc_hf.training.data.labels import LabelSpace
from antehoc_hf.training.metrics import accuracy
from antehoc_hf.training.runs.maps import MapChoice
from antehoc_hf.training.runs.model_types import baseline_class
from antehoc_hf.training.runs.options import ClassificationArguments, ModelArguments
from antehoc_hf.training.tasks.base import AnyTask, MeasureOptions, TrainerParts
from antehoc_hf.training.tasks.image_classification import ImageClassification


class BaselineClassification(ImageClassification):
    """What [`ImageClassification`] is, for a model without maps.

    Args:
        model_type (`str`): `"plain"`, `"senn"` or `"cbah"`.
        options (`ClassificationArguments`, *optional*): of the task.
    """

    has_maps = False

    def __init__(self, model_type: str, options: ClassificationArguments | None = None) -> None:
        super().__init__(options)
        self.model_type = model_type
        self.model_class = baseline_class(model_type)  # type: ignore[assignment]

    def check_data(self, data: ImageData[LabelSpace], measure: MeasureOptions) -> None:
        """Only where other methods' maps are measured: what a recipe says of measuring maps is passed over.

        Raises:
            UsageError: if the column of masks is missing then.
        """
        if measure.explainers:
            super().check_data(data, measure)

    def check_model(self, model: ModelArguments, config: Mapping[str, object], map_choice: MapChoice) -> None:
        """Raises a ValueError if the backbone is unknown; baselines tap nothing."""
        backbone_defaults(model.backbone)

    def build_model(
        self, model: ModelArguments, config: Mapping[str, object], map_choice: MapChoice, data: ImageData[LabelSpace]
    ) -> TimmPreTrainedModel:
        """A new baseline for the data; of the model's options it takes those about backbone and images."""
        shared = {name: config[name] for name in ("backbone_kwargs", "image_size", "image_mean", "image_std")}
        own = {**(model.model_options or {}), **self.config_options(data)}
        return self.model_class.from_backbone(model.backbone, pretrained=model.pretrained_source(), **shared, **own)

    def trainer_parts(self, data: ImageData[LabelSpace]) -> TrainerParts:
        """The metrics; of CBAH also `concept_accuracy`, that of what the concepts alone predict."""
        parts = super().trainer_parts(data)
        if self.model_type == "cbah":
            parts["compute_metrics"] = _with_concept_accuracy
        return parts

    def check_training(self, args: AnteHocTrainingArguments) -> None:
        """Raises a UsageError for smoothed labels, with which the Trainer takes a cross-entropy in place of the
        model's loss; for SENN also for compiled or sharded models, which a gradient of a gradient does not pass
        through.
        """
        if args.label_smoothing_factor and self.model_type != "plain":
            raise UsageError(
                f"label_smoothing_factor replaces the loss of --model_type {self.model_type} by a cross-entropy: "
                "leave it out."
            )
        sharded = args.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        if (args.torch_compile or sharded) and self.model_type == "senn":
            raise UsageError(
                f"{'torch_compile' if args.torch_compile else 'fsdp'} does not go with --model_type senn, whose loss "
                "holds a gradient: leave it out."
            )

    def metric_names(self, data: ImageData[LabelSpace]) -> set[str]:
        """As for ours; of CBAH also `concept_accuracy`."""
        return super().metric_names(data) | ({"concept_accuracy"} if self.model_type == "cbah" else set())


def _with_concept_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    head, concepts = (
        EvalPrediction(logits, prediction.label_ids)  # type: ignore[arg-type]
        for logits in prediction.predictions[:2]
    )
    return {**accuracy(head), "concept_accuracy": accuracy(concepts)["accuracy"]}


def baseline_task(task: type[AnyTask], options: ClassificationArguments, model_type: str) -> BaselineClassification:
    """The task as a baseline has it.

    Raises:
        UsageError: if it is not a classification.
    """
    if task is not ImageClassification:
        raise UsageError(
            f"--model_type {model_type} is an image classifier, and this run's task is {task.name}: leave out "
            "--model_type."
        )
    return BaselineClassification(model_type, options)
