"""What an objective is: what a map learns from, in the second pass of a training step."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeGuard

from torch import Tensor, nn

from antehoc_hf.modeling.modeling_antehoc import AnteHocPreTrainedModel
from antehoc_hf.training.arguments import AnteHocTrainingArguments
from antehoc_hf.training.objectives.partial_images import PartialImages
from antehoc_hf.training.objectives.step import FirstPassRecord, SecondPassResult, TrainingStep
from antehoc_hf.training.options import Options, build_options


@dataclass(frozen=True)
class CardSentences:
    """What a model card says about an objective.

    Args:
        second_pass (`str`): what goes through the frozen network, as part of a heading: "image ⊙ map".
        learned (`str`): how the map learned, as the end of a sentence: "so that … keeps the prediction".
        limits (`tuple[str, ...]`): what the map does not show because of it; each begins with a short sentence.
    """

    second_pass: str
    learned: str
    limits: tuple[str, ...] = ()


class FirstPassChange(Protocol):
    """Changes the images that the first pass sees."""

    def __call__(self, pixel_values: Tensor, step: TrainingStep) -> Tensor:
        """(B, 3, H, W) → (B, 3, H, W), normalised. The second pass explains the first images of the batch."""
        ...


class Objective(Protocol):
    """What the map learns from. To be inherited from, or only imitated.

    Attributes:
        name: how it is called in [`OBJECTIVES`], in run records and on the command line.
        options_class: a frozen dataclass.
        options: one of these; recorded with the run, and printed on the card.
    """

    name: ClassVar[str]
    options_class: ClassVar[type[Any]]
    options: Options

    def __init__(self, options: Any = None, **values: object) -> None:
        """Options given as one object or one by one; without any, the defaults.

        Args:
            options (*optional*): an object of `options_class`; None: the defaults.
            values: single options.

        Raises:
            ValueError: for an unknown option or a value out of range.
        """
        self.options = build_options(self.options_class, options, values)

    @property
    def trains_task(self) -> bool:
        """Whether the second pass also trains backbone and head. Then they need the first pass to train them, too."""
        return False

    def check(self, model: AnteHocPreTrainedModel, args: AnteHocTrainingArguments) -> None:
        """Raises a ValueError if it cannot teach this model's map, or not with these arguments, in one sentence."""

    def first_pass_change(self, model: AnteHocPreTrainedModel, share: float) -> FirstPassChange | None:
        """What the first pass sees in place of the `share` ≥ 0 of the images to be shown in part; None: the images."""
        return PartialImages(model.config, share) if share > 0 else None

    def remember(self, step: TrainingStep, first: FirstPassRecord) -> FirstPassRecord:
        """Adds to what is kept of a first pass, right after it."""
        return first

    def second_pass(self, step: TrainingStep, first: FirstPassRecord) -> SecondPassResult:
        """Forward and backward pass ([`TrainingStep.backward`]); adds to the gradients of the map head. The global
        random state is restored afterwards.
        """
        ...

    def describe(self) -> CardSentences:
        """For the model card."""
        ...


def check_map(objective: Objective, model: AnteHocPreTrainedModel) -> None:
    """For objectives that can teach only the maps that name them.

    Raises:
        ValueError: if the model's map is taught by another one.
    """
    wanted = model.config.map_head.objective
    if wanted != objective.name:
        head = type(model.map_head).__name__
        raise ValueError(
            f"{type(objective).__name__} cannot teach this model's {head}, which learns by objective={wanted!r}: "
            "leave objective out, or build the model with another map."
        )


def called(objective: Objective) -> str:
    """An objective as it would be written down, with the options that are not the defaults."""
    given = [
        f"{declared.name}={getattr(objective.options, declared.name)!r}"
        for declared in dataclasses.fields(objective.options)
        if getattr(objective.options, declared.name) != declared.default
    ]
    return f"{type(objective).__name__}({', '.join(given)})"


def has_map(model: object) -> TypeGuard[AnteHocPreTrainedModel]:
    """Whether a model has a map head that a second pass can teach."""
    return hasattr(model, "map_head") and hasattr(model, "interpretation_phase")


def map_parameters(model: AnteHocPreTrainedModel) -> list[nn.Parameter]:
    """The second pass's parameters: the map head's."""
    return list(model.map_head.parameters())


def task_parameters(model: AnteHocPreTrainedModel) -> list[nn.Parameter]:
    """The first pass's parameters: all but the map head's, in the model's order."""
    of_map = {id(parameter) for parameter in map_parameters(model)}
    return [parameter for parameter in model.parameters() if id(parameter) not in of_map]


@contextmanager
def scaled_gradients(parameters: list[nn.Parameter], factor: float) -> Iterator[None]:
    """What a backward pass inside adds to these parameters' gradients is multiplied by `factor`."""
    handles = [p.register_hook(lambda gradient: gradient * factor) for p in parameters if p.requires_grad]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
