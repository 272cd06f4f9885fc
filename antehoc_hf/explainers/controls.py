"""The model's own map, and maps that explain nothing, behind the same interface."""

from abc import abstractmethod
from typing import Any, Unpack

from torch import Tensor, nn

from antehoc_hf.evaluation.controls import center_map, constant_map, random_map, sobel_map
from antehoc_hf.evaluation.networks import is_ante_hoc
from antehoc_hf.explainers.base import Explainer, RawMaps
from antehoc_hf.explainers.network import ModelOptions, Question, own_maps


class AnteHoc(Explainer):
    """The interpretation map of an ante-hoc model, from one forward pass: of the target, or, where the model has one
    map for all targets, the same whatever the target.
    """

    name = "antehoc"

    def __init__(self, model: nn.Module, **options: Unpack[ModelOptions]) -> None:
        super().__init__(model, **options)
        if not is_ante_hoc(self.network.model):
            name = type(self.network.model).__name__
            raise ValueError(f"{name} is not an ante-hoc model: it has no map of its own.")

    def raw_maps(self, question: Question) -> RawMaps:
        model: Any = question.model
        outputs = (
            model.config.num_labels
            if self.network.kind == "classes"
            else 2 * (getattr(model.config, "num_landmarks", None) or 0)
        )
        target = None if question.asked is None else question.target_of_outputs(outputs)
        maps = own_maps(question, target)
        assert maps is not None  # its constructor has looked
        return RawMaps(maps, scaled=True)


class _Control(Explainer):
    """A map that does not look at the model."""

    def raw_maps(self, question: Question) -> RawMaps:
        return RawMaps(self._of_images(question.images), scaled=True)

    @abstractmethod
    def _of_images(self, pixel_values: Tensor) -> Tensor:
        """The maps, (B, 1, H, W) in [0, 1]."""


class Constant(_Control):
    """The same value everywhere, in (0, 1]."""

    name = "constant"

    def __init__(self, model: nn.Module, value: float = 1.0, **options: Unpack[ModelOptions]) -> None:
        super().__init__(model, **options)
        self.value = value

    def _of_images(self, pixel_values: Tensor) -> Tensor:
        return constant_map(pixel_values, self.value)


class Random(_Control):
    """Independent uniform values, the same at every call for the image in the same place of a batch."""

    name = "random"

    def __init__(self, model: nn.Module, seed: int = 0, **options: Unpack[ModelOptions]) -> None:
        super().__init__(model, **options)
        self.seed = seed

    def _of_images(self, pixel_values: Tensor) -> Tensor:
        return random_map(pixel_values, self.seed)


class Center(_Control):
    """A Gaussian blob in the centre."""

    name = "center"

    def _of_images(self, pixel_values: Tensor) -> Tensor:
        return center_map(pixel_values)


class Sobel(_Control):
    """Edges."""

    name = "sobel"

    def _of_images(self, pixel_values: Tensor) -> Tensor:
        return sobel_map(pixel_values)
