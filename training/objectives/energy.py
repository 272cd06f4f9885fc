"""The paper's objective: the prediction on image ⊙ map, the energy map, is to be the prediction on the image.

Its L_interpret is the mean squared error of the two predictions, Y_first and Y_second (Guna R T, Benitez, Sikha,
"Ante-Hoc Generation of Task-Agnostic Interpretation Maps", CVPR Workshops 2023); the other readings and the penalties
are options, off by default.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from antehoc_hf.modeling.modeling_antehoc import AnteHocPreTrainedModel
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.objectives.base import CardSentences, Objective, check_map, scaled_gradients, task_parameters
from antehoc_hf.training.objectives.losses import (
    Target,
    check_target,
    prediction_distance,
    reconstruction_error,
    total_variation,
    weight_entropy,
)
from antehoc_hf.training.objectives.step import FirstPassRecord, SecondPassResult, TrainingStep
from antehoc_hf.training.options import AT_LEAST_0, Flag, check_options
from antehoc_hf.training.random_state import preserved_random_state

BatchNorm = Literal["eval", "batch", "update"]


@dataclass(frozen=True)
class EnergyOptions:
    """Options of [`EnergyObjective`].

    Args:
        target (`str`, *optional*, defaults to `"probabilities"`):
            What is compared. `"probabilities"`: the mean squared error of softmax (or sigmoid) outputs, the paper's
            loss. `"logits"`: the mean squared error of logits, centred over the classes where a common shift means
            nothing. `"kl"`: the Kullback–Leibler divergence from the prediction on the image.
        joint_weight (`float`, *optional*, defaults to 0.0):
            Weight λ of this loss for the backbone and head, so that they learn from masked images too. 0: only the
            map head learns from it, and the backbone trains as if there were no map.
        batch_norm (`str`, *optional*, defaults to `"eval"`):
            Batch norm in the second pass. `"eval"`: running statistics, never updated on masked images. `"batch"`:
            the batch's statistics, not stored. `"update"`: the batch's statistics, stored; this changes the backbone.
        target_eval (`bool`, *optional*, defaults to `False`):
            Compare with a prediction made in evaluation mode, at the cost of another forward pass, instead of with
            the first pass's, which was made with dropout and the batch's statistics.
        reconstruction_weight (`float`, *optional*, defaults to 0.0):
            Weight of the mean squared error between the weight network's output before its softmax and its input,
            which makes it an autoencoder in the strict sense.
        area_weight (`float`, *optional*, defaults to 0.0):
            Weight of the map's mean.
        tv_weight (`float`, *optional*, defaults to 0.0):
            Weight of the map's total variation: the mean absolute difference of neighbouring pixels, both directions.
        entropy_weight (`float`, *optional*, defaults to 0.0):
            Weight of the entropy over the weight maps, in [0, 1]; it pushes each pixel to choose one attention map.

    Raises:
        ValueError: for a value out of range.
    """

    target: Annotated[Target, Flag("interpretation_target")] = field(
        default="probabilities",
        metadata={"help": "What the second pass compares: 'probabilities', centred 'logits', or 'kl'."},
    )
    joint_weight: Annotated[float, AT_LEAST_0] = field(
        default=0.0, metadata={"help": "Weight of the second pass's loss for the backbone and head; 0: none."}
    )
    batch_norm: Annotated[BatchNorm, Flag("interpretation_batch_norm")] = field(
        default="eval",
        metadata={"help": "Batch norm in the second pass: 'eval' (running statistics), 'batch', or 'update'."},
    )
    target_eval: bool = False
    reconstruction_weight: Annotated[float, AT_LEAST_0] = field(
        default=0.0, metadata={"help": "Weight of the weight network's reconstruction error."}
    )
    area_weight: Annotated[float, AT_LEAST_0] = field(default=0.0, metadata={"help": "Weight of the map's mean."})
    tv_weight: Annotated[float, AT_LEAST_0] = field(
        default=0.0, metadata={"help": "Weight of the map's total variation."}
    )
    entropy_weight: Annotated[float, AT_LEAST_0] = field(
        default=0.0, metadata={"help": "Weight of the entropy over the weight maps."}
    )

    def __post_init__(self) -> None:
        check_options(self)


class EnergyObjective(Objective):
    """Teaches an energy map by what the frozen network makes of image ⊙ map (Eq. 2).

    It reuses the first pass's soft attention maps and prediction, draws no random numbers, and asks for no gradient
    of the backbone's weights, so it costs one forward pass and the cheaper half of a backward pass.

    Its options are those of [`EnergyOptions`], as an object or one by one: `tv_weight=0.1`.
    """

    name: ClassVar[str] = "energy"
    options_class: ClassVar[type[EnergyOptions]] = EnergyOptions
    options: EnergyOptions

    @property
    def trains_task(self) -> bool:
        """With a `joint_weight` above 0."""
        return self.options.joint_weight > 0

    def check(self, model: AnteHocPreTrainedModel, args: AnteHocTrainingArguments) -> None:
        """Raises a ValueError if the model's map is another one, or its prediction cannot be compared like this."""
        check_map(self, model)
        check_target(self.options.target, model.prediction_kind)
        if not args.train_task and self.options.batch_norm == "update":
            raise ValueError(
                "train_task=False leaves the backbone as it is, and batch_norm='update' changes its statistics: leave "
                "one of the two out."
            )

    def remember(self, step: TrainingStep, first: FirstPassRecord) -> FirstPassRecord:
        """With `target_eval` the prediction on the image is made once more, in evaluation mode."""
        if not self.options.target_eval:
            return first
        with torch.no_grad(), preserved_random_state(first.prediction.device), step.model.interpretation_phase("eval"):
            prediction = step.model.prediction(step.call(**first.inputs, phase="task"))
        return dataclasses.replace(first, prediction=prediction)

    def second_pass(self, step: TrainingStep, first: FirstPassRecord) -> SecondPassResult:
        """One forward pass on image ⊙ map; the map head alone learns, unless `joint_weight` is above 0."""
        weight, model = self.options.joint_weight, step.model
        with (
            model.interpretation_phase(self.options.batch_norm, train_backbone=weight > 0),
            scaled_gradients(task_parameters(model) if weight > 0 else [], weight),
        ):
            outputs = step.call(**first.inputs, tap_values=first.tap_values, phase="interpretation")
            loss = prediction_distance(
                model.prediction(outputs), first.prediction, model.prediction_kind, self.options.target, first.mask
            )
            loss = self.penalized(loss, model, outputs, first.tap_values)
            step.backward(loss)
        map_means = outputs.interpretation_map.detach().float().mean(dim=(1, 2, 3))
        return SecondPassResult(loss.detach(), map_means, outputs.degenerate.detach())

    def penalized(
        self, loss: Tensor, model: AnteHocPreTrainedModel, outputs: Any, soft_attention_maps: Tensor
    ) -> Tensor:
        """The loss with the penalties that are asked for.

        Args:
            loss (`Tensor`): a scalar.
            model: for what its weight network sees.
            outputs: the second pass's: `interpretation_map` (B, 1, H, W), `weight_maps` (B, η, H, W) and
                `weight_logits` (B, η, h', w').
            soft_attention_maps (`Tensor`): (B, η, H, W).
        """
        options = self.options
        if options.reconstruction_weight:
            seen = model.map_head.network_input(soft_attention_maps)
            loss = loss + options.reconstruction_weight * reconstruction_error(outputs.weight_logits, seen)
        if options.area_weight:
            loss = loss + options.area_weight * outputs.interpretation_map.mean()
        if options.tv_weight:
            loss = loss + options.tv_weight * total_variation(outputs.interpretation_map)
        if options.entropy_weight:
            loss = loss + options.entropy_weight * weight_entropy(outputs.weight_maps)
        return loss

    def describe(self) -> CardSentences:
        """The paper's."""
        return CardSentences(
            second_pass="image ⊙ map", learned="so that the image multiplied by its map keeps the prediction"
        )
